"""What events add up to, compiled: the part of asynchronous execution that the work is in."""

import ctypes

import numpy as np

from ..events import Events
from ..graph import Ints, Synapse
from ..reached import Reached
from . import structs as c
from .layout import window_struct

_ARRAYS = ("time", "sample", "channel", "row", "column", "level")


class Scatter:
    """The compiled twin of :func:`.events.scatter`, for the synapses of one network.

    Codes are laid out by the channel that an event comes from, once, when a synapse is first reached.

    Raises:
        Unavailable: it cannot be built here; :func:`.compiled.unavailable` says why without raising.
    """

    def __init__(self) -> None:
        self._library = c.library()
        self._codes: dict[int, tuple[Synapse, np.ndarray, Ints]] = {}

    def __call__(
        self, synapse: Synapse, source: Events, samples: int, steps: int, by_level: bool
    ) -> tuple[Reached, int]:
        channels, height, width = synapse.shape
        _, codes, nonzero = self._laid_out(synapse)
        acc = np.zeros((steps * samples * height * width, channels), np.int32)
        reached = np.zeros(len(acc), np.uint8)
        given = [np.ascontiguousarray(getattr(source, name), np.int64) for name in _ARRAYS]
        call = c.ScatterStruct(*(array.ctypes.data for array in given), count=len(source), samples=samples)
        call.window = window_struct(synapse.window)
        call.channels, call.height, call.width = synapse.shape
        call.inner, call.each = synapse.codes.shape[1], channels // synapse.groups
        call.codes, call.nonzero, call.by_level = codes.ctypes.data, nonzero.ctypes.data, by_level
        call.acc, call.reached = acc.ctypes.data, reached.ctypes.data
        operations = self._library.mfp_network_scatter(ctypes.byref(call))
        places = np.flatnonzero(reached)
        return Reached(places, acc[places].astype(np.int64)), operations

    def _laid_out(self, synapse: Synapse) -> tuple[Synapse, np.ndarray, Ints]:
        """Codes int8 [C, rows, columns, outputs of a group], and how many of those outputs are not 0."""
        if id(synapse) not in self._codes:
            out, inner, *window = synapse.codes.shape
            groups = synapse.groups
            grouped = synapse.codes.reshape(groups, out // groups, inner, *window)
            codes = np.ascontiguousarray(np.moveaxis(grouped, 1, -1)).reshape(groups * inner, *window, -1)
            # the synapse is kept too, so that nothing else gets its id
            self._codes[id(synapse)] = synapse, codes, np.count_nonzero(codes, axis=-1).astype(np.int64)
        return self._codes[id(synapse)]
