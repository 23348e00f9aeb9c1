"""Logger processes that start, work, print, crash and leave things behind.

Each is a real ``python -m millpond_loggers`` with a logger written for the test.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import itertools
import json
import os
import re
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from structlog.testing import capture_logs

from millpond.containment import become_subreaper
from millpond.core.layout import Channel, plan
from millpond.core.wire import Frame, Kind, pack
from millpond.logger_output import LINES_PER_SECOND
from millpond.logger_process import (
    DUMP_S,
    LAST_OUTPUT_CHARACTERS,
    PIPE_BYTES,
    LoggerProcess,
)
from millpond.segment import Segment

WATCHDOG_S = 60.0
LAYOUT = plan([Channel("loss", (), "float32")], 8)

both_loops = pytest.mark.asyncio(loop_factories=["uvloop", "asyncio"])
on_uvloop = pytest.mark.asyncio(loop_factories=["uvloop"])

# What the loggers of these tests have in common; `begin` and `log` are given by each.
PLUGIN = """
import os, signal, subprocess, sys, time
from pathlib import Path

class Logger:
    def __init__(self, root_dir, result_buffer, config):
        self.root = Path(root_dir)
        self.begin()

    def begin(self):
        pass

    def log(self, item):
        with (self.root / "ids").open("a") as file:
            file.write(item["id"] + "\\n")

    def flush(self):
        pass

    def end(self):
        pass

"""


numbers = itertools.count(1)


async def until(condition: Callable[[], Any]) -> None:
    end_s = asyncio.get_running_loop().time() + WATCHDOG_S
    while not condition():
        assert asyncio.get_running_loop().time() < end_s
        await asyncio.sleep(0.002)


class Nest:
    """Starts logger processes and writes down what they say."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.segment = Segment(LAYOUT, 1)
        self.frames: list[Frame] = []
        self.rings = 0
        self.exits: list[str] = []
        self.last_output = ""
        self._processes: list[LoggerProcess] = []

    def start(self, begin: str = "pass", *, setup: bytes | None = None) -> LoggerProcess:
        """Start one whose logger does this when it is made."""
        plugin = self.folder / "plugin.py"
        body = "\n".join(f"        {line}" for line in begin.splitlines())
        plugin.write_text(PLUGIN.replace("        pass\n\n    def log", f"{body}\n\n    def log"))
        said = {
            "index": 0,
            "name": "tested",
            "kind": "file",
            "place": str(plugin),
            "options": {},
            "root_dir": str(self.folder),
            "search_path": [],
            "experiment": {},
            **LAYOUT.to_json(),
        }
        segment = self.segment
        mark = f"tested:{os.getpid()}.{next(numbers)}"
        process = LoggerProcess(
            "tested",
            asyncio.get_running_loop(),
            inherited=[segment.fd_read_only, segment.control_fd_read_only, segment.acks_fds[0]],
            setup=pack(Kind.SETUP, json.dumps(said).encode()) if setup is None else setup,
            on_frame=self.frames.append,
            on_doorbell=self._rang,
            env={**os.environ, "MILLPOND_LOGGER": mark},
            mark=mark,
            on_exit=self._exited,
        )
        self._processes.append(process)
        return process

    def _rang(self) -> None:
        self.rings += 1

    def _exited(self, cause: str, last_output: str) -> None:
        self.exits.append(cause)
        self.last_output = last_output

    async def ready(self) -> None:
        await until(lambda: self.frames)
        assert [frame.kind for frame in self.frames] == [Kind.READY]

    async def exited(self) -> str:
        await until(lambda: self.exits)
        [cause] = self.exits
        return cause

    async def read_pid(self, name: str) -> int:
        """The pid that a logger has written into a file."""
        path = self.folder / name
        await until(lambda: path.exists() and path.read_text().endswith("\n"))
        return int(path.read_text())

    def want(self, generation: int) -> None:
        """Let the logger hold every slot: it leaves alone what it does not hold."""
        for slot in range(LAYOUT.slot_count):
            self.segment.want[0][slot] = generation

    def close(self) -> None:
        for process in self._processes:
            process.kill()
        self.segment.close()


@pytest.fixture
def nest(tmp_path: Path) -> Iterator[Nest]:
    nest = Nest(tmp_path)
    yield nest
    nest.close()


def job(id: str, *, slot: int = 0, padding: int = 0) -> bytes:
    body = {"id": id, "render_args": {"padding": "x" * padding}}
    return pack(Kind.PUBLISH, json.dumps(body).encode(), slot=slot, generation=1)


def descriptors() -> int:
    gc.collect()  # What earlier tests left to it is not ours.
    return len(list(Path("/proc/self/fd").iterdir()))


def is_gone(pid: int) -> bool:
    """Whether a process has ended; its parent may not have looked yet."""
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def start_bystander() -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)


def said(logs: list[Any]) -> list[tuple[str, str]]:
    return [(log["stream"], log["line"]) for log in logs if log["event"] == "logger says"]


# Work.


@both_loops
async def test_a_logger_says_that_it_is_ready_and_rings_when_it_has_recorded(nest: Nest) -> None:
    process = nest.start()
    await nest.ready()
    nest.want(1)
    process.send(job("a", slot=2) + job("b", slot=5))
    await until(lambda: nest.segment.acks[0][5] == 1)
    await until(lambda: nest.rings)
    assert list(nest.segment.acks[0])[:8] == [0, 0, 1, 0, 0, 1, 0, 0]
    process.close_jobs()
    assert await nest.exited() == "exit(0)"
    assert (nest.folder / "ids").read_text() == "a\nb\n"


@both_loops
async def test_what_a_stopped_logger_does_not_read_waits_and_is_all_delivered(nest: Nest) -> None:
    process = nest.start()
    await nest.ready()
    nest.want(1)
    os.kill(process.pid, signal.SIGSTOP)
    await until(lambda: psutil.Process(process.pid).status() == psutil.STATUS_STOPPED)
    jobs = [job(f"{n}", slot=n % 8, padding=60_000) for n in range(60)]
    assert sum(map(len, jobs)) > 3 * PIPE_BYTES
    for frame in jobs:  # Nothing of this blocks, though it is thrice what the pipe holds.
        process.send(frame)
    assert len(process._unsent) > PIPE_BYTES
    process.close_jobs()  # It may finish what it was sent.
    os.kill(process.pid, signal.SIGCONT)
    assert await nest.exited() == "exit(0)"
    assert (nest.folder / "ids").read_text().split() == [f"{n}" for n in range(60)]


@on_uvloop
async def test_a_set_up_larger_than_the_pipe_arrives(nest: Nest) -> None:
    large = {
        "index": 0,
        "name": "tested",
        "kind": "module",
        "place": "millpond_loggers.null_logger",
        "options": {},
        "root_dir": str(nest.folder),
        "search_path": [],
        "experiment": {"x": "y" * 3_000_000},
        **LAYOUT.to_json(),
    }
    process = nest.start(setup=pack(Kind.SETUP, json.dumps(large).encode()))
    await nest.ready()
    process.close_jobs()
    assert await nest.exited() == "exit(0)"


@on_uvloop
async def test_a_logger_that_cannot_be_made_says_why_before_it_ends(nest: Nest) -> None:
    nest.start("raise OSError('no disk today')")
    assert await nest.exited() == "exit(1)"
    [frame] = nest.frames
    assert frame.kind == Kind.FAILED
    assert frame.body.decode().strip().endswith("OSError: no disk today (plugin.py:11, in begin)")


# The end.


@on_uvloop
@pytest.mark.parametrize(
    ("begin", "cause"),
    [
        ("os._exit(3)", "exit(3)"),
        ("os.kill(os.getpid(), signal.SIGKILL)", "crash(SIGKILL)"),
        ("os.kill(os.getpid(), signal.SIGSEGV)", "crash(SIGSEGV)"),
        ("os.kill(os.getpid(), signal.SIGRTMIN + 3)", "crash(signal 37)"),
    ],
)
async def test_the_cause_of_an_end_is_told(nest: Nest, begin: str, cause: str) -> None:
    nest.start(f"import resource; resource.setrlimit(resource.RLIMIT_CORE, (0, 0))\n{begin}")
    assert await nest.exited() == cause


@both_loops
async def test_a_kill_is_told_as_an_exit_and_a_second_one_does_no_harm(nest: Nest) -> None:
    process = nest.start()
    process.kill()
    process.kill()
    assert await nest.exited() == "crash(SIGKILL)"
    process.kill()
    process.send(job("late"))
    process.close_jobs()
    process.close_jobs()
    nest.start("os._exit(4)")
    await until(lambda: len(nest.exits) > 1)
    assert nest.exits == ["crash(SIGKILL)", "exit(4)"], "no end was told twice"


@on_uvloop
async def test_a_late_kill_does_not_hit_whoever_has_the_descriptor_now(nest: Nest) -> None:
    process = nest.start()
    process.kill()
    await nest.exited()
    with start_bystander() as bystander, contextlib.ExitStack() as stack:
        while True:
            pidfd = os.pidfd_open(bystander.pid)
            stack.callback(os.close, pidfd)
            if pidfd >= process._pidfd:
                break
        assert pidfd == process._pidfd, "the number is free again, and taken by another"
        process.kill()
        assert bystander.communicate(b"\n") == (None, None)
        assert bystander.returncode == 0


@both_loops
async def test_garbage_on_the_status_pipe_ends_the_logger(nest: Nest) -> None:
    with capture_logs() as logs:
        nest.start("os.write(int(sys.argv[2]), b'garbage!' * 10)\ntime.sleep(1000)")
        assert await nest.exited() == "crash(SIGKILL)"
    assert nest.frames == []
    [log] = [log for log in logs if log["event"] == "ending logger"]
    assert "not a millpond peer" in log["problem"]


@on_uvloop
async def test_what_a_logger_started_ends_with_it(nest: Nest) -> None:
    nest.start(
        "child = subprocess.Popen(['sleep', '1000'])\n"
        "(self.root / 'child').write_text(f'{child.pid}\\n')\n"
        "os._exit(0)"
    )
    child = await nest.read_pid("child")
    assert await nest.exited() == "exit(0)"
    await until(lambda: is_gone(child))


@both_loops
async def test_somebody_who_keeps_the_pipes_open_delays_nothing_and_hides_nothing(
    nest: Nest,
) -> None:
    """A child in a session of its own outlives the logger; what was printed is in the log."""
    become_subreaper(is_one=False)  # Else it would come to us, and be ended.
    with capture_logs() as logs:
        nest.start(
            "child = subprocess.Popen(['sleep', '1000'], start_new_session=True,\n"
            "                         pass_fds=list(map(int, sys.argv[1:4])))\n"
            "(self.root / 'child').write_text(f'{child.pid}\\n')\n"
            "os.write(1, b'a line\\nhalf a line')\n"
            "os._exit(5)"
        )
        child = await nest.read_pid("child")
        try:
            assert await nest.exited() == "exit(5)"
            assert not is_gone(child)
        finally:
            os.kill(child, signal.SIGKILL)
    assert said(logs) == [("stdout", "a line"), ("stdout", "half a line")]


# What it starts.


@pytest.fixture
def subreaper() -> Iterator[None]:
    become_subreaper()
    yield
    become_subreaper(is_one=False)


@on_uvloop
@pytest.mark.usefixtures("subreaper")
@pytest.mark.parametrize("lives", [True, False])
async def test_what_left_its_session_ends_with_it_too(nest: Nest, lives: bool) -> None:
    """It may have ended by itself already, or not: in the end it is gone, and was reaped."""
    end = "os.wait()" if not lives else "pass"
    nest.start(
        f"if os.fork() == 0:\n"
        f"    os.setsid()\n"
        f"    child = subprocess.Popen(['sleep', '{1000 if lives else 0}'])\n"
        f"    {end}\n"
        f"    (self.root / 'child').write_text(f'{{child.pid}}\\n')\n"
        f"    os._exit(0)\n"
        f"while not (self.root / 'child').exists():\n"
        f"    time.sleep(0.01)\n"
        f"os._exit(0)"
    )
    child = await nest.read_pid("child")
    assert await nest.exited() == "exit(0)"
    assert not psutil.pid_exists(child)
    assert not psutil.Process().children()


@on_uvloop
@pytest.mark.usefixtures("subreaper")
async def test_the_end_of_one_logger_leaves_the_others_alone(nest: Nest) -> None:
    begin = (
        "child = subprocess.Popen(['sleep', '1000'], start_new_session=True)\n"
        "(self.root / f'child{os.getpid()}').write_text(f'{child.pid}\\n')"
    )
    first = nest.start(begin)
    await nest.ready()
    nest.frames.clear()
    second = nest.start(begin)
    await nest.ready()
    second.kill()
    assert await nest.exited() == "crash(SIGKILL)"
    assert not psutil.pid_exists(await nest.read_pid(f"child{second.pid}"))
    assert psutil.pid_exists(await nest.read_pid(f"child{first.pid}"))
    first.send(job("late"))
    nest.want(1)
    first.close_jobs()
    await until(lambda: len(nest.exits) == 2)
    assert nest.exits[1] == "exit(0)"
    assert not psutil.Process().children()


@on_uvloop
@pytest.mark.usefixtures("subreaper")
async def test_a_fork_bomb_ends_before_the_exit_is_told(nest: Nest) -> None:
    """Each of them leaves its session and forks; there are as many as the bomb has charges."""
    nest.start(
        "def bomb(charges):\n"
        "    if os.fork() == 0:\n"
        "        os.setsid()\n"
        "        for _ in range(charges):\n"
        "            bomb(charges - 1)\n"
        "        time.sleep(1000)\n"
        "        os._exit(0)\n"
        "bomb(5)\n"
        "os._exit(0)"
    )
    assert await nest.exited() == "exit(0)"
    assert not psutil.Process().children(recursive=True)


@on_uvloop
async def test_a_logger_has_the_descriptors_that_it_needs_and_leaves_none_to_others(
    nest: Nest,
) -> None:
    """What it has is what it was given, or a mapping of that; its children have the usual three."""
    process = nest.start(
        "def targets(numbers):\n"
        "    return {os.readlink(f'/proc/self/fd/{number}') for number in numbers}\n"
        "given = targets([0, 1, 2, *sys.argv[1:]])\n"
        "mine = [number for number in os.listdir('/proc/self/fd')\n"
        "        if os.path.exists(f'/proc/self/fd/{number}')]\n"
        "code = \"import os; print(sorted(map(int, os.listdir('/proc/self/fd')))[:-1])\"\n"
        "theirs = subprocess.run([sys.executable, '-c', code], close_fds=False,\n"
        "                        stdout=subprocess.PIPE, text=True).stdout.strip()\n"
        "(self.root / 'result').write_text(f'{targets(mine) - given} {len(given)} {theirs}')"
    )
    process.close_jobs()
    assert await nest.exited() == "exit(0)"
    assert (nest.folder / "result").read_text() == "set() 9 [0, 1, 2]"


# The end that is asked for.

HANGING = "print('begun', flush=True)\nwhile True: time.sleep(0.1)"


@both_loops
async def test_a_hanging_logger_leaves_its_stacks(nest: Nest) -> None:
    process = nest.start(
        "import threading\n"
        "def other_thread(): threading.Event().wait()\n"
        "threading.Thread(target=other_thread, daemon=True).start()\n"
        "(self.root / 'child').write_text('1\\n')\n" + HANGING
    )
    await nest.read_pid("child")
    process.kill(dump=True)
    process.kill(dump=True)
    assert await nest.exited() == "crash(SIGABRT)"
    assert nest.last_output.startswith("Fatal Python error: Aborted\n")
    assert "in other_thread" in nest.last_output
    assert " in begin\n" in nest.last_output


@on_uvloop
@pytest.mark.parametrize("how", ["ignores", "stopped"])
async def test_one_that_cannot_leave_its_stacks_is_killed(nest: Nest, how: str) -> None:
    process = nest.start(
        "signal.signal(signal.SIGABRT, signal.SIG_IGN)\n"
        "(self.root / 'child').write_text('1\\n')\n" + HANGING
    )
    await nest.read_pid("child")
    if how == "stopped":
        os.kill(process.pid, signal.SIGSTOP)
        await until(lambda: psutil.Process(process.pid).status() == psutil.STATUS_STOPPED)
    begun_s = time.monotonic()
    process.kill(dump=True)
    assert await nest.exited() == "crash(SIGKILL)"
    assert (time.monotonic() - begun_s >= DUMP_S) == (how == "ignores")


@on_uvloop
async def test_an_end_at_once_does_not_wait_for_the_stacks(nest: Nest) -> None:
    process = nest.start(
        "signal.signal(signal.SIGABRT, signal.SIG_IGN)\n"
        "(self.root / 'child').write_text('1\\n')\n" + HANGING
    )
    await nest.read_pid("child")
    process.kill(dump=True)
    process.kill()
    assert await nest.exited() == "crash(SIGKILL)"
    assert process._dump is not None
    assert process._dump.cancelled()


# What it prints.


@on_uvloop
async def test_the_last_lines_on_standard_error_are_told_with_the_exit(nest: Nest) -> None:
    nest.start(
        "for n in range(400): print(f'{n:04}' + 'x' * 95, file=sys.stderr)\n"
        "print('the cause\x1b[0m', file=sys.stderr)\nprint('elsewhere')\nos._exit(1)"
    )
    assert await nest.exited() == "exit(1)"
    lines = nest.last_output.split("\n")
    assert lines[-1] == "the cause\\x1b[0m"
    assert lines[-2].startswith("0399x")
    assert LAST_OUTPUT_CHARACTERS - 100 <= len(nest.last_output) <= LAST_OUTPUT_CHARACTERS


LEVELS = """
import logging
own = logging.getLogger("millpond.tested")
own.info("begun")
own.error("no disk\\nat all")
print("[millpond:ERROR] printed")
print("only printed", file=sys.stderr)
os.abort()
"""


@on_uvloop
async def test_a_loggers_diagnostics_have_their_level_and_prints_have_none(nest: Nest) -> None:
    with capture_logs() as logs:
        nest.start(LEVELS)
        assert await nest.exited() == "crash(SIGABRT)"
    told = [(log["log_level"], log["line"]) for log in logs if log["event"] == "logger says"]
    assert {
        ("info", "begun"),
        ("error", "no disk"),
        ("error", "at all"),
        ("info", "[millpond:ERROR] printed"),
        ("info", "only printed"),
    } <= set(told)
    assert nest.last_output.startswith("begun\nno disk\nat all\nonly printed\n")


@on_uvloop
async def test_a_flood_of_output_starves_nobody_and_is_not_kept(nest: Nest) -> None:
    with capture_logs() as logs:
        flooding = nest.start("line = b'flood' * 2000 + b'\\n'\nwhile True: os.write(1, line)")
        capture = flooding._captures["stdout"]
        await until(lambda: capture.dropped_bytes)
        served = nest.start()
        await nest.ready()
        nest.want(1)
        before, seen = psutil.Process().memory_info().rss, capture.dropped_bytes
        for n in range(100):
            served.send(job(f"{n}", slot=n % 8))
            await until(lambda n=n: nest.rings > n)
        await until(lambda: capture.dropped_bytes > seen + 100 * 2**20)
        assert psutil.Process().memory_info().rss < before + 32 * 2**20
        flooding.kill()
        served.close_jobs()
        await until(lambda: len(nest.exits) == 2)
    assert set(nest.exits) == {"crash(SIGKILL)", "exit(0)"}
    assert sum(len(line) for _, line in said(logs)) < 2 * 2**20


@both_loops
async def test_every_line_is_logged_and_so_is_a_last_one_without_an_end(nest: Nest) -> None:
    with capture_logs() as logs:
        process = nest.start(
            "print('one')\nprint('two\\x1b[2J', file=sys.stderr)\n"
            "sys.stdout.buffer.write(b'\\xff\\n' + b'three' * 3)"
        )
        process.close_jobs()
        assert await nest.exited() == "exit(0)"
    lines = said(logs)
    assert [line for stream, line in lines if stream == "stdout"] == [
        "one",
        "\\xff",
        "threethreethree",
    ]
    assert [line for stream, line in lines if stream == "stderr"] == ["two\\x1b[2J"]
    assert {log["pid"] for log in logs} == {process.pid}


@on_uvloop
async def test_a_flood_is_cut_and_counted(nest: Nest) -> None:
    with capture_logs() as logs:
        nest.start("sys.stdout.write('flood\\n' * 400_000)\nsys.stdout.flush()\nos._exit(0)")
        assert await nest.exited() == "exit(0)"
    [dropped] = [log for log in logs if log["event"] == "logger output dropped"]
    lines = [line for _, line in said(logs)]
    rests = [re.fullmatch(r"\.\.\. (\d+) more lines", line) for line in lines]
    left = sum(int(rest[1]) for rest in rests if rest)
    shown = lines.count("flood")
    assert len(lines) == shown + sum(rest is not None for rest in rests)
    assert 0 < shown < left
    assert dropped["bytes"] == (400_000 - shown - left) * len("flood\n")


@on_uvloop
async def test_what_is_left_out_of_the_log_is_counted_while_it_lives_and_kept_of_its_stderr(
    nest: Nest,
) -> None:
    count = LINES_PER_SECOND + 24
    with capture_logs() as logs:
        process = nest.start(
            f"print('\\n'.join(map(str, range({count}))), file=sys.stderr)\n"
            "self.logger = __import__('logging').getLogger('millpond.tested')\n"
            "self.logger.warning('mind this')"
        )
        await nest.ready()
        await until(lambda: any(line == "... 24 more lines" for _, line in said(logs)))
        process.close_jobs()
        assert await nest.exited() == "exit(0)"
    shown = [line for _, line in said(logs)]
    assert shown[:LINES_PER_SECOND] == [str(n) for n in range(LINES_PER_SECOND)]
    assert "mind this" in shown
    assert nest.last_output.splitlines() == [*(str(n) for n in range(count)), "mind this"]


# Nothing is left.


@on_uvloop
async def test_nothing_is_left_of_logger_processes(nest: Nest) -> None:
    before = None
    for round_ in range(20):
        process = nest.start()
        process.send(job("a", padding=60_000) * 20)  # More than the pipe takes.
        if round_ % 4 == 0:
            await until(lambda: nest.frames)
        process.kill()
        assert await nest.exited() == "crash(SIGKILL)"
        nest.exits.clear()
        nest.frames.clear()
        before = before or descriptors()  # The first one may open what loops keep.
    assert descriptors() == before
    assert not psutil.Process().children(recursive=True)


@on_uvloop
@pytest.mark.parametrize("spare", [0, 3, 8, 10])
async def test_a_process_that_cannot_be_started_leaves_nothing_either(
    nest: Nest, spare: int
) -> None:
    before = descriptors()
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    lowest = os.dup(0)
    os.close(lowest)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest + spare, limits[1]))
    try:
        with pytest.raises(OSError, match="Too many open files"):
            nest.start()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    assert descriptors() == before
    assert not psutil.Process().children()
    assert nest.exits == []
