"""Loops over time that write their steps into tensors made before, and sequences with the batch first."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import snntorch as snn
import torch
from torch import Tensor, nn

from mfp_neurons import MFP, deploy, quantize_weights
from mfp_neurons.deploy.lowering import lower_graph
from mfp_neurons.network import describe

from .loops import heads, in_float64
from .oracle import exact

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
    "new_empty": (lambda x, n: x.new_empty(n, x.shape[1], CLASSES), at_step, 0),
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


# --- the batch first ----------------------------------------------------------------------------------------


class BatchFirst(nn.Module):
    """Takes [N, T, *], as torch's recurrent layers do with batch_first=True."""

    def __init__(self, forward: Callable[..., Any]) -> None:
        super().__init__()
        self.conv, self.norm, self.fc = (
            nn.Conv2d(2, 3, 3, padding=1),
            nn.BatchNorm2d(3),
            nn.Linear(36, CLASSES),
        )
        self.fire, self.again = (MFP(0.5, v_threshold=0.3, order=3, kernel_bits="pow2") for _ in range(2))
        self.lif1, self.lif2 = (snn.Leaky(beta=0.5, threshold=0.3) for _ in range(2))
        self.does = forward

    def forward(self, x):
        return self.does(self, x)

    def current(self, x: Tensor) -> Tensor:
        return self.norm(self.conv(x))


def turned_around(self: BatchFirst, x: Tensor) -> Tensor:
    x = x.transpose(0, 1)
    y = self.fire(self.current(x.flatten(0, 1)).unflatten(0, x.shape[:2]))
    return self.again(self.fc(y.flatten(2))).mean(0)


def synapses_before_it_is_turned(self: BatchFirst, x: Tensor) -> Tensor:
    y = self.current(x.flatten(0, 1)).view(*x.shape[:2], 3, 3, 4)
    y = self.fire(y.permute(1, 0, 2, 3, 4)).flatten(2)
    return self.again(self.fc(y)).transpose(0, 1)  # and every step of the scores, batch first again


def loop(self: BatchFirst, x: Tensor) -> Tensor:
    mem1, mem2, record = self.lif1.init_leaky(), self.lif2.init_leaky(), []
    for t in range(x.size(1)):
        spk, mem1 = self.lif1(self.current(x[:, t]), mem1)
        spk, mem2 = self.lif2(self.fc(spk.flatten(1)), mem2)
        record.append(spk)
    return torch.stack(record, dim=1)


@pytest.mark.parametrize("forward", [turned_around, synapses_before_it_is_turned, loop])
def test_a_model_that_takes_the_batch_first_is_read_with_time_where_it_puts_it(forward: Any) -> None:
    torch.manual_seed(0)
    model = quantize_weights(BatchFirst(forward), 4).eval()
    x = frames(N, T, 2, 3, 4)
    graph = lower_graph(model, x)
    assert graph.steps == T and graph.input.features == (2, 3, 4) and not graph.fixed
    longer = frames(N + 2, T + 1, 2, 3, 4)
    reference = in_float64(model) if forward is loop else exact(model)
    expected = reference(longer.double())
    assert bool((expected != 0).any())
    wanted = expected.transpose(0, 1) if expected.dim() > 2 else expected
    (scores,) = heads(graph, longer.transpose(0, 1))
    if forward is loop:  # which remembers T steps of the example
        graph = lower_graph(model, longer)
        (scores,) = heads(graph, longer.transpose(0, 1))
    np.testing.assert_allclose(scores, wanted.detach().numpy(), rtol=1e-9, atol=1e-9)
    assert "the batch first" in str(describe(model, x))


def test_time_stays_first_where_a_model_can_be_read_so() -> None:
    model = quantize_weights(nn.Sequential(nn.Linear(8, 4), nn.Linear(4, 3)))
    assert lower_graph(model, frames(T, N, 8)).steps == T


def test_the_spikes_that_rounding_changes_are_counted_with_the_batch_first() -> None:
    torch.manual_seed(0)
    model = quantize_weights(BatchFirst(loop), 4).eval()
    counted = {}
    for beta in (0.5, 0.93):
        for lif in (model.lif1, model.lif2):
            lif.beta = torch.tensor(beta)
        x = frames(N, T, 2, 3, 4)
        (note,) = deploy.lower(model, x, kernel_bits=2).notes or ("",)
        counted[beta] = note
    assert counted[0.5] == ""
    spikes = T * N * (36 + CLASSES)
    assert f"on {N} samples of the example" in counted[0.93] and f"of {spikes} spikes" in counted[0.93]
    changed = int(counted[0.93].split("example ")[1].split(" of")[0])
    assert 0 < changed < spikes / 4
