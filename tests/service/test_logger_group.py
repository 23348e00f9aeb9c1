"""Real logger processes, and what they say as events."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
from service.spill_cases import LAYOUT, result

from millpond.config.load import load
from millpond.core.deliveries import Result
from millpond.core.events import (
    DoorbellRang,
    Event,
    LoggerExited,
    LoggerFailed,
    LoggerRaised,
    LoggerReady,
    LoggerSpawned,
)
from millpond.core.wire import Kind, pack
from millpond.logger_group import LoggerGroup
from millpond.module_search import check_modules
from millpond.segment import Segment
from millpond.setup_frame import encode_experiment, make_setup

WATCHDOG_S = 60.0
MOODY = """
import os

class Logger:
    def __init__(self, root_dir, result_buffer, config):
        with open(f"{root_dir}/environment", "w") as file:
            file.write("\\n".join(f"{k}={v}" for k, v in os.environ.items()))
        if config["logger"]["options"].get("is_broken"):
            raise ValueError("cannot be made")

    def log(self, item):
        if item["id"] == "full":
            raise OSError(28, "No space left on device")
        if item["id"] == "bad":
            raise ValueError("do not like it")

    def end(self):
        pass
"""
pytestmark = pytest.mark.asyncio(loop_factories=["uvloop"])


class Row:
    """A group of two loggers, and their events."""

    def __init__(self, folder: Path, **config: Any) -> None:
        (folder / "moody.py").write_text(MOODY)
        loggers = ["null", {"module": "./moody.py", **config}]
        given = {
            "name": "tested",
            "output_dir": str(folder / "run"),
            "logging": {"logger_modules": loggers},
        }
        (folder / "pond.yaml").write_text(json.dumps(given))
        self.config = load(folder / "pond.yaml", environ={})
        self.config.output_dir.mkdir()
        found = check_modules(self.config)
        self.segment = Segment(LAYOUT, 2)
        setups = [
            make_setup(self.config, index, found[one.name], LAYOUT, encode_experiment(self.config))
            for index, one in enumerate(self.config.loggers)
        ]
        self.events: list[Event] = []
        loop = asyncio.get_running_loop()
        self.group = LoggerGroup(self.config, loop, self.segment, setups, self.events.append)
        self.alive: set[int] = set()

    def spawn(self, logger: int) -> None:
        self.group.spawn(logger)
        self.alive.add(logger)

    def publish(self, logger: int, slot: int, id: str) -> Result:
        """A result in its slot, wanted by this logger, as the supervisor would have it."""
        self.segment.want[logger][slot] = 5
        body = result(1, slot + 1, id).frame[32:]
        frame = pack(Kind.PUBLISH, body, slot=slot, renderer=1, generation=5, sequence=slot + 1)
        return Result(slot, 5, 1, slot + 1, id, frame)

    async def end(self) -> None:
        if self.alive:
            self.group.close()
        while self.alive:
            await self.next_of(LoggerExited)
        if self.group._guard._process.returncode is None:
            self.group.close()  # And the guard with them.
        self.segment.close()

    async def next(self) -> Event:
        end_s = asyncio.get_running_loop().time() + WATCHDOG_S
        while not self.events:
            assert asyncio.get_running_loop().time() < end_s
            await asyncio.sleep(0.002)
        event = self.events.pop(0)
        if isinstance(event, LoggerExited):
            self.alive.discard(event.logger)
        return event

    async def next_of(self, kind: type[Event]) -> Any:
        while not isinstance(event := await self.next(), kind):
            pass
        return event


@pytest.fixture
async def row(tmp_path: Path) -> AsyncIterator[Row]:
    row = Row(tmp_path)
    yield row
    await row.end()


async def test_a_logger_is_started_fed_and_ended(row: Row) -> None:
    row.spawn(0)
    spawned = await row.next()
    assert isinstance(spawned, LoggerSpawned)
    assert psutil.Process(spawned.pid).ppid() == psutil.Process().pid
    assert await row.next() == LoggerReady(0)
    row.group.report_ready(0)
    three = [row.publish(0, slot, f"{slot}") for slot in range(3)]
    row.group.send(0, three)
    while list(row.segment.acks[0])[:3] != [5, 5, 5]:
        assert await row.next() == DoorbellRang(0)
    row.group.close_one(0)
    exited = await row.next_of(LoggerExited)
    assert (exited.logger, exited.output) == (0, "")
    assert exited.cause == "exit(0)"
    assert not psutil.pid_exists(spawned.pid)


async def test_a_kill_is_an_exit_with_its_cause_and_the_next_one_is_another_process(
    row: Row,
) -> None:
    pids = []
    for _ in range(2):
        row.spawn(0)
        pids.append((await row.next_of(LoggerSpawned)).pid)
        await row.next_of(LoggerReady)
        row.group.kill(0, "it hangs", dump=False)
        exited = await row.next_of(LoggerExited)
        assert (exited.logger, exited.cause) == (0, "crash(SIGKILL)")
    assert pids[0] != pids[1]


async def test_one_that_is_killed_for_hanging_shows_where(row: Row) -> None:
    row.spawn(0)
    await row.next_of(LoggerReady)
    row.group.kill(0, "it hangs", dump=True)
    exited = await row.next_of(LoggerExited)
    assert "File " in exited.output


async def test_what_log_raises_is_told_with_the_slot_and_the_errno(row: Row) -> None:
    row.spawn(1)
    await row.next_of(LoggerReady)
    row.group.send(1, [row.publish(1, n, id) for n, id in enumerate(["good", "bad", "full"])])
    bad, full = await row.next_of(LoggerRaised), await row.next_of(LoggerRaised)
    assert (bad.logger, bad.slot, bad.generation, bad.error_number) == (1, 1, 5, 0)
    assert "ValueError: do not like it" in bad.problem
    assert (full.slot, full.error_number) == (2, 28)


async def test_two_loggers_are_two_processes_and_their_events_say_whose(row: Row) -> None:
    row.spawn(0)
    row.spawn(1)
    ready = {(await row.next_of(LoggerReady)).logger for _ in range(2)}
    assert ready == {0, 1}
    row.group.close()
    exited = {(await row.next_of(LoggerExited)).logger for _ in range(2)}
    assert exited == {0, 1}
    assert len(psutil.Process().children()) == 1  # The guard sees to what they leave.
    row.group.close()
    assert psutil.Process().children() == []


async def test_one_that_cannot_be_made_says_why_and_ends(tmp_path: Path) -> None:
    row = Row(tmp_path, options={"is_broken": True})
    row.spawn(1)
    failed = await row.next_of(LoggerFailed)
    assert failed.logger == 1
    assert "cannot be made" in failed.problem
    assert (await row.next_of(LoggerExited)).logger == 1
    await row.end()


async def test_one_whose_program_is_not_there_has_failed_and_ended(
    row: Row, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("millpond.logger_process.sys", SimpleNamespace(executable="/nowhere/x"))
    row.group.spawn(0)
    failed, exited = row.events
    assert isinstance(failed, LoggerFailed)
    assert failed.problem.startswith("cannot be started: ")
    assert exited == LoggerExited(0, "not started (No such file or directory)")
    row.events.clear()


async def test_a_logger_gets_the_marks_and_what_is_allowed_of_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SECRET_TOKEN", "x")
    monkeypatch.setenv("MY_OWN", "y")
    row = Row(tmp_path, env=["MY_*"])
    row.spawn(1)
    await row.next_of(LoggerReady)
    lines = (row.config.output_dir / "environment").read_text().splitlines()
    found = dict(line.split("=", 1) for line in lines if "=" in line)
    assert "SECRET_TOKEN" not in found
    assert found["MY_OWN"] == "y"
    assert found["MILLPOND_RUN"]
    assert found["MILLPOND_LOGGER"] == "moody:1"
    await row.end()
