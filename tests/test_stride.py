"""Strided history: K taps at lags 0, s, 2s, ..., and zeros between them."""

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from mfp_neurons import MFP, deploy, quantize_weights, report
from mfp_neurons.history import Exponential, at_lags
from mfp_neurons.neuron import HistoryKernel
from mfp_neurons.reference import membrane_potential

each_kind = pytest.mark.parametrize(
    "options",
    [dict(kernel="fir"), dict(kernel="fir", num_channels=3), dict(learnable=True, num_channels=3), dict()],
    ids=["fir", "fir per channel", "learned exp per channel", "exp"],
)


def by_definition(x: Tensor, taps: Tensor, stride: int) -> Tensor:
    """u[t] = sum over k of taps[k] * x[t - k * stride], one term at a time; x [T, N, C], taps [K, 1 or C]."""
    u = torch.zeros_like(x)
    for t in range(len(x)):
        for k in range(len(taps)):
            if t >= k * stride:
                u[t] += taps[k] * x[t - k * stride]
    return u


@given(st.integers(1, 6), st.integers(1, 5), st.integers(1, 3), st.integers(0, 2**31))
def test_a_tap_weighs_the_input_stride_steps_before_the_last_one(order, stride, channels, seed):
    generator = torch.Generator().manual_seed(seed)
    kernel = HistoryKernel("fir", decay=0.5, order=order, num_channels=channels, stride=stride).double()
    kernel.taps.data = torch.randn(order, channels, generator=generator, dtype=torch.float64)
    x = torch.randn(12, 2, channels, generator=generator, dtype=torch.float64)
    expected = by_definition(x, kernel.taps.detach(), stride)
    torch.testing.assert_close(membrane_potential(x, kernel()).detach(), expected)


@each_kind
def test_strided_taps_start_as_the_exponential_at_their_lags(options):
    every = Exponential(0.8, order=9).taps(9)
    expected = torch.where(torch.arange(9)[:, None] % 4 == 0, every, 0.0).float()
    taps = MFP(0.8, order=3, stride=4, **options).kernel().taps.detach().float().reshape(9, -1)
    torch.testing.assert_close(taps, expected.expand_as(taps))


@pytest.mark.parametrize("options", [dict(kernel="fir", num_channels=3), dict(learnable=True)])
@pytest.mark.parametrize("bits", [None, "pow2", 4])
def test_gradients_reach_every_parameter(options, bits):
    module = MFP(0.9, order=3, stride=2, kernel_bits=bits, **options)
    module(torch.randn(8, 4, 3)).sum().backward()
    assert all(p.grad is not None and bool((p.grad != 0).all()) for p in module.parameters())


def test_quantization_sees_the_taps_and_not_the_zeros_between():
    kernel = HistoryKernel("fir", decay=0.5, order=3, stride=2, kernel_bits="pow2")
    kernel.taps.data = torch.tensor([0.9, 0.3, -0.6])
    assert kernel().taps.tolist() == [1.0, 0.0, 0.25, 0.0, -0.5]


def test_zeros_go_between_taps_and_not_behind_them():
    assert at_lags(torch.tensor([[1.0, 2.0]]), 5).tolist() == [[1.0, 2.0]]


def network(**options: Any) -> nn.Sequential:
    torch.manual_seed(0)
    layers = nn.Sequential(
        nn.Linear(6, 8, bias=False), MFP(0.5, **options), nn.Linear(8, 4, bias=False), MFP(0.5, order=1)
    )
    return quantize_weights(layers, 1, first=1, last=1)


def test_it_is_deployed_with_the_zeros_and_fires_the_same_spikes():
    net = network(kernel="fir", order=3, stride=3, num_channels=8, kernel_bits="pow2")
    x = (torch.rand(12, 5, 6) < 0.4).float()
    lowered = deploy.lower(net, x)
    assert np.array_equal(np.asarray(lowered.run(x)), net(x).detach().numpy().astype(np.int64))
    stream = lowered.stream()
    stepped = np.stack([np.asarray(stream.step(one)) for one in x])
    assert np.array_equal(stepped, np.asarray(lowered.run(x)))


def test_it_keeps_bits_for_its_reach_and_works_for_its_taps():
    x = (torch.rand(12, 1, 6) < 0.4).float()
    strided, dense, short = (
        report(network(kernel="fir", num_channels=8, **o), x)
        for o in (dict(order=3, stride=4), dict(order=9), dict(order=3))
    )
    assert [r.neurons[0].state_bits_per_neuron for r in (strided, dense, short)] == [8, 8, 2]
    assert strided.state_bits == dense.state_bits
    spikes = x.flatten(1).sum(1)
    assert float(spikes.sum()) > 0
    for found, lags in ((strided, (0, 4, 8)), (dense, range(9)), (short, range(3))):
        again = sum(float(n) for t, n in enumerate(spikes) for lag in lags if t + lag < 12)
        assert found.synapses[0].streaming_synaptic_operations == 8 * again
