"""Where waiting records lie on the disk: four numbers for each, in the order they are wanted."""

from __future__ import annotations

from array import array
from collections.abc import Collection
from itertools import compress
from typing import Final, NamedTuple

# The part that was taken is given back to the system when it is so long and half of all.
_TRIM_COUNT: Final = 4096


class Place(NamedTuple):
    """Which result it is, and where: `offset` bytes from the start of the segment file."""

    segment: int
    offset: int
    renderer: int
    sequence: int

    @property
    def key(self) -> tuple[int, int]:
        """The identity of the result in its run: (renderer, sequence)."""
        return (self.renderer, self.sequence)


class PlaceQueue:
    """Places, first in, first out, in 32 bytes each."""

    def __init__(self) -> None:
        self._columns = tuple(array("Q") for _ in Place._fields)
        self._head = 0  # So many were taken.

    def __len__(self) -> int:
        """How many wait."""
        return len(self._columns[0]) - self._head

    def append(self, place: Place) -> None:
        """Put one behind all others."""
        for column, number in zip(self._columns, place, strict=True):
            column.append(number)

    def take(self, count: int) -> list[Place]:
        """Take out the first `count`, or all if they are fewer."""
        end = min(self._head + count, len(self._columns[0]))
        taken = self._between(self._head, end)
        self._head = end
        if end >= _TRIM_COUNT and 2 * end >= len(self._columns[0]):
            for column in self._columns:
                del column[:end]
            self._head = 0
        return taken

    def remove(self, keys: Collection[tuple[int, int]]) -> list[Place]:
        """Take out those with one of these keys, in one pass over all."""
        _, _, renderers, sequences = self._columns
        waits = bytearray(len(renderers))
        removed = []
        for at in range(self._head, len(renderers)):
            if (renderers[at], sequences[at]) in keys:
                removed += self._between(at, at + 1)
            else:
                waits[at] = 1
        if removed:
            self._columns = tuple(array("Q", compress(c, waits)) for c in self._columns)
            self._head = 0
        return removed

    def _between(self, start: int, end: int) -> list[Place]:
        return [Place(*row) for row in zip(*(c[start:end] for c in self._columns), strict=True)]
