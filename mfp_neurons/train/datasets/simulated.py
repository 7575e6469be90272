"""Fashion-MNIST as a simulated event camera sees it, simulated once and kept at one bit a pixel.

Files are named by what they depend on (the images, the camera, the frames), so that they serve every run
and several processes can make them at once. A file holds images that lie together in the order in which
runs use them: a run with a ``limit`` simulates little more than it needs.
"""

import hashlib
import math
from pathlib import Path

import torch
from torch import Tensor

from mfp_neurons._build import cache_folder
from mfp_neurons._checks import log_once
from mfp_neurons._files import write_bytes
from mfp_neurons.train import events
from mfp_neurons.train.config import DataConfig
from mfp_neurons.train.datasets.images import read_fashion_mnist
from mfp_neurons.train.datasets.source import Source, pack, resize, shuffled

FORMAT = 1  # to be raised with every change of what the same images give
CHUNK = 500  # images in a file


def fashion_mnist_events(config: DataConfig) -> tuple[Source, Source]:
    """Binary frames [T, 2, 34, 34], packed; channel 0 is OFF, channel 1 is ON."""
    sources = []
    for images, labels in read_fashion_mnist(config):
        looks = Looks(images, config.time_steps, config.size)
        sources.append(Source(labels, looks.read, 1.0, looks.shape))
    train, test = sources
    return train, test


class Looks:
    """Packed frames of images, by index: simulated when they are read, or taken from the cache.

    Args:
        images: uint8 [n, H, W].
        time_steps: T.
        size: of the frames; 0: as the camera makes them.
    """

    def __init__(self, images: Tensor, time_steps: int, size: int = 0) -> None:
        self.images, self.time_steps, self.size = images, time_steps, size
        self.camera = events.Camera()
        self.order = shuffled(len(images))
        self.place = self.order.argsort()  # where in that order an image is
        side = size or self.camera.size
        self.shape = (2, side, side)
        self.bytes = -(-math.prod(self.shape) // 8)

    def read(self, indices: Tensor) -> Tensor:
        """uint8 [len(indices), T, bytes]."""
        packed = torch.empty(len(indices), self.time_steps, self.bytes, dtype=torch.uint8)
        places = self.place[indices]
        chunks = places // CHUNK
        # file by file: each is read, or simulated, once for all the images that are wanted of it
        for chunk in chunks.unique().tolist():
            wanted = chunks == chunk
            packed[wanted] = self._chunk(chunk)[places[wanted] - chunk * CHUNK]
        return packed

    def _chunk(self, number: int) -> Tensor:
        images = self.images[self.order[number * CHUNK : (number + 1) * CHUNK]]
        path = folder() / f"{self._fingerprint(images)}.bits"
        shape = (len(images), self.time_steps, self.bytes)
        packed = _stored(path, math.prod(shape))
        if packed is None:
            packed = self._simulate(images)
            _store(path, packed)
        return packed.reshape(shape)

    def _simulate(self, images: Tensor) -> Tensor:
        log_once(
            "simulated-events",
            "simulating what an event camera sees (once, under a millisecond an image), kept in %s",
            folder(),
        )
        parts = []
        for batch in images.split(events.BATCH):
            frames = events.frames(batch, self.time_steps, self.camera)
            parts.append(pack(resize(frames, self.size, frames=True)))
        return torch.cat(parts)

    def _fingerprint(self, images: Tensor) -> str:
        facts = (FORMAT, self.camera, tuple(images.shape), self.time_steps, self.size)
        return hashlib.sha256(repr(facts).encode() + images.numpy().tobytes()).hexdigest()[:24]


def folder() -> Path:
    """Where simulated events are kept: in the package's cache folder (``MFP_NEURONS_CACHE``)."""
    return cache_folder() / "simulated-events"


def _stored(path: Path, size: int) -> Tensor | None:
    """The bytes of a file, if it is there and has its checksum before them."""
    try:
        raw = path.read_bytes()
    except OSError:
        return None
    if len(raw) != size + 32 or hashlib.sha256(raw[32:]).digest() != raw[:32]:
        return None  # damaged: made anew
    return torch.frombuffer(bytearray(raw), dtype=torch.uint8, offset=32)


def _store(path: Path, packed: Tensor) -> None:
    body = packed.numpy().tobytes()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_bytes(path, hashlib.sha256(body).digest() + body)
    except OSError as error:
        log_once(
            "simulated-events-cache",
            "the cache folder %s cannot be written (%s): every process simulates events anew. "
            "MFP_NEURONS_CACHE can name another folder.",
            path.parent,
            error,
        )
