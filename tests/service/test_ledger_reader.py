"""Reading a ledger, whatever has happened to its files."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest

from millpond.core.deliveries import Result
from millpond.core.ranges import ResultRanges
from millpond.ledger import Ledger
from millpond.ledger_reader import (
    PIECE_BYTES,
    UNLISTED_MAX,
    Lines,
    config_of,
    last_number,
    lines_path,
    marks_path,
    numbers,
    read_ids,
    read_published,
    read_start,
)

START = {
    "start": {
        "number": 1,
        "loggers": [{"name": "csv"}, {"name": "json"}],
        "renderer_last": 4,
        "pending": {"csv": [[2, 5, 9]]},
        "channels": None,
    }
}


def write(run: Path, *facts: Any, number: int = 1, tail: bytes = b"") -> Path:
    path = lines_path(run, number)
    path.parent.mkdir(exist_ok=True)
    told = (fact if isinstance(fact, bytes) else json.dumps(fact).encode() for fact in facts)
    path.write_bytes(b"".join(line + b"\n" for line in told) + tail)
    return path


def results(first: int, last: int) -> list[Result]:
    return [Result(0, 1, 5, n, f"{n:06}", b"") for n in range(first, last + 1)]


def test_the_starts_are_those_that_have_a_file(tmp_path: Path) -> None:
    assert (numbers(tmp_path), last_number(tmp_path)) == ([], 0)
    for number in (2, 1, 1_000_001):
        write(tmp_path, number=number)
    for name in ("1.jsonl", "000007.marks", "000009.jsonl.bak", "notes"):
        (tmp_path / "ledger" / name).touch()
    assert (numbers(tmp_path), last_number(tmp_path)) == ([1, 2, 1_000_001], 1_000_001)
    (tmp_path / "file").touch()
    assert numbers(tmp_path / "file") == []


def test_every_fact_is_taken_in(tmp_path: Path) -> None:
    write(
        tmp_path,
        START,
        {"channels": {"loss": [[], "float32"]}},
        {"renderer": [6, 4711]},
        {"renderer": [5, 4711]},
        {"p": [5, 1, ["a", "b"]]},
        {"p": [5, 3, ["c"]]},
        {"d": ["csv", 5, 1, 2]},
        {"o": ["csv", 5, 3, 3]},
        {"d": ["json", 5, 1, 3]},
        {"later": "versions may say more"},
        {"end": {"at": "now"}},
    )
    start = read_start(tmp_path, 1)
    assert start.problems == []
    assert start.logger_names == ["csv", "json"]
    assert start.channels == {"loss": [[], "float32"]}
    assert start.renderer_last == 6
    assert start.published.to_json() == [[5, 1, 3]]
    assert {name: r.to_json() for name, r in start.delivered.items()} == {
        "csv": [[5, 1, 2]],
        "json": [[5, 1, 3]],
    }
    assert start.owed("csv").to_json() == [[2, 5, 9], [5, 1, 3]]
    assert start.owed("json").to_json() == [[5, 1, 3]]
    assert start.owed("image").to_json() == []
    assert start.loggers == START["start"]["loggers"]
    assert (start.is_closed, start.is_empty) == (True, False)


@pytest.mark.parametrize(
    "line",
    [
        b"garbage",
        b"",
        b"[1]",
        b"null",
        b'{"p": 1}',
        b'{"p": [1, 1]}',
        b'{"p": ["1", 1, ["a"]]}',
        b'{"p": [1, 1.5, ["a"]]}',
        b'{"p": [1, 1, "abc"]}',
        b'{"d": ["csv", 5, 2, 1]}',
        b'{"d": ["csv", 5, 1, 1e300]}',
        b'{"d": ["csv", 5, 1, 99999999999999]}',
        b'{"d": [[], null, 1, 1]}',
        b'{"o": {}}',
        b'{"renderer": []}',
        b'{"start": {}}',
        b'{"start": {"loggers": 5, "pending": {}, "renderer_last": 9}}',
        b'{"start": {"loggers": [], "pending": {"csv": [[1]]}, "renderer_last": 9}}',
        b'{"channels": 7}',
        b'{"p": [5, 1, ["a"',
        b'\xff\xfe{"p"',
    ],
)
def test_a_line_without_sense_is_counted_and_the_others_are_read(
    tmp_path: Path, line: bytes
) -> None:
    write(
        tmp_path, START, {"p": [5, 1, ["a"]]}, line, {"p": [5, 2, ["b"]]}, {"d": ["csv", 5, 1, 1]}
    )
    start = read_start(tmp_path, 1)
    assert start.problems == ["000001.jsonl has 1 lines that make no sense"]
    assert start.published.to_json() == [[5, 1, 2]]
    assert start.delivered["csv"].to_json() == [[5, 1, 1]]
    assert start.renderer_last == 5
    assert list(read_ids(tmp_path, start, start.published).values()) == ["a", "b"]


def test_a_torn_line_and_the_room_behind_it_are_nothing(tmp_path: Path) -> None:
    """The first byte of a line is stored last."""
    torn = b'\0"p":[5,2,["b"]]}\n'
    for cut in range(1, len(torn) + 1):
        write(tmp_path, START, {"p": [5, 1, ["a"]]}, tail=torn[:cut] + bytes(5000))
        start = read_start(tmp_path, 1)
        assert start.problems == []
        assert start.published.to_json() == [[5, 1, 1]]


def test_a_file_that_is_cut_anywhere_gives_what_is_whole(tmp_path: Path) -> None:
    path = write(tmp_path, START, {"p": [5, 1, ["a"]]}, {"d": ["csv", 5, 1, 1]})
    whole = path.read_bytes()
    for size in range(len(whole)):
        path.write_bytes(whole[:size])
        start = read_start(tmp_path, 1)
        assert start.is_empty == (not whole[: size + 1].count(b"\n"))
        assert len(start.published) == (whole[: size + 1].count(b"\n") > 1)


def test_without_its_first_line_it_has_the_loggers_of_today(tmp_path: Path) -> None:
    write(tmp_path, {"p": [5, 1, ["a"]]})
    start = read_start(tmp_path, 1, ["image"])
    assert start.problems == ["000001.jsonl has no first line that says which loggers there were"]
    assert start.owed("image").to_json() == [[5, 1, 1]]
    assert start.loggers == []


def test_the_configuration_is_that_of_the_last_start_that_tells(tmp_path: Path) -> None:
    assert config_of(tmp_path) is None
    for number, config in enumerate(("a.yaml", "b.yaml", None), 1):
        write(tmp_path, {"start": {"config": config}}, {"p": [1, 1, ["a"]]}, number=number)
    write(tmp_path, b"garbage", number=4)
    lines_path(tmp_path, 5).mkdir()
    assert config_of(tmp_path) == Path("b.yaml")


def test_what_is_no_file_is_said(tmp_path: Path) -> None:
    lines_path(tmp_path, 1).mkdir(parents=True)
    marks_path(tmp_path, 1).mkdir()
    start = read_start(tmp_path, 1)
    assert start.is_empty
    assert "Is a directory" in start.problems[0]
    assert "000001.jsonl cannot be read: Is a directory" in start.problems


# Marks.


def make(run: Path) -> Ledger:
    ledger = Ledger(run, [{"name": "csv"}])
    ledger.begin({})
    ledger.renderer_joined(5, 1)
    ledger.published(results(1, 9))
    ledger.delivered(0, results(1, 4))
    return ledger


def test_marks_that_make_no_sense_are_left_out(tmp_path: Path) -> None:
    make(tmp_path).close(is_end=False)
    path = marks_path(tmp_path, 1)
    whole = path.read_bytes()
    lines = lines_path(tmp_path, 1)
    lines.write_bytes(b"".join(lines.read_bytes().splitlines(True)[:-1]))  # Without its "d" line.
    assert read_start(tmp_path, 1).delivered["csv"].to_json() == [[5, 1, 4]]
    for place, value in ((1, 10 + UNLISTED_MAX), (1, 2**64 - 1)):
        words = memoryview(bytearray(whole))
        words[32 + 8 * place : 40 + 8 * place] = value.to_bytes(8, "little")
        path.write_bytes(words)
        start = read_start(tmp_path, 1)
        assert start.problems == ["the marks of renderer 5 make no sense"]
        assert start.published.to_json() == [[5, 1, 9]]
    words = memoryview(bytearray(whole))
    words[48:56] = bytes([255] * 8)
    path.write_bytes(words)
    assert read_start(tmp_path, 1).delivered["csv"].to_json() == [[5, 1, 9]]
    path.write_bytes(whole[:100])
    start = read_start(tmp_path, 1)
    assert start.problems == [
        "marks cannot be read: 000001.marks has 100 bytes, which its header belies"
    ]
    assert start.delivered["csv"].to_json() == []


def test_results_that_only_the_marks_know_have_no_id(tmp_path: Path) -> None:
    make(tmp_path).close(is_end=False)
    path = lines_path(tmp_path, 1)
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(line for line in lines if not line.startswith(b'{"p"')))
    start = read_start(tmp_path, 1)
    assert start.published.to_json() == [[5, 1, 9]]
    assert read_ids(tmp_path, start, start.published) == {}


# Large files.


def test_a_large_file_is_read_in_pieces_and_soon(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path, [{"name": "csv"}])
    ledger.begin({})
    ledger.renderer_joined(5, 1)
    count = 400_000
    for first in range(1, count + 1, 8):
        ledger.published(results(first, first + 7))
        if first % 8000 == 1:
            ledger.prepare()
            ledger.sync()
    ledger.close()
    begin_s = time.monotonic()
    start = read_start(tmp_path, 1)
    assert time.monotonic() - begin_s < 10  # 0.1 s on an idle machine.
    assert start.published.to_json() == [[5, 1, count]]
    assert len(start.pieces) == -(-lines_path(tmp_path, 1).stat().st_size // PIECE_BYTES)
    wanted = ResultRanges([(5, 1), (5, 200_000), (5, count), (6, 1)])
    assert read_ids(tmp_path, start, wanted) == {
        (5, 1): "000001",
        (5, 200_000): "200000",
        (5, count): "400000",
    }
    assert sum(len(ids) for _, _, ids in read_published(tmp_path, start, wanted)) < count
    assert read_ids(tmp_path, start, ResultRanges()) == {}
    lines_path(tmp_path, 1).unlink()
    assert read_ids(tmp_path, start, wanted) == {}


def test_garbage_without_a_newline_is_read_in_pieces_too(tmp_path: Path) -> None:
    path = write(tmp_path, tail=b"x" * 20 * PIECE_BYTES)
    lines = Lines(path)
    assert [facts for _, facts in lines] == [[], []]
    assert lines.corrupt == 2
