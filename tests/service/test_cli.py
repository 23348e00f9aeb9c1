"""The commands, as an operator gives them."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from system.harness import SMALL, Daemon

import millpond
from millpond.cli import status_text

ARRAYS: dict[str, Any] = {
    "rgb": np.zeros((3, 16, 16), np.float32),
    "loss": 0.0,
    "is_correct": True,
}
GOOD = """\
output_dir: runs/a
logging: {logger_modules: [./mine.py]}
"""
MINE = """\
class Logger:
    def __init__(self, root_dir, result_buffer, config): pass
    def log(self, item): pass
    def flush(self): pass
    def end(self): pass
"""


def command(*arguments: object, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "millpond", *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        cwd=cwd,
        env={**os.environ, "COLUMNS": "200"},
    )


def begin(folder: Path, *arguments: str, **sections: Any) -> Daemon:
    config = {
        "buffer": {"slots": 8, "channels": SMALL},
        "logging": {"logger_modules": ["null"]},
        **sections,
    }
    return Daemon(folder, config, *arguments)


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Daemon]:
    daemon = begin(tmp_path / "d")
    yield daemon
    daemon.end()


def test_help_lists_the_commands_and_their_options() -> None:
    text = command("--help").stdout
    commands = "run check status verify dead replay loggers init-logger --version"
    for name in commands.split():
        assert name in text
    order = [text.index(f"│ {name} ") for name in ("run", "check", "status", "replay")]
    assert order == sorted(order)
    text = command("run", "--help").stdout
    for name in ("CONFIG", "--exit-when-done", "--set"):
        assert name in text


# check


def test_a_good_configuration_is_called_good_and_starts_nothing(tmp_path: Path) -> None:
    (tmp_path / "pond.yaml").write_text(GOOD)
    (tmp_path / "mine.py").write_text(MINE)
    done = command("check", "pond.yaml", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("pond.yaml: good; loggers: mine; files in ")
    assert done.stdout.endswith("runs/a\n")
    assert not (tmp_path / "runs").exists()


def test_a_logger_that_may_lose_what_it_keeps_is_good_with_a_note(tmp_path: Path) -> None:
    (tmp_path / "pond.yaml").write_text(GOOD)
    (tmp_path / "mine.py").write_text(MINE.replace("flush", "_flush"))
    done = command("check", "pond.yaml", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    good, note = done.stdout.splitlines()
    assert good.startswith("pond.yaml: good")
    assert note.startswith(f"note: {tmp_path / 'mine.py'}: Logger has no flush(): what it keeps ")


@pytest.mark.parametrize(
    ("arguments", "mine", "problem"),
    [
        (["--set", "buffer.slots=0"], MINE, "buffer.slots"),
        ([], None, "mine.py"),
        ([], "import nowhere_to_be_found\n", "nowhere_to_be_found"),
        ([], "import os; os._exit(3)\n", "ended with 3"),
    ],
)
def test_a_bad_one_is_78_with_the_reason(
    tmp_path: Path, arguments: list[str], mine: str | None, problem: str
) -> None:
    (tmp_path / "pond.yaml").write_text(GOOD)
    if mine is not None:
        (tmp_path / "mine.py").write_text(mine)
    done = command("check", "pond.yaml", *arguments, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (78, "")
    assert done.stderr.startswith("millpond: ")
    assert problem in done.stderr
    assert "cli.py" not in done.stderr  # The traceback of a user's module may be shown, not ours.


@pytest.mark.parametrize("key", ["when: los > 2", "channels: [los]"])
def test_a_channel_that_is_not_declared_is_told_with_its_line(tmp_path: Path, key: str) -> None:
    (tmp_path / "pond.yaml").write_text(
        "output_dir: runs/a\n"
        "buffer: {channels: {loss: {shape: [], dtype: float32}}}\n"
        "logging:\n  logger_modules:\n    - module: csv\n      " + key + "\n"
    )
    done = command("check", "pond.yaml", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (78, "")
    assert "pond.yaml:6: logging.logger_modules[0]." in done.stderr
    assert "there is no channel 'los'; did you mean 'loss'?" in done.stderr


def test_a_configuration_that_is_not_there_is_78(tmp_path: Path) -> None:
    for verb in ("run", "status"):
        done = command(verb, "none.yaml", cwd=tmp_path)
        assert done.returncode == 78
        assert "none.yaml" in done.stderr


# status


def test_the_status_of_nothing_is_69(tmp_path: Path) -> None:
    (tmp_path / "pond.yaml").write_text("output_dir: run\nlogging: {logger_modules: [csv]}\n")
    (tmp_path / "file").touch()
    for where in (".", "pond.yaml", "file"):
        done = command("status", where, cwd=tmp_path)
        assert (done.returncode, done.stdout) == (69, "")
        assert done.stderr.startswith("millpond: no daemon answers at ")
    assert str(where) in done.stderr or str(where) == "."  # The socket that was tried.


def test_the_status_of_something_else_is_69(tmp_path: Path) -> None:
    path = tmp_path / "other.sock"
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(path))
        other.listen()
        asking = subprocess.Popen(
            [sys.executable, "-m", "millpond", "status", path],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        with asking:
            peer, _ = other.accept()
            with peer:
                peer.recv(65536)
                peer.sendall(b"220 mail.example.org ESMTP\r\n")
            _, problem = asking.communicate(timeout=60)
    assert asking.returncode == 69
    assert "that is no millpond daemon" in problem


def test_the_status_is_told_to_people_and_to_scripts(daemon: Daemon) -> None:
    daemon.wait_state("running")
    with millpond.connect(daemon.run) as pond:
        for number in range(3):
            pond.publish(f"{number}", {}, **ARRAYS)
    daemon.wait_settled()
    daemon.wait_renderers(0)
    pid = daemon.process.pid
    for where in (daemon.run, daemon.config):
        done = command("status", where)
        assert (done.returncode, done.stderr) == (0, "")
        head, row = done.stdout.splitlines()
        assert head.startswith(f"test: running, pid {pid}, up ")
        assert head.endswith(" s, 3 results, 8 of 8 slots free, renderers: 0")
        assert row == "  null: running, 3 delivered, 0 waiting, 0 on the disk, 0 dead, 0 restarts"
    now = json.loads(command("status", daemon.run, "--json").stdout)
    assert now["pid"] == pid
    assert now["loggers"]["null"]["delivered"] == 3
    daemon.stop()
    assert command("status", daemon.run).returncode == 69


def test_the_status_of_a_bad_day_names_the_last_error() -> None:
    logger = {"queued": 4, "in_window": 3, "delivered": 2, "dead": 5, "restarts": 1, "spilled": 6}
    logger["filtered"] = 0
    csv = {**logger, "state": "fatal", "is_suspended": False, "last_error": "crash(SIGSEGV)"}
    disk = {**logger, "state": "running", "is_suspended": True, "last_error": "No space left"}
    one = {**logger, "state": "running", "is_suspended": False, "last_error": None}
    del one["filtered"]
    other = {**one, "state": "backoff", "last_error": "exit(1)"}
    image = {**other, "filtered": 9, "processes": [one, other]}
    now = {
        "name": "demo",
        "state": "degraded",
        "pid": 7,
        "uptime_s": 61.7,
        "results": 14,
        "slots": {"free": 0, "total": 8},
        "renderers": [{}, {}],
        "loggers": {"csv": csv, "json": disk, "image": image},
    }
    assert status_text(now) == (
        "demo: degraded, pid 7, up 62 s, 14 results, 0 of 8 slots free, renderers: 2\n"
        "  csv: fatal, 2 delivered, 7 waiting, 6 on the disk, 5 dead, 1 restarts, "
        "last error: crash(SIGSEGV)\n"
        "  json: running, cannot write, 2 delivered, 7 waiting, 6 on the disk, 5 dead, 1 restarts, "
        "last error: No space left\n"
        "  image: backoff, 2 delivered, 9 filtered, 7 waiting, 6 on the disk, 5 dead, 1 restarts, "
        "last error: exit(1)\n"
        "    image/1: running, 2 delivered, 7 waiting, 6 on the disk, 5 dead, 1 restarts\n"
        "    image/2: backoff, 2 delivered, 7 waiting, 6 on the disk, 5 dead, 1 restarts, "
        "last error: exit(1)"
    )


# run


def test_a_run_ends_when_its_work_is_done(tmp_path: Path) -> None:
    daemon = begin(tmp_path / "d", "--exit-when-done", "--set", "name=renamed")
    try:
        assert daemon.wait_serving()["name"] == "renamed"
        with millpond.connect(daemon.run) as pond:
            pond.publish("a", {}, **ARRAYS)
        log = daemon.wait_exit(code=0)
    finally:
        daemon.end()
    assert log.endswith("null: 1 published = 1 delivered + 0 dead + 0 on the disk\n")


def test_a_machine_that_fails_the_daemon_is_70_in_one_line(tmp_path: Path) -> None:
    # Nothing that was checked before: its lock cannot be a file.
    (tmp_path / "d" / "run" / "millpond.lock").mkdir(parents=True)
    daemon = begin(tmp_path / "d")
    log = daemon.wait_exit(code=70)
    assert "millpond: [Errno " in log
    assert "Traceback" not in log
