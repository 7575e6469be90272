"""Which rows the benchmark has on a device; on a GPU those that a target needs come first."""

from collections.abc import Iterator
from dataclasses import replace
from fnmatch import fnmatchcase
from typing import Any, Protocol

import torch

from .calls import FORWARD, TRAINING, Neuron, Peer, Size
from .contest import Contest
from .networks import Network
from .peers import CHANNELS, PEERS, RESET_PEERS, norm_peers
from .targets import TARGETS
from .timing import Effort, Skip
from .worker import Worker


class Row(Protocol):
    """Something to run that has a name."""

    @property
    def id(self) -> str: ...

    def run(self, effort: Effort, worker: Worker) -> dict[str, Any]: ...


_SMALL = (4, 3200)  # steps, neurons of a small layer, where calling costs more than computing
_CPU_SIZES = (_SMALL, (4, 1_600_000), (64, 100_000), (1024, 4096), (16, 400_000), (16_384, 1024))
_QUICK_SIZES = ((4, 640), (16, 320), (64, 320))
_LONG_AND_THIN = (16_384, 1024)
_MOST_IN_BFLOAT16 = 64  # steps
_MOST_WITH_RESET = 64  # steps: time is a loop, which LIFNode takes step by step
_STEPS = (4, 16, 64, 1024, 16_384)
_LARGE, _LARGER = 1 << 26, 1 << 28  # elements: a GPU's bandwidth shows, launches do not
_ROOMY = 40 << 30  # bytes of a GPU's memory for the larger


def rows(device: torch.device, *, quick: bool = False, only: tuple[str, ...] = ()) -> list[Row]:
    """The rows whose names match one of the patterns ``only`` (all, without any)."""
    every = [
        *_networks(device, quick),
        *_neurons(device, quick),
        *_resets(device, quick),
        *_norms(device, quick),
    ]
    if device.type == "cuda" and not quick:
        every.sort(key=wanted_by_a_target, reverse=True)
    return [row for row in every if not only or any(fnmatchcase(row.id, p) for p in only)]


def wanted_by_a_target(row: Row) -> bool:
    return any(fnmatchcase(row.id, target.row) for target in TARGETS)


def _neurons(device: torch.device, quick: bool) -> Iterator[Row]:
    for steps, neurons in _neuron_sizes(device, quick):
        for dtype in _dtypes_at(steps, neurons, device):
            size = Size(steps, (neurons // CHANNELS, CHANNELS), dtype, device)
            for work in (TRAINING, FORWARD):
                name = f"neuron/T={steps},N={neurons}/{size.dtype_name}/{work}"
                yield Contest(name, size, work, [_quick(peer) for peer in PEERS] if quick else PEERS)


def _resets(device: torch.device, quick: bool) -> Iterator[Row]:
    for steps, neurons in _neuron_sizes(device, quick):
        if steps > _MOST_WITH_RESET:
            continue
        for dtype in _dtypes(device):
            size = Size(steps, (neurons // CHANNELS, CHANNELS), dtype, device)
            name = f"reset/T={steps},N={neurons}/{size.dtype_name}/{TRAINING}"
            yield Contest(name, size, TRAINING, RESET_PEERS)


def _quick(peer: Peer) -> Peer:
    return replace(peer, build=_not_compiled) if peer.name.endswith("torch.compile") else peer


def _not_compiled(size: Size) -> Neuron:
    raise Skip("not compiled in a quick run")


def _neuron_sizes(device: torch.device, quick: bool) -> list[tuple[int, int]]:
    if quick:
        return list(_QUICK_SIZES)
    if device.type != "cuda":
        return list(_CPU_SIZES)
    roomy = torch.cuda.get_device_properties(device).total_memory >= _ROOMY
    elements = _LARGER if roomy else _LARGE
    return [*((steps, elements // steps) for steps in _STEPS), _LONG_AND_THIN]


def _dtypes(device: torch.device) -> tuple[torch.dtype, ...]:
    return (torch.float32, torch.float16, torch.bfloat16) if device.type == "cuda" else (torch.float32,)


def _dtypes_at(steps: int, neurons: int, device: torch.device) -> tuple[torch.dtype, ...]:
    """Fewer where the loops of the peers take seconds a call."""
    if (steps, neurons) == _LONG_AND_THIN:
        return (torch.float32,)
    return tuple(d for d in _dtypes(device) if d != torch.bfloat16 or steps <= _MOST_IN_BFLOAT16)


def _norms(device: torch.device, quick: bool) -> Iterator[Row]:
    step = (2, 4, 6, 6) if quick else (64, 128, 56, 56) if device.type == "cuda" else (32, 64, 28, 28)
    for dtype in _dtypes(device):
        for work in (TRAINING, FORWARD):
            size = Size(4, step, dtype, device)
            n, channels, height, width = step
            shape = f"T={size.steps},N={n},C={channels},{height}x{width}"
            name = f"norm/{shape}/{size.dtype_name}/{work}"
            yield Contest(name, size, work, norm_peers(work))


def _networks(device: torch.device, quick: bool) -> Iterator[Row]:
    if quick:
        yield _fashion(device, channels=4, batch=2)
    elif device.type == "cuda":
        yield _vgg(device, batch=16, side=224)
        yield _sew(device, batch=32, side=224)
        yield _fashion(device, channels=128, batch=128)
    else:
        yield _fashion(device, channels=32, batch=32)
        yield _vgg(device, batch=4, side=32)
        yield _sew(device, batch=8, side=32)


def _fashion(device: torch.device, *, channels: int, batch: int) -> Network:
    name, size = f"FashionMNISTNet-{channels}", (1, 28, 28)
    return Network(
        name, "parametric_lif_net", "FashionMNISTNet", batch, size, device,
        amp=device.type == "cuda", arguments={"channels": channels},
    )  # fmt: skip


def _vgg(device: torch.device, *, batch: int, side: int) -> Network:
    return Network(
        "VGG-11-BN", "spiking_vgg", "spiking_vgg11_bn", batch, (3, side, side), device,
        amp=device.type == "cuda",
    )  # fmt: skip


def _sew(device: torch.device, *, batch: int, side: int) -> Network:
    return Network(
        "SEW-ResNet-18", "sew_resnet", "sew_resnet18", batch, (3, side, side), device,
        amp=device.type == "cuda", arguments={"cnf": "ADD"},
    )  # fmt: skip
