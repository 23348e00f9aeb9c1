"""One connection of a renderer to the daemon: frames out, frames in, each wait with a deadline.

The daemon may be stopped, hung or gone at any moment; nothing here waits longer than it is told.
"""

from __future__ import annotations

import array
import contextlib
import errno
import json
import os
import select
import socket
import stat
import time
import weakref
from collections import deque
from pathlib import Path
from typing import Any, Final

from millpond.core.layout import Channel, channels_from_json, channels_to_json, plan
from millpond.core.wire import PROTOCOL_VERSION, Frame, FrameReader, Kind, pack, unpack_grants
from millpond.errors import ChannelsRefused, DaemonUnreachable, PeerError
from millpond.mapped_arrays import map_arrays

SOCKET_NAME: Final = "millpond.sock"
RECEIVE_BYTES: Final = 64 * 1024
RETRY_S: Final = 0.02  # Between two tries to reach a daemon that is not there yet.
POLL_S_MAX: Final = 1e6  # A little less than `poll` can be told; eleven days.
# What reading the words of something else than a daemon of ours may raise.
NONSENSE: Final = (PeerError, ValueError, KeyError, TypeError, RecursionError)

# A child of a fork has the socket too.  It must let go, or the daemon would not notice its
# parent's death; what it does itself goes over a connection of its own.
_connections: weakref.WeakSet[Connection] = weakref.WeakSet()


def _close_inherited() -> None:
    for connection in list(_connections):
        connection.unaccepted.clear()  # The parent's matter.
        connection.close()


os.register_at_fork(after_in_child=_close_inherited)


class Connection:
    """A welcomed connection: the layout, the arrays, and the slots that may be written.

    Args:
        path: The renderer socket of the daemon.
        channels: What the renderer writes, or None to take what the pond has.
        deadline_s: On the clock of `time.monotonic`.

    Raises:
        DaemonUnreachable: Nobody answered by then, or the daemon takes no renderer now.
        ChannelsRefused: The pond has other channels.
    """

    def __init__(
        self, path: str, channels: tuple[Channel, ...] | None, *, deadline_s: float
    ) -> None:
        self.path = path
        self.credits: list[tuple[int, int]] = []  # (slot, generation); the last is the hottest.
        self.sequence = 0
        self.accepted = 0
        self.unaccepted: deque[tuple[int, str]] = deque()  # (sequence, id), oldest first.
        self.holders = ""
        self._questions = 0  # Numbers each WANT,
        self._answered = 0  # and this is the number of the last one that was answered.
        self.is_closing = False  # The daemon gives no more slots.
        self.is_closed = False
        self._reader = FrameReader()
        self._socket = _reach(path, deadline_s)
        _connections.add(self)
        try:
            self._begin(channels, deadline_s)
        except BaseException:
            self.close()
            raise

    def _begin(self, channels: tuple[Channel, ...] | None, deadline_s: float) -> None:
        """Say hello, and map what the daemon gives."""
        descriptors: list[int] = []
        try:
            welcome = self._greet(channels, descriptors, deadline_s)
            self.renderer = int(welcome["renderer"])
            self.daemon_pid = int(welcome["pid"])
            self.layout = plan(channels_from_json(welcome["channels"]), int(welcome["slots"]))
            self.channels = {channel.name: channel for channel in self.layout.channels}
            self.arrays = map_arrays(self.layout, descriptors[0], writable=True)
        except ChannelsRefused:
            raise
        except NONSENSE as error:
            raise DaemonUnreachable(f"{self.path}: this is no millpond daemon: {error}") from None
        finally:
            for descriptor in descriptors:
                os.close(descriptor)

    def _greet(
        self, channels: tuple[Channel, ...] | None, descriptors: list[int], deadline_s: float
    ) -> dict[str, Any]:
        hello = {
            "protocol": PROTOCOL_VERSION,
            "pid": os.getpid(),
            "channels": None if channels is None else channels_to_json(channels),
        }
        self.send(pack(Kind.HELLO, json.dumps(hello).encode()), deadline_s)
        frames: list[Frame] = []
        while not frames:
            if not self._poll(select.POLLIN, deadline_s):
                raise self.lost("the daemon did not answer the greeting; is it stopped?")
            frames = self._reader.feed(self._receive_with_descriptors(descriptors))
        answer = frames[0]
        body = _read_object(answer.body)
        if answer.kind == Kind.REFUSED:
            refusal = ChannelsRefused if body.get("channels") else DaemonUnreachable
            raise refusal(f"{self.path}: {body['problem']}")
        if answer.kind != Kind.WELCOME or len(descriptors) != 1:
            raise PeerError(f"frame of kind {answer.kind} with {len(descriptors)} descriptors")
        for frame in frames[1:]:
            self._take(frame)
        return body

    def _receive_with_descriptors(self, descriptors: list[int]) -> bytes:
        room = socket.CMSG_SPACE(array.array("i", [0]).itemsize)
        try:
            data, ancillary, _, _ = self._socket.recvmsg(
                RECEIVE_BYTES, room, socket.MSG_CMSG_CLOEXEC
            )
        except ConnectionResetError:  # It closed without reading our greeting.
            data, ancillary = b"", []
        for level, kind, payload in ancillary:
            if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
                numbers = array.array("i")
                numbers.frombytes(payload[: len(payload) - len(payload) % numbers.itemsize])
                descriptors.extend(numbers)
        if not data:
            raise DaemonUnreachable(f"{self.path}: the daemon closed the connection at once")
        return data

    def send(self, data: bytes, deadline_s: float) -> None:
        """Send all of it, or lose the connection at the deadline.

        Raises:
            DaemonUnreachable: The connection is lost.
        """
        view = memoryview(data)
        try:
            while view:
                try:
                    view = view[self._socket.send(view, socket.MSG_NOSIGNAL) :]
                except BlockingIOError:
                    if not self._poll(select.POLLOUT, deadline_s):
                        raise self.lost("the daemon does not read; is it stopped?") from None
                except OSError as error:
                    raise self._parted(error) from None
        except BaseException:
            # Part of a frame may be out (Ctrl-C is enough): after this it is of no use.
            self.close()
            raise

    def _parted(self, error: OSError) -> DaemonUnreachable:
        """The error for a connection that takes nothing more: what the daemon said last."""
        try:
            while self.receive():
                pass
        except DaemonUnreachable as last:
            return last
        return self.lost(error.strerror or str(error))

    def receive(self) -> bool:
        """Take in what has come, without waiting; False when nothing had."""
        try:
            data = self._socket.recv(RECEIVE_BYTES)
        except BlockingIOError:
            return False
        except OSError as error:
            raise self.lost(error.strerror or str(error)) from None
        if not data:
            raise self.lost("the daemon ended")
        try:
            for frame in self._reader.feed(data):
                self._take(frame)
        except NONSENSE as error:
            raise self.lost(f"this is no millpond daemon: {error}") from None
        return True

    def _take(self, frame: Frame) -> None:
        if frame.kind in (Kind.GRANT, Kind.HOLDERS, Kind.SYNC):
            self.accepted = frame.sequence
            while self.unaccepted and self.unaccepted[0][0] <= frame.sequence:
                self.unaccepted.popleft()
        if frame.kind == Kind.GRANT:
            self.credits += unpack_grants(frame.body)
        elif frame.kind == Kind.HOLDERS:
            self.holders = frame.body.decode()
            self._answered = frame.generation
        elif frame.kind == Kind.CLOSING:
            self.is_closing = True
        elif frame.kind == Kind.REFUSED:
            raise self.lost(str(_read_object(frame.body)["problem"]))

    def want(self, *, asks_who: bool, deadline_s: float) -> None:
        """Say that we wait for a slot, and perhaps ask who holds them."""
        self._questions += 1
        frame = pack(
            Kind.WANT, slot=int(asks_who), renderer=self.renderer, generation=self._questions
        )
        self.send(frame, deadline_s)

    @property
    def is_answered(self) -> bool:
        """Whether the last question was answered."""
        return self._answered == self._questions

    def wait(self, deadline_s: float) -> bool:
        """Wait until something came, and take it in; False at the deadline."""
        if not self._poll(select.POLLIN, deadline_s):
            return False
        return self.receive()

    def _poll(self, event: int, deadline_s: float) -> bool:
        poll = select.poll()
        poll.register(self._socket, event)
        left_s = min(max(0.0, deadline_s - time.monotonic()), POLL_S_MAX)
        return bool(poll.poll(left_s * 1000))

    def lost(self, why: str) -> DaemonUnreachable:
        """Close, and make the error that says what may be lost with it."""
        self.close()
        count = len(self.unaccepted)
        message = f"{self.path}: connection lost: {why}"
        if count:
            ids = ", ".join(name for _, name in list(self.unaccepted)[:10])
            more = f" and {count - 10} more" if count > 10 else ""
            message += f"; {count} published results were not acknowledged: {ids}{more}"
        return DaemonUnreachable(message)

    def close(self) -> None:
        """Close the socket.  Arrays that are still referred to stay mapped until they go."""
        self.is_closed = True
        self._socket.close()


def find_socket(place: Path) -> Path:
    """The socket that a path stands for: itself, or the one of a run folder.

    Neither need be there yet; and as the daemon may make them at this moment, each is looked at
    once.

    Raises:
        DaemonUnreachable: It is something else.
    """
    mode = _mode_of(place)
    if stat.S_ISDIR(mode) or (not mode and place.suffix != ".sock"):
        place /= SOCKET_NAME
        mode = _mode_of(place)
    if mode and not stat.S_ISSOCK(mode):
        raise DaemonUnreachable(f"{place} is no socket: give the daemon's socket or run folder")
    return place


def _mode_of(place: Path) -> int:
    """What lies there, as `stat` says it; 0 for nothing."""
    try:
        return place.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        return 0


def _read_object(body: bytes) -> dict[str, Any]:
    read = json.loads(body)
    if not isinstance(read, dict):
        raise PeerError(f"a {type(read).__name__} where an object should be")
    return read


def _reach(path: str, deadline_s: float) -> socket.socket:
    """Connect, trying again until the deadline: the daemon may be starting."""
    while True:
        peer = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        peer.setblocking(False)
        try:
            peer.connect(path)
        except OSError as error:
            peer.close()
            absent = error.errno in (errno.ENOENT, errno.ECONNREFUSED, errno.EAGAIN)
            if not absent or time.monotonic() + RETRY_S >= deadline_s:
                raise DaemonUnreachable(
                    f"{path}: no daemon answers ({error.strerror or error}); "
                    "start it: millpond run CONFIG"
                ) from None
            with contextlib.suppress(InterruptedError):
                time.sleep(RETRY_S)
        else:
            return peer
