"""What is wrong with the ids in a file is told by its kind."""

from typing import Any

import pytest

from millpond_loggers.testing.found import difference

STRICT: dict[str, Any] = {"is_ordered": True, "is_exactly_once": True}


@pytest.mark.parametrize(
    ("found", "expected", "told"),
    [
        ("abc", "abc", ""),
        ("", "", ""),
        ("aab", "aab", ""),
        ("ac", "abc", "missing: 'b' (1 of 3)"),
        ("abxc", "abc", "unknown: 'x' (1 of 3)"),
        ("abbc", "abc", "too many: 'b' (1 of 3)"),
        ("ab", "aab", "too few: 'a' (1 of 2)"),
        ("acb", "abc", "not in order: 'a', 'c', 'b' (3 of 3)"),
    ],
)
def test_each_mistake_has_its_line(found: str, expected: str, told: str) -> None:
    assert difference(list(found), list(expected), **STRICT) == told


def test_several_mistakes_have_several_lines() -> None:
    told = difference(list("xxa"), list("ab"), **STRICT)
    assert told == "missing: 'b' (1 of 2)\nunknown: 'x' (1 of 2)"


def test_what_need_not_be_in_order_may_come_anyhow() -> None:
    assert difference(list("cab"), list("abc"), is_ordered=False, is_exactly_once=True) == ""


def test_at_least_once_allows_more_and_not_less() -> None:
    loose: dict[str, Any] = {"is_ordered": True, "is_exactly_once": False}
    assert difference(list("abab"), list("ab"), **loose) == ""
    assert difference(list("aa"), list("ab"), **loose) == "missing: 'b' (1 of 2)"


def test_what_is_optional_may_be_missing_and_may_be_there() -> None:
    for found in ("ab", "abc"):
        assert difference(list(found), list("abc"), optional={"c"}, **STRICT) == ""
    assert "missing" in difference(list("ac"), list("abc"), optional={"c"}, **STRICT)


def test_a_long_row_of_ids_is_cut() -> None:
    told = difference([], [str(number) for number in range(100)], **STRICT)
    assert told == "missing: '0', '1', '2', '3', '4', '5', '6', '7', ... (100 of 100)"
