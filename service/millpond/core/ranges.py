"""Sets of whole numbers kept as ranges, and sets of results kept so: a million in a row are one.

A result is known by its renderer and its sequence, which counts from 1 for each renderer.  What was
published, delivered or put on the disk is nearly always a long row of sequences.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator
from typing import Any, Final

# More numbers than this in one range that was read are damage, not results.
SPAN_MAX: Final = 2**32


class RangeSet:
    """A set of whole numbers.

    Args:
        ranges: Pairs of a first and a last number, both inside; in any order, they may overlap.
    """

    __slots__ = ("_firsts", "_lasts")

    def __init__(self, ranges: Iterable[tuple[int, int]] = ()) -> None:
        # Sorted, and between two ranges there is a gap of one number or more.
        self._firsts: list[int] = []
        self._lasts: list[int] = []
        self.add_many(ranges)

    def add(self, first: int, last: int) -> None:
        """Add the numbers from `first` to `last`, both inside; none if `last` is smaller."""
        if last < first:
            return
        firsts, lasts = self._firsts, self._lasts
        if not lasts or first > lasts[-1] + 1:
            firsts.append(first)
            lasts.append(last)
        elif first >= firsts[-1]:
            lasts[-1] = max(lasts[-1], last)
        else:
            # From the first range that touches it to the last one that does.
            begin = bisect_left(lasts, first - 1)
            end = bisect_right(firsts, last + 1)
            if begin < end:
                first = min(first, firsts[begin])
                last = max(last, lasts[end - 1])
            firsts[begin:end] = [first]
            lasts[begin:end] = [last]

    def add_many(self, ranges: Iterable[tuple[int, int]]) -> None:
        """Add several ranges."""
        for first, last in ranges:
            self.add(first, last)

    @property
    def ranges(self) -> list[tuple[int, int]]:
        """The ranges, sorted, as few as possible."""
        return list(zip(self._firsts, self._lasts, strict=True))

    @property
    def first(self) -> int:
        """The smallest number; 0 if there is none."""
        return self._firsts[0] if self._firsts else 0

    @property
    def last(self) -> int:
        """The largest number; 0 if there is none."""
        return self._lasts[-1] if self._lasts else 0

    def take_run(self, start: int) -> int:
        """Remove the first range if it begins at `start` or before it.

        Returns:
            Its last number; ``start - 1`` if there is no such range.
        """
        if not self._firsts or self._firsts[0] > start:
            return start - 1
        del self._firsts[0]
        return max(self._lasts.pop(0), start - 1)

    def union(self, other: RangeSet) -> RangeSet:
        """The numbers of either."""
        # In order, so that each is appended.
        return RangeSet(sorted([*self.ranges, *other.ranges]))

    def difference(self, other: RangeSet) -> RangeSet:
        """The numbers of this one that the other one lacks."""
        rest = RangeSet()
        at, count = 0, len(other._firsts)
        for first, last in self.ranges:
            while at < count and other._lasts[at] < first:
                at += 1
            start, ahead = first, at
            while ahead < count and other._firsts[ahead] <= last:
                rest.add(start, other._firsts[ahead] - 1)
                start = other._lasts[ahead] + 1
                ahead += 1
            rest.add(start, last)
        return rest

    def to_json(self) -> list[list[int]]:
        """The form that `from_json` reads: ``[[first, last], ...]``."""
        return [[first, last] for first, last in self.ranges]

    @classmethod
    def from_json(cls, given: Any) -> RangeSet:
        """Read what `to_json` made, which may have been damaged since.

        Raises:
            ValueError: It is not of that form.
        """
        if not isinstance(given, list):
            raise ValueError(f"ranges are a list, not {given!r}")
        made = cls()
        for pair in given:
            match pair:
                case [first, last]:
                    made.add(*check_range(first, last))
                case _:
                    raise ValueError(f"a range is [first, last], not {pair!r}")
        return made

    def __contains__(self, number: int) -> bool:
        """Whether the number is one of them."""
        at = bisect_left(self._lasts, number)
        return at < len(self._firsts) and self._firsts[at] <= number

    def __len__(self) -> int:
        """How many there are."""
        return sum(self._lasts) - sum(self._firsts) + len(self._firsts)

    def __bool__(self) -> bool:
        """Whether there is any."""
        return bool(self._firsts)

    def __iter__(self) -> Iterator[int]:
        """Every number, sorted."""
        for first, last in self.ranges:
            yield from range(first, last + 1)

    def __eq__(self, other: object) -> bool:
        """Whether both hold the same."""
        if not isinstance(other, RangeSet):
            return NotImplemented
        return self._firsts == other._firsts and self._lasts == other._lasts

    __hash__ = None  # type: ignore[assignment]  # It changes.

    def __repr__(self) -> str:
        """The ranges, for people."""
        return f"RangeSet({self.ranges})"


class ResultRanges:
    """A set of results, each known by its renderer and its sequence.

    Args:
        keys: Pairs of a renderer and a sequence, in any order.
    """

    __slots__ = ("by_renderer",)

    def __init__(self, keys: Iterable[tuple[int, int]] = ()) -> None:
        self.by_renderer: dict[int, RangeSet] = {}
        # Sorted, so that adding is appending.
        for renderer, sequence in sorted(keys):
            self.add(renderer, sequence, sequence)

    def add(self, renderer: int, first: int, last: int) -> None:
        """Add a renderer's results from `first` to `last`; none if `last` is smaller."""
        if last < first:
            return
        ranges = self.by_renderer.get(renderer)
        if ranges is None:
            ranges = self.by_renderer[renderer] = RangeSet()
        ranges.add(first, last)

    @property
    def ranges(self) -> Iterator[tuple[int, int, int]]:
        """Every (renderer, first, last), sorted."""
        for renderer, ranges in sorted(self.by_renderer.items()):
            for first, last in ranges.ranges:
                yield renderer, first, last

    def union(self, *others: ResultRanges) -> ResultRanges:
        """The results of any of them."""
        made = ResultRanges()
        for source in (self, *others):
            for renderer, ranges in source.by_renderer.items():
                known = made.by_renderer.get(renderer, RangeSet())
                made.by_renderer[renderer] = known.union(ranges)
        return made

    def difference(self, other: ResultRanges) -> ResultRanges:
        """The results of this one that the other one lacks."""
        made = ResultRanges()
        for renderer, ranges in self.by_renderer.items():
            rest = ranges.difference(other.by_renderer.get(renderer, RangeSet()))
            if rest:
                made.by_renderer[renderer] = rest
        return made

    def intersection(self, other: ResultRanges) -> ResultRanges:
        """The results of both."""
        return self.difference(self.difference(other))

    def to_json(self) -> list[list[int]]:
        """The form that `from_json` reads: ``[[renderer, first, last], ...]``."""
        return [list(part) for part in self.ranges]

    @classmethod
    def from_json(cls, given: Any) -> ResultRanges:
        """Read what `to_json` made, which may have been damaged since.

        Raises:
            ValueError: It is not of that form.
        """
        if not isinstance(given, list):
            raise ValueError(f"results are a list, not {given!r}")
        made = cls()
        for part in given:
            match part:
                case [int(renderer), first, last]:
                    made.add(renderer, *check_range(first, last))
                case _:
                    raise ValueError(f"results are [renderer, first, last], not {part!r}")
        return made

    def __contains__(self, key: tuple[int, int]) -> bool:
        """Whether the (renderer, sequence) is one of them."""
        ranges = self.by_renderer.get(key[0])
        return ranges is not None and key[1] in ranges

    def __len__(self) -> int:
        """How many there are."""
        return sum(map(len, self.by_renderer.values()))

    def __bool__(self) -> bool:
        """Whether there is any."""
        return any(self.by_renderer.values())

    def __iter__(self) -> Iterator[tuple[int, int]]:
        """Every (renderer, sequence), sorted."""
        for renderer, ranges in sorted(self.by_renderer.items()):
            for sequence in ranges:
                yield renderer, sequence

    def __eq__(self, other: object) -> bool:
        """Whether both hold the same."""
        if not isinstance(other, ResultRanges):
            return NotImplemented
        return list(self.ranges) == list(other.ranges)

    __hash__ = None  # type: ignore[assignment]  # It changes.

    def __repr__(self) -> str:
        """The ranges, for people."""
        return f"ResultRanges({self.to_json()})"


def check_range(first: Any, last: Any) -> tuple[int, int]:
    """Two numbers that were read, if they can be the ends of a range.

    Raises:
        ValueError: They cannot.
    """
    if type(first) is not int or type(last) is not int or not first <= last < first + SPAN_MAX:
        raise ValueError(f"a range does not go from {first!r} to {last!r}")
    return first, last
