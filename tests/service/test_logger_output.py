"""Whatever a logger prints, the daemon's log stays readable, honest and small."""

import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from millpond.logger_output import (
    BYTES_PER_MINUTE,
    LINE_BYTES_MAX,
    LINE_COST_BYTES,
    LINES_PER_SECOND,
    LineCapture,
    LineLimit,
)

# Bytes that matter to what is cut: ends, escapes, halves of characters, and some of no meaning.
STREAMS = st.lists(
    st.sampled_from([b"\n", b"\r\n", b"\r", b"\x1b[2J", b"\0", b"\xff", "é".encode(), b"a", b" "])
    | st.binary(max_size=20)
    | st.integers(LINE_BYTES_MAX - 2, LINE_BYTES_MAX + 2).map(lambda size: b"x" * size),
    max_size=12,
).map(b"".join)


def lines_of(*pieces: bytes, capture: LineCapture | None = None) -> list[str]:
    capture = capture or LineCapture()
    return [line for piece in pieces for line in capture.feed(piece, 0.0)] + capture.finish()


def cut(stream: bytes, data: st.DataObject) -> list[bytes]:
    """The stream in pieces, at any places."""
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=10)))
    edges = zip([0, *cuts], [*cuts, len(stream)], strict=True)
    return [stream[a:b] for a, b in edges]


@given(stream=STREAMS, data=st.data())
def test_lines_do_not_depend_on_how_the_stream_was_cut(stream, data) -> None:
    in_pieces, whole = LineCapture(), LineCapture()
    pieces = cut(stream, data)
    assert lines_of(*pieces, capture=in_pieces) == lines_of(stream, capture=whole)
    assert in_pieces.dropped_bytes == whole.dropped_bytes == 0  # All within the budget.


@given(
    sizes=st.lists(st.integers(0, 3 * LINE_COST_BYTES), max_size=20),
    has_end=st.booleans(),
    data=st.data(),
)
def test_beyond_the_budget_lines_are_whole_or_gone_and_every_byte_is_counted(
    sizes, has_end, data
) -> None:
    """Lines that differ, cut anywhere, while the budget runs out and comes back."""
    lines = [f"<{number}:{'x' * size}>" for number, size in enumerate(sizes)]
    stream = "\n".join(lines).encode() + b"\n" * (has_end and bool(lines))
    capture = LineCapture()
    capture._budget = data.draw(st.integers(0, 10 * LINE_COST_BYTES))
    now_s = 0.0
    given_lines = []
    for piece in cut(stream, data):
        given_lines += capture.feed(piece, now_s)
        now_s += data.draw(st.sampled_from([0.0, 0.01, 0.05]))
    given_lines += capture.finish()
    rest = iter(lines)
    assert all(line in rest for line in given_lines), "whole ones, in their order"
    kept_bytes = sum(len(line) + 1 for line in given_lines)
    if not has_end and given_lines[-1:] == lines[-1:] != []:
        kept_bytes -= 1
    assert kept_bytes + capture.dropped_bytes == len(stream)


@given(stream=STREAMS)
def test_no_line_can_move_a_cursor_or_become_two(stream) -> None:
    for line in lines_of(stream):
        assert not {c for c in line if ord(c) < 32 or 127 <= ord(c) < 160} - {"\t"}
        assert len(line.splitlines()) <= 1
        line.encode()


@given(lines=st.lists(st.text(st.characters(exclude_categories=["C", "Z"]), max_size=50)))
def test_ordinary_text_is_given_as_it_is(lines) -> None:
    stream = "".join(f"{line}\n" for line in lines).encode()
    assert lines_of(stream) == lines


@pytest.mark.parametrize(
    ("stream", "lines"),
    [
        (b"", []),
        (b"\n", [""]),
        (b"\n\n", ["", ""]),
        (b"a\nb", ["a", "b"]),
        (b"a\r\nb\r\n", ["a", "b"]),
        (b"10%\r20%\n", ["10%\\r20%"]),
        (b"a\tb\n", ["a\tb"]),
        (b"\x1b[31mred\x1b[0m\n", ["\\x1b[31mred\\x1b[0m"]),
        (b"\0\x07\x7f\n", ["\\x00\\x07\\x7f"]),
        (b"\xff\xfe\n", ["\\xff\\xfe"]),
        ("\x85\u2028\u2029\n".encode(), ["\\x85\\u2028\\u2029"]),
        ("\u202etxt.exe\u2066\n".encode(), ["\\u202etxt.exe\\u2066"]),
        ("grün 👍\n".encode(), ["grün 👍"]),
        ("é".encode()[:1] + b"\n", ["\\xc3"]),
    ],
    ids=ascii,
)
def test_what_is_no_text_is_escaped(stream, lines) -> None:
    assert lines_of(stream) == lines


def test_a_line_is_given_as_soon_as_it_ends() -> None:
    capture = LineCapture()
    assert capture.feed(b"one\ntw", 0.0) == ["one"]
    assert capture.feed(b"", 0.0) == []
    assert capture.feed(b"o\n", 0.0) == ["two"]
    assert capture.finish() == []


def test_the_end_of_a_long_line_is_counted() -> None:
    assert lines_of(b"x" * LINE_BYTES_MAX + b"\nnext\n") == ["x" * LINE_BYTES_MAX, "next"]
    long, rest = lines_of(b"x" * (LINE_BYTES_MAX + 5) + b"\nnext\n")
    assert long == "x" * LINE_BYTES_MAX + " ... (5 bytes more)"
    assert rest == "next"


def test_a_flood_without_an_end_needs_the_memory_of_one_line() -> None:
    capture = LineCapture()
    chunk = b"x" * 65536
    for _ in range(500):
        assert capture.feed(chunk, 0.0) == []
        assert len(capture._line) <= LINE_BYTES_MAX
    (line,) = capture.finish()
    assert line.endswith(f" ... ({500 * 65536 - LINE_BYTES_MAX} bytes more)")


@pytest.mark.parametrize("unit", [b"y\n", b"\n", b"\0\xff\n", b"x" * 5000 + b"\n"])
def test_a_flood_of_lines_is_kept_within_the_budget_and_the_rest_is_counted(unit) -> None:
    """What counts is what the daemon's log grows by, not what came."""
    capture = LineCapture()
    stream = unit * (2 * BYTES_PER_MINUTE // len(unit))
    lines = capture.feed(stream, 0.0)
    assert 0 < sum(len(line) + LINE_COST_BYTES for line in lines) <= BYTES_PER_MINUTE + 32768
    assert capture.dropped_bytes == len(stream) - len(unit) * len(lines)


def calls_of(capture: LineCapture, block: bytes) -> int:
    """How many functions are called to take a block."""
    calls = []
    sys.setprofile(lambda _, what, __: calls.append(what) if what.endswith("call") else None)
    try:
        capture.feed(block, 0.0)
    finally:
        sys.setprofile(None)
    return len(calls)


@pytest.mark.parametrize("unit", [b"y\n", b"\n", b"x" * 100 + b"\n"])
def test_when_the_budget_is_spent_a_block_costs_the_same_however_many_lines_it_has(unit) -> None:
    capture = LineCapture()
    capture._budget = 0.0
    capture.feed(b"", 0.0)  # The first one sets the clock.
    calls = calls_of(capture, unit)
    for count in (10, 1000, 30_000):
        assert calls_of(capture, unit * count) == calls
    assert capture.dropped_bytes == len(unit) * 31_011


def test_a_line_that_began_in_a_dropped_block_is_dropped_to_its_end() -> None:
    capture = LineCapture()
    capture._budget = 0.0
    assert capture.feed(b"one\ntwo and", 0.0) == []
    assert capture.feed(b" its middle", 60.0) == []  # The budget is there again.
    assert capture.feed(b" and its end\nthree\n", 60.0) == ["three"]
    assert capture.dropped_bytes == len(b"one\ntwo and its middle and its end\n")
    assert capture.finish() == []


def test_a_last_line_that_is_dropped_is_counted_without_an_end() -> None:
    capture = LineCapture()
    capture._budget = 0.0
    assert lines_of(b"abc", capture=capture) == []
    assert capture.dropped_bytes == 3


def test_the_budget_comes_back_with_time_and_never_exceeds_a_minute() -> None:
    capture = LineCapture()
    flood = b"y\n" * BYTES_PER_MINUTE
    full = len(capture.feed(flood, 100.0))
    assert capture.feed(b"a\n", 100.0) == []
    assert len(capture.feed(flood, 130.0)) == pytest.approx(full / 2, abs=1)
    assert len(capture.feed(flood, 10_000.0)) == full


def test_a_line_too_long_to_be_kept_whole_costs_only_what_is_kept() -> None:
    capture = LineCapture()
    lines = capture.feed((b"x" * BYTES_PER_MINUTE + b"\n") * 3, 0.0)
    assert len(lines) == 3
    assert capture.dropped_bytes == 0


def test_so_many_lines_a_second_are_let_through_and_the_others_counted() -> None:
    limit = LineLimit()
    assert all(limit.admits(5.0 + n / 1000) for n in range(LINES_PER_SECOND))
    assert limit.take_left() == ""
    assert not any(limit.admits(5.9) for _ in range(24))
    assert limit.take_left() == "... 24 more lines"
    assert limit.take_left() == ""
    assert limit.admits(6.0), "a new second"
    assert limit.left == 0
