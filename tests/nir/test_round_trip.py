"""There and back, in memory and through a file: the same network, spike for spike, for over ten steps."""

import tempfile
from pathlib import Path
from typing import Any

import nir
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from mfp_neurons import MFP, deploy, quantize_weights
from mfp_neurons.nir import from_nir, to_nir
from mfp_neurons.quantize import codes, is_quantized

from .execute import by_nirtorch, by_numpy
from .models import Each, dense, images, neurons, rounded

# torch's own, of windows with an even number of rows
pytestmark = pytest.mark.filterwarnings("ignore:Using padding='same'")

DT = 1e-4


def back(model: nn.Module, example: Tensor) -> tuple[Any, list[nn.Module]]:
    """The graph of a model, and what comes back of it: from the graph, and from the file."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.nir"
        graph = to_nir(model, example, path=path)
        return graph, [from_nir(graph), from_nir(path), from_nir(nir.read(path))]


def check(model: nn.Module, x: Tensor) -> Any:
    """The graph of a model that comes back as it was."""
    graph, networks = back(model, x)
    with torch.no_grad():
        expected = model(x)
        assert all(torch.equal(one(x), expected) for one in networks)
    return graph


@pytest.mark.parametrize("networks", [dense, images])
@given(data=st.data())
def test_a_network_comes_back_as_it_was_and_its_graph_computes_the_same(
    networks: Any, data: st.DataObject
) -> None:
    model, x = data.draw(networks())
    graph = check(model, x)
    expected = model(x).detach()
    assert (by_numpy(graph, x.numpy(), DT) == expected.numpy()).all()
    assert torch.equal(by_nirtorch(graph, x, DT), expected)


@pytest.mark.parametrize("padding", [0, 1, "same"])
@pytest.mark.parametrize("options", [{}, {"stride": 2}, {"dilation": 2}], ids=str)
def test_a_convolution_over_a_line_comes_back_from_a_file(
    padding: int | str, options: dict[str, int]
) -> None:
    if padding == "same" and "stride" in options:
        pytest.skip("torch has no such padding with a stride")
    torch.manual_seed(0)
    check(
        nn.Sequential(Each(nn.Conv1d(2, 3, 3, padding=padding, **options)), MFP(0.5)), torch.rand(12, 3, 2, 9)
    )


@given(dense())
@settings(max_examples=20)
def test_norses_leaky_integrators_compute_what_ours_do(drawn: tuple[nn.Module, Tensor]) -> None:
    pytest.importorskip("norse")
    model, x = drawn
    with torch.no_grad():
        assert torch.equal(by_nirtorch(to_nir(model, x), x, DT, norse=True), model(x))


@given(st.data(), st.integers(0, 2**32 - 1))
def test_any_decays_taps_and_weights_come_back_bit_for_bit(data: st.DataObject, seed: int) -> None:
    torch.manual_seed(seed)
    channels = data.draw(st.integers(1, 4))
    own = {"num_channels": channels} if data.draw(st.booleans()) else {}
    kind = data.draw(st.sampled_from(["exp", "finite", "fir", "learned"]))
    options = {
        "exp": {},
        "finite": {"order": data.draw(st.integers(1, 20)), "stride": 1},
        "fir": {
            "kernel": "fir",
            "order": 5,
            "stride": 2,
            "kernel_bits": data.draw(st.sampled_from([None, 5])),
        },
        "learned": {"learnable": True, "learn_threshold": True},
    }[kind]
    neuron = MFP(data.draw(st.floats(0.01, 0.99)), v_threshold=0.1, **own, **options)
    with torch.no_grad():
        for parameter in neuron.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.3)
    model = nn.Sequential(nn.Linear(3, channels), neuron, nn.Linear(channels, 2))
    check(model, torch.randn(15, 4, 3))


@pytest.mark.parametrize("bits", [1, 1.58, 2, 4, 8])
def test_quantized_layers_come_back_quantized_with_the_same_codes(bits: float) -> None:
    torch.manual_seed(0)
    norm = nn.BatchNorm2d(6)
    for tensor in (norm.running_mean, norm.weight.data, norm.bias.data):
        tensor.normal_()
    norm.running_var.uniform_(0.1, 2)
    layers = [Each(nn.Conv2d(2, 6, 3, bias=False)), Each(norm), MFP(0.9, v_threshold=0.2), nn.Flatten(2)]
    model = nn.Sequential(*layers, nn.Linear(24, 5), MFP(0.5), nn.Linear(5, 3)).eval()
    quantize_weights(model, bits, first=bits, last=bits)
    x = torch.rand(20, 3, 2, 4, 4)
    before = [codes(layer) for layer in model.modules() if is_quantized(layer)]
    for one in back(model, x)[1]:
        after = [codes(layer) for layer in one.modules() if is_quantized(layer)]
        assert len(after) == len(before) == 3
        for a, b in zip(after, before, strict=True):
            assert torch.equal(a.codes, b.codes) and torch.equal(a.scale, b.scale) and a.bits == b.bits
    check(model, x)


def test_what_comes_back_can_be_deployed() -> None:
    torch.manual_seed(0)
    fire = MFP(kernel="fir", order=4, num_channels=16, kernel_bits="pow2", v_threshold=0.3)
    model = quantize_weights(nn.Sequential(nn.Linear(8, 16), fire, nn.Linear(16, 4)), 1)
    x = torch.randint(2, (12, 5, 8)).float()
    again = from_nir(to_nir(model, x))
    assert (deploy.lower(again, x).run(x.numpy()) == deploy.lower(model, x).run(x.numpy())).all()


@given(st.data(), st.integers(0, 2**32 - 1))
def test_a_potential_on_the_threshold_fires_where_it_did(data: st.DataObject, seed: int) -> None:
    torch.manual_seed(seed)
    neuron = data.draw(neurons(3))
    x = torch.randint(-4, 5, (13, 4, 3)) / 4
    graph = check(neuron, x)
    assert (by_numpy(graph, x.numpy(), DT) == neuron(x).detach().numpy()).all()


def test_ties_are_common_in_these_networks() -> None:
    torch.manual_seed(0)
    layer = rounded(nn.Linear(3, 20))
    x = torch.randint(-4, 5, (13, 10, 3)) / 4
    fired, strictly = (MFP(0.5, strict=strict)(layer(x)) for strict in (False, True))
    assert int((fired != strictly).sum()) > 5
