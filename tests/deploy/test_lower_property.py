"""Lowering against the float64 evaluation of the same model, on random models of everything that it takes."""

from typing import Any

import numpy as np
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn

from mfp_neurons import MFP, deploy, quantize_weights
from mfp_neurons.deploy.host.compiled import unavailable
from mfp_neurons.deploy.inputs import read
from mfp_neurons.deploy.lowering import lower_graph

from . import graphs
from .models import Case, Each, models
from .native import check_scores
from .oracle import ROUNDING, Agreement, agree, agreement, reduced, results


def agree_on(case: Case, rounding: float = ROUNDING) -> Agreement:
    """Lowers a case and compares it with float64; on a longer input too, if it is the network of any T."""
    graph = lower_graph(case.model, case.example, **case.options)
    steps = case.options.get("steps")
    fixed = {"rounding": rounding, "steps": steps, "batch_first": case.batch_first}
    compared = agreement(graph, case.model, case.example, case.x, case.inputs, **fixed)
    if case.repeatable:
        assert graph.fixed_steps() is None
        longer = (torch.cat([x, x.flip(0), x]) for x in (case.x, case.inputs))
        agreement(graph, case.model, case.example, *longer, **fixed)
    return compared


@given(models(dyadic=True))
def test_a_model_that_float64_computes_exactly_agrees_in_every_spike(case):
    agree_on(case, rounding=0.0)


@given(models())
def test_a_model_agrees_in_every_spike_that_float64_decides(case):
    compared = agree_on(case)
    # a few neurons whose potential can be the threshold itself, in networks of a dozen of them
    assert compared.undecided <= 4 + compared.spikes // 10


@given(models())
def test_the_executions_of_a_lowered_model_agree_bit_for_bit(case):
    network = deploy.lower(case.model, case.example, **case.options)
    expected = as_list(network.run(case.x, backend="numpy"))
    for backend in ["numpy"] if unavailable() else ["numpy", "compiled"]:
        for mine, wanted in zip(as_list(network.run(case.x, backend=backend)), expected, strict=True):
            np.testing.assert_array_equal(mine, wanted)
        stream, is_static = network.stream(backend=backend), network.graph.input.static
        one_step = len(case.x) if is_static else 0
        found = [stream.step(case.x if one_step else case.x[t]) for t in range(network.graph.steps)]
        columns = zip(*(as_list(scores) for scores in found if scores is not None), strict=True)
        for head, column, wanted in zip(network.graph.heads, columns, expected, strict=True):
            np.testing.assert_allclose(reduced(head, np.stack(column)), wanted, rtol=1e-12, atol=1e-300)
    for mine, wanted in zip(as_list(network.run_events(case.x).scores), expected, strict=True):
        np.testing.assert_array_equal(mine, wanted)


@given(models(dyadic=True, narrow=True))
def test_a_lowered_model_gives_what_the_model_itself_gives(case):
    """Neurons for whole sequences and for single steps, by the kernels with which they are trained."""
    network = deploy.lower(case.model, case.example, **case.options)
    steps = len(case.inputs) if case.options.get("steps") else None
    with torch.no_grad():
        expected = results(case.model, case.inputs.float(), steps)
    found = as_list(network.run(case.x, backend="numpy"))
    for head, mine, wanted, swapped in zip(
        network.graph.heads, found, expected, case.batch_first, strict=True
    ):
        real = (wanted.transpose(0, 1) if swapped else wanted).double().numpy()
        allowed = head.error.max() * network.graph.steps + 1e-5 * (1 + np.abs(real).max())
        np.testing.assert_allclose(mine, real, rtol=0, atol=allowed)


@given(st.lists(models(), min_size=4, max_size=4))
@settings(max_examples=3, suppress_health_check=list(HealthCheck))
def test_the_c_of_lowered_models_agrees(several):
    check_scores([as_graph(case) for case in several], "gcc", "-O1")


def as_graph(case: Case) -> graphs.Case:
    """The integer network and its input."""
    graph = lower_graph(case.model, case.example, **case.options)
    return graphs.Case(graph, *read(graph, case.x))


def as_list(scores: Any) -> list[Any]:
    """Scores of every head: those of one are an array, of several a tuple or a dict."""
    several = list(scores.values()) if isinstance(scores, dict) else scores
    return list(several) if isinstance(several, tuple | list) else [several]


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
