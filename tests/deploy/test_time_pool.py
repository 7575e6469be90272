"""Networks whose layers run less often: what a window joins, when a stream answers, what is refused."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import nn

from mfp_neurons import MFP, MFPNode, TimePool, quantize_weights, report
from mfp_neurons.deploy import IntegerNetwork, InvalidNetworkError, LoweringError, interpret, lower
from mfp_neurons.deploy.check import check
from mfp_neurons.deploy.graph import (
    Concat,
    Graph,
    Input,
    Neurons,
    Scores,
    Sum,
    Synapse,
    Window,
)
from mfp_neurons.deploy.graph import (
    TimePool as Join,
)
from mfp_neurons.snntorch import MFPLeakyParallel
from tests.deploy.cortex import M4
from tests.deploy.cortex import score as on_the_board
from tests.deploy.graphs import Case
from tests.deploy.lowering import Do, Each, check_agreement, events, neuron, norm, prepared
from tests.deploy.native import SANITIZED, score
from tests.deploy.oracle import agree
from tests.deploy.test_codegen import expected, stream_of

Floats = NDArray[np.float64]


# a reference that shares nothing with the package: loops over float64


@dataclass(frozen=True)
class Layer:
    """What one layer of a small network is made of: all of it whole numbers and fractions of powers of two.

    Attributes:
        window: steps that become one in front of it.
        weight: [out, in] of -1 and +1.
        taps: [K], powers of two.
        threshold: of the potential, reached by equality.
    """

    window: int
    weight: Floats
    taps: Floats
    threshold: float


def spikes_of(layer: Layer, x: Sequence[Floats]) -> list[Floats]:
    """Spikes [N, out] of each step of a layer, from [N, in] of each step of its input."""
    joined = [
        np.max([x[i * layer.window + j] for j in range(layer.window)], axis=0)
        for i in range(len(x) // layer.window)
    ]
    current = [step @ layer.weight.T for step in joined]
    fired = []
    for t in range(len(current)):
        potential = np.zeros_like(current[0])
        for j, tap in enumerate(layer.taps):
            if t - j >= 0:
                potential += tap * current[t - j]
        fired.append((potential >= layer.threshold).astype(float))
    return fired


def scores_of(layers: Sequence[Layer], readout: Floats, window: int, x: Floats) -> Floats:
    """Scores [T / windows, N, classes]."""
    steps = list(x.astype(float))
    for layer in layers:
        steps = spikes_of(layer, steps)
    joined = [np.max(steps[i : i + window], axis=0) for i in range(0, len(steps), window)]
    return np.stack([step @ readout.T for step in joined])


def module_of(layers: Sequence[Layer], readout: Floats, window: int) -> nn.Module:
    """The same as a user writes it."""
    parts: list[nn.Module] = []
    for layer in layers:
        fire = MFP(kernel="fir", order=len(layer.taps), kernel_bits="pow2", v_threshold=layer.threshold)
        with torch.no_grad():
            fire.kernel.taps.copy_(torch.from_numpy(layer.taps).reshape(fire.kernel.taps.shape))
        parts += [TimePool(layer.window), linear(layer.weight), fire]
    return nn.Sequential(*parts, TimePool(window), linear(readout))


def linear(weight: Floats) -> nn.Module:
    made = nn.Linear(weight.shape[1], weight.shape[0], bias=False)
    with torch.no_grad():
        made.weight.copy_(torch.from_numpy(weight))
    return quantize_weights(made, bits=1)


@st.composite
def pooled(draw: st.DrawFn) -> tuple[list[Layer], Floats, int, NDArray[np.uint8]]:
    """Layers, a read-out, the window in front of it, and events [T, N, in] of whole windows."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    widths = draw(st.lists(st.sampled_from([1, 3, 17, 40]), min_size=2, max_size=4))
    windows = [draw(st.sampled_from([1, 2, 3, 4])) for _ in widths]
    made = []
    for before, width, window in zip(widths, widths[1:], windows, strict=False):
        order = draw(st.integers(1, 4))
        weight = rng.choice([-1.0, 1.0], (width, before))
        taps = 2.0 ** -rng.integers(0, 4, order) * rng.choice([-1, 1, 1], order)
        made.append(Layer(window, weight, taps, float(rng.integers(-4, 9)) / 4))
    steps = int(np.prod(windows)) * draw(st.integers(1, 4))
    x = rng.random((steps, 2, widths[0])) < draw(st.sampled_from([0.1, 0.4, 0.8]))
    return made, rng.choice([-1.0, 1.0], (3, widths[-1])), windows[-1], x.astype(np.uint8)


@given(pooled())
def test_every_execution_gives_what_loops_over_float64_give(drawn: Any) -> None:
    layers, readout, window, x = drawn
    network = lower(module_of(layers, readout, window), torch.from_numpy(x[:, :1]).bool())
    wanted = scores_of(layers, readout, window, x)
    period = len(x) // len(wanted)
    for backend in ("numpy", "compiled"):
        np.testing.assert_array_equal(network.run(x, backend=backend), wanted)
        np.testing.assert_array_equal(network.run_events(x, backend=backend).scores, wanted)
        stream = network.stream(backend=backend)
        each = [stream.step(step) for step in x]
        assert [t for t, scores in enumerate(each) if scores is not None] == [
            t for t in range(len(x)) if (t + 1) % period == 0
        ]
        np.testing.assert_array_equal(np.stack(each[period - 1 :: period]), wanted)


@given(pooled())
def test_a_stream_keeps_the_bits_that_the_report_counts(drawn: Any) -> None:
    layers, readout, window, x = drawn
    model, given_events = module_of(layers, readout, window), torch.from_numpy(x).float()
    found = report(model, given_events[:, :1])
    network = lower(model, torch.from_numpy(x[:, :1]).bool())
    stream = network.stream()
    stream.step(x[0])
    reachable = all(
        len(layer.taps) <= steps for layer, steps in zip(layers, own_steps(layers, x), strict=True)
    )
    if reachable:  # the report counts no more steps back than there are
        assert stream.state_bits == 2 * found.state_bits
    assert network.memory().state_stream == -(-network.graph.state_bits() // 8)
    driven = network.run_events(x[:, :1])
    assert driven.synaptic_operations == found.synaptic_operations


def own_steps(layers: Sequence[Layer], x: NDArray[np.uint8]) -> list[int]:
    return (len(x) // np.cumprod([layer.window for layer in layers])).tolist()


# a network to look at closely


def synapse(source: int, out: int, inner: int) -> Synapse:
    codes = np.random.default_rng(source).choice([-1, 1], (out, inner, 1, 1)).astype(np.int8)
    return Synapse(source, codes, 1, Window(), (out, 1, 1))


def fire(name: str, source: int, inner: int, order: int = 2) -> Neurons:
    taps = 2 ** np.arange(order)[::-1].reshape(1, order, 1)
    thresholds = np.arange(3 * order).reshape(order, 3) - 1
    return Neurons(name, (synapse(source, 3, inner),), taps, thresholds, (3, 1, 1), np.ones(3), np.zeros(3))


def scores_from(source: int, **fields: Any) -> Scores:
    read = Scores("readout", (synapse(source, 2, 3),), np.array([1, -1]), (2, 1, 1), (2,), 0.5, np.zeros(2))
    return replace(read, **{"reduce": "none", **fields})


def small(steps: int = 12, **scores: Any) -> Graph:
    """Neurons, every 2 steps joined, neurons, every 3 of these joined, scores."""
    ops = (
        fire("first", 0, 5),
        Join("twos", 1, 2, (3, 1, 1), 1),
        fire("second", 2, 3),
        Join("threes", 3, 3, (3, 1, 1), 1),
        scores_from(4, **scores),
    )
    return Graph(Input((5, 1, 1), (5,), 1), ops, steps)


def unlike() -> Graph:
    """Two ways to join 6 steps, by 2 and 3 and by 3 and 2, that meet again; nobody reads a window of 4."""
    vector = (3, 1, 1)
    ops = (
        fire("first", 0, 5),
        Join("2", 1, 2, vector, 1),
        Join("2 3", 2, 3, vector, 1),
        Join("3", 1, 3, vector, 1),
        fire("between", 4, 3),
        Join("3 2", 5, 2, vector, 1),
        Join("4", 1, 4, vector, 1),
        Sum("both", (3, 6), (1, 2), vector, 3),
        Concat("beside", (3, 6), (1, 1), (6, 1, 1), 1),
        replace(scores_from(8), synapses=(synapse(8, 2, 3), synapse(9, 2, 6))),
    )
    return Graph(Input((5, 1, 1), (5,), 1), ops, 24)


def given_to(graph: Graph, samples: int = 2) -> NDArray[np.uint8]:
    return (
        np.random.default_rng(1).integers(0, 2, (graph.steps, samples, *graph.input.shape)).astype(np.uint8)
    )


def test_every_map_knows_how_many_steps_of_the_input_one_of_its_own_takes() -> None:
    assert small().periods == (1, 1, 2, 2, 6, 6)
    assert small().period == 6
    assert unlike().periods == (1, 1, 2, 6, 3, 3, 6, 4, 6, 6, 6)
    assert unlike().period == 12


@pytest.mark.parametrize("graph", [small(), unlike()], ids=["small", "unlike"])
def test_rates_that_differ_run_alike_everywhere(graph: Graph, tmp_path: Path) -> None:
    network, levels = IntegerNetwork(graph), given_to(graph)
    x = levels.reshape(*levels.shape[:2], 5)
    wanted = network.run(x, backend="numpy")
    assert len(wanted) == graph.steps // 6
    np.testing.assert_array_equal(network.run(x, backend="compiled"), wanted)
    np.testing.assert_array_equal(network.run_events(x).scores, wanted)
    for backend in ("numpy", "compiled"):
        stream = network.stream(backend=backend)
        each = [stream.step(step) for step in x]
        np.testing.assert_array_equal(np.stack([s for s in each if s is not None]), wanted)
    case = Case(graph, levels, graph.steps)
    (found,) = score([case], [stream_of(case)], tmp_path, "gcc", *SANITIZED["gcc"])
    right = expected(case, stream_of(case))
    np.testing.assert_array_equal(found.run, right.run)
    np.testing.assert_array_equal(found.step, right.step)
    np.testing.assert_array_equal(found.scored, right.scored)


def test_a_long_stream_on_the_device_goes_round_without_losing_its_place(tmp_path: Path) -> None:
    long = replace(unlike(), steps=96)
    case = Case(long, given_to(long, 1), 96)
    assert stream_of(case).shape[0] > 96
    (found,) = score([case], [stream_of(case)], tmp_path, "gcc")
    np.testing.assert_array_equal(found.step, expected(case, stream_of(case)).step)


def test_a_pooled_network_runs_on_a_cortex_m(tmp_path: Path) -> None:
    levels = given_to(small())
    scores, _ = interpret.run(small(), levels.astype(np.int64), 12)
    found = on_the_board(M4, small(), np.moveaxis(levels, 1, 0), tmp_path)
    wanted = np.moveaxis(scores, 1, 0).reshape(2, 2, 2)
    np.testing.assert_array_equal(found.run, wanted.reshape(2, -1))
    np.testing.assert_array_equal(found.step, wanted)


def test_the_scores_that_are_read_out_are_the_last_of_their_own_steps() -> None:
    x = given_to(small())[..., 0, 0]
    each = IntegerNetwork(small()).run(x)
    last = IntegerNetwork(small(reduce="mean", last=1)).run(x)
    np.testing.assert_array_equal(last, each[-1])
    np.testing.assert_array_equal(IntegerNetwork(small(reduce="sum")).run(x), each.sum(0))


def test_a_window_takes_a_bit_of_each_neuron() -> None:
    # 5 input bits and 3 pooled ones are looked back at; 3 and 3 are in open windows
    assert small().state_bits() == 5 + 3 + 3 + 3
    assert IntegerNetwork(small()).memory(batch=4).state_stream == 4 * 2
    stream = IntegerNetwork(small()).stream()
    stream.step(given_to(small(), samples=3)[0, ..., 0, 0])
    assert stream.state_bits == 3 * 14


def test_the_table_says_how_often_a_layer_runs() -> None:
    lines = [line for line in str(IntegerNetwork(small())).splitlines() if not line.startswith("  from")]
    rates = {line.split()[0]: line.partition("; every ")[2].split("  ")[0] for line in lines[2:7]}
    assert rates == {
        "first": "",
        "twos": "2 steps",
        "second": "2 steps",
        "threes": "6 steps",
        "readout": "6 steps",
    }
    assert "3 steps joined" in lines[5]
    assert lines[5].split()[-1] == "3"  # bits of state


def test_a_run_needs_whole_windows() -> None:
    network, x = IntegerNetwork(small()), given_to(small())[..., 0, 0]
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


def test_what_is_shown_at_every_step_stays_one_map() -> None:
    graph = replace(small(), input=replace(small().input, top=255, static=True))
    joined = replace(graph, ops=(Join("input", 0, 2, (5, 1, 1), 255), *shifted(graph.ops)), steps=24)
    assert joined.constant_maps(True) == {0, 1}
    network = IntegerNetwork(joined)
    image = np.random.default_rng(0).integers(0, 256, (2, 5)).astype(np.uint8)
    wanted = network.run(image, backend="numpy")
    np.testing.assert_array_equal(network.run(image, backend="compiled"), wanted)
    stream = network.stream()
    each = [scores for scores in (stream.step(image) for _ in range(24)) if scores is not None]
    np.testing.assert_array_equal(np.stack(each), wanted)


def shifted(ops: Sequence[Any]) -> list[Any]:
    """Operations that read one map further on."""
    moved = []
    for op in ops:
        if isinstance(op, Join):
            moved.append(replace(op, source=op.source + 1))
        else:
            moved.append(replace(op, synapses=tuple(replace(s, source=s.source + 1) for s in op.synapses)))
    return moved


def test_a_file_keeps_windows(tmp_path: Path) -> None:
    IntegerNetwork(unlike()).save(tmp_path / "net.safetensors")
    again = IntegerNetwork.load(tmp_path / "net.safetensors")
    x = given_to(unlike())[..., 0, 0]
    np.testing.assert_array_equal(again.run(x), IntegerNetwork(unlike()).run(x))


def joined(index: int, **fields: Any) -> Graph:
    ops = list(small().ops)
    ops[index] = replace(ops[index], **fields)
    return replace(small(), ops=tuple(ops))


REFUSED = {
    "window must be an integer from 2 to 2**16, got 1": joined(1, window=1),
    "window must be an integer from 2 to 2**16, got True": joined(1, window=True),
    "window must be a divisor of the 12 steps of its source, got 5": joined(1, window=5),
    "window must be a divisor of the 6 steps of its source, got 4": joined(3, window=4),
    "shape must be (3, 1, 1), as its source's is, got (4, 1, 1)": joined(1, shape=(4, 1, 1)),
    "top must be 1, as follows from its sources, got 2": joined(1, top=2),
    "source must be an integer from 0 to 1, got 2": joined(1, source=2),
    "last must be an integer from 1 to 2, got 3": joined(4, last=3),
    "taps must be int64 [6, K, 1] or": joined(
        2, taps=np.ones((12, 2, 1), np.int64), thresholds=np.ones((12, 3), np.int64)
    ),
    "numbers of steps of the sources must be equal": joined(4, synapses=(synapse(4, 2, 3), synapse(1, 2, 3))),
    "operation 1 (Sum 'sum'): numbers of steps .* got (6, 12)": replace(
        small(),
        ops=(Join("in", 0, 2, (5, 1, 1), 1), Sum("sum", (1, 0), (1, 1), (5, 1, 1), 2), scores_from(0)),
    ),
}


@pytest.mark.parametrize("words", REFUSED)
def test_a_network_whose_steps_do_not_fit_is_refused(words: str) -> None:
    with pytest.raises(InvalidNetworkError, match=".*".join(map(re.escape, words.split(".*")))):
        check(REFUSED[words])


# models


def pooled_model(*between: nn.Module) -> nn.Module:
    return prepared(
        nn.Sequential(nn.Linear(5, 12), neuron(), *between, nn.Linear(12, 9), neuron(), nn.Linear(9, 3))
    )


@pytest.mark.parametrize("window", [1, 2, 4])
def test_a_plain_model_agrees(window: int) -> None:
    graph = check_agreement(pooled_model(TimePool(window)), events(5))
    assert graph.periods[-1] == window


def test_a_subclass_that_does_the_same_is_read_and_one_that_does_not_is_refused() -> None:
    class Same(TimePool):
        """As it is."""

    class Mean(TimePool):
        def forward(self, x_seq):
            return x_seq.unflatten(0, (-1, self.window)).mean(1)

    assert check_agreement(pooled_model(Same(2)), events(5)).period == 2
    with pytest.raises(LoweringError, match=r"'2' \(Mean\)"):
        lower(pooled_model(Mean(2)), events(5))


def test_counts_and_levels_are_pooled_too() -> None:
    counts = prepared(
        nn.Sequential(
            Each(nn.Conv2d(2, 3, 3)),
            neuron(),
            Each(nn.AvgPool2d(2)),
            TimePool(2),
            nn.Flatten(2),
            nn.Linear(12, 3),
        )
    )
    assert check_agreement(counts, events(2, 6, 6)).map_top(3) == 4
    image = prepared(nn.Sequential(TimePool(2), nn.Linear(6, 12), neuron(), nn.Linear(12, 3)))
    levels = torch.randint(0, 256, (4, 2, 6), dtype=torch.uint8)
    assert check_agreement(image, levels).map_top(1) == 255


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


def test_an_image_that_the_model_repeats_is_pooled() -> None:
    model = Do(
        lambda x, pool, a, fire, out: out(fire(a(pool(x.unsqueeze(0).repeat(4, 1, 1))))).mean(0),
        *(TimePool(2), nn.Linear(5, 12), neuron(), nn.Linear(12, 3)),
    )
    graph = check_agreement(prepared(model), torch.randint(0, 256, (2, 5), dtype=torch.uint8))
    assert (graph.steps, graph.period, graph.input.static) == (4, 2, True)


@pytest.mark.parametrize("cut", [lambda y: y[-1], lambda y: y[-2:].mean(0), lambda y: y.sum(0)])
def test_the_read_out_counts_pooled_steps(cut: Any) -> None:
    layers = nn.Linear(5, 12), neuron(), TimePool(2), nn.Linear(12, 3, bias=False)
    model = prepared(Do(lambda x, a, fire, pool, out: cut(out(pool(fire(a(x))))), *layers))
    x = torch.rand(8, 2, 5, generator=torch.Generator().manual_seed(0)) < 0.4
    check_agreement(model, x)


def test_spikingjellys_layers_stand_around_it() -> None:
    pytest.importorskip("spikingjelly.activation_based", reason="the 'spikingjelly' extra is not installed")
    from spikingjelly.activation_based import functional, layer

    options: dict[str, Any] = {"kernel_bits": "pow2", "order": 3, "v_threshold": 0.3}
    model = nn.Sequential(
        layer.Conv2d(2, 4, 3, padding=1, bias=False),
        layer.BatchNorm2d(4),
        MFPNode(2.0, **options),
        TimePool(2),
        layer.MaxPool2d(2),
        layer.Flatten(),
        layer.Linear(36, 10),
        MFPNode(2.0, **options),
        TimePool(2),
        layer.Linear(10, 3),
    )
    model[1].load_state_dict(norm(nn.BatchNorm2d, 4).state_dict())
    functional.set_step_mode(model, "m")
    assert check_agreement(prepared(model), events(2, 6, 6)).periods[-1] == 4


def test_snntorchs_layers_stand_around_it() -> None:
    pytest.importorskip("snntorch", reason="the 'snntorch' extra is not installed")

    def fire_of() -> nn.Module:
        return MFPLeakyParallel(beta=0.5, threshold=0.3, init_hidden=True, order=3, kernel_bits="pow2")

    model = nn.Sequential(
        nn.Linear(5, 12), fire_of(), TimePool(2), nn.Linear(12, 8), fire_of(), TimePool(2), nn.Linear(8, 3)
    )
    assert agree(prepared(model), events(5), 1).graph.periods[-1] == 4


def refusal(forward: Any, *layers: nn.Module, steps: int = 4) -> str:
    x = torch.rand(steps, 2, 5, generator=torch.Generator().manual_seed(0)) < 0.4
    with pytest.raises(LoweringError) as caught:
        lower(prepared(Do(forward, *layers)), x)
    return str(caught.value)


def test_what_does_not_fit_says_why_and_what_to_do() -> None:
    a, fire_a, pool, out = nn.Linear(5, 5), neuron(), TimePool(2), nn.Linear(5, 3)
    cases: list[tuple[Any, str]] = [
        (
            lambda x, a, f, p, out: out(f(p(a(x)))),
            "(QuantizedLinear) stands before it. Pool spikes, behind the neuron",
        ),
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
    leaky = MFPLeakyParallel(beta=0.5, output=True, init_hidden=True, order=2, kernel_bits="pow2")
    words = refusal(lambda x, f, p, out: out(p(f(x)[1])), leaky, TimePool(2), nn.Linear(5, 3))
    assert "reads the membrane potential of 'layers.0' (MFPLeakyParallel). Pool its spikes" in words
