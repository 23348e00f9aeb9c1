"""Whatever a logger prints, the daemon's log stays readable, honest and small."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from millpond.logger_output import BYTES_PER_MINUTE, LINE_BYTES_MAX, LINE_COST_BYTES, LineCapture

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


@given(stream=STREAMS, data=st.data())
def test_lines_do_not_depend_on_how_the_stream_was_cut(stream, data) -> None:
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=10)))
    edges = zip([0, *cuts], [*cuts, len(stream)], strict=True)
    cut, whole = LineCapture(), LineCapture()
    assert lines_of(*(stream[a:b] for a, b in edges), capture=cut) == lines_of(
        stream, capture=whole
    )
    assert cut.dropped_bytes == whole.dropped_bytes


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
