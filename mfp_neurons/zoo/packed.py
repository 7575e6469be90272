"""A trained network in one small file: quantized weights at their bits, power-of-two taps, all else as it is.

A checkpoint (safetensors with JSON in its header) in which a quantized layer ``path`` has, instead of a
weight and its step, ``path.codes`` (the planes of ``deploy.pack``, one after the other, as bytes) and
``path.scale``, and a kernel of power-of-two taps ``path.codes`` and ``path.exponents`` (:mod:`.taps`). What
computes is kept, what training moved beneath it is not: the float weights that come back
(``quantize.latent``) quantize to the very same codes and scales.
"""

from dataclasses import asdict, fields
from math import prod
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mfp_neurons.deploy import pack
from mfp_neurons.quantize import Codes, codes
from mfp_neurons.quantize.latent import latent
from mfp_neurons.quantize.layers import QuantizedLayer
from mfp_neurons.train import checkpoint, network
from mfp_neurons.train.checkpoint import CheckpointError
from mfp_neurons.train.config import from_dict

from . import taps
from .runnable import Facts

KIND = "packed network"


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
        made = codes(layer)
        layers[name] = {"bits": made.bits, "shape": list(made.codes.shape)}
        del tensors[f"{name}.weight"]
        del tensors[f"{name}._extra_state"]  # the bits, which are in the header
        tensors.pop(f"{name}.weight_step", None)
        tensors[f"{name}.codes"] = _packed(made)
        tensors[f"{name}.scale"] = made.scale.flatten()
    kernels = taps.power_of_two_kernels(module)
    for name, kernel in kernels.items():
        del tensors[f"{name}.taps"]
        tensors[f"{name}.codes"], tensors[f"{name}.exponents"] = taps.pack(kernel)
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
            tensors[f"{name}.taps"] = taps.unpack(
                tensors.pop(f"{name}.codes"), tensors.pop(f"{name}.exponents")
            )
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


def _packed(made: Codes) -> Tensor:
    planes = pack.code_planes(made.codes.numpy(), made.bits)
    return torch.from_numpy(pack.words(planes.reshape(-1), 8))


def _unpack(name: str, bits: float, shape: list[int], tensors: dict[str, Tensor]) -> None:
    """Puts weight and step of one layer in the place of its codes and scale."""
    packed, scale = tensors.pop(f"{name}.codes"), tensors.pop(f"{name}.scale")
    planes, count = len(pack.plane_weights(bits)[0]), prod(shape)
    if packed.shape != (-(-planes * count // 8),) or scale.shape != (shape[0],):
        raise ValueError(f"{name} has codes {list(packed.shape)} and scales {list(scale.shape)} for {shape}")
    unpacked = pack.bits_of_words(packed.numpy(), planes * count).reshape(planes, *shape)
    whole = torch.from_numpy(pack.codes_of_planes(unpacked, bits))
    weight, step = latent(Codes(whole, scale.reshape(-1, *[1] * (len(shape) - 1)), bits))
    tensors[f"{name}.weight"] = weight
    if step is not None:
        tensors[f"{name}.weight_step"] = step
