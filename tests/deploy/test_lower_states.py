"""What neurons keep between calls: lowered rightly, or refused by name."""

import logging
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from mfp_neurons import MFP, _checks, deploy, quantize_weights

spikingjelly = pytest.importorskip("spikingjelly.activation_based")
snntorch = pytest.importorskip("snntorch")

from mfp_neurons.snntorch import MFPLeakyParallel  # noqa: E402
from mfp_neurons.spikingjelly import MFPNode  # noqa: E402

X = torch.ones(3, 1, 1)


class Shared(nn.Module):
    """One layer of neurons behind two synapses, all weights 1."""

    def __init__(self, fire: nn.Module, between: Callable[[nn.Module], object] = lambda fire: None) -> None:
        super().__init__()
        self.a, self.b, self.out = (nn.Linear(1, 1, bias=False) for _ in range(3))
        self.fire, self.between = fire, between

    def forward(self, x: Tensor) -> Tensor:
        once = self.fire(self.a(x))
        self.between(self.fire)
        return self.out(self.fire(self.b(once)))


class Reading(nn.Module):
    """Neurons whose forward reads something besides their spikes."""

    def __init__(self, fire: nn.Module, read: Callable[[Tensor, Any], Tensor]) -> None:
        super().__init__()
        self.a, self.out = nn.Linear(1, 1, bias=False), nn.Linear(1, 1, bias=False)
        self.fire, self.read = fire, read

    def forward(self, x: Tensor) -> Tensor:
        return self.read(self.out(self.fire(self.a(x))), self.fire)


def of_ones(model: nn.Module) -> nn.Module:
    quantize_weights(model, bits=1, first=1, last=1)
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.Linear):
                module.weight.fill_(1.0)
    return model.eval()


def node(**options: Any) -> nn.Module:
    return MFPNode(**{"tau": 2.0, "decay_input": False, "v_threshold": 1.2, "step_mode": "m"} | options)


@pytest.mark.parametrize("options", [{}, {"order": 3}, {"kernel": "matrix", "time_steps": 3}])
def test_a_node_that_goes_on_from_its_first_call_is_refused(options: dict[str, Any]) -> None:
    with pytest.raises(deploy.LoweringError, match=r"'fire' \(MFPNode\) is called twice.*a neuron for each"):
        deploy.lower(of_ones(Shared(node(**options))), X)


STATELESS: dict[str, Callable[[], nn.Module]] = {
    "a node of order 1": lambda: node(order=1, v_threshold=1.0),
    "MFP": lambda: MFP(0.5, v_threshold=1.2),
    "MFPLeakyParallel": lambda: MFPLeakyParallel(beta=0.5, threshold=1.2, init_hidden=True),
}


@pytest.mark.parametrize("fire", STATELESS.values(), ids=STATELESS.keys())
def test_neurons_that_start_every_call_from_rest_may_be_called_twice(fire: Callable[[], nn.Module]) -> None:
    model = of_ones(Shared(fire()))
    expected = model(X).detach().numpy()
    assert expected.any()
    np.testing.assert_array_equal(deploy.lower(model, X).run(X), expected)


def test_a_node_that_is_reset_between_its_calls_starts_from_rest_twice() -> None:
    """By hand: u = 1, 1.5, 1.75 fires 0, 1, 1; from rest again u = 0, 1, 1.5 fires 0, 0, 1."""
    model = of_ones(Shared(node(), between=lambda fire: fire.reset()))
    assert deploy.lower(model, X).run(X).ravel().tolist() == [0, 0, 1]


@pytest.mark.parametrize("start", [0.5, torch.full((2, 1), 0.5)], ids=["a number", "a tensor"])
def test_a_potential_that_the_forward_puts_into_a_node_is_refused(start: Any) -> None:
    class Starts(Shared):
        def forward(self, x: Tensor) -> Tensor:
            self.fire.v = start
            return self.out(self.fire(self.a(x)))

    with pytest.raises(deploy.LoweringError, match=r"'fire' \(MFPNode\) starts from a potential"):
        deploy.lower(of_ones(Starts(node())), X)


def test_a_model_that_was_not_reset_is_lowered_from_rest_and_that_is_said(
    caplog: pytest.LogCaptureFixture,
) -> None:
    model = of_ones(Reading(node(), lambda y, fire: y))
    expected = model(X).detach().numpy()
    kept = model.fire.v.clone()
    _checks._said.discard("deploy.states")
    with caplog.at_level(logging.WARNING, logger="mfp_neurons"):
        network = deploy.lower(model, X)
    assert "starts every sequence from rest (fire)" in caplog.text
    np.testing.assert_array_equal(network.run(X), expected)
    assert torch.equal(model.fire.v, kept)


READS: dict[str, tuple[Callable[[], nn.Module], Callable[[Tensor, Any], Tensor]]] = {
    "v, added": (node, lambda y, fire: y[-1] + fire.v),
    "v, multiplied": (node, lambda y, fire: y[-1] * fire.v),
    "v of order 1": (lambda: node(order=1), lambda y, fire: y[-1] + fire.v),
    "v_seq": (lambda: node(store_v_seq=True), lambda y, fire: y + fire.v_seq),
    "the last of v_seq": (lambda: node(store_v_seq=True), lambda y, fire: y[-1] + fire.v_seq[-1]),
    "v alone": (node, lambda y, fire: fire.v),
    "mem": (
        lambda: MFPLeakyParallel(beta=0.5, threshold=1.2, init_hidden=True),
        lambda y, fire: y[-1] + fire.mem,
    ),
}


@pytest.mark.parametrize(("fire", "read"), READS.values(), ids=READS.keys())
def test_reading_a_potential_is_refused_with_the_neuron_and_what_to_do(
    fire: Callable[[], nn.Module], read: Callable[[Tensor, Any], Tensor]
) -> None:
    with pytest.raises(deploy.LoweringError, match=r"membrane potential of 'fire' \(MFP\w+\).*spikes"):
        deploy.lower(of_ones(Reading(fire(), read)), X)


def test_reading_the_past_inputs_is_refused() -> None:
    model = of_ones(Reading(node(order=3), lambda y, fire: y[-1] + fire.history[0]))
    with pytest.raises(deploy.LoweringError, match=r"reads a neuron's history.*Use its spikes"):
        deploy.lower(model, X)


def test_a_potential_of_which_only_the_shape_is_asked_is_lowered() -> None:
    model = of_ones(Reading(node(), lambda y, fire: y * fire.v.dim()))
    assert deploy.lower(model, X).run(X).ravel().tolist() == [0, 2, 2]
