"""Networks whose layers run less often: what a window joins, when a stream answers, what is refused."""

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

from mfp_neurons import MFPNode, TimePool, quantize_weights, report
from mfp_neurons.deploy import IntegerNetwork, InvalidNetworkError, LoweringError, lower
from mfp_neurons.deploy.graph import Concat, Graph, Sum
from mfp_neurons.deploy.graph import TimePool as Join
from mfp_neurons.snntorch import MFPLeakyParallel
from tests.deploy.graphs import Case, dense, fires, readout, vectors
from tests.deploy.lowering import Do, check_agreement, events, neuron, norm, prepared
from tests.deploy.native import expected, score, stream_of
from tests.deploy.oracle import agree

# networks

VECTOR = (3, 1, 1)


def signs(source: int, out: int, inner: int) -> Any:
    return dense(source, np.random.default_rng(source).choice([-1, 1], (out, inner)))


def small(steps: int = 12, **scores: Any) -> Graph:
    """Neurons, every 2 steps joined, neurons, every 3 of these joined, scores."""
    return vectors(
        5,
        fires(signs(0, 3, 5), [2, 1], np.arange(6).reshape(2, 3) - 1, "first"),
        Join("twos", 1, 2, VECTOR, 1),
        fires(signs(2, 3, 3), [2, 1], np.arange(6).reshape(2, 3) - 1, "second"),
        Join("threes", 3, 3, VECTOR, 1),
        readout(signs(4, 2, 3), offset=[1, -1], unit=0.5, **{"reduce": "none", **scores}),
        steps=steps,
    )


def unlike(steps: int) -> Graph:
    """Two ways to join 6 steps, by 2 and 3 and by 3 and 2, that meet again; nobody reads a window of 4."""
    return vectors(
        5,
        fires(signs(0, 3, 5), [2, 1], [0, 1, 2], "first"),
        Join("2", 1, 2, VECTOR, 1),
        Join("2 3", 2, 3, VECTOR, 1),
        Join("3", 1, 3, VECTOR, 1),
        fires(signs(4, 3, 3), [2, 1], [0, 1, 2], "between"),
        Join("3 2", 5, 2, VECTOR, 1),
        Join("4", 1, 4, VECTOR, 1),
        Sum("both", (3, 6), (1, 2), VECTOR, 3),
        Concat("beside", (3, 6), (1, 1), (6, 1, 1), 1),
        readout(signs(8, 2, 3), signs(9, 2, 6), reduce="none"),
        steps=steps,
    )


def spikes(graph: Graph, samples: int = 2) -> NDArray[np.uint8]:
    """An input [T, N, 5]."""
    return np.random.default_rng(1).integers(0, 2, (graph.steps, samples, 5)).astype(np.uint8)


def test_every_map_knows_how_many_steps_of_the_input_one_of_its_own_takes() -> None:
    assert (small().periods, small().period) == ((1, 1, 2, 2, 6, 6), 6)
    assert (unlike(24).periods, unlike(24).period) == ((1, 1, 2, 6, 3, 3, 6, 4, 6, 6, 6), 12)


def test_a_long_stream_on_the_device_goes_round_without_losing_its_place(tmp_path: Path) -> None:
    graph = unlike(96)
    case = Case(graph, spikes(graph, 1)[..., None, None], 96)
    assert stream_of(case).shape[0] > 96
    (found,) = score([case], [stream_of(case)], tmp_path, "gcc")
    np.testing.assert_array_equal(found.step, expected(case, stream_of(case)).step)


def test_a_window_takes_a_bit_of_each_neuron() -> None:
    # 5 input bits and 3 pooled ones are looked back at; 3 and 3 are in open windows
    assert small().state_bits() == 5 + 3 + 3 + 3
    assert IntegerNetwork(small()).memory(batch=4).state_stream == 4 * 2
    stream = IntegerNetwork(small()).stream()
    stream.step(spikes(small(), samples=3)[0])
    assert stream.state_bits == 3 * 14


def test_the_table_says_how_often_a_layer_runs() -> None:
    lines = [line for line in str(IntegerNetwork(small())).splitlines() if not line.startswith("  from")]
    rates = [line.partition("; every ")[2].split("  ")[0] for line in lines[2:7]]
    assert rates == ["", "2 steps", "2 steps", "6 steps", "6 steps"]
    assert "3 steps joined" in lines[5]
    assert lines[5].split()[-1] == "3"  # bits of state


def test_a_run_needs_whole_windows() -> None:
    network, x = IntegerNetwork(small()), spikes(small())
    for run in (network.run, network.run_events):
        with pytest.raises(ValueError, match=r"x must have a multiple of 6 steps, .* got 8"):
            run(x[:8])
    with pytest.raises(ValueError, match="steps must be a multiple of 6, got 7"):
        network.memory(steps=7)
    with pytest.raises(ValueError, match="at least 12 steps, which the scores average, got 6"):
        IntegerNetwork(small(reduce="mean", last=2)).run(x[:6])
    assert network.run(x[:6]).shape == (1, 2, 2)


def test_events_are_followed_by_silence_up_to_the_end_of_a_window() -> None:
    network = IntegerNetwork(small())
    ran = network.run_events((np.array([0, 13]), np.array([1, 2])))
    x = np.zeros((18, 1, 5), np.uint8)
    x[0, 0, 1] = x[13, 0, 2] = 1
    np.testing.assert_array_equal(ran.scores, network.run(x))
    with pytest.raises(ValueError, match="times must lie from 0 to 65531, got 65533"):
        network.run_events((np.array([65533]), np.array([0])))


def changed(index: int, **fields: Any) -> Graph:
    ops = list(small().ops)
    ops[index] = replace(ops[index], **fields)
    return replace(small(), ops=tuple(ops))


MATRIX = {"taps": np.ones((12, 2, 1), np.int64), "thresholds": np.ones((12, 3), np.int64)}
REFUSED = {
    "window must be an integer from 2 to 2**16, got 1": changed(1, window=1),
    "window must be an integer from 2 to 2**16, got True": changed(1, window=True),
    "window must be a divisor of the 12 steps of its source, got 5": changed(1, window=5),
    "window must be a divisor of the 6 steps of its source, got 4": changed(3, window=4),
    "shape must be (3, 1, 1), as its source's is, got (4, 1, 1)": changed(1, shape=(4, 1, 1)),
    "top must be 1, as follows from its sources, got 2": changed(1, top=2),
    "source must be an integer from 0 to 1, got 2": changed(1, source=2),
    "last must be an integer from 1 to 2, got 3": changed(4, last=3),
    "taps must be int64 [6, K, 1] or": changed(2, **MATRIX),
    "numbers of steps of the sources must be equal": changed(4, synapses=(signs(4, 2, 3), signs(1, 2, 3))),
    "operation 1 (Sum 'sum'): numbers of steps .* got (6, 12)": vectors(
        5,
        Join("in", 0, 2, (5, 1, 1), 1),
        Sum("sum", (1, 0), (1, 1), (5, 1, 1), 2),
        readout(signs(0, 2, 5)),
        steps=12,
    ),
}


@pytest.mark.parametrize("words", REFUSED)
def test_a_network_whose_steps_do_not_fit_is_refused(words: str) -> None:
    with pytest.raises(InvalidNetworkError, match=".*".join(map(re.escape, words.split(".*")))):
        IntegerNetwork(REFUSED[words])


# models


def pooled_model(*between: nn.Module) -> nn.Module:
    return prepared(
        nn.Sequential(nn.Linear(5, 12), neuron(), *between, nn.Linear(12, 9), neuron(), nn.Linear(9, 3))
    )


@pytest.mark.parametrize("window", [1, 2, 4])
def test_a_plain_model_agrees_and_the_report_counts_what_its_stream_keeps_and_adds(window: int) -> None:
    model, x = pooled_model(TimePool(window)), events(5)
    graph = check_agreement(model, x)
    assert graph.periods[-1] == window
    network, told = IntegerNetwork(graph), report(model, x[:, :1].float())
    assert network.run_events(x[:, :1]).synaptic_operations == told.synaptic_operations
    if (
        window == 1
    ):  # behind others there are fewer steps than taps, and the report counts no more than there are
        assert graph.state_bits() == told.state_bits


def test_a_subclass_that_does_the_same_is_read_and_one_that_does_not_is_refused() -> None:
    class Same(TimePool):
        """As it is."""

    class Mean(TimePool):
        def forward(self, x_seq):
            return x_seq.unflatten(0, (-1, self.window)).mean(1)

    assert check_agreement(pooled_model(Same(2)), events(5)).period == 2
    with pytest.raises(LoweringError, match=r"'2' \(Mean\)"):
        lower(pooled_model(Mean(2)), events(5))


@pytest.mark.parametrize("kernel", ["exp", "fir", "matrix"])
def test_kernels_count_the_steps_of_their_layer(kernel: str) -> None:
    options = {"order": None, "time_steps": 2} if kernel == "matrix" else {"order": 2}
    first, last = quantize_weights(nn.Linear(5, 12), 3), quantize_weights(nn.Linear(12, 3), 3)
    fire_behind = neuron(kernel=kernel, **options)
    graph = check_agreement(nn.Sequential(TimePool(2), first, fire_behind, last), events(5))
    assert graph.fixed_steps() == (4 if kernel == "matrix" else None)


def test_a_matrix_kernel_of_other_steps_is_refused() -> None:
    wrong = neuron(kernel="matrix", order=None, time_steps=4)
    with pytest.raises(LoweringError, match=r"'3' .MFP.* matrix kernel of T = 4 steps, and its input has 2"):
        lower(
            prepared(nn.Sequential(nn.Linear(5, 12), neuron(), TimePool(2), wrong, nn.Linear(12, 3))),
            events(5),
        )


def test_spikingjellys_layers_stand_around_it() -> None:
    pytest.importorskip("spikingjelly.activation_based", reason="the 'spikingjelly' extra is not installed")
    from spikingjelly.activation_based import functional, layer

    options: dict[str, Any] = {"kernel_bits": "pow2", "order": 3, "v_threshold": 0.3}
    model = nn.Sequential(
        layer.Conv2d(2, 4, 3, padding=1, bias=False),
        layer.BatchNorm2d(4),
        MFPNode(2.0, **options, reset=None),
        TimePool(2),
        layer.MaxPool2d(2),
        layer.Flatten(),
        layer.Linear(36, 10),
        MFPNode(2.0, **options, reset=None),
        TimePool(2),
        layer.Linear(10, 3),
    )
    model[1].load_state_dict(norm(nn.BatchNorm2d, 4).state_dict())
    functional.set_step_mode(model, "m")
    assert check_agreement(prepared(model), events(2, 6, 6)).periods[-1] == 4


def test_snntorchs_layers_stand_around_it() -> None:
    pytest.importorskip("snntorch", reason="the 'snntorch' extra is not installed")

    def fire_of() -> nn.Module:
        return MFPLeakyParallel(
            beta=0.5, threshold=0.3, init_hidden=True, order=3, kernel_bits="pow2", reset_mechanism="none"
        )

    model = nn.Sequential(
        nn.Linear(5, 12), fire_of(), TimePool(2), nn.Linear(12, 8), fire_of(), TimePool(2), nn.Linear(8, 3)
    )
    assert agree(prepared(model), events(5), 1).graph.periods[-1] == 4


def test_the_largest_currents_of_a_window_are_within_their_error() -> None:
    model = Do(
        lambda x, a, f, p, out: out(f(p(a(x)))),
        *(nn.Linear(5, 5), neuron(), TimePool(2), nn.Linear(5, 3)),
    )
    graph = agree(prepared(model), events(5), 1).graph
    assert [type(op).__name__ for op in graph.ops] == ["Currents", "TimePool", "Neurons", "Scores"]


def refusal(forward: Any, *layers: nn.Module, steps: int = 4) -> str:
    x = torch.rand(steps, 2, 5, generator=torch.Generator().manual_seed(0)) < 0.4
    with pytest.raises(LoweringError) as caught:
        lower(prepared(Do(forward, *layers)), x)
    return str(caught.value)


def test_what_does_not_fit_says_why_and_what_to_do() -> None:
    a, fire_a, pool, out = nn.Linear(5, 5), neuron(), TimePool(2), nn.Linear(5, 3)
    cases: list[tuple[Any, str]] = [
        (lambda x, a, f, p, out: out(p(f(a(x)).transpose(0, 1))), "does not begin with time"),
        (lambda x, a, f, p, out: out(p(f(a(x)).flatten(0, 1))), "does not begin with time"),
        (lambda x, a, f, p, out: out(p(f(a(x))[-2:])), "already reduced over time"),
        (lambda x, a, f, p, out: out(p(f(a(x))) + x), "pool all of it over time with the same windows"),
        (lambda x, a, f, p, out: out(f(a(x)) + f(a(p(x)))), "joins 4 and 2 steps by add"),
        (lambda x, a, f, p, out: out(torch.cat([p(x), x], 2)), "joins 2 and 4 steps by cat"),
        (lambda x, a, f, p, out: out(x).mean(0) + out(p(x)).mean(0), "one for every 1 and one for every 2"),
        (lambda x, a, f, p, out: out(x)[-1] - out(p(x))[-1], "one for every 1 and one for every 2"),
    ]
    for forward, words in cases:
        assert words in refusal(forward, a, fire_a, pool, out), words


@pytest.mark.parametrize("windows", [(3, 1), (2, 4)])
def test_windows_that_do_not_divide_t_say_so(windows: tuple[int, int]) -> None:
    first, second = map(TimePool, windows)
    words = refusal(
        lambda x, a, f, p, q, out: out(q(p(f(a(x))))),
        nn.Linear(5, 5),
        neuron(),
        first,
        second,
        nn.Linear(5, 3),
    )
    assert "(TimePool) makes one step out of every" in words
    assert "that the windows divide" in words


def test_a_membrane_potential_is_not_pooled() -> None:
    pytest.importorskip("snntorch", reason="the 'snntorch' extra is not installed")
    leaky = MFPLeakyParallel(
        beta=0.5, output=True, init_hidden=True, order=2, kernel_bits="pow2", reset_mechanism="none"
    )
    words = refusal(lambda x, f, p, out: out(p(f(x)[1])), leaky, TimePool(2), nn.Linear(5, 3))
    assert "reads the membrane potential of 'layers.0' (MFPLeakyParallel). Pool its spikes" in words
