"""Batch normalization and the neuron behind it, as two modules and as one."""

from collections.abc import Callable
from typing import Any

from torch import nn

from . import traffic
from .calls import FORWARD, Neuron
from .contest import Contest, Peer, Size
from .peers import WIDE_STATE, jelly, lif, lif_node, lif_wide_state, mfp_node, reset_of

UNFUSED, FUSED = "norm + MFPNode", "norm + MFPNode, fused"


def contest(size: Size, work: str) -> Contest:
    """``size.step`` is [N, C, H, W]. The forward alone is an evaluation, with the running averages."""
    n, channels, height, width = size.step
    shape = f"T={size.steps},N={n},C={channels},{height}x{width}"
    build = _evaluating if work == FORWARD else _training
    peers = (
        Peer(FUSED, FUSED, build(_fused), traffic.norm_and_neuron),
        Peer(UNFUSED, FUSED, build(_followed_by(mfp_node)), traffic.norm_and_neuron),
        Peer("norm + LIFNode", FUSED, build(_followed_by(lif))),
        Peer(f"norm + {WIDE_STATE}", FUSED, build(_followed_by(lif_wide_state))),
    )
    return Contest(f"norm/{shape}/{size.dtype_name}/{work}", size, work, peers)


Make = Callable[[Size], tuple[nn.Module, Neuron]]


def _norm(size: Size) -> Any:
    return jelly("layer").BatchNorm2d(size.step[1], step_mode="m").to(size.device)


def _followed_by(build: Callable[[Size], Neuron]) -> Make:
    def make(size: Size) -> tuple[nn.Module, Neuron]:
        norm, node = _norm(size), build(size)
        return norm, Neuron(lambda x: node.call(norm(x)), node.reset, list(norm.parameters()), node.note)

    return make


def _fused(size: Size) -> tuple[nn.Module, Neuron]:
    from .._convert import convert

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
