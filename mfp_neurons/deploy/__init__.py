"""From a trained, quantized network to whole numbers that run anywhere.

``graph`` says what an integer network is, ``check`` proves that one can be run, and ``interpret`` defines
what it computes. ``lowering`` folds the description of a torch model (:mod:`mfp_neurons.network`) into one,
``file`` stores it, ``integer_network`` is what the user holds. ``events`` runs it spike by spike, ``host``
compiled; ``device`` writes it as C; ``plan`` gives all of these their buffers. ``obstacles`` lists what keeps
a model from becoming one.
"""

# ruff: noqa: E402 (the first call turns NumPy's absence into a helpful error, before anything imports it)

from torch import Tensor, nn

from .._checks import log_once, require
from ..history import KernelBits

require("numpy", "deploy")

from .errors import InvalidNetworkError as InvalidNetworkError
from .errors import LoweringError as LoweringError
from .integer_network import EventRun as EventRun
from .integer_network import IntegerNetwork as IntegerNetwork
from .integer_network import Stream as Stream
from .lowering import Channels, lower_rounded
from .memory import Memory as Memory
from .obstacles import Check as Check
from .obstacles import Obstacle as Obstacle
from .obstacles import check as check
from .rounding import what_changed

__all__ = [
    "Check",
    "EventRun",
    "IntegerNetwork",
    "InvalidNetworkError",
    "LoweringError",
    "Memory",
    "Obstacle",
    "Stream",
    "check",
    "lower",
]


_ALL = "deploy.check(model, example) lists all that is in the way, at once."


def lower(
    model: nn.Module,
    example: Tensor,
    *,
    levels: int | None = None,
    kernel_bits: KernelBits = None,
    steps: int | None = None,
    mean: Channels = 0.0,
    std: Channels = 1.0,
) -> IntegerNetwork:
    r"""The integer network of a trained, quantized model: the same spikes, no potential stored, no floats.

    Args:
        model: synapses quantized to 1 to 8 bits, memory-free neurons or LIFs of SpikingJelly or snnTorch
            (LIFNode, IFNode, ParametricLIFNode, Leaky, Lapicque) with taps that are whole numbers times a
            power of two, and what may stand between them (docs/deployment.md). A loop over time around
            neurons that take single steps is followed. The model is left exactly as it is, and read in
            evaluation mode, from rest: states that its neurons hold are not part of the network.
        example: an input, [T, N, \*]; [N, T, \*] of a model that puts time first itself, whose network takes
            [T, N, \*] all the same; or [N, \*] of one that repeats an image over time itself. Only its
            dtype, its shape and the range of its values matter, unless taps are rounded. uint8: images of
            levels 0 to 255, which reach the model as level / 255. bool: events. Floats: events if all are 0
            or 1; images in [0, 1] or [-1, 1], rounded to 255 levels; or, where all are whole numbers, what
            signed integers are in any case: counts, or events of both signs, which reach the model as they
            are.
        levels: the largest level, where it is another: 16 for scikit-learn's digits divided by 16; the
            largest count, of the example's bits if it is not said; 255 at most.
        mean, std: what was subtracted from the images that the model was trained with, and what they were
            divided by then: one number, or one for each channel. The network takes the images as they were
            before, and so does ``example``.
        kernel_bits: rounds taps that are no whole numbers, of inputs and of own spikes, as
            ``convert(model, reset="keep", order=T, kernel_bits=...)`` does: "pow2", or 2 to 8 bits. ``notes``
            of the network, and the log, say how many spikes of the example that changes.
        steps: T, where the loop over time stands outside of the model: one that is called once for each step,
            and whose neurons go on from the step before. ``example`` is then one step [N, \*]. The network
            is that of the loop [model(x[t]) for t in range(T)]: it takes [T, N, \*], or [N, \*] to show the
            same at every step, and gives what the model returns at every step.

    Returns:
        :class:`IntegerNetwork`. T is the example's, or that of the model's own repetition. It runs with
        another T as the model does; where the model computes with T, it refuses another, and
        ``fixed_steps()`` of its graph says so.

    Raises:
        TypeError: model is no module, example no tensor of one of these dtypes.
        ValueError: the example is empty, has too few dimensions, NaN, or numbers of no kind above; levels,
            steps, mean or std are out of range.
        LoweringError: the model cannot be lowered; the message says which module, its type, why, and what to
            use instead. Nothing has been computed then. It is the first of what :func:`check` lists.

    >>> import torch
    >>> from mfp_neurons import MFP, quantize_weights
    >>> net = torch.nn.Sequential(torch.nn.Linear(8, 16), MFP(0.5, order=3), torch.nn.Linear(16, 4))
    >>> network = lower(quantize_weights(net, bits=1), torch.rand(5, 1, 8))  # [T, N, 8]
    >>> network.run(torch.rand(5, 10, 8)).shape
    (5, 10, 4)
    """
    try:
        graph, names, batch_first = lower_rounded(model, example, levels, kernel_bits, steps, mean, std)
        network = IntegerNetwork(graph)
    except LoweringError as error:
        raise LoweringError(f"{str(error).rstrip('.')}. {_ALL}") from error
    except InvalidNetworkError as error:
        raise LoweringError(f"no integers of 32 and 64 bits compute this network: {error}") from error
    if names:
        note = what_changed(model, example, network, names, kernel_bits, batch_first, steps, mean, std)
        log_once(f"deploy.kernel_bits.{note}", "%s", note)
        network.notes = (note,)
    return network
