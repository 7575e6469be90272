"""Graphs of others, damaged metadata, and what is refused."""

from typing import Any

import nir
import numpy as np
import pytest
import torch
from torch import nn

from mfp_neurons import MFP, quantize_weights
from mfp_neurons.nir import NIRError, from_nir, to_nir
from mfp_neurons.nir.network import Delay, Integrator, Scale
from mfp_neurons.quantize import is_quantized

from .execute import by_numpy

DT = 1e-3
X = torch.randint(-4, 5, (14, 3, 2)).float() / 4


def full(value: float, *shape: int) -> Any:
    return np.full(shape or (2,), value, np.float32)


def li(tau: float, r: float = 1.0, shape: tuple[int, ...] = (2,), v_leak: float = 0.0) -> Any:
    return nir.LI(tau=np.full(shape, tau), r=np.full(shape, r), v_leak=np.full(shape, v_leak))


def check(graph: Any, *types: type, x: torch.Tensor = X) -> nn.Module:
    """The graph's own equations hold, and the parts are of these types."""
    network = from_nir(graph, dt=DT)
    assert [type(part) for part in network.parts.values()] == list(types)
    with torch.no_grad():
        assert (network(x).numpy() == by_numpy(graph, x.numpy(), DT)).all()
    return network


def around(nodes: dict[str, Any], *edges: tuple[str, str], **options: Any) -> Any:
    """A graph of these nodes between an input and an output of two features."""
    ends = {"input": nir.Input(np.array([2])), "output": nir.Output(np.array([2]))}
    return nir.NIRGraph(ends | nodes, list(edges), **options)


CHAINS: dict[str, tuple[list[Any], list[type]]] = {
    "factors around a leaky integrator": (
        [nir.Scale(full(2.0)), li(2 * DT), nir.Scale(full(0.5)), nir.Threshold(full(0.25))],
        [MFP],
    ),
    "a leak that resets": ([nir.LIF(full(2 * DT), full(2), full(0), full(0.25))], [MFP]),
    "a factor, and an integrator that resets": (
        [nir.Scale(full(0.5)), nir.IF(full(2 / DT), full(0.25))],
        [MFP],
    ),
    "a filter before a leak that resets": (
        [nir.Delay(full(DT)), nir.Scale(full(0.5)), nir.LIF(full(2 * DT), full(1), full(0), full(0.25))],
        [Delay, Scale, MFP],
    ),
    "a threshold alone": ([nir.Threshold(full(0.25))], [MFP]),
    "a potential": ([nir.Linear(full(0.5, 2, 2)), li(2 * DT)], [nn.Linear, Integrator]),
    "delays and factors by themselves": (
        [nir.Delay(np.array([1, 3]) * DT), nir.Scale(full(0.5)), nir.Linear(full(1.0, 2, 2))],
        [Delay, Scale, nn.Linear],
    ),
}


@pytest.mark.parametrize(("nodes", "types"), CHAINS.values(), ids=CHAINS.keys())
def test_nodes_one_behind_the_other_are_read(nodes: list[Any], types: list[type]) -> None:
    check(nir.NIRGraph.from_list(*nodes), *types)


def test_a_leaky_integrator_and_a_threshold_are_a_neuron_that_fires_above_only() -> None:
    graph = nir.NIRGraph.from_list(li(2 * DT, r=2), nir.Threshold(full(0.75)))
    network = check(graph, MFP)
    assert network.parts["threshold"].strict
    assert network.parts["threshold"].kernel().decay == 0.5


def test_parallel_delays_are_taps() -> None:
    nodes: dict[str, Any] = {"fire": nir.Threshold(full(0.25))}
    edges = [("input", "fire"), ("fire", "output")]
    for j in (2, 4):
        nodes |= {f"delay{j}": nir.Delay(np.full(2, j * DT)), f"scale{j}": nir.Scale(full(1 / j))}
        edges += [("input", f"delay{j}"), (f"delay{j}", f"scale{j}"), (f"scale{j}", "fire")]
    network = check(around(nodes, *edges), MFP)
    kernel = network.parts["fire"].kernel
    assert (kernel.kind, kernel.order, kernel.stride) == ("fir", 3, 2)


def test_inputs_that_go_different_ways_to_a_threshold_keep_them() -> None:
    nodes = {
        "near": nir.Linear(np.eye(2, dtype=np.float32)),
        "far": nir.Linear(full(0.5, 2, 2)),
        "late": nir.Delay(np.full(2, DT)),
        "leak": li(2 * DT),
        "fire": nir.Threshold(full(0.25)),
    }
    edges = [("input", "near"), ("input", "far"), ("near", "leak"), ("far", "late"), ("late", "leak")]
    graph = around(nodes, *edges, ("leak", "fire"), ("fire", "output"))
    network = from_nir(graph, dt=DT)
    assert {type(part) for part in network.parts.values()} == {nn.Linear, Delay, Integrator, MFP}
    assert (network(X).detach().numpy() == by_numpy(graph, X.numpy(), DT)).all()


def test_images_go_through_conv_pools_and_flatten() -> None:
    torch.manual_seed(0)
    weight = (np.random.default_rng(0).integers(-2, 3, (3, 2, 3, 3)) / 2).astype(np.float32)
    pool = (np.array([2, 2]), np.array([2, 2]), np.array([0, 0]))
    graph = nir.NIRGraph.from_list(
        nir.Conv2d((6, 6), weight, 1, 1, 1, 1, full(0.25, 3)),
        li(2 * DT, 2.0, (3, 6, 6)),
        nir.Threshold(full(0.5, 3, 6, 6)),
        nir.SumPool2d(*pool),
        nir.Flatten({"input": np.array([3, 3, 3])}, 0, -1),
        nir.Affine(full(0.5, 4, 27), full(0.25, 4)),
    )
    x = torch.randint(0, 2, (14, 2, 2, 6, 6)).float()
    check(graph, nn.Conv2d, MFP, nn.AvgPool2d, nn.Flatten, nn.Linear, x=x)


def test_parameters_of_every_place_are_kept() -> None:
    rng = np.random.default_rng(0)
    tau = DT / rng.choice([0.25, 0.5, 1.0], (2, 3, 3))
    leaky = nir.LI(tau=tau, r=tau / DT, v_leak=np.zeros((2, 3, 3)))
    graph = nir.NIRGraph.from_list(
        leaky, nir.Threshold(rng.choice([0.25, 0.5], (2, 3, 3)).astype(np.float32))
    )
    x = torch.randint(-4, 5, (10, 2, 2, 3, 3)).float() / 4
    assert (from_nir(graph, dt=DT)(x).detach().numpy() == by_numpy(graph, x.numpy(), DT)).all()


def test_names_that_no_module_may_have_are_changed() -> None:
    nodes = {
        "a.b": nir.Scale(full(0.5)),
        "a_b": nir.Linear(full(0.5, 2, 2)),
        "half": nir.Threshold(full(0.25)),
    }
    graph = around(nodes, ("input", "a.b"), ("a.b", "a_b"), ("a_b", "half"), ("half", "output"))
    assert list(from_nir(graph).parts) == ["a_b", "a_b_2", "half_2"]


# --- metadata that says another thing than the nodes ------------------------------------------------------


def test_changed_weights_count_and_their_codes_do_not() -> None:
    graph = to_nir(quantize_weights(nn.Linear(2, 2), 4), X)
    graph.nodes["linear"].weight[0, 0] += 1
    layer = from_nir(graph).parts["linear"]
    assert not is_quantized(layer)
    assert (layer.weight.detach().numpy() == graph.nodes["linear"].weight).all()


def test_a_changed_threshold_or_time_constant_counts_and_its_metadata_does_not() -> None:
    graph = to_nir(nn.Sequential(nn.Linear(2, 2), MFP(0.5)), X, dt=DT)
    graph.nodes["1"].threshold[:] = 0.25
    graph.nodes["1_leak"].tau[:] = 4 * DT
    neuron = from_nir(graph).parts["1"]
    assert (neuron.v_threshold, neuron.strict, neuron.kernel().decay) == (0.25, True, 0.75)


def test_metadata_of_the_wrong_kind_is_no_error() -> None:
    graph = to_nir(nn.Sequential(quantize_weights(nn.Linear(2, 2), 4), MFP(0.5, order=3)), X, dt=DT)
    graph.nodes["1"].metadata.update(order="many", kernel="sinc")
    graph.nodes["0"].metadata.update(codes=np.zeros(7, np.int8))
    assert (from_nir(graph)(X).detach().numpy() == by_numpy(graph, X.numpy(), DT)).all()


# --- refusals ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("nodes", "words"),
    [
        (
            [nir.LIF(full(2 * DT), full(1), full(0.5), full(1))],
            r"'lif' \(LIF\) leaks towards v_leak=0.5; our potentials leak to the potential that",
        ),
        (
            [nir.LIF(full(DT / 2), full(1), full(0), full(1))],
            r"'lif' \(LIF\) has a time constant of 0.0005 s",
        ),
        ([nir.CubaLIF(*(full(1) for _ in range(5)))], r"'cubalif' \(CubaLIF\) has two decays"),
        ([nir.CubaLI(*(full(1) for _ in range(4)))], r"'cubali' \(CubaLI\) has two decays"),
        ([li(2 * DT, v_leak=0.5), nir.Threshold(full(1))], r"'li' \(LI\) leaks towards v_leak=0.5"),
        ([li(DT / 2), nir.Threshold(full(1))], r"'li' \(LI\) has a time constant of 0.0005 s"),
        ([nir.Delay(np.full(2, 1.5 * DT)), nir.Threshold(full(1))], r"'delay' \(Delay\) lasts 1.5 steps"),
    ],
)
def test_a_node_that_has_no_place_is_named(nodes: list[Any], words: str) -> None:
    with pytest.raises(NIRError, match=words):
        from_nir(nir.NIRGraph.from_list(*nodes), dt=DT)


FIRE = nir.Threshold(full(1))
GRAPHS = {
    "has a cycle": around(
        {"fire": FIRE, "back": nir.Linear(full(0.5, 2, 2))},
        *(("input", "fire"), ("fire", "back"), ("back", "fire"), ("fire", "output")),
    ),
    "'inner' is a graph within the graph": around(
        {"inner": nir.NIRGraph.from_list(FIRE)}, ("input", "inner"), ("inner", "output"), type_check=False
    ),
    r"2 inputs \(input, b\)": around(
        {"b": nir.Input(np.array([2])), "fire": FIRE}, ("input", "fire"), ("b", "fire"), ("fire", "output")
    ),
}


@pytest.mark.parametrize("words", GRAPHS)
def test_a_graph_that_is_no_chain_of_layers_is_refused(words: str) -> None:
    with pytest.raises(NIRError, match=words):
        from_nir(GRAPHS[words])


@pytest.mark.parametrize("graph", [3, None, nn.Linear(2, 2)])
def test_only_graphs_and_paths_are_read(graph: Any) -> None:
    with pytest.raises(TypeError, match=r"graph must be a nir\.NIRGraph or a path"):
        from_nir(graph)


@pytest.mark.parametrize("dt", [0, -1.0, float("nan"), True])
def test_a_step_lasts_a_positive_time(dt: Any) -> None:
    with pytest.raises(ValueError, match="dt must be a positive number of seconds"):
        from_nir(nir.NIRGraph.from_list(nir.Threshold(full(1))), dt=dt)


@pytest.mark.parametrize("first", [np.float32, np.float64, np.int64])
@pytest.mark.parametrize("second", [np.float32, np.float64])
def test_arrays_of_any_dtype_make_a_network_in_float32(first: Any, second: Any) -> None:
    """Decays, gains, thresholds, factors and weights, each a channel, as NumPy makes them."""
    rng = np.random.default_rng(0)
    tau, threshold = rng.uniform(1e-3, 1e-2, 4).astype(second), rng.uniform(0.1, 0.5, 4)
    layers = (
        nir.Linear(rng.integers(-2, 3, (4, 3)).astype(first)),
        nir.Scale(rng.uniform(0.5, 2, 4).astype(second)),
        nir.LI(tau, np.ones(4, second), np.zeros(4, second)),
        nir.Threshold(threshold),
        nir.Affine(rng.normal(size=(2, 4)).astype(second), rng.normal(size=2)),
        nir.Scale(rng.uniform(0.5, 2, 2)),
    )
    graph = nir.NIRGraph.from_list(*layers)
    network = from_nir(graph, dt=DT)
    assert {tensor.dtype for tensor in network.state_dict().values()} == {torch.float32}
    x = torch.rand(9, 2, 3)
    y, expected = network(x).detach(), by_numpy(graph, x.numpy(), DT)
    assert y.dtype == torch.float32 and len(np.unique(expected)) > 4
    np.testing.assert_allclose(y.numpy(), expected, rtol=1e-5, atol=1e-6)
