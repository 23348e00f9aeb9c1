"""The results in shared memory, as a logger sees them."""

from __future__ import annotations

import difflib
import gc
import mmap
import weakref
from collections.abc import Iterable, Sequence
from typing import Any, Final, NoReturn

import numpy as np
from numpy.typing import NDArray

from millpond.core.layout import Layout
from millpond.errors import ConfigError
from millpond_loggers.process.problem import OwnError

_NOTHING: Final = (None, ())


class KeptArrayError(OwnError):
    """A logger kept an array of a result past its release: the memory will be overwritten."""


class NoChannelError(KeyError):
    """A logger asked for a channel that its results do not have."""

    __str__ = Exception.__str__  # A KeyError shows its message between quotes.


class Arrays(dict[str, NDArray[Any]]):
    """The arrays of one result by the names of their channels.

    Raises:
        NoChannelError: For a name that is no channel.
    """

    def __missing__(self, name: object) -> NoReturn:
        """Say which channels there are; a `KeyError` has only the name."""
        raise NoChannelError(f"no channel {name!r}{_known(str(name), self)}")


class SharedResults:
    """The buffer of one logger: only what it was sent, and only until that is released.

    Args:
        layout: Where the channels lie.
        segment_fd: The segment, opened read-only.
        regid: The number of this logger.
        wanted: The channels that it is to see; None: all.

    Attributes:
        channels: Name to (shape, dtype) of those that the logger sees.
        initialized: True; there for loggers that were written for 3DB.
        keeps: Whether a result is the logger's until it calls `free`; set by the runner.

    Raises:
        ConfigError: The pond has no such channel.
    """

    def __init__(
        self,
        layout: Layout,
        segment_fd: int,
        *,
        regid: int,
        wanted: Sequence[str] | None = None,
    ) -> None:
        channels = dict(zip(layout.channels, layout.offsets, strict=True))
        names = [channel.name for channel in channels]
        for name in wanted or ():
            if name not in names:
                raise ConfigError(f"no channel '{name}'{_known(name, names)}", key="channels")
        if wanted is not None:
            channels = {c: offset for c, offset in channels.items() if c.name in wanted}
        self.channels = {channel.name: (channel.shape, channel.dtype) for channel in channels}
        self.initialized = True
        self.keeps = False
        self._regid = regid
        self._memory = self._map(segment_fd, layout.segment_bytes)
        self._slot_bytes = layout.slot_bytes
        self._places = [
            (channel.name, channel.shape, np.dtype(channel.dtype), offset)
            for channel, offset in channels.items()
        ]
        # For each open slot: the key of its result, and what was handed out of it.
        self._open: dict[int, tuple[tuple[int, int], list[weakref.ref[NDArray[Any]]]]] = {}
        self._freed: dict[int, None] = {}

    @staticmethod
    def _map(segment_fd: int, size_bytes: int) -> mmap.mmap:
        """Map the segment, so that a write into it is an error."""
        return mmap.mmap(segment_fd, size_bytes, mmap.MAP_SHARED, mmap.PROT_READ)

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
        arrays = Arrays()
        for name, shape, dtype, offset in self._places:
            arrays[name] = np.ndarray(shape, dtype, self._memory, start + offset)
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

    def free(self, result_ix: int, regid: int) -> None:  # noqa: ARG002  3DB's loggers give it.
        """Say that this logger is done with a result; of use to those that keep slots.

        For any other logger nothing follows: the runner releases, when `log` and `flush` have
        returned.  So it is with what is not, or no longer, with this logger.
        """
        if self.keeps and result_ix in self._open:
            self._freed[result_ix] = None

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
        names = list(self.channels)  # All of them were lent, each time that one was asked for.
        kept = {names[n % len(names)] for n, array in enumerate(lent) if array() is not None}
        if kept:
            shown = ", ".join(repr(name) for name in names if name in kept)
            what = f"array {shown} of this result is"
            if len(kept) > 1:
                what = f"arrays {shown} of this result are"
            after = "free()" if self.keeps else "log() returned"
            raise KeptArrayError(
                f"{what} still referred to after {after}, and this "
                "memory will be overwritten: keep a copy of it (array.copy(), tensor.clone())"
            )

    def forget(self, slot: int) -> None:
        """Hide a slot whose `log` raised, whatever is still referred to; the runner's."""
        self._open.pop(slot, None)
        self._freed.pop(slot, None)

    def take_freed(self) -> list[int]:
        """The slots that the logger has freed since the last time; the runner's."""
        freed = list(self._freed)
        self._freed.clear()
        return freed


def _known(name: str, names: Iterable[str]) -> str:
    """What to write instead of a name that is no channel."""
    names = list(names)
    nearest = difflib.get_close_matches(name, names, 1)
    hint = f"; did you mean '{nearest[0]}'?" if nearest else ";"
    return f"{hint} the channels are {', '.join(names)}"


def _not_here(result_ix: object) -> LookupError:
    return LookupError(f"result_ix {result_ix!r} is not, or no longer, with this logger")
