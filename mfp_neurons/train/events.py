"""A simulated event camera that looks at a still image in three saccades.

The protocol is that of N-MNIST (Orchard, Jayawant, Cohen, Thakor, Frontiers in Neuroscience 2015,
doi:10.3389/fnins.2015.00437): the camera moves along a triangle and back, 100 ms a side. Here the camera is
a model. A pixel remembers a log luminance; whenever the present one is a threshold above or below, it
sends an ON or an OFF event and moves the remembered value by that threshold. Thresholds differ a little
from pixel to pixel. Left out: noise events, leak, refractory time, bandwidth.

Everything after the tables is whole numbers, held in float32 far below 2**24, so that every machine makes
the same events.
"""

import functools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import pad

from mfp_neurons._checks import check_int, describe

DURATION = 300_000  # microseconds, all three saccades
CORNERS = ((-1, -1), (0, 1), (1, -1), (-1, -1))  # x to the right, y down, in units of the reach
SUBPIXELS = 16  # positions are whole sixteenths of a pixel
BRIGHTEST = 255 * SUBPIXELS**2  # a white pixel, interpolated
LOG_UNIT = 4096  # log luminance and thresholds are whole numbers of 1 / LOG_UNIT
MOMENTS = 48  # at least so many positions in a look
BATCH = 64  # images at a time: what is computed on stays in a processor's cache


@dataclass(frozen=True)
class Camera:
    """The simulated camera.

    Attributes:
        size: pixels along a side; the image is in the middle.
        reach: largest way of the image from the middle, in pixels.
        black, white: luminance of levels 0 and 255; only their ratio matters.
        threshold: change of log luminance that makes an event, mean over the pixels.
        mismatch: standard deviation of thresholds among the pixels, relative to the mean.
        seed: of the mismatch.

    Raises:
        ValueError: a value is out of range.
    """

    size: int = 34
    reach: int = 3
    black: float = 0.1
    white: float = 1.0
    threshold: float = 0.3
    mismatch: float = 0.1
    seed: int = 0

    def __post_init__(self) -> None:
        check_int("size", self.size, 1)
        check_int("reach", self.reach, 0)
        if not 0 < self.black < self.white < math.inf:
            raise ValueError(
                f"black and white must be 0 < black < white, got {self.black!r} and {self.white!r}"
            )
        if not 0.001 <= self.threshold < math.inf:
            raise ValueError(f"threshold must be 0.001 or more, got {self.threshold!r}")
        if not 0 <= self.mismatch < 1:
            raise ValueError(f"mismatch must be in [0, 1), got {self.mismatch!r}")

    def thresholds(self) -> Tensor:
        """Whole numbers of 1 / LOG_UNIT, float32 [2, size, size]: OFF, then ON."""
        generator = torch.Generator().manual_seed(self.seed)
        spread = torch.randn(2, self.size, self.size, generator=generator, dtype=torch.float64)
        factor = (1 + self.mismatch * spread).clamp(min=0.2)  # no pixel fires at nothing
        return (self.threshold * LOG_UNIT * factor).round().clamp(min=1).float()

    def logs(self) -> Tensor:
        """Log luminance above black of every interpolated level, whole numbers, float32 [BRIGHTEST + 1]."""
        step = (self.white / self.black - 1) / BRIGHTEST
        return torch.tensor([float(round(LOG_UNIT * math.log1p(step * v))) for v in range(BRIGHTEST + 1)])


class Events(NamedTuple):
    """Events in the order of time."""

    t: Tensor  #: microseconds, int64
    x: Tensor  #: column, pixels
    y: Tensor  #: row, pixels
    p: Tensor  #: 1 for ON, 0 for OFF


def frames(images: Tensor, time_steps: int, camera: Camera | None = None) -> Tensor:
    """Which pixels sent an event in each of ``time_steps`` equal parts of a look.

    Args:
        images: uint8 [N, H, W], no larger than the camera.
        time_steps: T, the number of frames.

    Returns:
        uint8 [N, T, 2, size, size] of 0 and 1; channel 0 is OFF, channel 1 is ON.

    Raises:
        TypeError, ValueError: what came is not that.

    >>> square = torch.zeros(1, 28, 28, dtype=torch.uint8)
    >>> square[:, 8:20, 8:20] = 255
    >>> frames(square, 16).shape
    torch.Size([1, 16, 2, 34, 34])
    >>> int(frames(torch.full_like(square, 0), 16).sum())  # nothing to see
    0
    """
    camera = camera or Camera()
    _check_images(images, camera)
    check_int("time_steps", time_steps, 1)
    parts = [_frames(batch, time_steps, camera) for batch in images.split(BATCH)]
    size = camera.size
    return torch.cat(parts) if parts else torch.empty(0, time_steps, 2, size, size, dtype=torch.uint8)


def events(image: Tensor, time_steps: int = 16, camera: Camera | None = None) -> Events:
    """The single events of a look; :func:`frames` says which pixels have any in each part of the time.

    Between two moments log luminance is taken to change evenly, as ESIM does (Rebecq, Gehrig, Scaramuzza,
    CoRL 2018), and an event has the time at which it crosses the pixel's threshold.

    Args:
        image: uint8 [H, W].
        time_steps: the frames that these events fill: a look has 48 moments, or more, a multiple of this.

    Raises:
        TypeError, ValueError: what came is not that.
    """
    camera = camera or Camera()
    _check_images(image.unsqueeze(0), camera)
    moments = moments_of(check_int("time_steps", time_steps, 1))
    parts = [
        _crossings(moment, index, moments, camera)
        for index, moment in enumerate(_look(image.unsqueeze(0), moments, camera))
    ]
    t, x, y, p = (torch.cat(column) for column in zip(*parts, strict=True))
    order = t.argsort(stable=True)
    return Events(t[order], x[order], y[order], p[order])


def moments_of(time_steps: int) -> int:
    """Moments in a look: 48 or more, the same number in each of ``time_steps`` frames."""
    return time_steps * math.ceil(MOMENTS / time_steps)


def position(moment: float) -> tuple[float, float]:
    """Where the image is at a moment of a look (0 to 1), x and y in units of the reach.

    A saccade starts and stops gently: half a cosine.

    >>> position(0.0), position(1.0)
    ((-1.0, -1.0), (-1.0, -1.0))
    """
    sides = len(CORNERS) - 1
    side = min(int(moment * sides), sides - 1)
    way = (1 - math.cos(math.pi * (moment * sides - side))) / 2
    (x0, y0), (x1, y1) = CORNERS[side], CORNERS[side + 1]
    return x0 + way * (x1 - x0), y0 + way * (y1 - y0)


def _check_images(images: Tensor, camera: Camera) -> None:
    if images.dtype != torch.uint8 or images.dim() != 3:
        raise TypeError(f"images must be uint8 [N, H, W], got {describe(images)}")
    if max(images.shape[1:]) > camera.size:
        raise ValueError(
            f"images of {images.shape[1]} x {images.shape[2]} do not fit into a camera of size {camera.size}"
        )


class _Moment(NamedTuple):
    """One moment of a look: log luminance now and before, memory before, events since. [N, size, size]."""

    level: Tensor
    before: Tensor
    memory: Tensor
    off: Tensor
    on: Tensor


def _look(images: Tensor, moments: int, camera: Camera) -> Iterator[_Moment]:
    off_threshold, on_threshold = _thresholds(camera)
    logs, plane = _logs(camera), _plane(images, camera)
    before = logs[_view(plane, 0.0, camera)]
    memory = before
    for index in range(1, moments + 1):
        level = logs[_view(plane, index / moments, camera)]
        change = level - memory
        # both quotients are of whole numbers far below 2**24, so rounding never reaches the next one
        on = (change / on_threshold).floor_().clamp_(min=0)
        off = (change / -off_threshold).floor_().clamp_(min=0)
        yield _Moment(level, before, memory, off, on)
        memory = memory + (on * on_threshold - off * off_threshold)
        before = level


_thresholds = functools.lru_cache(maxsize=4)(Camera.thresholds)
_logs = functools.lru_cache(maxsize=4)(Camera.logs)


def _plane(images: Tensor, camera: Camera) -> Tensor:
    """Images on black, wide enough for the camera to look at from every position."""
    height, width = images.shape[1:]
    top, left = (camera.size - height) // 2, (camera.size - width) // 2
    right, bottom = camera.size - width - left, camera.size - height - top
    reach = camera.reach  # one pixel more to the right and below, to interpolate with
    return pad(images.float(), (left + reach, right + reach + 1, top + reach, bottom + reach + 1))


def _view(plane: Tensor, moment: float, camera: Camera) -> Tensor:
    """What every pixel sees: levels times SUBPIXELS**2, bilinear between pixels, int32 [N, size, size]."""
    x, y = (round(SUBPIXELS * camera.reach * (1 - way)) for way in position(moment))
    # whole pixels say where to cut, the rest how neighbors mix; all in whole numbers
    (left, x_part), (top, y_part) = divmod(x, SUBPIXELS), divmod(y, SUBPIXELS)
    rows = plane[:, top : top + camera.size + 1]
    rows = rows[:, :-1] * (SUBPIXELS - y_part) + rows[:, 1:] * y_part
    columns = rows[:, :, left : left + camera.size + 1]
    mixed = columns[:, :, :-1] * (SUBPIXELS - x_part) + columns[:, :, 1:] * x_part
    return mixed.to(torch.int32)


def _frames(images: Tensor, time_steps: int, camera: Camera) -> Tensor:
    moments = moments_of(time_steps)
    bits = torch.zeros(len(images), time_steps, 2, camera.size, camera.size, dtype=torch.bool)
    for index, moment in enumerate(_look(images, moments, camera)):
        frame = bits[:, index * time_steps // moments]
        frame[:, 0] |= moment.off > 0
        frame[:, 1] |= moment.on > 0
    return bits.view(torch.uint8)


def _crossings(moment: _Moment, index: int, moments: int, camera: Camera) -> Events:
    """Events of one image between two moments, each at the time at which it crosses its threshold."""
    signs = torch.tensor([-1.0, 1.0]).reshape(2, 1, 1)
    counts = torch.cat([moment.off, moment.on]).long()  # [2, size, size]
    p, y, x = counts.nonzero(as_tuple=True)
    # a pixel that crosses n thresholds sends n events: its row of p, y, x is repeated, and numbered 1 to n
    many = counts[p, y, x]
    ends = many.cumsum(0)
    p, y, x = (v.repeat_interleave(many) for v in (p, y, x))
    nth = torch.arange(len(p)) - (ends - many).repeat_interleave(many) + 1  # 1, 2, ... at each pixel
    # between the two moments the log luminance is a straight line: when it meets each threshold follows
    crossed = moment.memory[0, y, x] + nth * (signs * _thresholds(camera))[p, y, x]
    before, level = moment.before[0, y, x], moment.level[0, y, x]
    share = ((crossed - before) / (level - before)).double().clamp(0, 1)
    # rounded up, so that t * T // DURATION is the frame of an event
    start, end = (-(-i * DURATION // moments) for i in (index, index + 1))
    t = (start + share * (end - 1 - start)).long()
    return Events(t, x, y, p)
