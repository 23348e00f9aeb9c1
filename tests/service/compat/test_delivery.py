"""Waiting lasts as long as the loggers get on, and no longer."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from status_example import logger_row, status_example

from millpond.compat.delivery import describe, wait_delivered
from millpond.errors import DaemonUnreachable

DONE = {"queued": 0, "in_window": 0, "spilled": 0}


@contextmanager
def answering(path: Path, *statuses: dict[str, Any]) -> Iterator[list[int]]:
    """Answers each request with the next status, and from then on with the last."""
    served: list[int] = []
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    listener.listen()

    def run() -> None:
        while True:
            try:
                peer, _ = listener.accept()
            except OSError:
                return
            with peer:
                peer.recv(65536)
                body = json.dumps(statuses[min(len(served), len(statuses) - 1)]).encode()
                served.append(1)
                head = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body)
                peer.sendall(head + body)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield served
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join()


def status(**row: Any) -> dict[str, Any]:
    return status_example(loggers={"csv": logger_row(**row)})


def test_it_returns_when_nothing_waits(tmp_path: Path) -> None:
    path = tmp_path / "h.sock"
    with answering(path, status(), status(delivered=9), status(delivered=10, **DONE)) as served:
        assert wait_delivered(path, 20)["loggers"]["csv"]["delivered"] == 10
    assert len(served) == 3


def test_it_waits_longer_than_its_patience_while_something_is_recorded(tmp_path: Path) -> None:
    path = tmp_path / "h.sock"
    steps = [status(delivered=number) for number in range(8)]
    with answering(path, *steps, status(delivered=10, **DONE)):
        wait_delivered(path, 0.7)


def test_a_logger_that_records_nothing_is_named(tmp_path: Path) -> None:
    path = tmp_path / "h.sock"
    told = r"nothing for 0\.3 s: 4 results wait for logger 'csv', which is fatal"
    with (
        answering(path, status(state="fatal", queued=1, in_window=0, spilled=3)),
        pytest.raises(DaemonUnreachable, match=told),
    ):
        wait_delivered(path, 0.3)


def test_a_daemon_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(DaemonUnreachable, match="it does not answer"):
        wait_delivered(tmp_path / "none.sock", 0.3)


def test_the_end_of_the_daemon_is_the_end_of_the_wait(tmp_path: Path) -> None:
    looks = iter([False, False, True])
    assert wait_delivered(tmp_path / "none.sock", 20, has_ended=lambda _: next(looks)) == {}


def test_an_own_daemon_that_does_not_end_is_told(tmp_path: Path) -> None:
    path = tmp_path / "h.sock"
    with answering(path, status(**DONE)), pytest.raises(DaemonUnreachable, match="does not end"):
        wait_delivered(path, 0.3, has_ended=lambda _: False)


def test_who_waits_is_listed() -> None:
    rows = {"a": logger_row(), "b": logger_row(**DONE), "c": logger_row(state="backoff", queued=5)}
    assert describe(rows) == (
        "3 results wait for logger 'a', which is running, "
        "7 results wait for logger 'c', which is backoff"
    )
