"""The level of a line survives the way through standard error, and prints are not misread."""

from __future__ import annotations

import logging

import pytest

from millpond.logger_lines import LEVELS, mark, unmark


@pytest.mark.parametrize("level", LEVELS)
def test_a_marked_line_is_read_back(level: int) -> None:
    assert unmark(mark(level, "loss=3 [x] ü")) == (level, "loss=3 [x] ü")


def test_each_line_of_a_text_has_the_mark() -> None:
    lines = mark(logging.ERROR, "no disk\nTraceback\n  x\n").split("\n")
    assert [unmark(line) for line in lines] == [
        (logging.ERROR, "no disk"),
        (logging.ERROR, "Traceback"),
        (logging.ERROR, "  x"),
    ]
    assert unmark(mark(logging.INFO, "")) == (logging.INFO, "")


def test_a_level_of_ones_own_is_the_one_below_it() -> None:
    assert unmark(mark(25, "x")) == (logging.INFO, "x")
    assert unmark(mark(3, "x")) == (logging.DEBUG, "x")
    assert unmark(mark(999, "x")) == (logging.CRITICAL, "x")


@pytest.mark.parametrize(
    "line",
    [
        "",
        "WARNING: not ours",
        "[WARNING] x",
        " [millpond:WARNING] x",
        "[millpond:WARNING]x",
        "[millpond:warning] x",
        "[millpond:NOTSET] x",
    ],
)
def test_what_is_only_printed_stays_as_it_is(line: str) -> None:
    assert unmark(line) == (logging.INFO, line)
