"""The renderers' socket: who may connect, what each may say, and in which time.

A fault of one connection ends that connection.  Descriptors are sent and never received: a plain
`recv` drops them.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import re
import socket
import struct
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import msgspec
import structlog

from millpond.core.deliveries import Result
from millpond.core.events import (
    Event,
    RendererJoined,
    RendererLeft,
    ResultsPublished,
    SlotsReturned,
    SlotWanted,
)
from millpond.core.slots import SlotRef
from millpond.core.wire import PROTOCOL_VERSION, Frame, FrameReader, Kind, pack
from millpond.errors import ChannelsRefused, MillpondError, PeerError

BACKLOG: Final = 128
READ_BYTES: Final = 64 * 1024
UNSENT_BYTES_MAX: Final = 256 * 1024  # Of a renderer that does not read.
HELLO_S: Final = 2.0
FRAME_S: Final = 2.0  # From the first byte of a frame to its last.
# A deadline that is seen so late was missed by us, and what was waited for may lie in the socket.
LATE_S: Final = 0.5
ID_CHARACTERS_MAX: Final = 1024
DEPTH_MAX: Final = 20  # A little more than our own client sends; readers of JSON bear hundreds.
CONTROL_CHARACTERS: Final = re.compile(r"[\x00-\x1f\x7f-\x9f]")
ACCEPT_PAUSE_S: Final = 1.0  # When descriptors have run out.
STRANGERS_MAX: Final = 64  # Connections that have not said hello.

log = structlog.get_logger(__name__)


class Hello(msgspec.Struct):
    """The body of a HELLO frame."""

    protocol: int
    # Its form is checked here: what a stranger nests is neither walked through nor shown.
    channels: dict[str, tuple[list[int], str]] | None = None


@dataclass(frozen=True, slots=True)
class Host:
    """What the daemon does for its renderers.

    Args:
        welcome: Takes the channels that a renderer declared and gives the WELCOME body and the
            segment's descriptor; raises `MillpondError` to refuse it.
        dispatch: Takes events.
        allow_uids: Users besides our own.
        renderers_max: How many may be connected.
    """

    welcome: Callable[[int, Any], tuple[dict[str, Any], int]]
    dispatch: Callable[[Event], None]
    allow_uids: Collection[int]
    renderers_max: int


class RendererServer:
    """Accepts renderers.

    Args:
        path: Where to listen; whatever socket lies there is replaced.
        loop: The event loop.
        host: The daemon.
        first_number: The number of the first renderer.
    """

    def __init__(
        self, path: Path, loop: asyncio.AbstractEventLoop, host: Host, *, first_number: int = 1
    ) -> None:
        self.loop = loop
        self.host = host
        self.connections: dict[int, RendererConnection] = {}  # By number.
        self.faults = 0  # Connections that were ended for what they said.
        self._next_number = first_number
        self._path = path
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        self._listener.setblocking(False)
        path.unlink(missing_ok=True)
        mask = os.umask(0o177)
        try:
            self._listener.bind(os.fspath(path))
        finally:
            os.umask(mask)
        if host.allow_uids:
            path.chmod(0o666)  # Who may say something is checked by SO_PEERCRED.
        self._listener.listen(BACKLOG)
        loop.add_reader(self._listener, self._accept)

    def _accept(self) -> None:
        while True:
            try:
                peer, _ = self._listener.accept()
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno not in (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS):
                    continue  # It went away again.
                log.warning("no descriptor for a renderer", problem=error.strerror)
                self.loop.remove_reader(self._listener)
                self.loop.call_later(ACCEPT_PAUSE_S, self._listen_again)
                return
            self._admit(peer)

    def _listen_again(self) -> None:
        if self._listener.fileno() >= 0:
            self.loop.add_reader(self._listener, self._accept)

    def _admit(self, peer: socket.socket) -> None:
        credentials = peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
        pid, uid, _ = struct.unpack("3i", credentials)
        number = self._next_number
        self._next_number += 1
        connection = RendererConnection(self, peer, number=number, pid=pid)
        self.connections[number] = connection
        if uid != os.geteuid() and uid not in self.host.allow_uids:
            connection.end(f"user {uid} may not connect; add it to service.allow_uids")
        elif len(self.connections) - self.welcome_count > STRANGERS_MAX:
            connection.end("busy: too many connections that have not said hello")

    @property
    def welcome_count(self) -> int:
        """How many have said hello and may publish."""
        return sum(connection.is_welcome for connection in self.connections.values())

    def close(self) -> None:
        """Stop listening, end every connection, and remove the socket."""
        self.loop.remove_reader(self._listener)
        self._listener.close()
        self._path.unlink(missing_ok=True)
        for connection in list(self.connections.values()):
            connection.end("")


class RendererConnection:
    """One renderer: its frames become events, commands become its frames."""

    def __init__(
        self, server: RendererServer, peer: socket.socket, *, number: int, pid: int
    ) -> None:
        self.number = number
        self.pid = pid
        self.is_welcome = False
        self.accepted = 0  # The sequence of the last result taken over.
        self._server = server
        self._loop = server.loop
        self._peer = peer
        self._peer.setblocking(False)
        self._reader = FrameReader()
        self._job = msgspec.json.Decoder(dict[str, Any])
        self._question = 0  # The number of its last WANT, which an answer repeats.
        self._unsent = b""
        self._is_open = True
        self._deadline: asyncio.TimerHandle | None = None
        self._expect(HELLO_S, "no hello")
        self._loop.add_reader(peer, self._read)

    def _expect(self, delay_s: float, what: str) -> None:
        due_s = self._loop.time() + delay_s
        self._deadline = self._loop.call_at(due_s, self._overdue, due_s, delay_s, what)

    def _overdue(self, due_s: float, delay_s: float, what: str) -> None:
        if self._loop.time() - due_s > LATE_S:
            self._expect(delay_s, what)
        else:
            self.end(f"{what} within {delay_s:g} s")

    def _relax(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _read(self) -> None:
        try:
            data = self._peer.recv(READ_BYTES)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self.end("")
            return
        try:
            frames = self._reader.feed(data)
            if self.is_welcome:
                self._take(frames)
            else:
                self._greet(frames)
        except PeerError as error:
            self.end(str(error))
            return
        if frames and self.is_welcome:
            self._relax()  # The one that was expected has come.
        if self._reader.is_midway and self._deadline is None and self._is_open:
            self._expect(FRAME_S, "half a frame, and not the rest")

    def _greet(self, frames: list[Frame]) -> None:
        if not frames:
            return
        if len(frames) > 1 or frames[0].kind != Kind.HELLO:
            raise PeerError("the first frame must be a hello, and nothing may follow it")
        try:
            hello = msgspec.json.decode(frames[0].body, type=Hello)
        except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as error:
            raise PeerError(f"hello: {error}") from None
        if hello.protocol != PROTOCOL_VERSION:
            raise PeerError(
                f"protocol {hello.protocol}, this daemon speaks {PROTOCOL_VERSION}: "
                "install the same millpond on both sides"
            )
        host = self._server.host
        if self._server.welcome_count >= host.renderers_max:
            raise PeerError(
                f"busy: {host.renderers_max} renderers are connected; raise service.renderers_max"
            )
        try:
            body, segment_fd = host.welcome(self.number, hello.channels)
        except MillpondError as error:
            self._refuse(str(error), about_channels=isinstance(error, ChannelsRefused))
            self.end("")
            return
        self._relax()
        self.is_welcome = True
        frame = pack(Kind.WELCOME, msgspec.json.encode(body), renderer=self.number)
        try:
            # The first bytes on a fresh socket: they fit, and the descriptor rides on them.
            socket.send_fds(self._peer, [frame], [segment_fd], socket.MSG_NOSIGNAL)
        except OSError:
            self.end("")
            return
        log.info("renderer joined", renderer=self.number, pid=self.pid)
        host.dispatch(RendererJoined(self.number, self.pid))

    def _take(self, frames: list[Frame]) -> None:
        """Turn frames into events: all results that stand together become one."""
        results: list[Result] = []
        try:
            for frame in frames:
                if frame.kind == Kind.PUBLISH:
                    results.append(self._result(frame))
                    continue
                results = self._publish(results)
                self._say(frame)
        finally:
            self._publish(results)

    def _publish(self, results: list[Result]) -> list[Result]:
        if results and self._is_open:
            self.accepted = results[-1].sequence
            self._server.host.dispatch(ResultsPublished(self.number, results))
        return []

    def _result(self, frame: Frame) -> Result:
        if frame.renderer != self.number:
            raise PeerError(f"result of renderer {frame.renderer} from renderer {self.number}")
        body = frame.body
        try:
            # Into plain values: so every text in it is checked, also where nobody looks here.
            job = self._job.decode(body)
        except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as error:
            raise PeerError(f"invalid job: {error}") from None
        id = job.get("id")
        if not isinstance(id, str) or not 0 < len(id) <= ID_CHARACTERS_MAX:
            raise PeerError(f"invalid job: id must be text of 1 to {ID_CHARACTERS_MAX} characters")
        if CONTROL_CHARACTERS.search(id):
            raise PeerError("invalid job: id has control characters")
        if not isinstance(job.get("render_args"), dict):
            raise PeerError(f"invalid job '{id[:80]}': render_args must be an object")
        # As deep as there are brackets, at most: so nobody looks for the depth of a flat one.
        if body.count(b"[") + body.count(b"{") > DEPTH_MAX and _depth(job) > DEPTH_MAX:
            raise PeerError(f"invalid job '{id[:80]}': nested more than {DEPTH_MAX} levels deep")
        return Result(frame.slot, frame.generation, self.number, frame.sequence, id, frame.raw)

    def _say(self, frame: Frame) -> None:
        if frame.kind == Kind.WANT:
            self._question = frame.generation
            self._server.host.dispatch(SlotWanted(self.number, asks_who=bool(frame.slot)))
        elif frame.kind == Kind.RETURN:
            slots = [SlotRef(frame.slot, frame.generation)]
            self._server.host.dispatch(SlotsReturned(self.number, slots))
        elif frame.kind == Kind.SYNC:
            self.send(Kind.SYNC)
        else:
            raise PeerError(f"frame of kind {frame.kind} is not a renderer's")

    def send(self, kind: Kind, body: bytes = b"") -> None:
        """Send a frame, with the last sequence accepted."""
        if not self._is_open:
            return
        data = pack(
            kind,
            body,
            renderer=self.number,
            generation=self._question,
            sequence=self.accepted,
        )
        if self._unsent:
            self._unsent += data
            if len(self._unsent) > UNSENT_BYTES_MAX:
                self.end("it does not read what it is sent")
            return
        self._unsent = data
        self._send_rest()
        if self._unsent and self._is_open:
            self._loop.add_writer(self._peer, self._send_rest)

    def _send_rest(self) -> None:
        try:
            sent = self._peer.send(self._unsent, socket.MSG_NOSIGNAL)
        except BlockingIOError:
            return
        except OSError:
            self.end("")
            return
        self._unsent = self._unsent[sent:]
        if not self._unsent:
            self._loop.remove_writer(self._peer)

    def _refuse(self, problem: str, *, about_channels: bool) -> None:
        body = msgspec.json.encode({"problem": problem, "channels": about_channels})
        with contextlib.suppress(OSError):
            self._peer.send(pack(Kind.REFUSED, body), socket.MSG_NOSIGNAL)

    def end(self, problem: str) -> None:
        """Close the connection; with a problem, say so to it and to the operator."""
        if not self._is_open:
            return
        self._is_open = False
        self._relax()
        if problem:
            self._server.faults += 1
            log.warning("ending renderer", renderer=self.number, pid=self.pid, problem=problem)
            self._refuse(problem, about_channels=False)
        self._loop.remove_reader(self._peer)
        self._loop.remove_writer(self._peer)
        self._peer.close()
        del self._server.connections[self.number]
        if self.is_welcome:
            log.info("renderer left", renderer=self.number, pid=self.pid, results=self.accepted)
            self._server.host.dispatch(RendererLeft(self.number))


def _depth(value: Any) -> int:
    """How deep lists and mappings lie in each other."""
    depth, level = 0, [value]
    while level:
        depth += 1
        inner = [
            list(v.values()) if isinstance(v, dict) else v
            for v in level
            if isinstance(v, (dict, list))
        ]
        level = [v for values in inner for v in values]
    return depth
