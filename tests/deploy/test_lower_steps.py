"""A network runs with another T as its model does, or says that it is for one T alone."""

import logging
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from mfp_neurons import MFP, TimePool, _checks, deploy
from mfp_neurons.deploy import IntegerNetwork

from .lowering import Do, Each, in_float64, neuron, prepared

Read = Callable[[Tensor], Tensor]


def network(read: Read, fire: nn.Module | None = None) -> nn.Module:
    def forward(x, a, fire, out):
        return read(out(fire(a(x))))

    layers = nn.Linear(6, 5), neuron(0.1) if fire is None else fire, nn.Linear(5, 3, bias=False)
    return prepared(Do(forward, *layers))


def events(steps: int) -> Tensor:
    return torch.rand(steps, 2, 6, generator=torch.Generator().manual_seed(steps)) < 0.4


FOLLOWED: dict[str, Read] = {
    "every step": lambda y: y,
    "the mean": lambda y: y.mean(0),
    "the sum": lambda y: y.sum(0),
    "the sum over a number": lambda y: y.sum(0) / 4,
    "the last step": lambda y: y[-1],
    "the last step by its number": lambda y: y[-1:].mean(0),
    "the last three": lambda y: y[-3:].mean(0),
    "the last four, which are all of the example": lambda y: y[-4:].sum(0),
    "time and batch as one, and back": lambda y: y.flatten(0, 1).unflatten(0, y.shape[:2]).mean(0),
    "a shape that is asked for": lambda y: y.reshape(y.shape[0], -1, 3).mean(0),
}
FIXED: dict[str, Read] = {
    "the sum over T": lambda y: y.sum(0) / y.shape[0],
    "a factor of T": lambda y: (y * len(y)).mean(0),
    "an offset of T": lambda y: y.mean(0) + y.size(0),
    "half of the steps": lambda y: y[-(len(y) // 2) :].mean(0),
    "an odd T only": lambda y: y.mean(0) * (1 + len(y) % 2),
    "at most ten steps": lambda y: y[-min(len(y), 10) :].mean(0),
    "more steps than the example has": lambda y: y[-10:].mean(0),
    "a number of steps of its own": lambda y: y.flatten(0, 1).unflatten(0, (4, -1)).mean(0),
    "a step that must be there": lambda y: y.mean(0) if len(y) == 4 else 1 / 0,
    "one branch for each T": lambda y: y.mean(0) if len(y) < 10 else y.sum(0),
}


@pytest.mark.parametrize("read", FOLLOWED.values(), ids=FOLLOWED.keys())
@settings(max_examples=8)
@given(example=st.integers(1, 9), steps=st.integers(4, 40))
def test_what_follows_t_agrees_with_the_model_at_every_t(read: Read, example: int, steps: int) -> None:
    model = network(read)
    lowered = deploy.lower(model, events(example))
    if lowered.graph.fixed_steps() is None:
        expected = in_float64(model)(events(steps).double()).detach().numpy()
        np.testing.assert_allclose(lowered.run(events(steps)), expected, atol=1e-9)
    assert lowered.graph.fixed_steps() in (None, example)
    assert lowered.graph.fixed_steps() is None or example < 4  # shorter than the window


@pytest.mark.parametrize("read", FIXED.values(), ids=FIXED.keys())
def test_what_was_computed_with_t_is_for_that_t_alone(read: Read) -> None:
    model, x = network(read), events(4)
    lowered = deploy.lower(model, x)
    np.testing.assert_allclose(lowered.run(x), in_float64(model)(x.double()).detach().numpy(), atol=1e-9)
    for steps in (3, 5, 8):
        with pytest.raises(ValueError, match=rf"x must have T = 4 steps, got {steps}\. The network is for 4"):
            lowered.run(events(steps))
    assert "T = 4 alone" in str(lowered)


def test_a_fixed_network_takes_no_step_more_in_any_way_and_stays_fixed_in_a_file(tmp_path: Path) -> None:
    lowered = deploy.lower(network(FIXED["the sum over T"]), events(4))
    lowered.save(tmp_path / "network")
    for one in (lowered, IntegerNetwork.load(tmp_path / "network")):
        stream = one.stream()
        for step in events(4):
            stream.step(step)
        with pytest.raises(ValueError, match=r"all T = 4 steps of the sequence have passed"):
            stream.step(events(4)[0])
        with pytest.raises(ValueError, match=r"times must lie from 0 to 3, got 4.*for 4 steps alone"):
            one.run_events((np.array([0, 4]), np.array([1, 2])))
        assert one.run_events((np.array([0]), np.array([1]))).scores.shape == (1, 3)
    header = next(path for path in lowered.to_c(tmp_path) if path.name == "mfp_net.h").read_text()
    assert "T, and no other" in header
    assert "of 4, no more: the network is for these alone" in header


def test_a_network_that_follows_t_is_written_as_before_there_were_fixed_ones(tmp_path: Path) -> None:
    lowered = deploy.lower(network(FOLLOWED["the mean"]), events(4))
    lowered.save(tmp_path / "network")
    assert b'\\"fixed\\"' not in (tmp_path / "network").read_bytes()
    assert IntegerNetwork.load(tmp_path / "network").graph.fixed is False


@pytest.mark.parametrize("steps", [1, 3])
def test_a_matrix_kernel_fixes_the_number_of_steps(steps: int) -> None:
    fire = MFP(0.5, kernel="matrix", time_steps=steps, kernel_bits="pow2", v_threshold=0.1)
    lowered = deploy.lower(network(lambda y: y.mean(0), fire), events(steps))
    assert lowered.graph.fixed_steps() == steps
    with pytest.raises(ValueError, match=rf"x must have T = {steps} steps, got 8.*matrix kernel"):
        lowered.run(events(8))


def test_pooling_over_time_is_followed_in_whole_windows() -> None:
    model = prepared(nn.Sequential(nn.Linear(6, 5), neuron(0.1), TimePool(2), nn.Linear(5, 3), TimePool(1)))
    lowered = deploy.lower(Do(lambda x, m: m(x).mean(0), model[:4]), events(4))
    assert lowered.graph.fixed_steps() is None
    expected = in_float64(model[:4])(events(10).double()).detach().mean(0).numpy()
    np.testing.assert_allclose(lowered.run(events(10)), expected, atol=1e-9)


def test_layers_at_every_step_follow_t() -> None:
    model = prepared(nn.Sequential(Each(nn.Linear(6, 5), nn.BatchNorm1d(5)), neuron(0.1), nn.Linear(5, 3)))
    assert deploy.lower(model, events(4)).graph.fixed_steps() is None


def test_an_exponential_without_an_order_is_named_once_and_runs_up_to_t_of_the_example(
    caplog: pytest.LogCaptureFixture,
) -> None:
    model = network(lambda y: y, MFP(0.5, v_threshold=0.9))
    _checks._said.difference_update([key for key in _checks._said if key.startswith("deploy.forgets")])
    with caplog.at_level(logging.WARNING, logger="mfp_neurons"):
        lowered = [deploy.lower(model, events(6)) for _ in range(2)]
    (record,) = [one for one in caplog.records if "remembers all earlier inputs" in one.getMessage()]
    assert "'layers.1' (MFP)" in record.getMessage()
    assert "order=6" in record.getMessage()
    assert lowered[0].graph.fixed_steps() is None
    expected = in_float64(model)(events(6).double()).detach().numpy()
    np.testing.assert_allclose(lowered[0].run(events(6)), expected, atol=1e-9)


@pytest.mark.parametrize("fire", [MFP(0.5, order=3), MFP(0.0), MFP(kernel="fir", order=2, kernel_bits=4)])
def test_neurons_that_forget_nothing_are_not_named(fire: nn.Module, caplog: pytest.LogCaptureFixture) -> None:
    _checks._said.clear()
    with caplog.at_level(logging.WARNING, logger="mfp_neurons"):
        deploy.lower(network(lambda y: y, fire), events(6))
    assert "remembers all earlier inputs" not in caplog.text
