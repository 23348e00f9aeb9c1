"""Sets as ranges do what Python's sets do."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from millpond.core.ranges import SPAN_MAX, RangeSet, ResultRanges

RANGES = st.lists(
    st.tuples(st.integers(-5, 60), st.integers(-2, 12)).map(lambda r: (r[0], r[0] + r[1])),
    max_size=15,
)
KEYS = st.sets(st.tuples(st.integers(1, 3), st.integers(1, 20)))


def numbers(ranges: list[tuple[int, int]]) -> set[int]:
    return {number for first, last in ranges for number in range(first, last + 1)}


def is_tidy(made: RangeSet) -> bool:
    """Sorted, none empty, and a gap between any two."""
    ranges = made.ranges
    pairs = pairwise(ranges)
    return all(first <= last for first, last in ranges) and all(
        before[1] + 1 < after[0] for before, after in pairs
    )


@given(RANGES)
def test_it_is_the_set_of_its_numbers(ranges: list[tuple[int, int]]) -> None:
    made, expected = RangeSet(ranges), numbers(ranges)
    assert is_tidy(made)
    assert list(made) == sorted(expected)
    assert (len(made), bool(made)) == (len(expected), bool(expected))
    assert all((number in made) == (number in expected) for number in range(-8, 80))
    assert made.first == (min(expected) if expected else 0)
    assert made.last == (max(expected) if expected else 0)
    assert RangeSet.from_json(made.to_json()) == made


@given(RANGES, RANGES)
def test_union_and_difference_are_those_of_sets(
    one: list[tuple[int, int]], two: list[tuple[int, int]]
) -> None:
    first, second = RangeSet(one), RangeSet(two)
    union, difference = first.union(second), first.difference(second)
    assert is_tidy(union)
    assert is_tidy(difference)
    assert set(union) == numbers(one) | numbers(two)
    assert set(difference) == numbers(one) - numbers(two)
    assert (first == second) == (numbers(one) == numbers(two))
    assert set(first) == numbers(one)


@given(RANGES, st.integers(-3, 20))
def test_a_run_is_taken_from_the_front_only(ranges: list[tuple[int, int]], start: int) -> None:
    made = RangeSet(ranges)
    before = made.ranges
    end = made.take_run(start)
    if before and before[0][0] <= start:
        assert end == max(before[0][1], start - 1)
        assert made.ranges == before[1:]
    else:
        assert end == start - 1
        assert made.ranges == before


@given(KEYS, KEYS)
def test_sets_of_results_are_sets(one: set[tuple[int, int]], two: set[tuple[int, int]]) -> None:
    first, second = ResultRanges(one), ResultRanges(two)
    assert list(first) == sorted(one)
    assert (len(first), bool(first)) == (len(one), bool(one))
    assert set(first.union(second)) == one | two
    assert set(first.difference(second)) == one - two
    assert set(first.intersection(second)) == one & two
    assert all((key in first) == (key in one) for key in [*one, *two, (9, 9)])
    assert (first == second) == (one == two)
    assert ResultRanges.from_json(first.to_json()) == first


def test_a_union_leaves_its_parts_as_they_were() -> None:
    first, second = ResultRanges([(1, 1)]), ResultRanges([(1, 2), (2, 1)])
    union = first.union(second)
    union.add(1, 3, 9)
    union.add(2, 2, 9)
    assert (list(first), list(second)) == ([(1, 1)], [(1, 2), (2, 1)])


@pytest.mark.parametrize(
    "damaged",
    [None, {}, [1], [[1]], [[1, 2, 3]], [["1", 2]], [[1, 2.0]], [[2, 1]], [[1, True]]],
)
def test_damaged_ranges_are_refused(damaged: Any) -> None:
    with pytest.raises(ValueError, match="range"):
        RangeSet.from_json(damaged)


@pytest.mark.parametrize("damaged", [None, [[1, 2]], [["1", 1, 2]], [[1, 1, SPAN_MAX + 1]]])
def test_damaged_results_are_refused(damaged: Any) -> None:
    with pytest.raises(ValueError, match=r"results|range"):
        ResultRanges.from_json(damaged)


def test_they_say_what_they_hold() -> None:
    assert repr(RangeSet([(1, 3)])) == "RangeSet([(1, 3)])"
    assert repr(ResultRanges([(7, 1), (7, 2)])) == "ResultRanges([[7, 1, 2]])"
    assert RangeSet() != 1
    assert ResultRanges() != 1
