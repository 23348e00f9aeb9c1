"""The daemon's log: every event one line, which nobody but the daemon can write."""

import contextlib
import json
import os
import pty
import re
import subprocess
import sys
from pathlib import Path

import pytest

LOG = """
import json, sys
import structlog
from millpond.diagnostics import configure

configure(sys.argv[1])
log = structlog.get_logger("test")
for fields in json.loads(sys.argv[2]):
    log.warning("logger says", **fields)
"""
EVIL = {
    "newline": "a\n2026-01-01T00:00:00 [error    ] results lost",
    "bare newline": "a\nb",
    "carriage return": "a\rb",
    "vertical tab": "a\x0bb\x0cc\x1cd",
    "next line": "a\x85b",
    "line separator": "a\u2028b\u2029c",
    "erase": "\x1b[2K\x1b[1A\x1b[31mfake",
    "title": "\x1b]0;owned\x07",
    "c1 escape": "\x9b2J",
    "backspace": "a\b\b\bb",
    "nul": "\0",
    "turned": "\u202egnp.exe",
    "quote": "'\"\n\"'",
    "half": "\ud800",
}
UNSAFE = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e]")


def log_lines(log_format: str, *events: dict, stderr=subprocess.PIPE) -> list[str]:
    child = subprocess.run(
        [sys.executable, "-c", LOG, log_format, json.dumps(events)],
        stdout=subprocess.PIPE,
        stderr=stderr,
        timeout=60,
        check=True,
    )
    assert child.stdout == b""
    return (child.stderr or b"").decode().split("\n")[:-1]


def test_json_is_one_object_a_line() -> None:
    events = [{"logger": "csv", "pid": 5, "line": "ok", "ids": ["é", "👍"]}, EVIL]
    lines = log_lines("json", *events)
    found = [json.loads(line) for line in lines]
    for row, fields in zip(found, events, strict=True):
        assert row.pop("timestamp")
        assert row == {"event": "logger says", "level": "warning", **fields}


@pytest.mark.parametrize("log_format", ["console", "auto"])
def test_the_console_shows_event_and_values(log_format) -> None:
    fields = {"pid": 4711, "cause": "crash(SIGSEGV)", "restart_s": 0.5, "ids": ["a", "b"]}
    (line,) = log_lines(log_format, {**fields, "problem": "two words", "name": "grün👍"})
    assert re.match(r"\d{4}-\d\d-\d\dT\S+ \[warning  *\] logger says ", line)
    for shown in (
        "pid=4711",
        "cause=crash(SIGSEGV)",
        "restart_s=0.5",
        "ids=['a', 'b']",
        "problem='two words'",
        "name=grün👍",
    ):
        assert shown in line


@pytest.mark.parametrize("log_format", ["console", "json"])
def test_no_value_can_forge_a_line_or_move_the_cursor(log_format) -> None:
    """Not in the column of the logger either, which structlog shows in a way of its own."""
    events = [
        fields
        for text in EVIL.values()
        for fields in ({"line": text}, {"logger": text}, {"ids": [text]}, {"problem": f"a {text}"})
    ]
    lines = log_lines(log_format, *events)
    for line in lines:
        assert not UNSAFE.search(line)
    # What has many lines stands below its event, so that it is not taken for one.
    lines = [line for line in lines if not line.startswith("    ")]
    assert len(lines) == len(events)
    for line in lines:
        assert "logger says" in line


def test_an_escape_shows_what_it_stands_for() -> None:
    (line,) = log_lines("console", {"line": "\x1b[31mred", "text": "a\nb", "logger": "x\ry"})
    assert r"line='\x1b[31mred'" in line
    assert r"text='a\nb'" in line
    assert r"'x\ry'" in line


def test_a_log_that_cannot_be_written_does_not_end_the_daemon() -> None:
    """Nor does one whose disk is full: the results are worth more than the log."""
    with Path("/dev/full").open("wb") as full:
        log_lines("console", {"a": 1}, {"a": 2}, stderr=full)


def test_a_terminal_gets_colours_of_ours_only() -> None:
    ours, theirs = pty.openpty()
    child = subprocess.Popen(
        [sys.executable, "-c", LOG, "auto", json.dumps([{"line": "\x1b[41mevil"}])], stderr=theirs
    )
    os.close(theirs)
    shown = b""
    with contextlib.suppress(OSError):  # Linux says EIO where the other side has closed.
        while chunk := os.read(ours, 4096):
            shown += chunk
    assert child.wait(timeout=60) == 0
    os.close(ours)
    assert b"\x1b[" in shown
    assert b"\x1b[41m" not in shown
    assert rb"\x1b[41mevil" in shown


@pytest.mark.parametrize("key", ["traceback", "problem"])
def test_a_traceback_stands_below_its_event_once_and_its_gist_beside_it_always(key) -> None:
    text = "making it failed:\nTraceback (most recent call last):\n  File x\nKeyError: 'losss'\n"
    first, *below, second = log_lines("console", {key: text}, {key: text})
    assert below == [f"    {line}" for line in text.splitlines()]
    for line in (first, second):
        assert line.endswith(f"{key}=\"making it failed: KeyError: 'losss'\"")
    for line in log_lines("json", {key: text}, {key: text}):
        assert json.loads(line)[key] == text
