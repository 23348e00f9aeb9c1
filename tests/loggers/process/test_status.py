"""What a logger tells the daemon, as frames on a pipe."""

import errno
import os
from collections.abc import Callable, Iterator

import pytest

from millpond.core.wire import Frame, FrameReader, Kind
from millpond_loggers.process.status import PROBLEM_CHARACTERS_MAX, Status

Pipe = tuple[Status, Callable[[], Frame]]


@pytest.fixture
def pipe() -> Iterator[Pipe]:
    reader, writer = os.pipe2(os.O_CLOEXEC)
    frames = FrameReader()

    def read() -> Frame:
        (frame,) = frames.feed(os.read(reader, 1 << 16))
        return frame

    yield Status(writer), read
    os.close(reader)
    os.close(writer)


def test_ready_is_a_frame_without_a_body(pipe: Pipe) -> None:
    status, read = pipe
    status.ready()
    frame = read()
    assert (frame.kind, frame.body) == (Kind.READY, b"")


def test_a_failure_is_told_in_its_own_words(pipe: Pipe) -> None:
    status, read = pipe
    status.failed("no channel 'dépth'")
    frame = read()
    assert (frame.kind, frame.body.decode()) == (Kind.FAILED, "no channel 'dépth'")


def test_a_result_that_is_not_recorded_is_named_with_the_number_of_the_error(pipe: Pipe) -> None:
    status, read = pipe
    status.raised(3, 2**40, OSError(errno.ENOSPC, "full"))
    frame = read()
    assert (frame.kind, frame.slot, frame.generation) == (Kind.RAISED, 3, 2**40)
    assert frame.sequence == errno.ENOSPC
    assert frame.body == b"OSError: [Errno 28] full\n"


def test_long_problems_keep_their_end_and_strange_text_is_sent(pipe: Pipe) -> None:
    status, read = pipe
    status.raised(0, 1, ValueError("€" * PROBLEM_CHARACTERS_MAX + "\ud800 the cause"))
    text = read().body.decode()
    assert len(text) == PROBLEM_CHARACTERS_MAX + 3
    assert text.startswith("...€€")
    assert text.endswith("€? the cause\n")


def test_a_daemon_that_is_gone_is_no_error_of_the_logger() -> None:
    reader, writer = os.pipe2(os.O_CLOEXEC)
    os.close(reader)
    try:
        Status(writer).failed("x")
    finally:
        os.close(writer)
