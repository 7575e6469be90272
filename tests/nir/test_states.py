"""What neurons keep between calls: exported as it is computed, or refused by name."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from mfp_neurons import MFP
from mfp_neurons.nir import NIRError, from_nir, to_nir

spikingjelly = pytest.importorskip("spikingjelly.activation_based")
snntorch = pytest.importorskip("snntorch")

from mfp_neurons.snntorch import MFPLeaky, MFPLeakyParallel  # noqa: E402
from mfp_neurons.spikingjelly import MFPNode  # noqa: E402

X = torch.rand(9, 2, 3, generator=torch.Generator().manual_seed(0))


class Model(nn.Module):
    """A linear layer, neurons, and a forward over them."""

    def __init__(self, fire: nn.Module, forward: Callable[..., Any]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layer, self.fire, self.does = nn.Linear(3, 3), fire, forward
        self.layer.weight.data.abs_()

    def forward(self, x: Tensor) -> Any:
        return self.does(x, self.layer, self.fire)


def node(mode: str = "m", **options: Any) -> nn.Module:
    return MFPNode(**{"tau": 2.0, "decay_input": False, "v_threshold": 0.3, "step_mode": mode} | options)


def check_agreement(model: nn.Module) -> None:
    with torch.no_grad():
        expected = model(X)
        graph = to_nir(model, X)
        torch.testing.assert_close(from_nir(graph)(X), expected)
    assert expected.any()


READS: dict[str, tuple[Callable[[], nn.Module], Callable[..., Tensor]]] = {
    "v": (node, lambda x, f, n: n(f(x))[-1] + n.v),
    "v alone": (lambda: node(order=3), lambda x, f, n: (n(f(x)), n.v)[1]),
    "v_seq": (lambda: node(store_v_seq=True), lambda x, f, n: n(f(x)) + 0.5 * n.v_seq),
    "the mean of v_seq": (lambda: node(store_v_seq=True), lambda x, f, n: (n(f(x)), n.v_seq)[1].mean(0)),
    "v, step by step": (lambda: node("s"), lambda x, f, n: torch.stack([n(f(step)) + n.v for step in x])),
    "mem": (
        lambda: MFPLeakyParallel(beta=0.5, threshold=0.3, init_hidden=True),
        lambda x, f, n: n(f(x))[-1] + n.mem,
    ),
    "mem, step by step": (
        lambda: MFPLeaky(beta=0.5, threshold=0.3, init_hidden=True),
        lambda x, f, n: torch.stack([n(f(step)) + n.mem for step in x]),
    ),
}


@pytest.mark.parametrize(("fire", "forward"), READS.values(), ids=READS.keys())
def test_a_potential_that_is_read_is_a_node_that_is_read(
    fire: Callable[[], nn.Module], forward: Callable[..., Tensor]
) -> None:
    check_agreement(Model(fire(), forward))


def twice(x: Tensor, f: nn.Module, n: nn.Module) -> Tensor:
    return n(f(n(f(x))))


def twice_a_step(x: Tensor, f: nn.Module, n: nn.Module) -> Tensor:
    return torch.stack([n(f(n(f(step)))) for step in x])


@pytest.mark.parametrize(
    ("fire", "forward"),
    [
        (lambda: MFP(0.5, v_threshold=0.3), twice),
        (lambda: node(order=1), twice),
        (lambda: MFPLeakyParallel(beta=0.5, threshold=0.3, init_hidden=True), twice),
        (lambda: node("s", order=1), twice_a_step),
        (lambda: MFPLeaky(beta=0.5, threshold=0.3, init_hidden=True, order=1), twice_a_step),
    ],
)
def test_neurons_that_carry_nothing_may_be_called_twice(
    fire: Callable[[], nn.Module], forward: Callable[..., Tensor]
) -> None:
    check_agreement(Model(fire(), forward))


def started(x: Tensor, f: nn.Module, n: Any) -> Tensor:
    n.v = 0.5
    return n(f(x))


def reset_each_step(x: Tensor, f: nn.Module, n: Any) -> Tensor:
    return torch.stack([(n.reset(), n(f(step)))[1] for step in x])


def from_zero_each_step(x: Tensor, f: nn.Module, n: Any) -> Tensor:
    return torch.stack([n(f(step), torch.zeros(2, 3))[0] for step in x])


@pytest.mark.parametrize(
    ("fire", "forward", "words"),
    [
        (node, twice, "called twice in one forward"),
        (lambda: node("s"), twice_a_step, "every neuron once a step"),
        (node, started, "starts from a potential"),
        (lambda: node("s"), lambda x, f, n: torch.stack([started(s, f, n) for s in x]), "starts from a pot"),
        (lambda: node("s"), reset_each_step, "is reset between two steps"),
        (lambda: MFPLeaky(beta=0.5, threshold=0.3), from_zero_each_step, "is reset between two steps"),
        (lambda: node(order=3), lambda x, f, n: n(f(x))[-1] + n.history[0], "reads a neuron's history"),
    ],
)
def test_another_state_than_that_of_the_last_step_is_refused(
    fire: Callable[[], nn.Module], forward: Callable[..., Tensor], words: str
) -> None:
    with pytest.raises(NIRError, match=words):
        to_nir(Model(fire(), forward), X)
