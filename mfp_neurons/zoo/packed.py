"""A trained network in one small file: weights as codes of few bits, power-of-two taps as bytes.

A checkpoint (safetensors with JSON in its header) in which a quantized layer ``path`` has, instead of a
weight and its step, ``path.codes`` (the planes of ``deploy.pack``, one after the other, as bytes) and
``path.scale``, and a kernel of power-of-two taps ``path.codes`` and ``path.exponents``. The quantized
values are stored exactly; the float weights behind them are not: those that come back (``quantize.latent``)
quantize to the very same codes and scales.
"""

from dataclasses import asdict, dataclass, fields
from math import prod
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mfp_neurons.deploy import pack
from mfp_neurons.history import quantize_taps
from mfp_neurons.neuron import HistoryKernel
from mfp_neurons.quantize import Codes, codes
from mfp_neurons.quantize.latent import latent
from mfp_neurons.quantize.layers import QuantizedLayer
from mfp_neurons.train import checkpoint, network
from mfp_neurons.train.checkpoint import CheckpointError
from mfp_neurons.train.config import from_dict

KIND = "packed network"
_LEVELS = 8  # powers of two that the taps of a channel may have


@dataclass(frozen=True)
class Facts:
    r"""What has to be known to build a network again and to give it its input, besides its weights.

    Attributes:
        config: the training config, as JSON has it.
        features, classes, time_steps: what the network was built for; its input is [T, N, \*features].
        readout_steps: scores are averaged over so many last steps.
        scale: samples of the data set were divided by it.
    """

    config: dict[str, Any]
    features: tuple[int, ...]
    classes: int
    time_steps: int
    readout_steps: int
    scale: float


def save(path: Path, module: nn.Module, facts: Facts) -> None:
    """Writes the network; an older file at ``path`` stays whole until the new one is.

    Args:
        path: where.
        module: what ``train.network.build`` made of these facts, in float32 on a CPU.
        facts: how to build it.
    """
    tensors: dict[str, Tensor] = dict(module.state_dict())
    layers: dict[str, Any] = {}
    for name, layer in _quantized(module).items():
        quantized = codes(layer)
        layers[name] = {"bits": quantized.bits, "shape": list(quantized.codes.shape)}
        del tensors[f"{name}.weight"]
        del tensors[f"{name}._extra_state"]  # the bits, which are in the header
        tensors.pop(f"{name}.weight_step", None)
        tensors[f"{name}.codes"] = _packed(quantized)
        tensors[f"{name}.scale"] = quantized.scale.flatten()
    # the grid of taps is powers of two of a channel, so a sign and a small number say all of a tap
    kernels = power_of_two_kernels(module)
    for name, kernel in kernels.items():
        del tensors[f"{name}.taps"]
        tensors[f"{name}.codes"], tensors[f"{name}.exponents"] = pack_taps(kernel)
    checkpoint.save(
        path, tensors, {"kind": KIND, "layers": layers, "kernels": list(kernels), **asdict(facts)}
    )


def load(path: Path) -> tuple[nn.Module, Facts]:
    """The network in eval mode, quantized weights bit for bit as they were saved.

    Raises:
        CheckpointError: the file is damaged or no packed network, or this release builds another network from
            its config.
    """
    tensors, header = checkpoint.read(path)
    if header.get("kind") != KIND:
        raise CheckpointError(f"{path} is a checkpoint, but no packed network")
    try:
        layers = header["layers"]
        facts = Facts(
            **{f.name: header[f.name] for f in fields(Facts)} | {"features": tuple(header["features"])}
        )
        config = from_dict(facts.config)
        module = network.build(config.network, facts.features, facts.classes, facts.time_steps)
        for name, layer in layers.items():
            _unpack(name, layer["bits"], layer["shape"], tensors)
        for name in header.get("kernels", ()):
            tensors[f"{name}.taps"] = unpack_taps(
                tensors.pop(f"{name}.codes"), tensors.pop(f"{name}.exponents")
            )
        # a state dict alone would be read with other bits: shapes do not tell them apart
        expected = {name: layer.weight_bits for name, layer in _quantized(module).items()}
        if expected != {name: layer["bits"] for name, layer in layers.items()}:
            raise ValueError("its config builds a network with other quantized layers")
        module.load_state_dict(tensors)
    except (ArithmeticError, KeyError, RuntimeError, TypeError, ValueError) as error:
        raise CheckpointError(f"{path} does not hold the network that it describes: {error}") from error
    return module.eval(), facts


def _quantized(module: nn.Module) -> dict[str, QuantizedLayer]:
    """Quantized layers by path; one that has several paths comes with each, as it does in the state dict."""
    named = module.named_modules(remove_duplicate=False)
    return {name: layer for name, layer in named if isinstance(layer, QuantizedLayer)}


def _packed(quantized: Codes) -> Tensor:
    planes = pack.code_planes(quantized.codes.numpy(), quantized.bits)
    return torch.from_numpy(pack.words(planes.reshape(-1), 8))


def _unpack(name: str, bits: float, shape: list[int], tensors: dict[str, Tensor]) -> None:
    """Puts weight and step of one layer in the place of its codes and scale."""
    packed, scale = tensors.pop(f"{name}.codes"), tensors.pop(f"{name}.scale")
    planes, count = len(pack.plane_weights(bits)[0]), prod(shape)
    # a file of another size could unpack to other codes without an error: sizes are compared here
    if packed.shape != (-(-planes * count // 8),) or scale.shape != (shape[0],):
        raise ValueError(f"{name} has codes {list(packed.shape)} and scales {list(scale.shape)} for {shape}")
    unpacked = pack.bits_of_words(packed.numpy(), planes * count).reshape(planes, *shape)
    quantized = torch.from_numpy(pack.codes_of_planes(unpacked, bits))
    weight, step = latent(Codes(quantized, scale.reshape(-1, *[1] * (len(shape) - 1)), bits))
    tensors[f"{name}.weight"] = weight
    if step is not None:
        tensors[f"{name}.weight_step"] = step


# --- power-of-two taps, a byte each: which of the eight powers of its channel, and the sign ----------------
#
# ``quantize_taps(taps, "pow2")`` gives 0 or +/-2^e with e from the channel's largest exponent down to seven
# below it, and leaves such taps as they are: what is unpacked computes the same, to the last bit.


def power_of_two_kernels(module: nn.Module) -> dict[str, HistoryKernel]:
    """Kernels of free power-of-two taps by path; one that has several paths comes with each."""
    named = module.named_modules(remove_duplicate=False)
    kernels = {name: kernel for name, kernel in named if isinstance(kernel, HistoryKernel)}
    return {name: k for name, k in kernels.items() if k.kind == "fir" and k.kernel_bits == "pow2"}


@torch.no_grad()
def pack_taps(kernel: HistoryKernel) -> tuple[Tensor, Tensor]:
    """Taps [K] or [K, C] as bytes of that shape, and each channel's largest exponent, int16 [1] or [C].

    A byte is 0 for a tap of 0, else its sign times 8 for the largest exponent, 7 for the next, down to 1.
    """
    taps: Tensor = quantize_taps(kernel.taps, "pow2")
    exponent = taps.frexp().exponent.int() - 1  # of 2^e, frexp is (1/2, e + 1)
    # a channel of zeros has no largest exponent; the lowest number stands for it and is never used
    lowest = torch.full_like(exponent, torch.iinfo(torch.int16).min)
    largest = torch.where(taps == 0, lowest, exponent).amax(0)
    codes = torch.where(taps == 0, 0, taps.sign() * (_LEVELS - largest + exponent))
    return codes.to(torch.int8), largest.reshape(-1).to(torch.int16)


def unpack_taps(codes: Tensor, largest: Tensor) -> Tensor:
    """The taps, float32, that :func:`pack_taps` has packed.

    Raises:
        ValueError: these are no packed taps.
    """
    if codes.dim() not in (1, 2) or largest.shape != (codes[0].numel(),) or int(codes.abs().amax()) > _LEVELS:
        raise ValueError(f"taps: {list(codes.shape)} codes and {list(largest.shape)} exponents fit no kernel")
    exponent = codes.abs().int() - _LEVELS + largest.int().reshape(codes.shape[1:])
    return torch.where(codes == 0, 0.0, torch.ldexp(codes.sign().float(), exponent))
