"""The buffer behaves as 3DB's scheduler and policies expect, with or without torch."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from service.compat.conftest import CHANNELS, allocating, has_ended, rows, wait_until
from service.compat.forked import in_fork

from millpond.compat import cyclic_buffer
from millpond.compat.cyclic_buffer import CyclicBuffer, live_buffers
from millpond.compat.delivery import ResultsMissing
from millpond.compat.messages import End, Log
from millpond.compat.own_daemon import OwnDaemon, Plan
from millpond.core.layout import channels_to_json
from millpond.errors import ChannelsRefused, DaemonUnreachable, InvalidResult, PondFull

pytestmark = pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")

DECLARED = json.loads(json.dumps(channels_to_json(CHANNELS)))
VALUES = {"rgb": np.ones((3, 4, 4), "float32"), "is_correct": np.array([True]), "loss": 0.5}


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def make(served: Path) -> Iterator[Callable[..., CyclicBuffer]]:
    """Makes buffers that join the daemon of these tests."""
    made: list[CyclicBuffer] = []

    def begin(**options: Any) -> CyclicBuffer:
        made.append(CyclicBuffer(DECLARED, socket=served, **options))
        return made[-1]

    yield begin
    for buffer in made:
        buffer.end()


def array(value: Any) -> np.ndarray:
    return np.asarray(value)


def test_it_begins_without_channels_and_the_first_registration_is_1() -> None:
    buffer = CyclicBuffer()
    assert buffer.initialized is False
    assert buffer.register() == 1
    assert buffer.register() == 2
    assert buffer.registration_count == 2
    assert buffer.channels == {}


def test_channels_are_declared_once_and_may_be_declared_again_if_they_are_the_same() -> None:
    buffer = CyclicBuffer()
    assert buffer.declare_buffers(DECLARED) is True
    assert buffer.initialized is True
    assert buffer.declare_buffers(json.loads(json.dumps(DECLARED))) is True
    assert buffer.declare_buffers({**DECLARED, "loss": ((), "float")}) is True
    assert buffer.declare_buffers({**DECLARED, "loss": [[], "float64"]}) is False
    assert buffer.declare_buffers({"loss": [[], "float32"]}) is False
    assert buffer.channels["rgb"] == ((3, 4, 4), "float32")
    assert list(buffer.declared_buffers) == ["rgb", "is_correct", "loss"]


@pytest.mark.parametrize(
    "use",
    [
        lambda buffer: buffer.allocate(VALUES),
        lambda buffer: buffer[0],
        lambda buffer: buffer.free(0, 1),
        lambda buffer: buffer.process_events(),
    ],
)
def test_nothing_can_be_done_before_channels_are_declared(
    use: Callable[[CyclicBuffer], Any],
) -> None:
    with pytest.raises(InvalidResult, match="no channels yet: call declare_buffers first"):
        use(CyclicBuffer())


def test_a_result_is_seen_where_it_was_put(make: Callable[..., CyclicBuffer]) -> None:
    buffer = make()
    index = buffer.allocate(VALUES)
    assert type(index) is int
    assert buffer.size == 4
    seen = buffer[index]
    assert list(seen) == ["rgb", "is_correct", "loss"]
    assert array(seen["rgb"]).shape == (3, 4, 4)
    assert (array(seen["rgb"]) == 1).all()
    assert array(seen["is_correct"]).shape == ()
    assert array(seen["is_correct"]).item() is True
    assert array(seen["loss"]).item() == 0.5
    buffer.free(index, -1)


def test_results_are_tensors_when_torch_is_there(make: Callable[..., CyclicBuffer]) -> None:
    torch = pytest.importorskip("torch", reason="torch is not installed here: make threedb")
    buffer = make()
    index = buffer.allocate({name: torch.as_tensor(value) for name, value in VALUES.items()})
    seen = buffer[index]
    assert all(torch.is_tensor(value) for value in seen.values())
    assert seen["loss"].shape == ()
    assert seen["rgb"].clone().sum() == 48
    buffer.free(index, -1)


@pytest.mark.parametrize("index", [-1, 4, 10**9])
def test_there_are_as_many_slots_as_the_daemon_has(
    make: Callable[..., CyclicBuffer], index: int
) -> None:
    with pytest.raises(IndexError, match="none of the 4 slots"):
        make()[index]


def test_a_forked_process_reads_frees_and_does_not_allocate(
    make: Callable[..., CyclicBuffer], served: Path
) -> None:
    buffer = make()
    regid = buffer.register()
    buffer.process_events()  # Joins the daemon; a fork alone would do it too.
    index = buffer.allocate(VALUES)

    def child() -> float:
        seen = buffer[index]
        total = float(array(seen["rgb"]).sum())
        buffer.tell(Log(index, "from-the-child", b'{"id":"from-the-child","render_args":{}}'))
        buffer.free(index, regid)
        buffer.process_events()
        buffer.close()
        with pytest.raises(InvalidResult, match=r"only the process that made the buffer \(pid"):
            buffer.allocate(VALUES)
        return total

    assert in_fork(child) == 48
    wait_until(lambda: "from-the-child" in rows(served))


def test_results_that_are_allocated_after_the_fork_are_seen_too(
    make: Callable[..., CyclicBuffer],
) -> None:
    buffer = make()
    read_end, write_end = os.pipe()
    answer_read, answer_write = os.pipe()
    pid = os.fork()  # Nothing was done with the buffer so far.
    if not pid:
        index = os.read(read_end, 1)[0]
        os.write(answer_write, b"%d" % int(array(buffer[index]["rgb"]).sum()))
        os._exit(0)
    index = buffer.allocate(VALUES)
    os.write(write_end, bytes([index]))
    os.waitpid(pid, 0)
    assert os.read(answer_read, 100) == b"48"
    buffer.free(index, -1)
    for end in (read_end, write_end, answer_read, answer_write):
        os.close(end)


def test_a_process_that_was_forked_before_the_declaration_is_told_so() -> None:
    buffer = CyclicBuffer()

    def child() -> None:
        buffer.declare_buffers(DECLARED)
        with pytest.raises(InvalidResult, match="forked before the channels were declared"):
            buffer[0]

    in_fork(child)


def test_any_number_of_registrations_is_waited_for(
    make: Callable[..., CyclicBuffer], served: Path
) -> None:
    buffer = make()
    regids = [buffer.register() for _ in range(20)]
    assert regids == list(range(1, 21))
    index = buffer.allocate(VALUES)
    buffer.tell(Log(index, "twenty", b'{"id":"twenty","render_args":{}}'))
    for regid in reversed(regids):
        assert "twenty" not in rows(served)
        buffer.free(index, np.int64(regid))
    wait_until(lambda: "twenty" in rows(served))


def test_who_registers_later_is_not_waited_for_by_what_was_there(
    make: Callable[..., CyclicBuffer], served: Path
) -> None:
    buffer = make()
    index = buffer.allocate(VALUES)
    buffer.register()
    buffer.tell(Log(index, "earlier", b'{"id":"earlier","render_args":{}}'))
    wait_until(lambda: "earlier" in rows(served))


def test_a_full_buffer_is_an_error_in_time(make: Callable[..., CyclicBuffer]) -> None:
    buffer = make(wait_s=0.2)
    buffer.register()
    indices = []
    with pytest.raises(PondFull, match=r"for 0\.2 s: .* to be freed by registration 1"):
        while True:
            indices.append(buffer.allocate(VALUES))
    assert len(indices) >= 3
    for index in indices:
        buffer.free(index, -1)


def test_the_environment_says_which_daemon_is_joined(
    served: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MILLPOND_SOCKET", str(served.parent))
    buffer = CyclicBuffer(DECLARED, 77)
    buffer.free(buffer.allocate(VALUES), -1)
    assert buffer.size == 4
    buffer.close()
    with pytest.raises(DaemonUnreachable):
        buffer.allocate(VALUES)


def test_a_daemon_with_other_channels_is_not_joined(served: Path) -> None:
    buffer = CyclicBuffer({"other": [[2], "uint8"]}, socket=served)
    with pytest.raises(ChannelsRefused, match="other"):
        buffer.process_events()


def test_a_buffer_alone_starts_a_daemon_and_ends_it_when_it_is_closed() -> None:
    buffer = CyclicBuffer(buffers=DECLARED, size=3, with_tqdm=False)
    regid = buffer.register()
    index = buffer.allocate(VALUES)
    buffer.tell(Log(index, "a", b'{"id":"a","render_args":{}}'))
    in_fork(buffer.free, index, regid)
    assert isinstance(buffer._daemon, OwnDaemon)
    buffer.close()
    assert has_ended(buffer._daemon.pid)
    assert "1 published = 1 delivered" in Path("runs/threedb/millpond.log").read_text()
    buffer.close()


@pytest.mark.parametrize("use", [CyclicBuffer.end, lambda buffer: buffer.wait_delivered(5)])
def test_a_forked_process_neither_ends_it_nor_waits(
    make: Callable[..., CyclicBuffer], use: Callable[[CyclicBuffer], None]
) -> None:
    buffer = make()
    buffer.process_events()
    with (
        allocating(buffer, VALUES),  # The lock that the child has a copy of is taken.
        pytest.raises(InvalidResult, match=r"only the process that made the buffer \(pid \d+\)"),
    ):
        in_fork(use, buffer)


def test_an_end_that_failed_is_told_by_who_ends_it_too() -> None:
    buffer = CyclicBuffer(DECLARED, size=3)
    index = buffer.allocate(VALUES)
    assert isinstance(buffer._daemon, OwnDaemon)
    assert buffer._owner is not None
    os.kill(buffer._daemon.pid, signal.SIGSTOP)
    buffer.tell(Log(index, "unread", b'{"id":"unread","render_args":{}}'))
    buffer._daemon.kill()
    in_fork(buffer.tell, End())
    wait_until(lambda: buffer._owner.is_over)
    for _ in range(2):
        with pytest.raises(DaemonUnreachable, match="not acknowledged: unread"):
            buffer.end()


def test_a_joined_daemon_whose_health_is_elsewhere_is_joined_by_its_configuration(
    served: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = tmp_path / "h.sock"
    config = tmp_path / "mine.yaml"
    sockets = {"socket": str(served), "health_socket": str(elsewhere)}
    logging = {"logger_modules": ["csv"]}
    config.write_text(
        json.dumps({"output_dir": str(served.parent), "service": sockets, "logging": logging})
    )
    health = served.with_name("health.sock")
    wait_until(health.exists)
    health.rename(elsewhere)
    try:
        monkeypatch.setenv("MILLPOND_SOCKET", str(config))
        buffer = CyclicBuffer(DECLARED)
        index = buffer.allocate(VALUES)
        buffer.tell(Log(index, "elsewhere", b'{"id":"elsewhere","render_args":{}}'))
        buffer.close()
    finally:
        elsewhere.rename(health)
    assert "elsewhere" in rows(served)


def test_results_that_a_joined_daemon_gave_up_are_an_error(tmp_path: Path) -> None:
    dying = "import os\nclass Logger:\n    __init__ = lambda *_: None\n"
    (tmp_path / "dying.py").write_text(f"{dying}    log = lambda *_: os._exit(3)\n")
    logger = {"module": str(tmp_path / "dying.py"), "on_crash": "drop"}
    daemon = OwnDaemon(Plan(tmp_path / "out", [logger]), CHANNELS)
    keeps_it = daemon.connect({c.name: (c.shape, c.dtype) for c in CHANNELS})
    try:
        buffer = CyclicBuffer(DECLARED, socket=daemon.socket)
        index = buffer.allocate(VALUES)
        buffer.tell(Log(index, "lost", b'{"id":"lost","render_args":{}}'))
        buffer.end()
        with pytest.raises(ResultsMissing, match=r"given up, .*: 1 for logger 'dying'; see"):
            buffer.wait_delivered(30)
    finally:
        keeps_it.close()
        daemon.kill()


def test_closing_what_was_never_used_does_nothing(tmp_path: Path) -> None:
    CyclicBuffer().close()
    CyclicBuffer(DECLARED).close()
    assert list(tmp_path.iterdir()) == []


def test_buffers_of_this_process_are_known(make: Callable[..., CyclicBuffer]) -> None:
    before = live_buffers()
    buffer = make()
    assert [found for found in live_buffers() if found not in before] == [buffer]
    assert in_fork(lambda: len(cyclic_buffer.live_buffers())) == 0
