"""One line at the bottom of a terminal, however narrow."""

import contextlib
import json
import os
import pty
import re
import subprocess
import sys

import pytest
from status_example import logger_row, status_example

from millpond.progress import progress_text

SHOW = """
import json, sys
from millpond.progress import ProgressLine
with ProgressLine() as line:
    for number, status in enumerate(json.loads(sys.argv[1])):
        line.update(status)
        sys.stderr.write(f"log line {number}\\n")
"""


def shown(*statuses: dict, columns: int) -> str:
    """What a terminal of that width is sent."""
    ours, theirs = pty.openpty()
    child = subprocess.Popen(
        [sys.executable, "-c", SHOW, json.dumps(statuses)],
        stderr=theirs,
        env={**os.environ, "TERM": "xterm", "COLUMNS": str(columns), "LINES": "24"},
    )
    os.close(theirs)
    text = b""
    with contextlib.suppress(OSError):  # Linux says EIO where the other side has closed.
        while chunk := os.read(ours, 4096):
            text += chunk
    os.close(ours)
    assert child.wait(timeout=60) == 0
    return text.decode()


@pytest.mark.parametrize(
    ("status", "rate", "text"),
    [
        (
            status_example(loggers={"csv": logger_row()}),
            88.4,
            "running  10 results  88/s  240/256 free  csv +3",
        ),
        (
            status_example(loggers={"a": logger_row(dead=2), "b": logger_row(state="fatal")}),
            0.0,
            "running  10 results  0/s  240/256 free  a +3 2 dead  b +3 (fatal)",
        ),
        (
            status_example(state="waiting", slots={"total": 0, "free": 0}, loggers={}, results=0),
            0.0,
            "waiting  0 results  0/s  0/0 free",
        ),
    ],
)
def test_the_line_says_state_rate_slots_and_the_lag_of_each_logger(status, rate, text) -> None:
    assert progress_text(status, rate) == text


def test_log_lines_stay_above_and_the_line_is_removed_at_the_end() -> None:
    text = shown(status_example(), status_example(results=11), columns=120)
    assert "10 results" in text
    assert "11 results" in text
    assert "log line 0\r\n" in text
    assert "log line 1\r\n" in text
    after = text.rpartition("csv +3")[2]
    assert "\x1b[2K" in after  # The line is erased.
    assert "results" not in after


@pytest.mark.parametrize("columns", [20, 40, 79])
def test_a_line_that_is_too_long_is_cut_and_not_wrapped(columns) -> None:
    """A second line would scroll the terminal with every update."""
    loggers = {f"logger-with-a-long-name-{n}": logger_row() for n in range(10)}
    text = shown(status_example(loggers=loggers), columns=columns)
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text)
    rows = [row for row in re.split(r"[\r\n]+", plain) if row and not row.startswith("log line")]
    assert rows
    for row in rows:
        assert row.startswith("running  10 results")
        assert row.endswith("…")
        assert len(row) <= columns


def test_names_are_shown_as_they_are() -> None:
    """Square brackets are not taken for colours."""
    assert "[red]x +3" in shown(status_example(loggers={"[red]x": logger_row()}), columns=120)
