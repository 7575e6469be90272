"""Loops over time that write their steps into tensors made before, and sequences with the batch first."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import snntorch as snn
import torch
from torch import Tensor, nn

from mfp_neurons import deploy, quantize_weights
from mfp_neurons.deploy.lowering import lower_graph

from .loops import heads, in_float64

T, N, CLASSES = 6, 3, 4


class Written(nn.Module):
    """Spikes and potentials of a loop, each step written by ``write`` into what ``make`` gives."""

    def __init__(self, make: Callable[..., Any], write: Callable[..., Any], give: Callable[..., Any]) -> None:
        super().__init__()
        self.fc1, self.lif1 = nn.Linear(8, 12), snn.Leaky(beta=0.5, threshold=0.3)
        self.fc2, self.lif2 = nn.Linear(12, CLASSES), snn.Leaky(beta=0.5, threshold=0.3)
        self.make, self.write, self.give = make, write, give

    def forward(self, x):
        steps, mem1, mem2 = len(x), self.lif1.init_leaky(), self.lif2.init_leaky()
        spikes, potentials = self.make(x, steps), self.make(x, steps)
        for t in range(steps):
            spk1, mem1 = self.lif1(self.fc1(x[t]), mem1)
            spk2, mem2 = self.lif2(self.fc2(spk1), mem2)
            self.write(spikes, t, spk2)
            self.write(potentials, t, mem2)
        return self.give(spikes, potentials)


def frames(*shape: int) -> Tensor:
    return (torch.rand(*shape, generator=torch.Generator().manual_seed(0)) < 0.4).float()


def zeros(x: Tensor, steps: int) -> Tensor:
    return torch.zeros(steps, x.shape[1], CLASSES, dtype=x.dtype)


def at_step(record: Tensor, t: int, step: Tensor) -> None:
    record[t] = step


def with_dots(record: Tensor, t: int, step: Tensor) -> None:
    record[t, ...] = step


def from_behind(record: Tensor, t: int, step: Tensor) -> None:
    record[t - len(record), :, :] = step


def second(record: Tensor, t: int, step: Tensor) -> None:
    record[:, t] = step


def last(record: Tensor, t: int, step: Tensor) -> None:
    record[..., t] = step


RECORDS: dict[str, tuple[Callable[..., Any], Callable[..., Any], int]] = {
    "torch.zeros": (zeros, at_step, 0),
    "torch.empty": (lambda x, n: torch.empty(n, x.shape[1], CLASSES).to(x.dtype), with_dots, 0),
    "new_zeros": (lambda x, n: x.new_zeros(n, x.shape[1], CLASSES), from_behind, 0),
    "[N, T, *]": (lambda x, n: torch.zeros(x.shape[1], n, CLASSES, dtype=x.dtype), second, 1),
    "[N, *, T]": (lambda x, n: torch.zeros(x.shape[1], CLASSES, n, dtype=x.dtype), last, 2),
}


@pytest.mark.parametrize("name", RECORDS)
@pytest.mark.parametrize(
    "give",
    [
        lambda spikes, potentials, place: spikes,
        lambda spikes, potentials, place: spikes.sum(place),
        lambda spikes, potentials, place: potentials.amax(place),
        lambda spikes, potentials, place: (spikes.mean(place), spikes.movedim(place, 0)[-1]),
    ],
)
def test_a_record_that_a_loop_writes_step_by_step_is_the_stack_of_them(name: str, give: Any) -> None:
    make, write, place = RECORDS[name]
    torch.manual_seed(0)
    model = quantize_weights(Written(make, write, lambda a, b: give(a, b, place)), 4)
    x = frames(T, N, 8)
    graph = lower_graph(model, x)
    assert not graph.fixed
    longer = frames(T, N + 1, 8)
    expected = in_float64(model)(longer.double())
    expected = expected if isinstance(expected, tuple) else (expected,)
    for head, mine, theirs in zip(graph.heads, heads(graph, longer), expected, strict=True):
        assert bool((theirs != 0).any())
        wanted = theirs.movedim(place, 0) if theirs.dim() == 3 else theirs
        np.testing.assert_allclose(mine, wanted.detach().numpy(), rtol=1e-9, atol=head.error.max() + 1e-9)


@pytest.mark.parametrize(
    "make", [torch.zeros, lambda *shape, dtype: torch.zeros(shape, dtype=dtype), lambda *shape, dtype: 0.0]
)
def test_a_sum_that_begins_with_a_tensor_of_zeros_is_the_sum_of_all_steps(make: Any) -> None:
    class Summed(Written):
        def forward(self, x):
            total = self.make(x.shape[1], CLASSES, dtype=x.dtype)
            mem1, mem2 = self.lif1.init_leaky(), self.lif2.init_leaky()
            for step in x:
                spk1, mem1 = self.lif1(self.fc1(step), mem1)
                spk2, mem2 = self.lif2(self.fc2(spk1), mem2)
                total += spk2
            return total

    torch.manual_seed(0)
    model = quantize_weights(Summed(make, at_step, zeros), 4)
    graph = lower_graph(model, frames(T, N, 8))
    longer = frames(T, N + 1, 8)
    expected = in_float64(model)(longer.double())
    np.testing.assert_allclose(heads(graph, longer)[0], expected.detach().numpy(), rtol=1e-9)
    model.register_buffer("kept", torch.zeros(N, CLASSES))
    model.make = lambda *shape, dtype: model.kept
    with pytest.raises(
        deploy.LoweringError, match="writes into a tensor that is not computed from the input"
    ):
        lower_graph(model, frames(T, N, 8))


def twice(record: Tensor, t: int, step: Tensor) -> None:
    record[t] = step
    record[t] = step


def all_but_the_last(record: Tensor, t: int, step: Tensor) -> None:
    if t < T - 1:
        record[t] = step


def added(record: Tensor, t: int, step: Tensor) -> None:
    record[t] += step


def broadcast(record: Tensor, t: int, step: Tensor) -> None:
    record[t] = step[:, :1]


def one_class(record: Tensor, t: int, step: Tensor) -> None:
    record[t, :, 0] = step[:, 0]


REFUSED: list[tuple[Callable[..., Any], Callable[..., Any], str]] = [
    (zeros, twice, "writes step 0 for the second time"),
    (zeros, all_but_the_last, "reads a tensor of 6 steps, 5 of which are written so far"),
    (zeros, added, "reads a tensor of 6 steps, 1 of which"),
    (zeros, broadcast, r"writes step 0 of \[3, 1\] into a tensor with steps of \[3, 4\]"),
    (zeros, one_class, "only the steps of a loop|Only the steps of a loop"),
    (lambda x, n: torch.zeros(n, N, CLASSES, dtype=torch.int32), at_step, "floating-point tensor"),
    (lambda x, n: torch.zeros(n + 1, N, CLASSES), at_step, "7 steps, 6 of which are written"),
    (lambda x, n: x.clone(), lambda r, t, s: r.__setitem__((t, ..., slice(0, 4)), s), "Only the steps"),
]


@pytest.mark.parametrize(("make", "write", "words"), REFUSED)
def test_what_is_no_record_of_all_steps_is_refused_with_what_to_do(make: Any, write: Any, words: str) -> None:
    model = quantize_weights(Written(make, write, lambda spikes, potentials: spikes))
    with pytest.raises(deploy.LoweringError, match=words):
        lower_graph(model, frames(T, N, 8))


def test_tensors_that_a_forward_writes_into_are_as_they_were_afterwards() -> None:
    """A buffer, a view of a tensor, and one that an error leaves half written."""
    buffer, wide = torch.full((T, N, CLASSES), 2.0), torch.full((2, T, N, CLASSES), 3.0)
    model = quantize_weights(Written(lambda x, n: buffer, at_step, lambda a, b: a.sum(0)))
    with pytest.raises(deploy.LoweringError, match="for the second time"):  # both records are the one buffer
        lower_graph(model, frames(T, N, 8))
    records = iter([wide[0], wide[1]] * 2)
    model.make = lambda x, n: next(records)
    lower_graph(model, frames(T, N, 8))
    assert type(buffer) is Tensor and bool((buffer == 2).all()) and not hasattr(buffer, "capture")
    assert type(wide) is Tensor and bool((wide == 3).all())


def test_another_view_of_a_record_is_not_taken_for_zeros() -> None:
    def make(x: Tensor, steps: int) -> Tensor:
        record = zeros(x, steps)
        first.append(record[0])
        return record

    first: list[Tensor] = []
    model = quantize_weights(Written(make, at_step, lambda spikes, potentials: spikes + first[-2]))
    with pytest.raises(deploy.LoweringError, match="computes with nan"):
        lower_graph(model, frames(T, N, 8))
