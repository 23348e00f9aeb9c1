"""The results in shared memory, as a logger sees them."""

from __future__ import annotations

import gc
import mmap
import weakref
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from millpond.core.layout import Layout

_NOTHING: Final = (None, ())


class KeptArrayError(Exception):
    """A logger kept an array of a result past its release: the memory will be overwritten."""


class SharedResults:
    """The buffer of one logger: only what it was sent, and only until that is released.

    Args:
        layout: Where the channels lie.
        segment_fd: The segment, opened read-only.
        regid: The number of this logger.
    """

    def __init__(self, layout: Layout, segment_fd: int, *, regid: int) -> None:
        self.channels = {
            channel.name: (channel.shape, channel.dtype) for channel in layout.channels
        }
        self.initialized = True
        self._regid = regid
        self._memory = mmap.mmap(segment_fd, layout.segment_bytes, mmap.MAP_SHARED, mmap.PROT_READ)
        self._slot_bytes = layout.slot_bytes
        self._places = [
            (channel.name, channel.shape, np.dtype(channel.dtype), offset)
            for channel, offset in zip(layout.channels, layout.offsets, strict=True)
        ]
        # For each open slot: the key of its result, and what was handed out of it.
        self._open: dict[int, tuple[tuple[int, int], list[weakref.ref[NDArray[Any]]]]] = {}

    def register(self) -> int:
        """The number of this logger."""
        return self._regid

    def __getitem__(self, result_ix: int) -> dict[str, NDArray[Any]]:
        """The arrays of one result, read-only.

        Raises:
            LookupError: This logger has no such result now.
        """
        entry = self._open.get(result_ix)
        if entry is None:
            raise _not_here(result_ix)
        # Made on the memory itself, not cut from a larger array: numpy lets a slice refer to the
        # first array of its memory, and that must be the one whose end `close` looks for.
        start = result_ix * self._slot_bytes
        arrays: dict[str, NDArray[Any]] = {
            name: np.ndarray(shape, dtype, self._memory, start + offset)
            for name, shape, dtype, offset in self._places
        }
        entry[1].extend(map(weakref.ref, arrays.values()))
        return arrays

    def key_of(self, result_ix: int) -> tuple[int, int]:
        """The renderer and the sequence of one result: what tells it from all others of its run.

        Raises:
            LookupError: This logger has no such result now.
        """
        entry = self._open.get(result_ix)
        if entry is None:
            raise _not_here(result_ix)
        return entry[0]

    def free(self, result_ix: int, regid: int) -> None:
        """Take note of nothing: the runner releases, when `log` and `flush` have returned."""

    def open(self, slot: int, key: tuple[int, int]) -> None:
        """Let the logger see a slot, which holds the result of this key; the runner's."""
        self._open[slot] = key, []

    def close(self, slot: int) -> None:
        """Hide a slot again; the runner's.

        Raises:
            KeptArrayError: The logger still refers to an array of it.  It is hidden all the same.
        """
        _, lent = self._open.pop(slot, _NOTHING)
        for array in lent:
            if array() is not None:
                break
        else:
            return
        gc.collect()  # A cycle is not a keeper.
        if any(array() is not None for array in lent):
            raise KeptArrayError(
                "an array of this result is still referred to after log() returned, and its "
                "memory will be overwritten: keep a copy of it (array.copy())"
            )

    def forget(self, slot: int) -> None:
        """Hide a slot whose `log` raised, whatever is still referred to; the runner's."""
        self._open.pop(slot, None)


def _not_here(result_ix: object) -> LookupError:
    return LookupError(f"result_ix {result_ix!r} is not, or no longer, with this logger")
