"""A line is in the list whole, or not at all; and the last word about a result counts."""

import fcntl
import os
import signal
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from millpond import dead_list
from millpond.dead_list import (
    DEAD_NAME,
    DeadLine,
    DeadList,
    Retraction,
    dead_of,
    local_time,
    pack_line,
    parse_line,
    read_dead,
    read_lines,
    retract,
)

WATCHDOG_S = 60
AT = "2024-05-06T07:08:09+0200"


def line(sequence: int = 1, logger: str = "csv", **fields) -> DeadLine:
    usual = {"id": f"{sequence}", "logger": logger, "reason": "crashed", "problem": "p"}
    numbers = {"renderer": 3, "sequence": sequence, "attempts": 2, "at": AT, "arrays": None}
    return DeadLine(**{**usual, **numbers, **fields})


@pytest.fixture
def listed(tmp_path):
    made = DeadList(tmp_path)
    yield made
    made.close()


@given(
    st.builds(
        DeadLine,
        *[st.text()] * 4,
        *[st.integers(0, 2**63)] * 3,
        st.text(),
        st.none() | st.text(),
    )
)
def test_a_line_is_read_as_it_was_written(dead):
    raw = pack_line(dead)
    assert raw.count(b"\n") == 1
    assert parse_line(raw) == dead
    for length in range(len(raw) - 1):
        assert parse_line(raw[:length]) is None


def test_what_json_cannot_say_is_escaped():
    assert parse_line(pack_line(line(id="a\ud800b"))).id == "a\\ud800b"


@pytest.mark.parametrize(
    "raw",
    [
        *(b"", b"3", b"[]", b"{}", b"null", b"\xff\xfe", b'{"retracted": true}'),
        b'{"id": 3, "logger": "csv", "renderer": 1, "sequence": 1}',
        b'{"id": "3", "logger": "csv", "renderer": 1}',
    ],
    ids=repr,
)
def test_what_is_no_line_is_none(raw):
    assert parse_line(raw) is None


def test_lines_of_earlier_versions_are_read():
    raw = b'{"id": "a", "logger": "csv", "renderer": 1, "sequence": 2, "arrays": 3}'
    assert parse_line(raw) == DeadLine("a", "csv", "", "", 1, 2, 0, "", None)


def test_the_time_has_its_offset():
    assert len(local_time()) == len(AT)


def test_there_is_nothing_without_a_list(tmp_path):
    assert list(read_dead(tmp_path)) == []
    assert dead_of(tmp_path) == {}


def test_lines_are_appended_in_order(listed, tmp_path):
    listed.append(pack_line(line(1)) + pack_line(line(2)))
    listed.append(pack_line(line(3)))
    assert list(read_dead(tmp_path)) == [line(1), line(2), line(3)]


def test_a_retracted_result_is_not_dead_until_it_dies_again(listed, tmp_path):
    listed.append(b"".join(map(pack_line, [line(1), line(2), line(1, "json")])))
    retract(tmp_path, [("csv", 3, 1), ("csv", 3, 99)])
    retract(tmp_path, [])
    assert set(dead_of(tmp_path)) == {("csv", 3, 2), ("json", 3, 1)}
    assert [type(one) for one in read_lines(tmp_path)] == [DeadLine] * 3 + [Retraction] * 2
    assert len(list(read_dead(tmp_path))) == 3
    again = line(1, reason="again")
    listed.append(pack_line(again))
    assert list(dead_of(tmp_path).values()) == [line(2), line(1, "json"), again]


def test_garbage_is_passed_over_and_told(listed, tmp_path):
    listed.append(pack_line(line(1)))
    listed.append(b"what?\n\n\x00\x00\n")
    listed.append(pack_line(line(2)))
    problems = []
    assert list(read_dead(tmp_path, problems)) == [line(1), line(2)]
    assert problems == [f"dead.jsonl:{number}: this is no line of the list" for number in (2, 4)]


def test_a_line_without_an_end_is_not_read_into_memory(listed, tmp_path, monkeypatch):
    monkeypatch.setattr(dead_list, "LINE_BYTES_MAX", 1000)
    listed.append(pack_line(line(1)))
    for length in (999, 1000, 1001, 5000):
        listed.append(b"x" * length + b"\n")
    listed.append(pack_line(line(2)))
    problems = []
    assert list(read_dead(tmp_path, problems)) == [line(1), line(2)]
    assert len(problems) == 4


def test_a_torn_line_is_closed_off(tmp_path, listed):
    torn = pack_line(line(1))[:40]
    (tmp_path / DEAD_NAME).write_bytes(pack_line(line(7)) + torn)
    problems = []
    assert list(read_dead(tmp_path, problems)) == [line(7)]
    assert len(problems) == 1
    listed.append(pack_line(line(2)))
    assert list(read_dead(tmp_path)) == [line(7), line(2)]
    assert (tmp_path / DEAD_NAME).read_bytes().count(b"\n") == 3


def test_a_list_that_was_moved_away_is_made_anew(listed, tmp_path):
    listed.append(pack_line(line(1)))
    (tmp_path / DEAD_NAME).rename(tmp_path / "dead.1")
    listed.append(pack_line(line(2)))
    assert list(read_dead(tmp_path)) == [line(2)]
    (tmp_path / DEAD_NAME).unlink()
    listed.append(pack_line(line(3)))
    assert list(read_dead(tmp_path)) == [line(3)]
    (tmp_path / "dead.1").replace(tmp_path / DEAD_NAME)
    listed.append(pack_line(line(4)))
    assert list(read_dead(tmp_path)) == [line(1), line(4)]


def test_a_symlink_and_a_pipe_are_refused(listed, tmp_path):
    listed.append(pack_line(line(1)))
    (tmp_path / DEAD_NAME).replace(tmp_path / "real")
    (tmp_path / DEAD_NAME).symlink_to(tmp_path / "real")
    for use in (lambda: listed.append(b"{}\n"), lambda: list(read_dead(tmp_path))):
        with pytest.raises(OSError, match="symbolic"):
            use()
    assert (tmp_path / "real").read_bytes() == pack_line(line(1))
    (tmp_path / DEAD_NAME).unlink()
    os.mkfifo(tmp_path / DEAD_NAME)
    with pytest.raises(OSError, match="no regular file"):
        listed.append(b"{}\n")


def test_one_process_at_a_time_appends(listed, tmp_path):
    listed.append(pack_line(line(1)))
    with (tmp_path / DEAD_NAME).open("rb") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(BlockingIOError, match="another process holds its lock"):
            retract(tmp_path, [("csv", 3, 1)])
    retract(tmp_path, [("csv", 3, 1)])
    assert dead_of(tmp_path) == {}


APPEND_FOREVER = """
import sys
from pathlib import Path
from millpond.dead_list import DeadLine, DeadList, pack_line
listed = DeadList(Path(sys.argv[1]))
number = int(sys.argv[2])
while True:
    lines = [
        DeadLine(str(at), "csv", "crashed", "why" * 3000, 1, at, 1, "now", None)
        for at in range(number, number + 40)
    ]
    listed.append(b"".join(map(pack_line, lines)))
    number += 40
    print(number, flush=True)
"""


def test_a_kill_leaves_no_line_that_is_a_part_of_one(tmp_path):
    number = 0
    for turn in range(5):
        child = subprocess.Popen(
            [sys.executable, "-c", APPEND_FOREVER, str(tmp_path), str(number)],
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(1 + turn):
            said = int(child.stdout.readline())
        child.send_signal(signal.SIGKILL)
        child.communicate(timeout=WATCHDOG_S)
        dead = dead_of(tmp_path)
        assert set(range(said)) <= {sequence for _, _, sequence in dead}
        assert {one.problem for one in dead.values()} == {"why" * 3000}
        number = max(sequence for _, _, sequence in dead) + 1
        assert len(dead) == number
