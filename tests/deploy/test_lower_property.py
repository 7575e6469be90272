"""Lowering against the float64 evaluation of the same model, on random models of everything that it takes."""

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from mfp_neurons import MFP, quantize_weights
from mfp_neurons.deploy import IntegerNetwork
from mfp_neurons.deploy.host.compiled import unavailable
from mfp_neurons.deploy.lowering import lower_graph

from .models import Each, models
from .oracle import agree


@given(models(dyadic=True))
def test_a_model_that_float64_computes_exactly_agrees_in_every_spike(case):
    agree(case.model, case.example, case.top, rounding=0.0)


@given(models())
def test_a_model_agrees_in_every_spike_that_float64_decides(case):
    seen = agree(case.model, case.example, case.top)
    assert seen.undecided <= 1 + seen.spikes // 100  # of 170,000 in 1,500 models it was none


@given(models(dyadic=True))
def test_the_executions_of_a_lowered_model_agree_bit_for_bit(case):
    network = IntegerNetwork(lower_graph(case.model, case.example, levels=case.top))
    x = case.example.numpy()
    expected = network.run(x, backend="numpy")
    for backend in ["numpy"] if unavailable() else ["numpy", "compiled"]:
        assert np.array_equal(network.run(x, backend=backend), expected)
        stream = network.stream(backend=backend)
        steps = range(network.graph.steps)
        found = [stream.step(x if network.graph.input.static else x[t]) for t in steps]
        each = np.stack([scores for scores in found if scores is not None])
        out = network.graph.scores
        kept = each[-(out.last or 0) :]
        reduced = {"none": kept, "sum": kept.sum(axis=0), "mean": kept.mean(axis=0)}[out.reduce]
        np.testing.assert_allclose(reduced, expected, rtol=1e-12, atol=0)
    assert np.array_equal(network.run_events(x).scores, expected)


@given(
    order=st.integers(1, 6),
    short=st.integers(1, 4),
    bits=st.sampled_from(["pow2", 4]),
    seed=st.integers(0, 99),
)
def test_a_network_of_finite_order_goes_on_beyond_the_steps_of_its_example(order, short, bits, seed):
    torch.manual_seed(seed)
    net = nn.Sequential(
        nn.Linear(5, 8),
        MFP(0.5, order=order, kernel_bits=bits, v_threshold=0.5),
        nn.Linear(8, 8),
        MFP(0.5, kernel="fir", order=order, kernel_bits=bits, num_channels=8, v_threshold=0.2),
        nn.Linear(8, 3),
    )
    long = torch.randint(0, 256, (9, 2, 5), dtype=torch.uint8)
    agree(quantize_weights(net), long[:short], 255, x=long)


def test_an_average_over_a_sequence_of_one_channel_is_no_vote():
    torch.manual_seed(0)
    conv, pool = Each(nn.Conv1d(1, 1, 1)), Each(nn.AvgPool1d(2, 2))
    net = nn.Sequential(conv, MFP(0.5, v_threshold=0.1), pool, nn.Flatten(2), nn.Linear(3, 3))
    agree(quantize_weights(net), torch.randint(0, 256, (5, 2, 1, 6), dtype=torch.uint8), 255)
