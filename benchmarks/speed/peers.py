"""The neurons that meet: ours, and every peer on the best path that its users have, with its defaults.

A peer says by raising :class:`~.timing.Skip` why it cannot run at some size; any other error
of it becomes a reason too. All see the same input [T, B, 32] and give spikes of that shape.
"""

import sys
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from mfp_neurons import convert, functional
from mfp_neurons._checks import require
from mfp_neurons.history import FIR, Exponential
from mfp_neurons.surrogate import ATan

from .calls import (
    FORWARD,
    Neuron,
    Peer,
    Size,
    neuron_traffic,
    norm_and_neuron_traffic,
    wide_spikes_traffic,
)
from .timing import Skip

JELLY, SNN = "MFPNode", "MFPLeakyParallel"
WIDE_STATE = "LIFNode, float32 state"
OLD = "0.0.0.0.14"
TAU, BETA = 2.0, 0.9
CHANNELS = 32  # the last dimension of every input: LeakyParallel's linear layer stays small
_WINDOW = 8  # steps that SlidingPSN looks back
_MOST_MACS = {"cpu": 2e10, "cuda": 5e12}  # multiplications of a T x T matrix: about a second
_MOST_CONVOLVED = _MOST_SLIDES = 1024  # steps
_MOST_UNROLLED, _MOST_UNROLLED_LIF = 64, 16  # steps that torch.compile takes well under a minute for
_HALF = (torch.float16, torch.bfloat16)


# --- SpikingJelly's side --------------------------------------------------------------------------------


def jelly(name: str) -> Any:
    """A module of spikingjelly.activation_based."""
    return require(f"spikingjelly.activation_based.{name}", "spikingjelly")


def reset_of(module: nn.Module) -> Callable[[], Any]:
    net = jelly("functional")
    return lambda: net.reset_net(module)


def mfp_node(size: Size) -> Neuron:
    node_class = require("mfp_neurons.spikingjelly", "spikingjelly").MFPNode
    node = node_class(tau=TAU, step_mode="m", surrogate_function=jelly("surrogate").ATan(), reset=None)
    return Neuron(node, reset_of(node))


def lif_node() -> Any:
    return jelly("neuron").LIFNode(tau=TAU, surrogate_function=jelly("surrogate").ATan(), step_mode="m")


def lif(size: Size) -> Neuron:
    node = lif_node()
    fused = size.device.type == "cuda" and size.dtype not in _HALF
    return Neuron(node, reset_of(node), note=_implementation(size) if fused else "loop of torch operators")


def _implementation(size: Size) -> str:
    found = jelly("functional.neuron").neuron_implementation("lif", size.device)
    return str(found["implementation"])


def lif_wide_state(size: Size) -> Neuron:
    """The fused operator wants a float32 state, which LIFNode gives half-precision inputs no longer."""
    if size.dtype not in _HALF:
        raise Skip("for half precision; LIFNode itself is the best path of float32")
    lif_multi_step = jelly("functional").lif_multi_step
    spike = jelly("surrogate").ATan()

    def call(x: Tensor) -> Tensor:
        state = torch.zeros(x.shape[1:], device=x.device)
        spikes, *_ = lif_multi_step(x, state, tau=TAU, surrogate_function=spike)
        return spikes  # type: ignore[no-any-return]

    return Neuron(call, note=_implementation(size))


def _lif_compiled(size: Size) -> Neuron:
    if size.dtype in _HALF:
        raise Skip("a loop of torch operators in half precision, compiled or not; see the float32 state")
    _check_compiled(size.steps, _MOST_UNROLLED_LIF, size.dtype)
    node = lif_node()
    return Neuron(_compiled(node), reset_of(node))


def _psn(size: Size) -> Neuron:
    _refuse_quadratic(size)
    psn = jelly("neuron").PSN(size.steps).to(size.device, size.dtype)
    return Neuron(psn, parameters=list(psn.parameters()))


def _sliding_psn(size: Size) -> Neuron:
    if size.steps > _MOST_SLIDES:
        raise Skip(f"writes a T x T matrix slice by slice on every call: not tried above T = {_MOST_SLIDES}")
    _refuse_quadratic(size)
    psn = jelly("neuron").SlidingPSN(min(_WINDOW, size.steps), step_mode="m").to(size.device, size.dtype)
    return Neuron(psn, parameters=list(psn.parameters()))


def _refuse_quadratic(size: Size) -> None:
    macs, limit = float(size.steps) * size.elements, _MOST_MACS[size.device.type]
    if macs > limit:
        raise Skip(f"quadratic in T: {macs:.1g} multiplications a call, not tried above {limit:.0g}")


def _old_lif(size: Size) -> Neuron:
    """Runs in the worker, where SpikingJelly is the old one. CuPy is used in training mode alone."""
    if size.dtype == torch.bfloat16:
        raise Skip("its CuPy kernels take float32 and float16")
    node = lif_node()
    if size.device.type == "cuda":
        require("cupy", "cuda12")
        node.backend = "cupy"
    return Neuron(node, reset_of(node), note=node.backend)


# --- snnTorch's side ------------------------------------------------------------------------------------


def _snn() -> Any:
    return require("snntorch", "snntorch")


def _mfp_leaky(size: Size) -> Neuron:
    neuron_class = require("mfp_neurons.snntorch", "snntorch").MFPLeakyParallel
    node = neuron_class(beta=BETA, reset_mechanism="none", init_hidden=True).to(size.device)
    return Neuron(node, node.reset_mem)


def _leaky(size: Size) -> Neuron:
    node = _snn().Leaky(beta=BETA).to(size.device)

    def call(x: Tensor) -> Tensor:
        mem, spikes = node.reset_mem(), []
        for step in x.unbind(0):
            spike, mem = node(step, mem)
            spikes.append(spike)
        return torch.stack(spikes)

    return Neuron(call, node.reset_mem, note="loop over time, reset by subtraction")


def _state_leaky(size: Size) -> Neuron:
    if size.steps > _MOST_CONVOLVED:
        raise Skip(f"a convolution of T taps, quadratic in T: not tried above T = {_MOST_CONVOLVED}")
    node = _snn().StateLeaky(beta=BETA, channels=CHANNELS).to(size.device)

    def forget() -> None:
        node.spk = None

    return Neuron(lambda x: node(x)[0], forget)


def _leaky_parallel(size: Size) -> Neuron:
    node = _snn().LeakyParallel(CHANNELS, CHANNELS, beta=BETA).to(size.device, size.dtype)
    parameters = [p for p in node.parameters() if p.requires_grad]
    return Neuron(node, parameters=parameters, note=f"has a linear layer of {CHANNELS} x {CHANNELS} in it")


# --- torch.compile: of the plain recursion that anybody would write, and of LIFNode ---------------------


Layer = Callable[[Tensor], Tensor]


class _Spike(torch.autograd.Function):
    """Heaviside forward, the derivative of ATan (alpha = 2) backward."""

    @staticmethod
    def forward(ctx: Any, v: Tensor) -> Tensor:
        ctx.save_for_backward(v)
        return (v >= 0).to(v.dtype)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:  # type: ignore[override]
        (v,) = ctx.saved_tensors
        return grad / (1 + (torch.pi * v) ** 2)


def recursion(tau: float) -> Layer:
    """The neuron in the fewest lines: u = (1 - 1/tau) u + x/tau, spikes where u >= 1, no reset.

    >>> recursion(2.0)(torch.tensor([[2.0], [0.0], [2.0]])).flatten()  # u = 1, 0.5, 1.25
    tensor([1., 0., 1.])
    """
    gain = 1 / tau

    def call(x_seq: Tensor) -> Tensor:
        u = torch.zeros_like(x_seq[0], dtype=torch.float32)
        spikes = []
        for x in x_seq.unbind(0):
            u = (1 - gain) * u + gain * x
            spikes.append(_Spike.apply(u - 1).to(x.dtype))
        return torch.stack(spikes)

    return call


def _check_compiled(steps: int, most: int, dtype: torch.dtype) -> None:
    """Raises :class:`Skip` where compiling takes minutes, or shows nothing new."""
    if steps > most:
        raise Skip(f"the compiler unrolls the loop over time, for minutes: not tried above T = {most}")
    if dtype == torch.bfloat16:
        raise Skip("compiled for float32 and float16 alone: each takes a minute more")


def _compiled(layer: Any) -> Layer:
    return torch.compile(layer, dynamic=False)  # type: ignore[no-any-return]


def forget_compiled() -> None:
    """Drops what was compiled for the row before."""
    if "torch._dynamo" in sys.modules:
        torch._dynamo.reset()


def _plain_compiled(size: Size) -> Neuron:
    _check_compiled(size.steps, _MOST_UNROLLED, size.dtype)
    return Neuron(_compiled(recursion(TAU)))


PEERS = (
    Peer(JELLY, JELLY, mfp_node, neuron_traffic),
    Peer("LIFNode", JELLY, lif),
    Peer(WIDE_STATE, JELLY, lif_wide_state),
    Peer("LIFNode, torch.compile", JELLY, _lif_compiled),
    Peer("PSN", JELLY, _psn),
    Peer("SlidingPSN", JELLY, _sliding_psn),
    Peer(f"LIFNode {OLD}, CuPy", JELLY, _old_lif, worker=True),
    Peer("MFPNode, worker process", JELLY, mfp_node, neuron_traffic, worker=True),
    Peer("plain recursion, torch.compile", JELLY, _plain_compiled),
    Peer(SNN, SNN, _mfp_leaky, wide_spikes_traffic),
    Peer("snn.Leaky", SNN, _leaky),
    Peer("StateLeaky", SNN, _state_leaky),
    Peer("LeakyParallel", SNN, _leaky_parallel),
)
BY_NAME = {peer.name: peer for peer in PEERS}


# --- resets: what they cost beside the neuron without one, and the LIF that has the same ----------------


PLAIN, TAPS = "no reset", "4 taps"
SOFT, HARD, FEEDBACK = "soft reset", "hard reset", "4 taps and 4 of feedback"
_REACH = 4  # steps that the taps look back


def _fire(reset: str | None) -> Callable[[Size], Neuron]:
    """The LIF's recursion with one of the resets that it takes, or with none."""

    def build(size: Size) -> Neuron:
        kernel = Exponential(1 - 1 / TAU, 1 / TAU)
        return Neuron(partial(functional.fire, kernel=kernel, surrogate=ATan(), reset=reset))

    return build


def _fire_of_taps(feeds_back: bool) -> Callable[[Size], Neuron]:
    """Learned taps: their sums are part of the backward."""

    def build(size: Size) -> Neuron:
        wide = torch.float64 if size.dtype == torch.float64 else torch.float32
        decays = (1 - 1 / TAU) ** torch.arange(_REACH, device=size.device, dtype=wide)
        taps, feedback = (decays / TAU).requires_grad_(), (-decays / TAU).requires_grad_()
        options: dict[str, Any] = dict(reset="feedback", reset_taps=feedback) if feeds_back else {}
        call = partial(functional.fire, kernel=FIR(taps), surrogate=ATan(), **options)
        return Neuron(call, parameters=[taps, feedback] if feeds_back else [taps])

    return build


def _lif_with(v_reset: float | None) -> Callable[[Size], Neuron]:
    def build(size: Size) -> Neuron:
        surrogate = jelly("surrogate").ATan()
        node = jelly("neuron").LIFNode(tau=TAU, v_reset=v_reset, surrogate_function=surrogate, step_mode="m")
        return Neuron(node, reset_of(node))

    return build


RESET_PEERS = (
    Peer(PLAIN, PLAIN, _fire(None), neuron_traffic),
    Peer(SOFT, PLAIN, _fire("subtract"), neuron_traffic),
    Peer(HARD, PLAIN, _fire("zero"), neuron_traffic),
    Peer(TAPS, TAPS, _fire_of_taps(False), neuron_traffic),
    Peer(FEEDBACK, TAPS, _fire_of_taps(True), neuron_traffic),
    Peer("LIFNode, soft reset", SOFT, _lif_with(None)),
    Peer("LIFNode, hard reset", HARD, _lif_with(0.0)),
)


# --- batch normalization and the neuron behind it, as two modules and as one ----------------------------


UNFUSED, FUSED = "norm + MFPNode", "norm + MFPNode, fused"


def norm_peers(work: str) -> tuple[Peer, ...]:
    """For inputs [T, N, C, H, W]. The forward alone is an evaluation, with the running averages."""
    build = _evaluating if work == FORWARD else _training
    return (
        Peer(FUSED, FUSED, build(_fused), norm_and_neuron_traffic),
        Peer(UNFUSED, FUSED, build(_followed_by(mfp_node)), norm_and_neuron_traffic),
        Peer("norm + LIFNode", FUSED, build(_followed_by(lif))),
        Peer(f"norm + {WIDE_STATE}", FUSED, build(_followed_by(lif_wide_state))),
    )


Make = Callable[[Size], tuple[nn.Module, Neuron]]


def _norm(size: Size) -> Any:
    return jelly("layer").BatchNorm2d(size.step[1], step_mode="m").to(size.device)


def _followed_by(build: Callable[[Size], Neuron]) -> Make:
    def make(size: Size) -> tuple[nn.Module, Neuron]:
        norm, node = _norm(size), build(size)
        return norm, Neuron(lambda x: node.call(norm(x)), node.reset, list(norm.parameters()), node.note)

    return make


def _fused(size: Size) -> tuple[nn.Module, Neuron]:
    pair = convert(nn.Sequential(_norm(size), lif_node()), fuse=True)
    return pair, Neuron(pair, reset_of(pair), list(pair.parameters()))


def _training(make: Make) -> Callable[[Size], Neuron]:
    return lambda size: make(size)[1]


def _evaluating(make: Make) -> Callable[[Size], Neuron]:
    def build(size: Size) -> Neuron:
        module, neuron = make(size)
        module.eval()
        return neuron

    return build
