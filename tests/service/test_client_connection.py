"""The greeting, with daemons that keep to it and some that do not.  Nothing may be leaked."""

from __future__ import annotations

import contextlib
import gc
import json
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from service.scripted_daemon import CHANNELS, PID, RENDERER, WATCHDOG_S, Peer, Script, serve

from millpond.client_connection import Connection
from millpond.core.wire import HEADER, MAGIC, PROTOCOL_VERSION, Kind, pack, pack_grants
from millpond.errors import ChannelsRefused, DaemonUnreachable


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "d.sock"


def reach(path: Path, *, within_s: float = WATCHDOG_S) -> Connection:
    return Connection(str(path), CHANNELS, deadline_s=time.monotonic() + within_s)


def descriptors() -> int:
    gc.collect()  # A traceback may still hold a connection.
    return len(list(Path("/proc/self/fd").iterdir()))


@contextlib.contextmanager
def nothing_leaks() -> Iterator[None]:
    before = descriptors()
    yield
    assert descriptors() == before


def assert_unreachable(path: Path, script: Script, *, match: str, **options: float) -> None:
    raised = pytest.raises(DaemonUnreachable, match=match)
    with nothing_leaks(), serve(path, script), raised:
        reach(path, **options)


def test_the_greeting_says_who_is_there_and_brings_the_shared_memory(path: Path) -> None:
    def script(peer: Peer) -> None:
        hello = peer.welcome((3, 8), (0, 2))
        assert hello == {
            "protocol": PROTOCOL_VERSION,
            "pid": os.getpid(),
            "channels": {"rgb": [[2, 3], "float32"], "loss": [[], "float32"]},
        }
        peer.expect(Kind.SYNC)
        assert peer.arrays["loss"][3] == 2.5
        peer.send(Kind.SYNC)
        peer.expect_end()

    with nothing_leaks(), serve(path, script):
        connection = reach(path)
        assert (connection.renderer, connection.daemon_pid) == (RENDERER, PID)
        assert connection.layout.channels == CHANNELS
        assert connection.credits == [(3, 8), (0, 2)]  # What comes with the welcome counts.
        connection.arrays["loss"][3] = 2.5
        connection.send(pack(Kind.SYNC), time.monotonic() + WATCHDOG_S)
        assert connection.wait(time.monotonic() + WATCHDOG_S)
        kept = connection.arrays["rgb"]
        connection.close()
        kept[...] = 1  # Mapped as long as somebody looks at it.
        assert np.all(kept == 1)
        del kept, connection


@pytest.mark.parametrize(
    ("is_about_channels", "error"), [(True, ChannelsRefused), (False, DaemonUnreachable)]
)
def test_a_refusal_is_told_with_its_reason(
    path: Path, is_about_channels: bool, error: type[Exception]
) -> None:
    def script(peer: Peer) -> None:
        peer.expect(Kind.HELLO)
        peer.refuse("there are 64 of you", channels=is_about_channels)

    with nothing_leaks(), serve(path, script), pytest.raises(error) as refusal:
        reach(path)
    assert str(refusal.value) == f"{path}: there are 64 of you"


def test_a_refusal_before_the_greeting_was_read_is_told_too(path: Path) -> None:
    """Whether our greeting was on its way or found the door shut."""

    def script(peer: Peer) -> None:
        peer.refuse("busy")

    with nothing_leaks(), serve(path, *[script] * 50):
        for _ in range(50):
            with pytest.raises(DaemonUnreachable, match="busy"):
                reach(path)


@pytest.mark.parametrize("is_read", [True, False])
def test_a_daemon_that_closes_at_once_is_unreachable(path: Path, is_read: bool) -> None:
    def script(peer: Peer) -> None:
        if is_read:
            peer.expect(Kind.HELLO)
        else:  # Wait for it, so that it is lost with the connection.
            assert peer.socket.recv(1, socket.MSG_PEEK)

    with nothing_leaks(), serve(path, script), pytest.raises(DaemonUnreachable) as lost:
        reach(path)
    assert str(lost.value) == f"{path}: the daemon closed the connection at once"


@pytest.mark.parametrize("count", [0, 2, 3, 200])
def test_a_welcome_has_exactly_one_descriptor(path: Path, count: int) -> None:
    def script(peer: Peer) -> None:
        peer.expect(Kind.HELLO)
        if count:
            peer.send_with_descriptors(peer.welcome_bytes(), [peer.segment.fd] * count)
        else:
            peer.socket.sendall(peer.welcome_bytes())
        peer.expect_end()

    assert_unreachable(path, script, match=r"this is no millpond daemon: .* descriptors")


def test_descriptors_that_come_piece_by_piece_are_closed(path: Path) -> None:
    def script(peer: Peer) -> None:
        peer.expect(Kind.HELLO)
        welcome = peer.welcome_bytes()
        for start in range(0, len(welcome), 16):
            peer.send_with_descriptors(welcome[start : start + 16], [peer.segment.fd])
        peer.expect_end()

    assert_unreachable(path, script, match=r"this is no millpond daemon")


def test_half_a_welcome_is_waited_for_and_what_follows_it_is_kept(path: Path) -> None:
    def script(peer: Peer) -> None:
        peer.expect(Kind.HELLO)
        welcome = peer.welcome_bytes()
        peer.send_with_descriptors(welcome[:20], [peer.segment.fd])
        peer.socket.sendall(welcome[20:] + pack(Kind.GRANT, pack_grants([(1, 1)])))
        peer.expect_end()

    with nothing_leaks(), serve(path, script):
        connection = reach(path)
        assert connection.credits == [(1, 1)]
        connection.close()
        del connection


def test_half_a_welcome_and_no_more_is_over_at_the_deadline(path: Path) -> None:
    def script(peer: Peer) -> None:
        peer.expect(Kind.HELLO)
        peer.send_with_descriptors(peer.welcome_bytes()[:20], [peer.segment.fd])
        peer.expect_end()

    assert_unreachable(
        path, script, match=r"did not answer the greeting; is it stopped", within_s=0.2
    )


def refused(body: bytes) -> bytes:
    return pack(Kind.REFUSED, body)


NONSENSE = {
    "a web server": b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n",
    "another kind": pack(Kind.SYNC, b"{}"),
    "too long": HEADER.pack(MAGIC, PROTOCOL_VERSION, Kind.WELCOME, 2**31, 0, 0, 0, 0),
    "no JSON": refused(b"go away"),
    "no UTF-8": refused(b'{"problem": "\xff"}'),
    "a list": refused(b'["go away"]'),
    "no problem": refused(b"{}"),
    "deep": refused(b"[" * 60_000),
}


@pytest.mark.parametrize("data", NONSENSE.values(), ids=NONSENSE)
def test_what_is_no_daemon_of_ours_is_said_to_be_none(path: Path, data: bytes) -> None:
    def script(peer: Peer) -> None:
        peer.expect(Kind.HELLO)
        peer.socket.sendall(data)
        peer.expect_end()

    assert_unreachable(path, script, match=r"d\.sock: this is no millpond daemon: ")


def test_another_version_is_named_with_the_remedy(path: Path) -> None:
    def script(peer: Peer) -> None:
        peer.expect(Kind.HELLO)
        peer.socket.sendall(HEADER.pack(MAGIC, 77, Kind.REFUSED, 0, 0, 0, 0, 0))
        peer.expect_end()

    assert_unreachable(path, script, match=r"version 77 .* the same millpond on both")


@pytest.mark.parametrize(
    "wrong",
    [
        {"slots": 5},  # More than the memory has.
        {"slots": 0},
        {"slots": None},
        {"renderer": "first"},
        {"pid": []},
        {"channels": {}},
        {"channels": {"../x": [[], "int8"]}},
        {"channels": {"rgb": [[2**31], "float64"]}},
    ],
    ids=str,
)
def test_a_welcome_that_cannot_be_is_refused(path: Path, wrong: dict[str, Any]) -> None:
    def script(peer: Peer) -> None:
        peer.expect(Kind.HELLO)
        peer.send_with_descriptors(peer.welcome_bytes(**wrong), [peer.segment.fd])
        peer.expect_end()

    assert_unreachable(path, script, match=r"this is no millpond daemon: ")


def test_a_welcome_without_its_parts_is_refused(path: Path) -> None:
    def script(peer: Peer) -> None:
        peer.expect(Kind.HELLO)
        body = json.dumps({"renderer": 1, "pid": 1}).encode()
        peer.send_with_descriptors(pack(Kind.WELCOME, body), [peer.segment.fd])
        peer.expect_end()

    assert_unreachable(path, script, match=r"this is no millpond daemon: 'channels'")


# A door that does not open.


@contextlib.contextmanager
def full_backlog(path: Path) -> Iterator[Callable[[], socket.socket]]:
    """A socket that takes no connection until its backlog is emptied."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.socket(socket.AF_UNIX))
        listener.bind(str(path))
        listener.listen(0)
        waiting: list[socket.socket] = []
        while True:
            peer = stack.enter_context(socket.socket(socket.AF_UNIX))
            peer.setblocking(False)
            try:
                peer.connect(str(path))
            except BlockingIOError:
                break
            waiting.append(peer)

        def accept() -> socket.socket:
            """Empty it, and give the next connection."""
            for _ in waiting:
                stack.enter_context(listener.accept()[0])
            return listener.accept()[0]

        yield accept


def test_a_full_backlog_costs_no_more_than_the_deadline(path: Path) -> None:
    with nothing_leaks(), full_backlog(path):
        begin_s = time.monotonic()
        with pytest.raises(DaemonUnreachable, match="no daemon answers"):
            reach(path, within_s=0.3)
        assert time.monotonic() - begin_s < WATCHDOG_S


def test_a_backlog_that_empties_in_time_lets_the_renderer_in(path: Path) -> None:
    problems: list[str] = []

    def try_it() -> None:
        try:
            reach(path, within_s=WATCHDOG_S)
        except DaemonUnreachable as error:
            problems.append(str(error))

    with full_backlog(path) as accept:
        renderer = threading.Thread(target=try_it)
        renderer.start()
        with accept() as peer:
            peer.sendall(refused(b'{"problem": "in you are, but go"}'))
        renderer.join(WATCHDOG_S)
    assert len(problems) == 1
    assert problems[0].endswith(": in you are, but go")


def test_a_path_that_no_socket_can_have_is_named_with_the_reason(tmp_path: Path) -> None:
    with nothing_leaks(), pytest.raises(DaemonUnreachable, match="AF_UNIX path too long"):
        reach(tmp_path / ("x" * 200))
