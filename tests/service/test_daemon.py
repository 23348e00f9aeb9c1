"""The daemon's shell in this process: what it does that its supervisor only decides.

Whole daemons are tested in `tests/system`.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import psutil
import pytest

import millpond
from millpond.config.load import load
from millpond.config.model import Config
from millpond.core.wire import PROTOCOL_VERSION, Kind, pack
from millpond.daemon import Daemon
from millpond.errors import DaemonUnreachable
from millpond.ledger_previous import Previous
from millpond.module_search import check_modules
from millpond.run_folder import RunFolder
from millpond.serve import fail_loudly

WATCHDOG_S = 60.0
CHANNELS = {"loss": ((), "float32")}
LOSS = {"loss": {"shape": [], "dtype": "float32"}}
SLOW = """
import pathlib, time

class Logger:
    def __init__(self, root_dir, result_buffer, config):
        self.root = pathlib.Path(root_dir)
        self.buffer = result_buffer

    def log(self, item):
        while not (self.root.parent / "go").exists():
            time.sleep(0.01)
        loss = float(self.buffer[item["result_ix"]]["loss"])
        with (self.root / "recorded").open("a") as file:
            file.write(f"{item['id']}={loss}\\n")

    def end(self):
        pass
"""
pytestmark = pytest.mark.asyncio(loop_factories=["uvloop"])


async def until(condition: Callable[[], Any]) -> None:
    end_s = asyncio.get_running_loop().time() + WATCHDOG_S
    while not condition():
        assert asyncio.get_running_loop().time() < end_s
        await asyncio.sleep(0.002)


class House:
    """Makes daemons in one folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._daemons: list[tuple[Daemon, RunFolder]] = []

    def config(self, **sections: Any) -> Config:
        path = self._folder / "pond.yaml"
        path.write_text(
            json.dumps(
                {
                    "name": "tested",
                    "output_dir": str(self._folder / "run"),
                    "logging": {"logger_modules": ["null"]},
                    **sections,
                }
            )
        )
        return load(path, environ={})

    def open(
        self, *, exit_when_done: bool = False, is_replay: bool = False, **sections: Any
    ) -> Daemon:
        config = self.config(**sections)
        modules = check_modules(config)
        folder = RunFolder(config.output_dir)
        loop = asyncio.get_running_loop()
        daemon = Daemon(
            config,
            [modules[logger.name] for logger in config.loggers],
            loop,
            exit_when_done=exit_when_done,
            is_replay=is_replay,
        )
        loop.set_exception_handler(lambda _, context: fail_loudly(daemon, context))
        daemon.start()
        self._daemons.append((daemon, folder))
        return daemon

    @property
    def socket(self) -> Path:
        return self._folder / "run" / "millpond.sock"

    def forget(self) -> None:
        """What was closed is not closed again."""
        self._daemons.clear()

    async def close(self) -> None:
        for daemon, folder in self._daemons:
            daemon.close()
            folder.close()
        for daemon, _ in self._daemons:
            loggers = daemon._loggers
            if loggers is not None and loggers._guard._process.returncode is None:
                await until(lambda loggers=loggers: not loggers._processes)  # type: ignore[misc]
                loggers.close()  # And the guard, which waited for them.


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    house = House(tmp_path)
    yield house
    await house.close()


@contextlib.asynccontextmanager
async def renderer(house: House, channels: Any = CHANNELS) -> AsyncIterator[millpond.Pond]:
    """A pond of this process; its calls must be made in threads, for the loop is ours."""
    pond = await asyncio.to_thread(millpond.connect, house.socket, channels)
    try:
        yield pond
    finally:
        await asyncio.to_thread(pond.close)


def children() -> list[psutil.Process]:
    running = psutil.Process().children(recursive=True)
    return [child for child in running if is_logger(child)]


def is_logger(child: psutil.Process) -> bool:
    """Not the guard, and not what ends just now."""
    with contextlib.suppress(psutil.NoSuchProcess):
        return bool(child.cmdline()) and "millpond.guard" not in child.cmdline()
    return False


async def test_without_channels_it_waits_for_a_renderer_and_a_stop_ends_it_at_once(
    house: House,
) -> None:
    daemon = house.open()
    now = daemon.status()
    assert (now["state"], now["loggers"], now["results"]) == ("waiting", {}, 0)
    assert now["slots"] == {"total": 0, "free": 0}
    assert now["name"] == "tested"
    assert children() == []
    daemon.stop()
    await daemon.finished
    daemon.stop()  # A second signal on the way out is no error.


async def test_declared_channels_open_the_pond_at_the_start(house: House) -> None:
    channels = {"loss": {"shape": [], "dtype": "float32"}}
    daemon = house.open(buffer={"slots": 4, "channels": channels})
    assert daemon.status()["state"] == "starting"
    await until(lambda: daemon.status()["state"] == "running")
    row = daemon.status()["loggers"]["null"]
    assert [child.pid for child in children()] == [row["pid"]]
    assert daemon.status()["slots"] == {"total": 4, "free": 4}


async def test_results_go_their_way_and_the_end_of_the_work_is_the_end(house: House) -> None:
    daemon = house.open(exit_when_done=True, buffer={"slots": 4})
    async with renderer(house) as pond:
        for number in range(20):
            await asyncio.to_thread(pond.publish, f"{number}", {}, loss=float(number))
        await asyncio.to_thread(pond.flush)
        [row] = daemon.status()["renderers"]
        assert row["published"] == 20
    async with asyncio.timeout(WATCHDOG_S):
        await daemon.finished
    now = daemon.status()
    assert now["state"] == "draining"
    assert now["results"] == now["loggers"]["null"]["delivered"] == 20
    assert now["renderers"] == []
    assert now["slots"]["free"] == 4
    assert children() == []


async def test_channels_that_cannot_be_had_are_refused_and_the_next_ones_tried(
    house: House,
) -> None:
    daemon = house.open(buffer={"slots": 4})
    huge = {"rgb": ((2**31 - 1, 2**10), "float64")}
    for wrong, why in ((None, "no channels yet"), (huge, "1 TiB|MiB|memory")):
        with pytest.raises(millpond.ChannelsRefused, match=why):
            await asyncio.to_thread(millpond.connect, house.socket, wrong)
    assert daemon.status()["state"] == "waiting"
    assert children() == []
    async with renderer(house) as pond:
        assert list(pond.channels) == ["loss"]
        with pytest.raises(millpond.ChannelsRefused, match=r"this renderer has loss \(\) float64"):
            await asyncio.to_thread(millpond.connect, house.socket, {"loss": ((), "float64")})


async def test_a_renderer_that_breaks_the_rules_is_ended_and_its_slots_are_free(
    house: House,
) -> None:
    daemon = house.open(buffer={"slots": 4})
    async with renderer(house) as pond:
        loop = asyncio.get_running_loop()
        with socket.socket(socket.AF_UNIX) as peer:
            peer.setblocking(False)
            await loop.sock_connect(peer, str(house.socket))
            hello = {"protocol": PROTOCOL_VERSION, "pid": 1}
            await loop.sock_sendall(peer, pack(Kind.HELLO, json.dumps(hello).encode()))
            await until(lambda: len(daemon.status()["renderers"]) == 2)
            job = b'{"id": "stolen", "render_args": {}}'
            stolen = pack(Kind.PUBLISH, job, slot=0, renderer=2, generation=1, sequence=1)
            await loop.sock_sendall(peer, stolen)
            await until(lambda: len(daemon.status()["renderers"]) == 1)
        await asyncio.to_thread(pond.publish, "mine", {}, loss=np.float32(1))
    await until(lambda: daemon.status()["slots"]["free"] == 4)
    assert daemon.status()["results"] == 1
    assert not daemon.finished.done()


async def test_nested_channels_do_not_end_the_daemon(house: House) -> None:
    """The text of a refusal is made further down than the reading was: it once went too deep."""
    daemon = house.open()
    loop = asyncio.get_running_loop()
    for depth in range(850, 1000):
        nested = b"[" * depth + b"]" * depth
        body = b'{"protocol": 1, "pid": 1, "channels": {"a": [[%s], "int8"]}}' % nested
        with socket.socket(socket.AF_UNIX) as peer:
            peer.setblocking(False)
            await loop.sock_connect(peer, str(house.socket))
            await loop.sock_sendall(peer, pack(Kind.HELLO, body))
            assert b"problem" in await loop.sock_recv(peer, 65536)
    assert not daemon.finished.done()


async def test_a_logger_that_cannot_be_started_is_a_logger_that_ended(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("millpond.logger_process.sys", SimpleNamespace(executable="/nowhere/x"))
    channels = {"loss": {"shape": [], "dtype": "float32"}}
    restart = {"delay_s": 0.01}
    daemon = house.open(
        buffer={"slots": 4, "channels": channels},
        logging={"logger_modules": [{"module": "null", "restart": restart}]},
    )
    await until(lambda: daemon.status()["state"] == "degraded")
    row = daemon.status()["loggers"]["null"]
    assert row["state"] == "fatal"
    assert "cannot be started: " in row["last_error"]
    assert "No such file" in row["last_error"]


async def test_closing_leaves_no_logger_and_no_socket(house: House) -> None:
    channels = {"loss": {"shape": [], "dtype": "float32"}}
    daemon = house.open(
        buffer={"slots": 4, "channels": channels},
        logging={"logger_modules": ["null", {"module": "null", "name": "second"}]},
    )
    await until(lambda: daemon.status()["state"] == "running")
    assert len(children()) == 2
    await house.close()
    assert not house.socket.exists()
    assert not children()
    house.forget()


async def test_a_daemon_that_only_replays_listens_to_nobody_and_ends_when_nothing_waits(
    house: House,
) -> None:
    two = {"logger_modules": ["null", {"module": "null", "name": "second"}]}
    for sections in ({}, {"buffer": {"slots": 4, "channels": LOSS}, "logging": two}):
        daemon = house.open(is_replay=True, **sections)
        assert not house.socket.exists()
        async with asyncio.timeout(WATCHDOG_S):
            await daemon.finished
        assert daemon.finish()["results"] == 0
        await house.close()
        house.forget()


async def test_what_is_left_at_the_end_waits_on_the_disk_for_the_next_daemon(
    house: House, tmp_path: Path
) -> None:
    """The first one has no time to drain, and spills; the second one delivers all of it."""
    (tmp_path / "slow.py").write_text(SLOW)
    sections = {
        "logging": {"logger_modules": ["./slow.py"]},
        "service": {"drain_s": 0},
        "buffer": {"slots": 8},
    }
    first = house.open(**sections)
    async with renderer(house) as pond:
        for number in range(6):
            await asyncio.to_thread(pond.publish, f"{number}", {}, loss=float(number))
        await asyncio.to_thread(pond.flush)
    first.stop()
    async with asyncio.timeout(WATCHDOG_S):
        await first.finished
    row = first.finish()["loggers"]["slow"]
    assert row["spilled"] == 6 - row["delivered"] > 0
    await house.close()
    house.forget()
    (tmp_path / "go").touch()
    second = house.open(is_replay=True, **sections)  # It knows the channels from the first one.
    async with asyncio.timeout(WATCHDOG_S):
        await second.finished
    row = second.finish()["loggers"]["slow"]
    assert (row["spilled"], row["dead"]) == (0, 0)
    recorded = (tmp_path / "run" / "recorded").read_text().split()
    assert sorted(set(recorded)) == [f"{number}={float(number)}" for number in range(6)]


async def test_the_numbers_of_renderers_go_on_in_the_next_daemon(house: House) -> None:
    for last in (1, 2):
        daemon = house.open(buffer={"slots": 4})
        async with renderer(house) as pond:
            await asyncio.to_thread(pond.publish, "same", {}, loss=0.0)
            await asyncio.to_thread(pond.flush)
        daemon.stop()
        async with asyncio.timeout(WATCHDOG_S):
            await daemon.finished
        daemon.finish()
        assert Previous.read(house.socket.parent, []).renderer_last == last
        await house.close()
        house.forget()


async def test_a_bug_ends_the_daemon_and_other_complaints_of_the_loop_do_not(
    house: House,
) -> None:
    daemon = house.open()
    fail_loudly(daemon, {"message": "a transport grumbles"})
    assert not daemon.finished.done()
    asyncio.get_running_loop().call_soon(lambda: 1 // 0)
    with pytest.raises(ZeroDivisionError):
        await daemon.finished
    daemon.fail(AssertionError("a second one on the way out"))


async def test_a_closed_daemon_is_unreachable(house: House) -> None:
    house.open()
    await house.close()
    house.forget()
    with pytest.raises(DaemonUnreachable, match="no daemon answers"):
        await asyncio.to_thread(millpond.connect, house.socket, CHANNELS, claim_timeout_s=0)
