"""A daemon that says exactly what a script tells it to: for tests of the renderer's side.

It is a thread with a real socket.  What fails in a script is raised where the test leaves the
``with`` of `serve`.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from millpond.core.layout import Channel, plan
from millpond.core.wire import Frame, FrameReader, Kind, pack, pack_grants
from millpond.mapped_arrays import map_arrays
from millpond.segment import Segment

WATCHDOG_S = 20.0
CHANNELS = (Channel("rgb", (2, 3), "float32"), Channel("loss", (), "float32"))
RENDERER = 7
PID = 4711


class Peer:
    """One connection of a renderer, from the daemon's side."""

    def __init__(self, connection: socket.socket, segment: Segment) -> None:
        self.socket = connection
        self.segment = segment
        self.arrays = map_arrays(segment.layout, segment.fd_read_only, writable=False)
        self._reader = FrameReader()
        self._frames: list[Frame] = []

    def read(self) -> Frame:
        """The next frame, waiting for it."""
        while not self._frames:
            data = self.socket.recv(65536)
            assert data, "the renderer left, and a frame was expected"
            self._frames = self._reader.feed(data)
        return self._frames.pop(0)

    def expect(self, kind: Kind, **header: int) -> Frame:
        """The next frame, which must be this one."""
        frame = self.read()
        named = {name: getattr(frame, name) for name in header}
        assert (Kind(frame.kind), named) == (kind, header)
        return frame

    def expect_end(self) -> None:
        """The renderer leaves, and says nothing more."""
        assert not self._frames, self._frames
        data = b""
        with contextlib.suppress(ConnectionResetError):
            data = self.socket.recv(65536)
        assert not data, f"{Kind(FrameReader().feed(data)[0].kind)!r} and no end"

    def send(self, kind: Kind, body: bytes = b"", *, sequence: int = 0) -> None:
        self.socket.sendall(pack(kind, body, renderer=RENDERER, sequence=sequence))

    def refuse(self, problem: str, *, channels: bool = False) -> None:
        self.send(Kind.REFUSED, json.dumps({"problem": problem, "channels": channels}).encode())

    def grant(self, *slots: tuple[int, int], sequence: int = 0) -> None:
        self.send(Kind.GRANT, pack_grants(slots), sequence=sequence)

    def answer_who(self, text: str) -> None:
        """Take a WANT that only waits, then one that asks, and answer that."""
        self.expect(Kind.WANT, slot=0)
        asked = self.expect(Kind.WANT, slot=1)
        answer = pack(Kind.HOLDERS, text.encode(), generation=asked.generation)
        self.socket.sendall(answer)

    def answer_want(self, *slots: tuple[int, int], sequence: int = 0) -> None:
        self.expect(Kind.WANT, renderer=RENDERER)
        self.grant(*slots, sequence=sequence)

    def acknowledge(self, sequence: int) -> None:
        self.expect(Kind.SYNC, renderer=RENDERER)
        self.send(Kind.SYNC, sequence=sequence)

    def welcome_bytes(self, **changed: Any) -> bytes:
        body = {"renderer": RENDERER, "pid": PID, **self.segment.layout.to_json(), **changed}
        return pack(Kind.WELCOME, json.dumps(body).encode(), renderer=RENDERER)

    def send_with_descriptors(self, data: bytes, descriptors: Sequence[int]) -> None:
        assert socket.send_fds(self.socket, [data], list(descriptors)) == len(data)

    def welcome(self, *granted: tuple[int, int]) -> dict[str, Any]:
        """Take the greeting, and give the welcome and slots in one; returns the greeting."""
        hello: dict[str, Any] = json.loads(self.expect(Kind.HELLO).body)
        data = self.welcome_bytes()
        if granted:
            data += pack(Kind.GRANT, pack_grants(granted), renderer=RENDERER)
        self.send_with_descriptors(data, [self.segment.fd])
        return hello


Script = Callable[[Peer], None]


class _Daemon:
    def __init__(self, path: Path, scripts: Sequence[Script]) -> None:
        self.problem: BaseException | None = None
        self._scripts = scripts
        self._segment = Segment(plan(CHANNELS, 4), 1)
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.settimeout(WATCHDOG_S)
        self._listener.bind(os.fspath(path))
        self._listener.listen()
        self._peer: socket.socket | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            for script in self._scripts:
                self._peer, _ = self._listener.accept()
                with self._peer:
                    self._peer.settimeout(WATCHDOG_S)
                    script(Peer(self._peer, self._segment))
        except BaseException as problem:  # noqa: BLE001  It is raised again by `serve`.
            self.problem = problem
        finally:
            self._listener.close()

    def interrupt(self) -> None:
        """End what it waits for: the test has failed."""
        for waiting in (self._listener, self._peer):
            with contextlib.suppress(OSError):
                if waiting is not None:
                    waiting.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self._thread.join(WATCHDOG_S)
        assert not self._thread.is_alive(), "the script waits for something that never came"
        self._listener.close()
        self._segment.close()


@contextlib.contextmanager
def serve(path: Path, *scripts: Script) -> Iterator[None]:
    """Serve one connection after the other, each by its script; then nobody answers."""
    daemon = _Daemon(path, scripts)
    try:
        yield
    except BaseException as error:
        problem = daemon.problem
        daemon.interrupt()
        daemon.close()
        if problem is not None:  # The script failed first; what the test saw follows from it.
            raise problem from error
        raise
    daemon.close()
    if daemon.problem is not None:
        raise daemon.problem
