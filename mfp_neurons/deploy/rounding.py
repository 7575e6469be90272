"""Taps that are no whole numbers, rounded on the way to integers; and what that changes, measured."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from .._undisturbed import undisturbed
from ..adapters import describe_neuron
from ..history import FIR, Exponential, KernelBits, Matrix, quantize_taps
from ..network import NetworkDescription
from ..network.describing import check_model
from ..network.description import NeuronReset, Neurons
from .events import dense
from .graph import Neurons as IntegerNeurons
from .integer_network import IntegerNetwork
from .neurons import channels_of, has_real_taps

_SAMPLES = 32  # of the example that are measured


def rounded(network: NetworkDescription, bits: KernelBits) -> tuple[NetworkDescription, tuple[str, ...]]:
    """The network with its real taps on the grid of ``bits``, as ``convert`` puts them there.

    Returns:
        It, and the layers that had real taps, for messages. Taps that are whole numbers times a power of two
        stay as they are. Own taps are rounded with the others.
    """
    layers, names = list(network.layers), []
    for number, layer in enumerate(layers):
        # an exponential without an order has that of the example, behind a pooling over time in its own steps
        steps = network.steps // layer.period
        # the potential of neurons whose spikes nobody needs is a sum of real numbers, as scores are
        fires = network.reads_spikes(number)
        if isinstance(layer, Neurons) and fires and has_real_taps(layer, steps):
            layers[number] = _rounded(layer, bits, steps)
            names.append(layer.where)
    return replace(network, layers=tuple(layers)), tuple(names)


def _rounded(layer: Neurons, bits: KernelBits, steps: int) -> Neurons:
    kernel, options = layer.kernel, layer.options | {"kernel_bits": bits}
    if isinstance(kernel, Matrix):
        flat = quantize_taps(kernel.matrix.tril().reshape(-1), bits)
        return replace(layer, kernel=Matrix(flat.reshape_as(kernel.matrix)), options=options)
    if isinstance(kernel, FIR):
        taps = quantize_taps(kernel.taps, bits)
    else:
        taps = kernel.lagged_taps(steps if kernel.order is None else kernel.order, 1, bits)
    reset = layer.reset
    if reset is not None and reset.kind != "zero":
        reset = replace(reset, taps=_rounded_own_taps(layer, reset, bits, steps), delay=False)
    return replace(layer, kernel=FIR(taps), reset=reset, options=options)


def _rounded_own_taps(layer: Neurons, reset: NeuronReset, bits: KernelBits, steps: int) -> Tensor:
    """r[1] .. r[R]; of a subtracted threshold the part is rounded that is left of it."""
    if reset.kind == "feedback":
        assert reset.taps is not None
        return quantize_taps(reset.taps, bits)
    threshold = torch.from_numpy(channels_of(layer, "threshold", layer.threshold, layer.threshold_shape))
    kernel, is_delayed = layer.kernel, reset.delay
    order = steps - 1 if reset.taps is None else len(reset.taps)
    taps = None if reset.taps is None else reset.taps.reshape(order, -1)
    if taps is not None:
        is_delayed = bool((taps[0] == -threshold).all())
    if isinstance(kernel, Exponential):
        left = Exponential(kernel.decay).taps(order + 1)
    else:
        assert taps is not None
        left = taps / -threshold
        left = torch.cat((left, left[-1:])) if is_delayed else torch.cat((torch.ones_like(left[:1]), left))
    left = quantize_taps(left, bits)
    taps = -threshold * (left[:-1] if is_delayed else left[1:]).double()
    return taps.squeeze(1) if taps.shape[1] == 1 else taps


def what_changed(
    model: nn.Module,
    example: Tensor,
    network: IntegerNetwork,
    names: Sequence[str],
    bits: KernelBits,
    batch_first: bool = False,
    calls: int | None = None,
    mean: Any = 0.0,
    std: Any = 1.0,
) -> str:
    """A sentence on the spikes that rounding made others, of the model and the network on the example.

    ``batch_first``: the example is [N, T, \\*]. ``calls`` is how often a model is called with one step; None
    for once, with all steps.
    """
    static = network.graph.input.static or calls is not None
    x = example[:_SAMPLES] if static or batch_first else example[:, :_SAMPLES]
    inputs, ours = network.graph.input, network.run_events(x.transpose(0, 1) if batch_first else x).spikes
    # levels reach the model as fractions, whole numbers as they are, and both normalized
    as_they_are = inputs.is_whole or x.is_floating_point() or x.dtype == torch.bool
    real = x.double() if as_they_are else x / inputs.top
    shape = (-1, *[1] * (len(inputs.features) - 1))
    real = (real - torch.as_tensor(mean).reshape(shape)) / torch.as_tensor(std).reshape(shape)
    theirs = _spikes_of(check_model(model), real, calls or 1)
    differ = total = 0
    for op in network.graph.ops:
        spikes = theirs.get(op.name)
        if isinstance(op, IntegerNeurons) and spikes is not None:
            fired = dense(ours[op.name], op.shape, spikes.shape[1], len(spikes))
            differ += int((fired != spikes.reshape(fired.shape)).sum())
            total += spikes.size
    samples = len(x) if static or batch_first else x.shape[1]
    measured = f"on {samples} samples of the example {differ:,} of {total:,} spikes are others"
    share = f" ({differ / total:.2%})" if total else ""
    return f"kernel_bits={bits!r} rounded the taps of {', '.join(names)}: {measured}{share}"


def _spikes_of(model: nn.Module, x: Tensor, times: int) -> dict[str, NDArray[np.bool_]]:
    """Whether the model's neurons fire, [T, N, *], by the path of their module, where it runs once."""
    like = next((p for p in model.parameters() if p.is_floating_point()), torch.zeros(()))
    x = x.to(like)
    calls: dict[str, list[Tensor]] = {}
    handles = []
    for path, module in model.named_modules():
        if describe_neuron(module) is not None:

            def keep(module: nn.Module, args: object, out: object, path: str = path) -> None:
                calls.setdefault(path, []).append(out[0] if isinstance(out, tuple) else out)  # type: ignore[arg-type]

            handles.append(module.register_forward_hook(keep))
    try:
        with undisturbed(model), torch.no_grad():
            for _ in range(times):
                model(x)
    finally:
        for handle in handles:
            handle.remove()
    spikes = {}
    for path, outs in calls.items():
        spec = describe_neuron(model.get_submodule(path))
        assert spec is not None
        if not spec.takes_sequences or len(outs) == 1:
            out = outs[0] if spec.takes_sequences else torch.stack(outs)
            spikes[path] = (out != 0).cpu().numpy()
    return spikes
