"""The renderers' socket on real loops: a fault of one peer ends that peer, and nothing else."""

from __future__ import annotations

import array
import asyncio
import fcntl
import gc
import json
import os
import resource
import select
import socket
import stat
import struct
import termios
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import orjson
import pytest
from structlog.testing import capture_logs

from millpond.core.events import (
    Event,
    RendererJoined,
    RendererLeft,
    ResultsPublished,
    SlotsReturned,
    SlotWanted,
)
from millpond.core.layout import Channel, plan
from millpond.core.slots import SlotRef
from millpond.core.wire import HEADER, MAGIC, PROTOCOL_VERSION, Frame, FrameReader, Kind, pack
from millpond.errors import ChannelsRefused
from millpond.renderer_socket import (
    STRANGERS_MAX,
    UNSENT_BYTES_MAX,
    Host,
    RendererConnection,
    RendererServer,
)
from millpond.segment import Segment

WATCHDOG_S = 30.0
LAYOUT = plan([Channel("loss", (), "float32")], 4)
JOB = b'{"id": "a", "render_args": {}}'
HELLO = {"protocol": PROTOCOL_VERSION, "pid": 1, "channels": None}
NOBODY = 65534

both_loops = pytest.mark.asyncio(loop_factories=["uvloop", "asyncio"])
on_uvloop = pytest.mark.asyncio(loop_factories=["uvloop"])


async def until(condition: Callable[[], Any]) -> None:
    end_s = asyncio.get_running_loop().time() + WATCHDOG_S
    while not condition():
        assert asyncio.get_running_loop().time() < end_s
        await asyncio.sleep(0.002)


class Peer:
    """A renderer that says what it is told to."""

    def __init__(self, connection: socket.socket) -> None:
        self.socket = connection
        self._loop = asyncio.get_running_loop()
        self._reader = FrameReader()
        self._frames: list[Frame] = []

    async def send(self, data: bytes) -> None:
        async with asyncio.timeout(WATCHDOG_S):
            await self._loop.sock_sendall(self.socket, data)

    async def read(self) -> Frame | None:
        """The next frame, or None at the end."""
        async with asyncio.timeout(WATCHDOG_S):
            while not self._frames:
                try:
                    data = await self._loop.sock_recv(self.socket, 65536)
                except ConnectionResetError:  # It ended without having read all.
                    return None
                if not data:
                    return None
                self._frames = self._reader.feed(data)
        return self._frames.pop(0)

    async def hello(self, **changed: Any) -> int:
        """Say hello, and give the number in the welcome."""
        await self.send(pack(Kind.HELLO, json.dumps({**HELLO, **changed}).encode()))
        welcome = await self.read()
        assert welcome is not None
        assert welcome.kind == Kind.WELCOME, welcome.body
        return welcome.renderer

    async def refusal(self) -> str:
        """Why the connection was ended; nothing may come after that."""
        frame = await self.read()
        assert frame is not None
        assert frame.kind == Kind.REFUSED
        assert await self.read() is None
        problem: str = json.loads(frame.body)["problem"]
        return problem


class Pond:
    """A server with a host that writes down what it is told."""

    def __init__(self, path: Path, **options: Any) -> None:
        self.path = path
        self.events: list[Event] = []
        self.joined: list[tuple[int, int]] = []
        self.declared: list[Any] = []
        self.problems: list[dict[str, Any]] = []  # What no callback caught.
        self.segment = Segment(LAYOUT, 1)
        self.refuses = ""
        self._peers: list[socket.socket] = []
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: self.problems.append(context))
        host = Host(
            welcome=self._welcome,
            dispatch=self._take,
            allow_uids=options.get("allow_uids", ()),
            renderers_max=options.get("renderers_max", 1000),
        )
        first_number = options.get("first_number", 1)
        self.server = RendererServer(path, loop, host, first_number=first_number)

    def _take(self, event: Event) -> None:
        if isinstance(event, RendererJoined):
            self.joined.append((event.renderer, event.pid))
        else:
            self.events.append(event)

    def _welcome(self, renderer: int, channels: Any) -> tuple[dict[str, Any], int]:
        self.declared.append(channels)
        if self.refuses:
            raise ChannelsRefused(self.refuses)
        return {"renderer": renderer, "pid": os.getpid(), **LAYOUT.to_json()}, self.segment.fd

    async def connect(self) -> Peer:
        peer = socket.socket(socket.AF_UNIX)
        self._peers.append(peer)
        peer.setblocking(False)
        await asyncio.get_running_loop().sock_connect(peer, os.fspath(self.path))
        return Peer(peer)

    async def join(self) -> tuple[Peer, int]:
        peer = await self.connect()
        return peer, await peer.hello()

    @property
    def left(self) -> list[int]:
        return [event.renderer for event in self.events if isinstance(event, RendererLeft)]

    def close(self) -> None:
        if self.path.exists():  # Else a test has closed it.
            self.server.close()
        for peer in self._peers:
            peer.close()
        self.segment.close()
        assert not self.problems


@pytest.fixture
async def pond(tmp_path: Path) -> AsyncIterator[Pond]:
    pond = Pond(tmp_path / "p.sock")
    yield pond
    pond.close()


@asynccontextmanager
async def other_pond(path: Path, **options: Any) -> AsyncIterator[Pond]:
    pond = Pond(path, **options)
    try:
        yield pond
    finally:
        pond.close()


def publish(renderer: int, sequence: int, body: bytes = JOB, *, slot: int = 0) -> bytes:
    return pack(
        Kind.PUBLISH, body, slot=slot, renderer=renderer, generation=sequence, sequence=sequence
    )


# What a renderer says.


@both_loops
async def test_a_greeting_is_answered_with_the_memory_and_the_kernel_says_who_it_was(
    pond: Pond,
) -> None:
    assert stat.S_IMODE(pond.path.stat().st_mode) == 0o600
    peer = await pond.connect()
    channels = {"loss": [[], "float32"]}
    await peer.send(pack(Kind.HELLO, json.dumps({**HELLO, "channels": channels}).encode()))
    await until(lambda: pond.joined)
    data, descriptors, _, _ = socket.recv_fds(peer.socket, 65536, 8)
    assert json.loads(FrameReader().feed(data)[0].body) == {
        "renderer": 1,
        "pid": os.getpid(),
        **LAYOUT.to_json(),
    }
    [segment_fd] = descriptors
    assert os.path.samestat(os.fstat(segment_fd), os.fstat(pond.segment.fd))
    os.close(segment_fd)
    assert pond.joined == [(1, os.getpid())]  # Not the pid that it claimed.
    assert orjson.loads(orjson.dumps(pond.declared)) == [channels]
    _, number = await pond.join()
    assert number == 2
    assert pond.events == []


async def test_numbers_go_on_where_those_of_an_earlier_daemon_ended(tmp_path: Path) -> None:
    async with other_pond(tmp_path / "q.sock", first_number=18) as pond:
        assert [(await pond.join())[1] for _ in range(2)] == [18, 19]


@both_loops
async def test_results_that_come_together_are_one_event_with_the_same_bytes(pond: Pond) -> None:
    peer, me = await pond.join()
    bodies = [b'{"render_args":{"x":[1.50]} , "id":"%d","model":null}' % n for n in range(3)]
    frames = [publish(me, n + 1, body, slot=n) for n, body in enumerate(bodies)]
    await peer.send(b"".join(frames))
    await until(lambda: pond.events)
    [event] = pond.events
    assert isinstance(event, ResultsPublished)
    assert event.renderer == me
    assert [result.frame for result in event.results] == frames
    assert [(r.slot, r.generation, r.renderer, r.sequence, r.id) for r in event.results] == [
        (0, 1, me, 1, "0"),
        (1, 2, me, 2, "1"),
        (2, 3, me, 3, "2"),
    ]


@both_loops
async def test_what_is_said_between_results_keeps_its_place(pond: Pond) -> None:
    peer, me = await pond.join()
    returned = pack(Kind.RETURN, slot=3, generation=7, renderer=me)
    want = pack(Kind.WANT, slot=1, generation=9, renderer=me)
    sync = pack(Kind.SYNC, renderer=me)
    await peer.send(
        publish(me, 1) + publish(me, 2) + want + publish(me, 3) + sync + returned + publish(me, 4)
    )
    answer = await peer.read()
    assert answer is not None
    assert (answer.kind, answer.sequence, answer.body) == (Kind.SYNC, 3, b"")
    shapes = [
        [result.sequence for result in event.results]
        if isinstance(event, ResultsPublished)
        else event
        for event in pond.events
    ]
    assert shapes == [[1, 2], SlotWanted(me), [3], SlotsReturned(me, [SlotRef(3, 7)]), [4]]


@both_loops
async def test_one_byte_at_a_time_is_a_frame_too(pond: Pond) -> None:
    peer, me = await pond.join()
    for byte in publish(me, 1):
        await peer.send(bytes([byte]))
    await until(lambda: pond.events)
    assert isinstance(pond.events[0], ResultsPublished)


@both_loops
async def test_a_renderer_that_vanishes_has_left_and_half_a_frame_is_nothing(pond: Pond) -> None:
    peer, me = await pond.join()
    await peer.send(publish(me, 1) + publish(me, 2)[:-1])
    peer.socket.close()
    await until(lambda: pond.left)
    published, left = pond.events
    assert isinstance(published, ResultsPublished)
    assert [result.sequence for result in published.results] == [1]
    assert left == RendererLeft(me)
    assert not pond.server.connections
    assert pond.server.faults == 0


# What it may not say.

INVALID_JOBS = {
    "not a number": (b'{"id": "a", "render_args": {"x": NaN}}', "malformed"),
    "infinity": (b'{"id": "a", "render_args": {"x": 1e999}}', "out of range"),
    "a long number": (b'{"id": "a", "render_args": {"x": %s}}' % (b"9" * 5000), "out of range"),
    "half a character": (rb'{"id": "\ud800", "render_args": {}}', "surrogate"),
    "half a character inside": (rb'{"id": "a", "render_args": {"x": "\ud800"}}', "invalid job"),
    "no UTF-8": (b'{"id": "\xff", "render_args": {}}', "utf-8"),
    "deep": (b'{"id": "a", "render_args": {"x": %s}}' % (b"[" * 65_000), "recursion"),
    "deep beside": (b'{"id": "a", "render_args": {}, "x": %s}' % (b"[" * 65_000), "recursion"),
    "args that are a list": (b'{"id": "a", "render_args": []}', "render_args must be an object"),
    "args that are null": (b'{"id": "a", "render_args": null}', "render_args must be an object"),
    "no args": (b'{"id": "a"}', "render_args"),
    "no id": (b'{"render_args": {}}', "id must be text"),
    "an empty id": (b'{"id": "", "render_args": {}}', "1 to 1024"),
    "a long id": (b'{"id": "%s", "render_args": {}}' % (b"a" * 1025), "1 to 1024"),
    "a number for an id": (b'{"id": 7, "render_args": {}}', "id must be text"),
    "a line": (rb'{"id": "a\n", "render_args": {}}', "control characters"),
    "an escape": (rb'{"id": "\u001b[2J", "render_args": {}}', "control characters"),
    "a NUL": (rb'{"id": "a\u0000", "render_args": {}}', "control characters"),
    "a control of another kind": (rb'{"id": "\u0085", "render_args": {}}', "control characters"),
    "bad text where nobody looks": (b'{"id": "a", "render_args": {}, "x": "\xff"}', "utf-8"),
    "two values": (JOB + JOB, "trailing characters"),
    "nothing": (b"", "truncated"),
}


@both_loops
@pytest.mark.parametrize(("body", "problem"), INVALID_JOBS.values(), ids=INVALID_JOBS)
async def test_an_invalid_job_is_refused_and_those_before_it_count(
    pond: Pond, body: bytes, problem: str
) -> None:
    peer, me = await pond.join()
    await peer.send(publish(me, 1) + publish(me, 2, body) + publish(me, 3))
    refusal = await peer.refusal()
    assert refusal.startswith("invalid job")
    assert problem in refusal
    published, left = pond.events
    assert isinstance(published, ResultsPublished)
    assert [result.sequence for result in published.results] == [1]
    assert left == RendererLeft(me)
    assert pond.server.faults == 1


@pytest.mark.parametrize(
    "body",
    [
        b'{"id": "first", "id": "last", "render_args": {"a": 1}, "render_args": {"b": 2}}',
        rb'{"id": "first", "\u0069d": "last", "render_args": {}}',
    ],
)
@on_uvloop
async def test_of_a_key_that_comes_twice_daemon_and_loggers_take_the_same(
    pond: Pond, body: bytes
) -> None:
    peer, me = await pond.join()
    await peer.send(publish(me, 1, body))
    await until(lambda: pond.events)
    [event] = pond.events
    assert isinstance(event, ResultsPublished)
    [result] = event.results
    assert result.id == orjson.loads(body)["id"] == "last"


FOREIGN_FRAMES = {
    "another renderer's result": (publish(99, 1), "result of renderer 99 from renderer 1"),
    "what a logger says": (pack(Kind.READY), "frame of kind 17 is not a renderer's"),
    "a second hello": (pack(Kind.HELLO, json.dumps(HELLO).encode()), "frame of kind 1 is not"),
    "an unknown kind": (HEADER.pack(MAGIC, PROTOCOL_VERSION, 200, 0, 0, 0, 0, 0), "of kind 200"),
    "noise": (b"\0" * 64, "not a millpond peer"),
    "too much": (
        HEADER.pack(MAGIC, PROTOCOL_VERSION, Kind.PUBLISH, 2**31, 0, 1, 0, 0),
        "at most 65536 may come",
    ),
    "one byte too much": (publish(1, 1, b" " * 65_537), "frame of 65537 bytes"),
}


@both_loops
@pytest.mark.parametrize(("data", "problem"), FOREIGN_FRAMES.values(), ids=FOREIGN_FRAMES)
async def test_a_frame_that_is_not_a_renderers_ends_it(
    pond: Pond, data: bytes, problem: str
) -> None:
    peer, me = await pond.join()
    other, _ = await pond.join()
    await peer.send(data)
    assert problem in await peer.refusal()
    assert pond.events == [RendererLeft(me)]
    await other.send(pack(Kind.SYNC))
    assert await other.read()


WRONG_HELLOS = {
    "a result": (publish(1, 1), "the first frame must be a hello"),
    "more behind it": (
        pack(Kind.HELLO, json.dumps(HELLO).encode()) + pack(Kind.WANT),
        "nothing may follow",
    ),
    "no object": (pack(Kind.HELLO, b"[]"), "hello: Expected `object`"),
    "no JSON": (pack(Kind.HELLO, b"hello"), "hello: JSON is malformed"),
    "no UTF-8": (
        pack(Kind.HELLO, b'{"protocol": 1, "pid": 1, "channels": {"\xff": [[], "int8"]}}'),
        "hello: 'utf-8' codec",
    ),
    "no protocol": (pack(Kind.HELLO, b'{"pid": 1}'), "protocol"),
    "another protocol": (
        pack(Kind.HELLO, b'{"protocol": 99, "pid": 1}'),
        "protocol 99, this daemon speaks 1: install the same millpond",
    ),
    "deep": (pack(Kind.HELLO, b"[" * 65_000), "hello: "),
    "channels of another form": (
        pack(Kind.HELLO, b'{"protocol": 1, "pid": 1, "channels": {"x": "float32"}}'),
        "hello: Expected `array`",
    ),
}


@both_loops
@pytest.mark.parametrize(("data", "problem"), WRONG_HELLOS.values(), ids=WRONG_HELLOS)
async def test_a_wrong_greeting_is_refused(pond: Pond, data: bytes, problem: str) -> None:
    peer = await pond.connect()
    await peer.send(data)
    assert problem in await peer.refusal()
    assert (pond.events, pond.joined, pond.declared) == ([], [], [])


@on_uvloop
async def test_channels_nested_to_any_depth_are_refused_and_not_walked_through(pond: Pond) -> None:
    for depth in range(900, 1010):
        nested = b"[" * depth + b"]" * depth
        peer = await pond.connect()
        body = b'{"protocol": 1, "pid": 1, "channels": {"a": [[%s], "int8"]}}' % nested
        await peer.send(pack(Kind.HELLO, body))
        assert (await peer.refusal()).startswith("hello: ")


@both_loops
async def test_a_host_may_refuse_and_its_words_are_passed_on(pond: Pond) -> None:
    pond.refuses = "the pond has other channels"
    peer = await pond.connect()
    await peer.send(pack(Kind.HELLO, json.dumps(HELLO).encode()))
    frame = await peer.read()
    assert frame is not None
    assert json.loads(frame.body) == {"problem": "the pond has other channels", "channels": True}
    assert await peer.read() is None
    assert pond.events == pond.joined == []


# Who may come.


@contextmanager
def effective_user(uid: int) -> Iterator[None]:
    """Be somebody else for a moment; the kernel notes at connect who we are."""
    os.seteuid(uid)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be somebody else")
@on_uvloop
async def test_only_allowed_users_may_connect(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # The folders above are ours alone.
    os.chmod(".", 0o755)  # noqa: PTH101  A pathlib.Path would be no better in a coroutine.

    async def connect_as_nobody(pond: Pond) -> Peer:
        with effective_user(NOBODY):
            return await pond.connect()

    async with other_pond(Path("ours.sock")) as pond:
        with pytest.raises(PermissionError):
            await connect_as_nobody(pond)
    async with other_pond(Path("others.sock"), allow_uids=[NOBODY - 1]) as pond:
        peer = await connect_as_nobody(pond)
        assert await peer.refusal() == "user 65534 may not connect; add it to service.allow_uids"
        await pond.join()  # We ourselves always may.
    async with other_pond(Path("theirs.sock"), allow_uids=[NOBODY]) as pond:
        peer = await connect_as_nobody(pond)
        assert await peer.hello() == 1


@both_loops
async def test_more_renderers_than_allowed_are_told_so(tmp_path: Path) -> None:
    async with other_pond(tmp_path / "p.sock", renderers_max=2) as pond:
        first, number = await pond.join()
        await pond.join()
        surplus = await pond.connect()
        await surplus.send(pack(Kind.HELLO, json.dumps(HELLO).encode()))
        assert await surplus.refusal() == (
            "busy: 2 renderers are connected; raise service.renderers_max"
        )
        first.socket.close()
        await until(lambda: pond.left == [number])
        await pond.join()


@both_loops
async def test_too_many_strangers_are_turned_away_and_renderers_are_not(pond: Pond) -> None:
    await pond.join()
    strangers = [await pond.connect() for _ in range(STRANGERS_MAX)]
    surplus = await pond.connect()
    assert await surplus.refusal() == "busy: too many connections that have not said hello"
    assert await strangers[0].hello()
    await pond.join()
    assert pond.events == []


# Those who dawdle.


@on_uvloop
async def test_whoever_does_not_finish_what_it_began_is_ended(pond: Pond) -> None:
    """All at once, for each waits for its deadline; a busy renderer is not among them."""

    async def say_nothing() -> None:
        peer = await pond.connect()
        assert await peer.refusal() == "no hello within 2 s"

    async def begin_a_hello() -> None:
        peer = await pond.connect()
        await peer.send(pack(Kind.HELLO, b"{}")[:-1])
        assert await peer.refusal() == "no hello within 2 s"

    async def begin_a_result() -> None:
        peer, me = await pond.join()
        await peer.send(publish(me, 1) + publish(me, 2)[:5])
        assert await peer.refusal() == "half a frame, and not the rest within 2 s"
        assert me in pond.left

    async def dribble() -> None:
        peer, me = await pond.join()
        for byte in publish(me, 1, JOB + b" " * 60_000):
            if _has_answer(peer.socket):
                break
            await peer.send(bytes([byte]))
            await until(lambda: not _unread_bytes(peer.socket) or _has_answer(peer.socket))
        else:
            pytest.fail("each byte was given the whole time anew")
        assert await peer.refusal() == "half a frame, and not the rest within 2 s"

    async def stay_busy() -> None:
        """Every read of the server ends in the middle of a frame, for longer than the deadline."""
        peer, me = await pond.join()
        stream = b"".join(publish(me, n + 1) for n in range(40))
        step = len(stream) // 40
        await peer.send(stream[: step // 2])
        for start in range(step // 2, len(stream) - step, step):
            await asyncio.sleep(0.07)
            await peer.send(stream[start : start + step])
        await peer.send(stream[start + step :] + pack(Kind.SYNC, renderer=me))
        answer = await peer.read()
        assert answer is not None
        assert (answer.kind, answer.sequence) == (Kind.SYNC, 40), answer.body
        assert me not in pond.left

    async with asyncio.TaskGroup() as tasks:
        for story in (say_nothing, begin_a_hello, begin_a_result, dribble, stay_busy):
            tasks.create_task(story())


def _has_answer(peer: socket.socket) -> bool:
    return bool(select.select([peer], [], [], 0)[0])


def _unread_bytes(peer: socket.socket) -> int:
    """How much of what was sent the server has not read yet; the kernel's own bytes count too."""
    answer = fcntl.ioctl(peer, termios.TIOCOUTQ, struct.pack("i", 0))
    return int(struct.unpack("i", answer)[0])


@both_loops
async def test_what_does_not_fit_at_once_is_sent_later_and_in_order(pond: Pond) -> None:
    peer, me = await pond.join()
    connection = pond.server.connections[me]
    bodies = [bytes([65 + number]) * 30_000 for number in range(12)]
    for body in bodies:
        connection.send(Kind.HOLDERS, body)
    frames = [await peer.read() for _ in bodies]
    assert [frame.body for frame in frames if frame is not None] == bodies
    assert pond.server.connections == {me: connection}


@both_loops
async def test_a_renderer_that_does_not_read_is_ended_at_the_limit(pond: Pond) -> None:
    peer, me = await pond.join()
    connection: RendererConnection = pond.server.connections[me]
    body = b"x" * 60_000
    sent_bytes = 0
    while me in pond.server.connections:
        connection.send(Kind.HOLDERS, body)
        sent_bytes += len(body)
        assert sent_bytes < 64 * UNSENT_BYTES_MAX
    assert sent_bytes > UNSENT_BYTES_MAX
    assert pond.left == [me]
    connection.send(Kind.HOLDERS, body)  # Nobody there; no harm.
    assert pond.left == [me]
    peer.socket.close()


# Descriptors.


def descriptors() -> int:
    gc.collect()  # What earlier tests left to it is not ours.
    return len(list(Path("/proc/self/fd").iterdir()))


@both_loops
async def test_descriptors_that_nobody_asked_for_are_not_taken(pond: Pond) -> None:
    peer, me = await pond.join()
    # The welcome's own descriptor was never taken by this peer either.
    before = descriptors()
    many = array.array("i", [pond.segment.fd] * 250).tobytes()
    rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, many)]
    for number in range(4):
        peer.socket.sendmsg([publish(me, number + 1)], rights)
        await until(lambda number=number: len(pond.events) == number + 1)
        assert descriptors() == before
    stranger = await pond.connect()
    stranger.socket.sendmsg([pack(Kind.HELLO, json.dumps(HELLO).encode())], rights)
    assert (await stranger.read()) is not None
    assert descriptors() == before + 2  # The two ends of its connection.


@on_uvloop
async def test_without_descriptors_the_door_opens_again_later(pond: Pond) -> None:
    _, me = await pond.join()
    peer = socket.socket(socket.AF_UNIX)
    pond._peers.append(peer)
    peer.setblocking(False)
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    spare = os.dup(0)
    os.close(spare)  # The lowest that is free: the next one would be this.
    resource.setrlimit(resource.RLIMIT_NOFILE, (spare, limits[1]))
    try:
        with capture_logs() as logs:
            peer.connect(os.fspath(pond.path))
            await until(lambda: logs)
        assert [log["event"] for log in logs] == ["no descriptor for a renderer"]
        assert list(pond.server.connections) == [me]
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    assert await Peer(peer).hello() == 2


# The end.


@both_loops
async def test_closing_ends_all_and_removes_the_socket(pond: Pond) -> None:
    peer, me = await pond.join()
    stranger = await pond.connect()
    await until(lambda: len(pond.server.connections) == 2)
    pond.server.close()
    assert not pond.path.exists()
    assert await peer.read() is None
    assert await stranger.read() is None
    assert pond.events == [RendererLeft(me)]
    assert not pond.server.connections


@both_loops
async def test_a_socket_that_was_left_behind_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "p.sock"
    with socket.socket(socket.AF_UNIX) as old:
        old.bind(os.fspath(path))
    async with other_pond(path) as pond:
        await pond.join()
    assert not path.exists()
