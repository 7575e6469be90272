"""From a trained torch model to whole numbers: the only way from modules to a :class:`Graph`."""

from dataclasses import replace
from fractions import Fraction
from math import prod
from typing import Any

import torch
from torch import Tensor, nn

from ..._checks import describe, log_once
from ...adapters import is_neuron
from ...history import Exponential, Matrix, as_row
from ...pooling import TimePool
from ...quantize import is_quantized
from ...quantize.layers import FLOAT_LAYERS
from ..check import check
from ..errors import InvalidNetworkError, LoweringError
from ..graph import Graph, Input, Neurons, Scores, Shape, synapse_bound
from . import arithmetic, pools, readout, reshape, states, steps, synapses
from .axes import Axis, Dims, flat, kinds, of_features, sizes
from .capture import Capture, StandIn, furthest, named, stand_ins
from .fold import scores as fold_scores
from .fold import thresholds, with_factors
from .neurons import read
from .rules import Lowering
from .symbols import Branch, Current, Draft, Map, Potential, Value

RULES = (arithmetic, pools, readout, reshape, synapses)  # importing them registers what they know


def lower_graph(model: nn.Module, example: Tensor, *, levels: int | None = None) -> Graph:
    r"""The integer network of a trained, quantized model.

    Args:
        model: convolutions, linear layers, batch norms, memory-free neurons, pools and sums; left exactly as
            it is, and read in evaluation mode.
        example: what it is given, [T, N, \*], or [N, \*] of a model that repeats an image over time itself.
            Only its dtype, shape and range matter. uint8: levels from 0 to 255, which reach the model as
            level / 255. bool: events. Floats: events if all are 0 or 1, else images in [0, 1] in 255 levels.
        levels: the largest level, where it is another: 16 for images of scikit-learn's digits divided by 16.

    Returns:
        A checked graph; ``steps`` is T of the example, or that of the model's own repetition, and ``fixed``
        whether the model gives another graph for another T.

    Raises:
        TypeError: model is no module, example no tensor of one of these dtypes.
        ValueError: the example is empty, has too few dimensions, NaN, or numbers outside [0, 1] or above
            levels; levels is not from 1 to 255.
        LoweringError: the model cannot be lowered; the message says which module, its type, why, and what to
            use instead.

    >>> from mfp_neurons import MFP, quantize_weights
    >>> fire = MFP(decay=0.5, order=2, kernel_bits="pow2")
    >>> model = quantize_weights(nn.Sequential(nn.Linear(8, 4), fire, nn.Linear(4, 3)))
    >>> graph = lower_graph(model, torch.zeros(5, 1, 8))
    >>> [(type(op).__name__, op.name, op.shape) for op in graph.ops]
    [('Neurons', '1', (4, 1, 1)), ('Scores', '2', (3, 1, 1))]
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"model must be a torch.nn.Module, got {describe(model)}")
    top = _top(example, levels)
    model = getattr(model, "_orig_mod", model)  # torch.compile's wrapper
    _check_that_weights_are_quantized(model)
    whole = top > 1 and not example.is_floating_point()
    readings = [
        _Reading(example.shape, top, whole, timed) for timed in (True, False) if example.dim() > 1 + timed
    ]
    for reading in readings:
        try:
            graph = reading.graph(model)
            break
        except LoweringError as error:
            reading.error = error
    else:
        raise furthest(readings).error
    try:
        check(graph)
    except InvalidNetworkError as error:
        raise LoweringError(f"no integers of 32 and 64 bits compute this network: {error}") from error
    return graph


def _top(example: Any, levels: int | None) -> int:
    """The largest level of the input."""
    if not isinstance(example, Tensor):
        raise TypeError(f"example must be a torch.Tensor, got {describe(example)}")
    if example.dtype not in (torch.uint8, torch.bool) and not example.is_floating_point():
        raise TypeError(f"example must be uint8, bool or floating point, got {describe(example)}")
    if example.dim() < 2 or example.numel() == 0:
        raise ValueError(f"example must be [T, N, *] or [N, *], none of them empty, got {describe(example)}")
    if levels is not None and (
        isinstance(levels, bool) or not isinstance(levels, int) or not 1 <= levels <= 255
    ):
        raise ValueError(f"levels must be an integer from 1 to 255, got {describe(levels)}")
    if example.is_floating_point():
        real = example.detach()
        if not bool(((real >= 0) & (real <= 1)).all()):  # NaN included
            raise ValueError(
                f"example must lie in [0, 1], got numbers from {real.min().item():g} to "
                f"{real.max().item():g}; images of bytes go in as uint8"
            )
        return levels or (1 if bool(((real == 0) | (real == 1)).all()) else 255)
    if example.dtype == torch.bool:
        return levels or 1
    if levels and int(example.max()) > levels:
        raise ValueError(f"example must be at most levels={levels}, got {int(example.max())}")
    return levels or 255


def _check_that_weights_are_quantized(model: nn.Module) -> None:
    wholes = [module for module in model.modules() if _reads_its_parts(module)]
    inside = {child for whole in wholes for child in whole.modules()}
    real = [
        named(path, module)
        for path, module in model.named_modules()
        if isinstance(module, FLOAT_LAYERS) and not is_quantized(module) and module not in inside
    ]
    if real:
        raise LoweringError(
            f"{', '.join(real)}: weights that are real numbers, where integer hardware has codes of 1 to 8 "
            "bits. quantize_weights(model, bits=1) quantizes them; train the model with that"
        )


def _reads_its_parts(module: nn.Module) -> bool:
    """Whether the layers inside a module are none of the network: it is read, or refused, as a whole."""
    return is_neuron(module) or isinstance(module, nn.MultiheadAttention | nn.TransformerEncoderLayer)


class _Reading:
    """One way to read the example's dimensions.

    Args:
        shape: of the example.
        top: the largest level.
        whole: whether its numbers are the levels themselves, not fractions of the largest.
        timed: whether it is [T, N, *], not [N, *].
    """

    def __init__(self, shape: torch.Size, top: int, whole: bool, timed: bool) -> None:
        self.timed, self.whole = timed, whole
        self.features = tuple(shape[1 + timed :])
        self.input = Input(_as_map(self.features), self.features, top, static=not timed)
        self.steps = shape[0] if timed else None
        # a batch of 2 at least: there is no size by which one sample and one channel could be told apart
        self.batch = (Axis("N", max(2, shape[timed])),)
        self.handled = 0
        self.error: LoweringError | None = None

    def graph(self, model: nn.Module) -> Graph:
        """The network, which runs with any number of steps unless another one gives another network."""
        graph, forgetful = self._capture(model, self.steps)
        if self.steps is None:
            return graph
        try:
            more, _ = self._capture(model, steps.other_steps(graph.steps, graph.period))
        except LoweringError:
            return replace(graph, fixed=True)
        last = more.scores.last
        if graph.scores.last is None and last == graph.steps // graph.periods[-1]:  # x[-T:] of the example
            graph = replace(graph, ops=(*graph.ops[:-1], replace(graph.scores, last=last)))
        if not steps.same((graph.input, graph.ops), (more.input, more.ops)):
            return replace(graph, fixed=True)
        if forgetful and not graph.fixed:
            _say_that_they_forget(forgetful, graph.steps)
        return graph

    def _capture(self, model: nn.Module, count: int | None) -> tuple[Graph, list[str]]:
        """The network that ``count`` steps give, and the neurons in it that remember fewer than PyTorch's."""
        kept = Fraction(self.steps or 1, count or 1)
        lowering = Lowering(self.input, count, self.whole, kept, call_module)
        lowering.capture = Capture(model, lowering)
        time: Dims = () if count is None else ((Axis("T", count),),)
        dims = (*time, self.batch, *of_features(self.features))
        value = Value(Map(0, Fraction(1, self.input.top)), dims)
        try:
            out = lowering.capture.run(sizes(dims), value)
        finally:
            # a reading without any step has not come far: its error is about a time axis that is not there
            self.handled = lowering.capture.handled if self.timed or lowering.repeats else 0
        return _finished(lowering, out), lowering.forgetful


def _say_that_they_forget(names: list[str], steps: int) -> None:
    log_once(
        f"deploy.forgets.{names}",
        "%s: without an order a neuron remembers all earlier inputs in PyTorch, and the last %d (T of the "
        "example) in the integer network: in longer runs and streams the two differ. Make it with an order, "
        "such as order=%d (convert(model, order=%d) does), and train with that",
        ", ".join(names),
        steps,
        steps,
        steps,
    )


def _as_map(features: tuple[int, ...]) -> Shape:
    """(C, H, W) of features [C, H, W], [C, L] or [F]; more dimensions are channels."""
    if len(features) < 2:
        return (prod(features), 1, 1)
    if len(features) == 2:
        return (features[0], 1, features[1])
    return (prod(features[:-2]), features[-2], features[-1])


def call_module(low: Lowering, module: nn.Module, path: str, args: Any, kwargs: Any) -> Any:
    """What a call of a module gives, if it is not to be looked into."""
    if not stand_ins((args, kwargs)):
        return NotImplemented
    if is_neuron(module):
        return _fire(low, module, path, *args, **kwargs)
    if isinstance(module, TimePool) and type(module).forward is TimePool.forward:
        return pools.pool_time(low, module, *args, **kwargs)
    if synapses.is_brevitas(module):
        return synapses.brevitas_layer(low, module, *args, **kwargs)
    return NotImplemented


def _fire(low: Lowering, module: Any, path: str, *args: Any, **kwargs: Any) -> Any:
    """A layer of neurons."""
    _check_that_it_only_fires(low, module)
    x, *others = (*args, *kwargs.values())
    value = low.value(x, "the input of a neuron")
    if any(isinstance(one, StandIn) or (isinstance(one, Tensor) and bool(one.any())) for one in others):
        low.refuse("starts from a potential. Every sequence starts from rest: pass no mem")
    if isinstance(value.content, Potential):
        low.refuse(f"reads the membrane potential of {value.content.behind}. Use its spikes")
    count, value = _steps(low, module, path, value)
    states.check_start(module, low.refuse)
    current = low.current(value)
    values = read(module, path, int(count * low.kept), sizes(value.dims[2:]))
    if len(values.taps) not in (1, count):
        low.refuse(
            f"has a matrix kernel of T = {len(values.taps)} steps, and its input has {count}. Make it with "
            f"time_steps={count}"
        )
    kernel = module.kernel()
    low.fixed |= isinstance(kernel, Matrix)
    if isinstance(kernel, Exponential) and kernel.order is None and bool(as_row(kernel.decay).any()):
        low.forgetful.append(named(path, module))
    if max(values.taps.shape[2], len(values.v_threshold)) > 1:
        low.check_channels(value, 2, "taps or a threshold")
    branches = current.branches
    folded = thresholds([branch.affine for branch in branches], _bounds(low.draft, branches), values)
    made = tuple(with_factors(b.synapse, f) for b, f in zip(branches, folded.factors, strict=True))
    index = low.draft.add(
        Neurons(path, made, values.taps, folded.thresholds, current.shape, folded.unit, folded.error)
    )
    spikes = low.stand_in(replace(value, content=Map(index, Fraction(1))), x.dtype)
    every = replace(value, content=Potential(named(path, module)))
    potential, last = low.stand_in(every), low.stand_in(replace(every, dims=every.dims[1:]))
    states.keep(module, last, potential, history=last)
    if not hasattr(module, "init_hidden") or (module.init_hidden and not module.output):
        return spikes
    return spikes, potential


def _check_that_it_only_fires(low: Lowering, module: nn.Module) -> None:
    """A class of the user's own may do more than the neuron that it is derived from."""
    for kind in type(module).__mro__:
        if kind.__module__.startswith(("mfp_neurons.", "spikingjelly.", "snntorch.")):
            return
        changed = [name for name in vars(kind) if name.endswith("forward") or name in ("fire", "_run")]
        if changed:
            low.refuse(
                f"computes in its own way ({kind.__name__}.{changed[0]}), which is not read. Use the neuron "
                "as it is, and put what it does besides into a module around it"
            )


def _steps(low: Lowering, module: nn.Module, path: str, value: Value) -> tuple[int, Value]:
    """T, and the value [T, N, *]."""
    if value.reduce or value.last:
        low.refuse("reads what was already reduced over time. Reduce over time behind the last neuron")
    first = kinds(value.dims[0]) if value.dims else set()
    if not first and low.steps is None and not value.has_time():  # a single step
        low.repeats = 1
        return 1, replace(value, dims=((Axis("T", 1),), *value.dims[1:]))
    if first != {"T"} or len(value.dims) < 2 or kinds(value.dims[1]) != {"N"}:
        read(module, path, 1, sizes(value.dims[1:]))  # one that takes single steps has a better word for it
        low.refuse(
            f"reads {_labels(value.dims)}. Neurons take whole sequences [T, N, *]: time first, then the "
            "batch, then features"
        )
    return value.dims[0][0].size, value


def _labels(dims: Dims) -> str:
    """Dimensions for messages: [T*N, 16]."""
    shown = [
        "*".join(axis.kind if axis.kind != "F" else str(axis.size) for axis in dim) if dim else "1"
        for dim in dims
    ]
    return f"[{', '.join(shown)}]"


def _bounds(draft: Draft, branches: tuple[Branch, ...]) -> list[Any]:
    return [synapse_bound(one.synapse, draft.top(one.synapse.source)) for one in branches]


def _finished(low: Lowering, out: Any) -> Graph:
    """The graph that computes what the model returned."""
    if not isinstance(out, StandIn):
        low.refuse(
            f"returns {_kind(out)}, not one tensor of scores that is computed from its input. Wrap it in a "
            "module that returns the scores alone"
        )
    value: Value = out.value
    content = value.content
    if isinstance(content, Potential):
        low.refuse(
            f"returns the membrane potential of {content.behind}, which is never written. Return its "
            "spikes, or the synapse's scores without a neuron"
        )
    features = _check_places(low, value)
    current = low.current(value)
    folded = fold_scores([b.affine for b in current.branches], _bounds(low.draft, current.branches))
    made = tuple(with_factors(b.synapse, f) for b, f in zip(current.branches, folded.factors, strict=True))
    scores = Scores(
        current.path if isinstance(content, Current) else low.draft.name(content),
        made,
        folded.offset,
        current.shape,
        features,
        folded.unit,
        folded.error,
        value.reduce or "none",
        value.last,
    )
    return low.draft.graph(scores, low.steps or low.repeats or 1, low.fixed)


def _check_places(low: Lowering, value: Value) -> tuple[int, ...]:
    """The shape of one sample's scores; they must be [N, *] or [T, N, *], in their own order."""
    assert not isinstance(value.content, Potential)
    timed = value.reduce is None
    places = [{"T"}, {"N"}][1 - timed :]
    front, rest = value.dims[: len(places)], value.dims[len(places) :]
    shape = low.draft.shape(value.content)
    ordered = rest == of_features(sizes(rest)) and flat(rest) == flat(of_features(shape))
    if [kinds(dim) for dim in front] != places or not ordered or (timed and value.last):
        low.refuse(
            f"returns {_labels(value.dims)}, which is not [N, *] reduced over time (x.mean(0), x.sum(0), "
            "x[-1], x[-k:].mean(0)) or [T, N, *] of every step. Return one of these, features in their "
            "order"
        )
    return sizes(rest)


def _kind(out: Any) -> str:
    if isinstance(out, tuple | list):
        return f"a {type(out).__name__} of {len(out)}"
    return f"a {type(out).__name__}"
