"""Packed files: what comes out computes what went in, and what is no such file is refused."""

import json
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mfp_neurons.history import quantize_taps
from mfp_neurons.neuron import HistoryKernel
from mfp_neurons.quantize import codes, is_quantized
from mfp_neurons.train import checkpoint, network
from mfp_neurons.train.checkpoint import CheckpointError
from mfp_neurons.train.config import from_dict
from mfp_neurons.zoo import packed
from mfp_neurons.zoo.packed import Facts

BITS = st.sampled_from([1, 1.58, 2, 3, 4, 8])
EDGES = st.sampled_from([1, 3, 8, 32])  # 32: floats
# taps are packed of the second alone
NEURONS = st.sampled_from(
    [{}, {"kernel_bits": "pow2"}, {"kernel_bits": 4}, {"kind": "exp", "kernel_bits": "pow2"}]
)


def facts(weight_bits: float = 1, first_bits: int = 8, last_bits: int = 8, **neuron: object) -> Facts:
    """A small convolutional network with all of them."""
    settings = {
        "channels": [3],
        "hidden": [7],
        "weight_bits": weight_bits,
        "first_bits": first_bits,
        "last_bits": last_bits,
        "neuron": neuron,
    }
    config = from_dict({"network": settings})
    return Facts(json.loads(json.dumps(config.as_dict())), (2, 6, 5), 4, 3, 2, 255.0)


def build(made: Facts) -> torch.nn.Module:
    """The network, its parameters and running averages moved away from where they start."""
    built = network.build(from_dict(made.config).network, made.features, made.classes, made.time_steps)
    with torch.no_grad():
        built(torch.rand(made.time_steps, 9, *made.features))  # batch norms count
        for parameter in built.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    return built.eval()


@given(BITS, EDGES, EDGES, NEURONS, st.integers(0, 2**32))
@settings(max_examples=25, deadline=None)
def test_a_network_comes_back_with_the_same_codes_scales_and_scores(
    tmp_path_factory: pytest.TempPathFactory, bits: float, first: int, last: int, neuron: dict, seed: int
) -> None:
    torch.manual_seed(seed)
    made = facts(bits, first, last, **neuron)
    before = build(made)
    path = tmp_path_factory.mktemp("packed") / "net.safetensors"
    packed.save(path, before, made)
    after, found = packed.load(path)
    assert found == made
    for one, other in zip(before.modules(), after.modules(), strict=True):
        if is_quantized(one):
            assert torch.equal(codes(one).codes, codes(other).codes)
            assert torch.equal(codes(one).scale, codes(other).scale)
    x = torch.rand(made.time_steps, 5, *made.features)
    assert torch.equal(before(x), after(x))
    assert not after.training
    after.train()(x).sum().backward()
    weights = [p for name, p in after.named_parameters() if name.endswith("synapse.weight")]
    assert all(p.grad is not None and bool(p.grad.any()) for p in weights)


def test_a_bit_of_weight_takes_a_bit(tmp_path: Path) -> None:
    tensors, header = saved(tmp_path)
    assert header["layers"]["hidden.0.synapse"] == {"bits": 1, "shape": [7, 3 * 3 * 2]}
    codes = tensors["hidden.0.synapse.codes"]
    assert (codes.dtype, codes.numel()) == (torch.uint8, -(-7 * 18 // 8))
    assert "hidden.0.synapse.weight" not in tensors


def saved(folder: Path) -> tuple[dict[str, torch.Tensor], dict[str, object]]:
    torch.manual_seed(0)
    packed.save(folder / "net.safetensors", build(facts()), facts())
    return checkpoint.read(folder / "net.safetensors")  # type: ignore[return-value]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda t, h: t.pop("hidden.0.synapse.codes"), "hidden.0.synapse.codes"),
        (lambda t, h: t.update({"hidden.0.synapse.scale": torch.ones(6)}), "hidden.0.synapse has codes"),
        (lambda t, h: t["hidden.0.synapse.scale"].fill_(float("inf")), "does not hold the network"),
        (lambda t, h: t["hidden.0.synapse.scale"].neg_(), "no float32 weight has these codes"),
        (lambda t, h: t["readout.scale"].fill_(float("nan")), "no float32 step of 8 bits"),
        (lambda t, h: t.pop("hidden.0.norm.weight"), "hidden.0.norm.weight"),
        (lambda t, h: h.pop("scale"), "'scale'"),
        (lambda t, h: h["config"]["network"].update(hidden=[9]), "does not hold the network"),
        (lambda t, h: h["config"]["network"].update(weight_bits=2), "other quantized layers"),
        (lambda t, h: h["config"]["network"].update(hidden=0), "network.hidden = 0"),
        (lambda t, h: h.update(kind="network"), "no packed network"),
    ],
)
def test_a_file_that_does_not_hold_what_it_describes_is_refused(
    change: object, words: str, tmp_path: Path
) -> None:
    tensors, header = saved(tmp_path)
    change(tensors, header)  # type: ignore[operator]
    checkpoint.save(tmp_path / "broken.safetensors", tensors, header)
    with pytest.raises(CheckpointError, match=words):
        packed.load(tmp_path / "broken.safetensors")


def test_a_file_cut_off_anywhere_is_refused(tmp_path: Path) -> None:
    saved(tmp_path)
    whole = (tmp_path / "net.safetensors").read_bytes()
    for end in range(0, len(whole), 97):
        (tmp_path / "cut.safetensors").write_bytes(whole[:end])
        with pytest.raises(CheckpointError):
            packed.load(tmp_path / "cut.safetensors")


@given(
    st.integers(1, 9),
    st.sampled_from([None, 1, 5]),
    st.sampled_from([1e-38, 1e-3, 1.0, 1e30]),
    st.integers(0, 2**32),
)
def test_taps_come_back_as_they_are_after_quantization(
    order: int, channels: int | None, size: float, seed: int
) -> None:
    torch.manual_seed(seed)
    kernel = HistoryKernel("fir", decay=0.5, order=order, num_channels=channels, kernel_bits="pow2")
    with torch.no_grad():
        kernel.taps.copy_(torch.randn_like(kernel.taps) * size * torch.rand_like(kernel.taps) ** 8)
        kernel.taps[torch.rand_like(kernel.taps) < 0.2] = 0.0
    expected = quantize_taps(kernel.taps, "pow2").detach()
    codes, largest = packed.pack_taps(kernel)
    assert codes.dtype == torch.int8
    found = packed.unpack_taps(codes, largest)
    assert torch.equal(found, expected)
    assert torch.equal(quantize_taps(found, "pow2"), expected)


@pytest.mark.parametrize(
    ("codes", "largest"),
    [
        (torch.tensor([9]), torch.tensor([0])),
        (torch.tensor([[1, 2]]), torch.tensor([0])),
        (torch.tensor(1), torch.tensor([0])),
    ],
)
def test_what_is_no_packed_kernel_is_refused(codes: torch.Tensor, largest: torch.Tensor) -> None:
    with pytest.raises(ValueError, match="fit no kernel"):
        packed.unpack_taps(codes.to(torch.int8), largest.to(torch.int16))
