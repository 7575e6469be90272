"""What remains of an input: known where it can be computed by hand, and watched in networks."""

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from benchmarks.input_retention import input_retention
from mfp_neurons import MFP, QuantizedMembraneLIF
from mfp_neurons.train import network
from mfp_neurons.train.config import NetworkConfig
from mfp_neurons.train.figures import inputs_of_neurons, potential_of


@given(st.integers(1, 6), st.integers(1, 3), st.integers(0, 2**20))
def test_of_a_memory_free_neuron_the_weights_are_its_taps_and_all_is_kept_up_to_its_order(
    order, channels, seed
):
    generator = torch.Generator().manual_seed(seed)
    neuron = MFP(0.5, kernel="fir", order=order, num_channels=channels)
    neuron.kernel.taps.data = torch.rand(order, channels, generator=generator) + 0.1
    drive = torch.randn(9, 40, channels, generator=generator)
    found = input_retention(potential_of(neuron), drive, lags=8)
    nothing = [0.0] * (8 - order)
    assert found.weight == pytest.approx([*neuron.kernel.taps.mean(1).tolist(), *nothing], abs=1e-4)
    assert found.kept == pytest.approx([1.0] * order + nothing, abs=1e-4)
    assert found.any == pytest.approx([1.0] * order + nothing, abs=0.02)


def test_of_a_leaky_potential_below_threshold_the_weights_are_powers_of_its_decay():
    neuron = QuantizedMembraneLIF(0.8, bits=None, v_threshold=1e6)
    found = input_retention(potential_of(neuron), torch.randn(12, 50, 1), lags=6)
    assert found.weight == pytest.approx([0.8**j for j in range(6)], rel=1e-4)
    assert found.kept == pytest.approx([1.0] * 6, abs=1e-4)


def test_against_a_count_by_hand():
    """A potential that forgets what it holds when it is asked to hold more than 1: a rule of its own."""

    def potential(x_seq: Tensor) -> Tensor:
        u, held = [], torch.zeros_like(x_seq[0])
        for x in x_seq:
            held = torch.where(held.abs() > 1, 0.0, held) + x
            u.append(held)
        return torch.stack(u)

    torch.manual_seed(0)
    x, lags, seed = torch.randn(7, 30, 1), 3, 5
    found = input_retention(potential, x, lags=lags, first=2, seed=seed)
    generator = torch.Generator().manual_seed(seed)
    pairs: list[list[tuple[float, float]]] = [[] for _ in range(lags)]
    for at in range(2, 7):
        order = torch.randperm(30, generator=generator).tolist()
        for place, sample in enumerate(order):
            other = x.clone()
            other[at, sample] = x[at, order[place - 1]]
            left = (potential(other) - potential(x))[:, sample, 0]
            for j in range(min(lags, 7 - at)):
                pairs[j].append((float(other[at, sample] - x[at, sample]), float(left[at + j])))
    for j, of_lag in enumerate(pairs):
        given_, left_ = (torch.tensor(v, dtype=torch.float64) for v in zip(*of_lag, strict=True))
        product = (given_ * left_).sum()
        assert found.weight[j] == pytest.approx(float(product / (given_**2).sum()), rel=1e-5)
        assert found.kept[j] == pytest.approx(
            float(product**2 / (given_**2).sum() / (left_**2).sum()), rel=1e-5
        )
        assert found.any[j] == pytest.approx(float((left_ != 0).double().mean()), abs=1e-9)


def test_fewer_bits_keep_less():
    drive = torch.randn(40, 500, 1)
    kept = [
        input_retention(potential_of(QuantizedMembraneLIF(0.9, bits=bits)), drive, lags=6, first=10)
        for bits in (2, 4, None)
    ]
    for j in range(1, 6):
        assert kept[0].any[j] < kept[1].any[j] < kept[2].any[j]


def test_the_inputs_of_a_network_are_what_its_neurons_got():
    torch.manual_seed(0)
    net = network.build(NetworkConfig(hidden=(5, 4)), (3,), 2, 6)
    x = torch.rand(6, 2, 3)
    caught = inputs_of_neurons(net, x)
    first, second = net.blocks()
    assert [neuron for neuron, _ in caught] == [first.neuron, second.neuron]
    assert torch.equal(second.neuron(caught[1][1]), second(first(x)))
    assert not first.neuron._forward_pre_hooks


@pytest.mark.parametrize(
    ("x", "options", "words"),
    [
        (torch.randn(4, 1, 1), dict(lags=2), r"x_seq must be \[T, N, C\] with N >= 2, got shape \[4, 1, 1\]"),
        (torch.randn(4, 3), dict(lags=2), r"got shape \[4, 3\]"),
        (torch.randn(4, 3, 1), dict(lags=4, first=1), "lags must be from 1 to T - first = 3, got 4"),
    ],
)
def test_a_drive_that_cannot_be_watched_is_refused(x: Tensor, options: dict[str, Any], words: str):
    with pytest.raises(ValueError, match=words):
        input_retention(potential_of(MFP(0.5, order=2)), x, **options)


def test_other_neurons_are_refused_by_name_and_equal_inputs_count_for_nothing():
    with pytest.raises(TypeError, match="MFP or QuantizedMembraneLIF, got ReLU"):
        potential_of(nn.ReLU())
    found = input_retention(potential_of(MFP(0.5, order=2)), torch.ones(4, 3, 1), lags=2)
    assert found.any == found.kept == found.weight == [0.0, 0.0]
