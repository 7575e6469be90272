"""What the nodes say, and what NIR cannot."""

from pathlib import Path
from typing import Any

import nir
import numpy as np
import pytest
import torch
from torch import Tensor, nn

import mfp_neurons
from mfp_neurons import MFP, QuantizedMembraneLIF, TimePool, quantize_weights
from mfp_neurons.nir import NIRError, from_nir, to_nir
from mfp_neurons.quantize import codes
from tests.deploy.lowering import Do, Each, norm

X = torch.zeros(12, 2, 3)
IMAGES = torch.zeros(12, 2, 2, 4, 4)


def kinds(graph: Any) -> dict[str, str]:
    return {name: type(node).__name__ for name, node in graph.nodes.items()}


# --- neurons ----------------------------------------------------------------------------------------------


def test_an_exponential_is_a_leaky_integrator_with_a_scale_in_front() -> None:
    graph = to_nir(MFP(0.9, strict=True), X, dt=1e-3)
    assert kinds(graph) == {
        "input": "Input",
        "mfp_gain": "Scale",
        "mfp_leak": "LI",
        "mfp": "Threshold",
        "output": "Output",
    }
    node = graph.nodes["mfp_leak"]
    np.testing.assert_allclose(node.tau, 1e-3 / (1 - 0.9))
    assert (node.r == 1).all() and (node.v_leak == 0).all()
    np.testing.assert_allclose(graph.nodes["mfp_gain"].scale, 10, rtol=1e-6)
    assert (graph.nodes["mfp"].threshold == 1).all()
    assert graph.metadata["dt"] == 1e-3
    assert isinstance(to_nir(MFP(1.0), X).nodes["mfp_integrator"], nir.I)


def test_taps_are_a_shift_register_with_a_factor_at_each_place() -> None:
    neuron = MFP(0.5, order=3, stride=2, strict=True)
    graph = to_nir(neuron, X, dt=1e-3)
    assert kinds(graph) == {
        "input": "Input",
        "mfp_delay_2": "Delay",
        "mfp_tap_2": "Scale",
        "mfp_delay_4": "Delay",
        "mfp_tap_4": "Scale",
        "mfp": "Threshold",
        "output": "Output",
    }
    assert ("input", "mfp") in graph.edges  # the first tap is 1
    assert ("mfp_delay_2", "mfp_delay_4") in graph.edges
    np.testing.assert_allclose(graph.nodes["mfp_delay_4"].delay, 2e-3)
    assert (graph.nodes["mfp_tap_4"].scale == 0.0625).all()


def test_a_neuron_that_fires_on_equality_has_the_threshold_just_below() -> None:
    for strict in (False, True):
        node = to_nir(MFP(0.5, v_threshold=0.3, strict=strict), X).nodes["mfp"]
        exact = np.float32(0.3)
        assert node.threshold.dtype == np.float32
        assert (node.threshold == (exact if strict else np.nextafter(exact, np.float32(-1)))).all()
        assert node.metadata["comparison"] == (">" if strict else ">=")
        assert node.metadata["v_threshold"] == exact


def test_metadata_names_kernel_order_and_version() -> None:
    model = nn.Sequential(nn.Linear(3, 4), MFP(0.5, order=3, kernel_bits="pow2"))
    facts = to_nir(model, X).nodes["1"].metadata
    assert facts["kernel"] == "exp" and facts["order"] == 3 and facts["kernel_bits"] == "pow2"
    assert facts["decay"] == 0.5 and facts["path"] == "1" and facts["neuron"] == "MFP"
    assert facts["mfp_version"] == mfp_neurons.__version__


# --- layers -----------------------------------------------------------------------------------------------


def test_weights_are_float32_and_the_codes_are_in_the_metadata() -> None:
    layer = quantize_weights(nn.Linear(3, 4), bits=4)
    node = to_nir(layer, X).nodes["linear"]
    made = codes(layer)
    assert node.weight.dtype == np.float32
    assert node.metadata["codes"].dtype == np.int8 and node.metadata["bits"] == 4
    assert (node.metadata["codes"] == made.codes.numpy()).all()
    assert (node.weight == node.metadata["codes"] * node.metadata["scale"][:, None]).all()


def test_a_batch_norm_is_folded_in_float64() -> None:
    layer, bn = nn.Linear(3, 4), norm(nn.BatchNorm1d, 4).eval()
    graph = to_nir(nn.Sequential(layer, Each(bn)), X)
    assert kinds(graph) == {"input": "Input", "0": "Affine", "output": "Output"}
    with torch.no_grad():
        gain = bn.weight.double() / (bn.running_var.double() + bn.eps).sqrt()
        weight = layer.weight.double() * gain[:, None]
        bias = (layer.bias.double() - bn.running_mean.double()) * gain + bn.bias.double()
    assert (graph.nodes["0"].weight == weight.float().numpy()).all()
    np.testing.assert_allclose(graph.nodes["0"].bias, bias.numpy(), rtol=1e-6)


def test_a_layer_behind_two_norms_is_written_twice() -> None:
    norms = [nn.BatchNorm1d(4).eval(), nn.BatchNorm1d(4).eval()]
    norms[1].running_mean.fill_(1.0)
    fold = Do(lambda x, f, a, b, n: n(a(f(x))) + n(b(f(x))), nn.Linear(3, 4), *map(Each, norms), MFP())
    graph = to_nir(fold, X)
    assert list(kinds(graph).values()).count("Affine") == 2


@pytest.mark.filterwarnings("ignore:Using padding='same'")
@pytest.mark.parametrize(
    ("size", "options", "side", "written"),
    [
        ((1, 3), {"padding": (0, 1), "dilation": (2, 1)}, 3, [2, 1]),
        ((2, 2), {"padding": "same"}, 2, ["same"]),  # torch alone knows how that is meant
    ],
)
def test_grouped_and_oblong_windows_become_dense_square_ones_with_zeros(
    size: tuple[int, int], options: Any, side: int, written: list[Any]
) -> None:
    layer = Each(nn.Conv2d(4, 6, size, groups=2, **options))
    x = torch.rand(12, 2, 4, 5, 5)
    graph = to_nir(layer, x)
    node = graph.nodes["0"]
    assert node.weight.shape == (6, 4, side, side) and node.groups == 1
    assert np.atleast_1d(node.padding).tolist() == written
    assert np.count_nonzero(node.weight) == layer[0].weight.numel()
    again = from_nir(graph)
    assert again.parts["0"].groups == 2 and again.parts["0"].kernel_size == size
    with torch.no_grad():
        assert torch.equal(again(x), layer(x))


@pytest.mark.parametrize(
    ("model", "pool"),
    [
        (nn.Sequential(MFP(v_threshold=0.5), Each(nn.MaxPool2d(2))), "1_0"),
        (nn.Sequential(Each(nn.MaxPool2d(2)), MFP()), "0_0"),  # of spikes that come in
    ],
)
def test_a_max_pool_of_spikes_is_a_sum_above_one_half(model: nn.Module, pool: str) -> None:
    events = (torch.rand(12, 2, 2, 4, 4) > 0.7).float()
    graph = to_nir(model, events)
    assert kinds(graph)[pool] == "SumPool2d"
    assert (graph.nodes[f"{pool}_any"].threshold == 0.5).all()
    network = from_nir(graph)
    assert pool == "0_0" or isinstance(network.parts["1_0_any"], nn.MaxPool2d)
    assert torch.equal(network(events), model(events))


def test_what_goes_out_as_a_sum_has_a_node_of_its_own() -> None:
    model = Do(
        lambda x, a, b, n: n(a(x)) + n(b(x)), nn.Linear(3, 3), nn.Linear(3, 3), MFP(0.9, v_threshold=0.1)
    )
    graph = to_nir(model, X)
    assert [target for _, target in graph.edges].count("output") == 1
    x = torch.rand(15, 2, 3)
    assert torch.equal(from_nir(graph)(x), model(x))


def test_the_same_twice_is_one_edge_and_a_factor() -> None:
    model = Do(lambda x, f, n: n(f(x)) + n(f(x)), nn.Linear(3, 3), MFP(0.9, v_threshold=0.1))
    graph = to_nir(model, X)
    assert (graph.nodes["layers_1_scale"].scale == 2).all()


@pytest.mark.parametrize(
    ("read", "facts"),
    [
        (lambda x: x.mean(0), {"readout": "mean"}),
        (lambda x: x.sum(0), {"readout": "sum"}),
        (lambda x: x[-1], {"readout": "last"}),
        (lambda x: x[-3:].mean(0), {"readout": "mean", "readout_steps": 3}),
    ],
)
def test_what_is_read_out_over_time_is_in_the_metadata(read: Any, facts: dict[str, Any]) -> None:
    model = Do(lambda x, f, n: read(n(f(x))), nn.Linear(3, 3), MFP(0.9, v_threshold=0.1))
    graph = to_nir(model, X)
    assert {name: graph.metadata[name] for name in facts} == facts


def test_an_input_is_given_the_shape_that_its_first_reader_wants() -> None:
    model = Do(lambda x, c: c(x.unsqueeze(2)), Each(nn.Conv2d(1, 2, 3)))
    x = torch.rand(12, 2, 4, 4)
    graph = to_nir(model, x)
    assert graph.nodes["input"].input_type["input"].tolist() == [1, 4, 4]
    assert torch.equal(from_nir(graph)(x), model(x))


def test_float64_models_stay_float64(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(3, 4), MFP(0.9, v_threshold=0.1)).double()
    graph = to_nir(model, X.double())
    assert graph.nodes["0"].weight.dtype == graph.nodes["1"].threshold.dtype == np.float64
    x = torch.rand(15, 2, 3, dtype=torch.float64)
    nir.write(tmp_path / "model.nir", graph)
    for source in (graph, tmp_path / "model.nir"):
        assert torch.equal(from_nir(source)(x), model(x))


def test_brevitas_layers_are_exported_with_their_codes() -> None:
    brevitas = pytest.importorskip("brevitas.nn")
    layer = brevitas.QuantLinear(3, 4, bias=True)
    graph = to_nir(nn.Sequential(layer, MFP(0.9)), X)
    assert (graph.nodes["0"].metadata["codes"] == codes(layer).codes.numpy()).all()


# --- refusals ---------------------------------------------------------------------------------------------


# what no export reads is in tests/network/test_refusals.py
@pytest.mark.parametrize(
    ("model", "example", "words"),
    [
        (MFP(kernel="matrix", time_steps=12), X, r"the model \(MFP\) .*kernel='matrix'.*kernel='fir'"),
        (nn.Sequential(MFP(), TimePool(2)), X, r"'1' \(TimePool\) makes one step of every 2.*two graphs"),
        (nn.Sequential(nn.Linear(3, 3), nn.ReLU()), X, r"'1' \(ReLU\) calls relu, which NIR cannot say"),
        (QuantizedMembraneLIF(), X, r"QuantizedMembraneLIF\) keeps a potential .*it is the baseline"),
        (Each(nn.MaxPool2d(2)), IMAGES + 0.5, r"'0' \(MaxPool2d\) .* not spikes \('input'"),
        (Each(nn.Conv2d(2, 2, 1), nn.MaxPool2d(2)), IMAGES, r"\('0' stands before"),
        (Each(nn.MaxPool2d(3, ceil_mode=True)), IMAGES, r"ceil_mode=True\). Use ceil_mode=False"),
        (Each(nn.MaxPool2d(2, dilation=2)), IMAGES, r"dilation"),
        (Each(nn.Conv2d(2, 2, (2, 3))), IMAGES, r"window of \[2, 3\].* square"),
        (Do(lambda x: x * x), X, r"the model \(Do\) multiplies two tensors.* Add them, or export the parts"),
        (
            Do(lambda x: x[..., None] @ x.unsqueeze(3).mT),
            X,
            r"\(Do\) multiplies .* as matrices \(matmul\).*Export",
        ),
        (Do(lambda x: torch.cat([x, x], -1)), X, r"puts tensors side by side \(cat\).*linear layer"),
        (Do(lambda x: torch.roll(x, 1, -1)), X, r"takes features from other places \(roll\)"),
        (nn.Sequential(nn.Unflatten(2, (3, 1)), nn.Linear(1, 2)), X, r"'1' \(Linear\) .* every place, which"),
        (
            nn.Sequential(MFP(), nn.Unflatten(2, (3, 1)), nn.Linear(1, 2)),
            X,
            r"'2' \(Linear\) takes .* other places",
        ),
        (Do(lambda x: (x, x * 2)), X, "returns 2 tensors, and a graph .* gives one. Export a model for each"),
        (Do(lambda x: {"a": x, "b": x.amax(0)}), X, "returns 2 tensors"),
        (Do(lambda x: x.mean(0) * 2), X, "NIR has no time axis"),
        (Do(lambda x: x.unflatten(2, (1, 3)).mean(-1)), X, "takes the mean over some features"),
    ],
)
def test_what_nir_cannot_say_names_the_layer_and_what_to_do(
    model: nn.Module, example: Tensor, words: str
) -> None:
    with pytest.raises(NIRError, match=words):
        to_nir(model, example)


def test_nothing_is_written_then(tmp_path: Path) -> None:
    with pytest.raises(NIRError):
        to_nir(nn.ReLU(), X, path=tmp_path / "model.nir")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("dt", [0, -1e-3, float("nan"), float("inf"), True, "1ms"])
def test_a_step_lasts_a_positive_time(dt: Any) -> None:
    with pytest.raises(ValueError, match="dt must be a positive number of seconds"):
        to_nir(MFP(), X, dt=dt)


@pytest.mark.parametrize("moved", [nn.ZeroPad2d(1), nn.ChannelShuffle(2), nn.Upsample(scale_factor=2)])
def test_features_at_other_places_are_refused_with_what_nir_has(moved: nn.Module) -> None:
    model = nn.Sequential(MFP(0.5), nn.Flatten(0, 1), moved, nn.Unflatten(0, (3, 2)))
    with pytest.raises(NIRError, match=r"which NIR cannot say\. NIR has convolutions"):
        to_nir(model, torch.zeros(3, 2, 4, 5, 5))
