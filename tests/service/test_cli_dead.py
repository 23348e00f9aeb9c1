"""``millpond dead`` and ``millpond replay``, as an operator gives them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from system.harness import SMALL, Daemon, read_ids, wait_until

import millpond
from millpond.dead_letters import dead_of
from millpond.dead_list import DeadLine, pack_line

ARRAYS: dict[str, Any] = {
    "rgb": np.zeros((3, 16, 16), np.float32),
    "loss": 0.5,
    "is_correct": True,
}
RESTART = {"delay_s": 0.01, "delay_s_max": 0.01, "intensity": 100}
# Keeps the ids, and does not survive those that the file `bad` beside the run folder names.
PICKY = """
import os
from pathlib import Path

class Logger:
    def __init__(self, root_dir, result_buffer, config):
        self.root = Path(root_dir)
        self.buffer = result_buffer

    def log(self, item):
        bad = self.root.parent / "bad"
        if bad.exists() and item["id"] in bad.read_text().split():
            os._exit(3)
        assert float(self.buffer[item["result_ix"]]["loss"]) == 0.5
        with (self.root / "picky.txt").open("a") as file:
            file.write(item["id"] + "\\n")

    def end(self):
        pass
"""


def command(*arguments: object, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "millpond", *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
        cwd=cwd,
        env={**os.environ, "COLUMNS": "200"},
    )


class Run:
    """A run in which two of four results were too much for a logger."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.run = folder / "run"
        self.bad = folder / "bad"
        self.config = folder / "config.yaml"
        self.recorded = self.run / "picky.txt"
        # Some twice: what it had written and not released when it died came again.
        self.before: list[str] = []

    def daemon(self, *arguments: str, **sections: Any) -> Daemon:
        config = {
            "buffer": {"slots": 8, "channels": SMALL},
            "logging": {"logger_modules": ["null", {"module": "./picky.py", "restart": RESTART}]},
            **sections,
        }
        self.folder.mkdir(exist_ok=True)
        (self.folder / "picky.py").write_text(PICKY)
        return Daemon(self.folder, config, *arguments)


@pytest.fixture(scope="module")
def spoilt(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Made once: a result is dead when a logger died of it three times."""
    run = Run(tmp_path_factory.mktemp("spoilt") / "d")
    run.folder.mkdir()
    run.bad.write_text("b d")
    daemon = run.daemon("--set", "service.drain_s=0")
    try:
        daemon.wait_serving()
        with millpond.connect(run.run) as pond:
            for name in "abcd":
                pond.publish(name, {}, **ARRAYS)
        wait_until(lambda: daemon.status()["loggers"]["picky"]["dead"] == 2, "two are dead")
        daemon.stop(code=1)
    finally:
        daemon.end()
    return run


@pytest.fixture
def run(spoilt: Run, tmp_path: Path) -> Run:
    """A copy of it, in another place: its ledger still names the first one's configuration."""
    copied = Run(tmp_path / "d")
    subprocess.run(["cp", "-a", str(spoilt.folder), str(copied.folder)], check=True)
    copied.bad.unlink()
    copied.before = read_ids(copied.recorded)
    text = copied.config.read_text().replace(str(spoilt.folder), str(copied.folder))
    copied.config.write_text(text)
    return copied


# list


def test_the_dead_are_listed_with_reason_and_arrays(run: Run) -> None:
    for where in (run.run, run.config):
        done = command("dead", "list", where)
        assert (done.returncode, done.stderr) == (0, "")
        first, second = done.stdout.splitlines()
        assert first.startswith("picky: b: exit(3), 20")
        assert ", arrays in dead/picky/b.npz" in first
        assert second.startswith("picky: d: exit(3), ")


def test_the_dead_are_listed_for_scripts_and_by_logger(run: Run) -> None:
    done = command("dead", "list", run.run, "--json", "--logger", "picky")
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert [(row["id"], row["logger"], row["reason"]) for row in rows] == [
        ("b", "picky", "exit(3)"),
        ("d", "picky", "exit(3)"),
    ]
    assert [row["attempts"] for row in rows] == [3, 3]
    assert command("dead", "list", run.run, "--logger", "null").stdout == ""


@pytest.mark.parametrize("verb", ["list", "retry"])
def test_what_is_no_run_is_refused(tmp_path: Path, verb: str) -> None:
    (tmp_path / "pond.yaml").write_text("output_dir: run\nlogging: {logger_modules: [csv]}\n")
    (tmp_path / "bad.yaml").write_text("output_dir: 3\n")
    cases = ((".", 64, "no run folder"), ("pond.yaml", 64, "no run folder"), ("bad.yaml", 78, ""))
    for where, code, problem in cases:
        done = command("dead", verb, where, cwd=tmp_path)
        assert (done.returncode, done.stdout) == (code, "")
        assert done.stderr.startswith("millpond: ")
        assert problem in done.stderr
        assert "Traceback" not in done.stderr


def test_a_list_that_cannot_be_read_is_70_in_one_line(run: Run) -> None:
    (run.run / "dead.jsonl").unlink()
    (run.run / "dead.jsonl").mkdir()
    for verb in ("list", "retry"):
        done = command("dead", verb, run.run)
        assert (done.returncode, done.stdout) == (70, "")
        assert "Is a directory" in done.stderr
        assert "Traceback" not in done.stderr


# retry, and replay


def test_all_the_dead_are_taken_back_and_replayed(run: Run) -> None:
    done = command("dead", "retry", run.run)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"2 results are delivered again by: millpond replay {run.run}\n"
    assert dead_of(run.run) == {}
    done = command("replay", run.config)
    assert done.returncode == 0, done.stderr
    assert done.stdout == (
        "null: 0 published = 0 delivered + 0 dead + 0 on the disk\n"
        "picky: 2 published = 2 delivered + 0 dead + 0 on the disk\n"
    )
    assert read_ids(run.recorded) == [*run.before, "b", "d"]
    assert not list((run.run / "dead").rglob("*.npz"))
    assert command("dead", "list", run.run).stdout == ""
    assert command("verify", run.run).returncode == 0
    # A second time there is nothing to do.
    done = command("replay", run.config)
    assert (done.returncode, done.stdout) == (0, "nothing waits on the disk\n")
    assert read_ids(run.recorded) == [*run.before, "b", "d"]


def test_one_is_taken_back_by_its_id_and_dies_again(run: Run) -> None:
    run.bad.write_text("d")
    done = command("dead", "retry", run.run, "d", "nobody")
    assert done.stdout.startswith("1 results are delivered again")
    assert [line.id for line in dead_of(run.run).values()] == ["b"]
    done = command("replay", run.config)
    assert done.returncode == 1, done.stderr
    assert "picky: 1 published = 0 delivered + 1 dead + 0 on the disk\n" in done.stdout
    assert {line.id for line in dead_of(run.run).values()} == {"b", "d"}
    assert command("dead", "retry", run.run, "d").stdout.startswith("1 results")


def test_those_of_another_logger_are_left_alone(run: Run) -> None:
    done = command("dead", "retry", run.run, "--logger", "null")
    assert done.stdout == "no such result is dead\n"
    assert len(dead_of(run.run)) == 2


def test_without_their_arrays_they_cannot_be_taken_back(run: Run) -> None:
    (run.run / "dead" / "picky" / "b.npz").unlink()
    done = command("dead", "retry", run.run)
    assert done.returncode == 0
    first, second = done.stdout.splitlines()
    assert first.startswith("1 results are delivered again by: ")
    assert second == "1 cannot be: their arrays were not kept"
    assert [line.id for line in dead_of(run.run).values()] == ["b"]


def test_a_folder_that_was_moved_is_replayed_where_it_is(spoilt: Run, tmp_path: Path) -> None:
    """The configuration is that which the ledger names; the folder is the one that was given."""
    moved = tmp_path / "moved: to # here"
    subprocess.run(["cp", "-a", str(spoilt.run), str(moved)], check=True)
    (moved / "picky.txt").unlink()
    assert command("dead", "retry", moved, "b").returncode == 0
    before = read_ids(spoilt.recorded)
    done = command("replay", moved)
    assert done.returncode == 0, done.stderr
    assert read_ids(moved / "picky.txt") == ["b"]
    assert read_ids(spoilt.recorded) == before


def test_only_some_loggers_are_replayed_and_the_others_keep_theirs(run: Run) -> None:
    command("dead", "retry", run.run)
    done = command("replay", run.config, "--logger", "null")
    assert done.returncode == 0, done.stderr
    assert done.stdout == "nothing waits on the disk\n"
    assert read_ids(run.recorded) == run.before
    assert command("replay", run.config, "--logger", "picky").returncode == 0
    assert read_ids(run.recorded) == [*run.before, "b", "d"]
    done = command("replay", run.config, "--logger", "pikcy")
    assert done.returncode == 78
    assert "there is no logger 'pikcy'; there are: null, picky" in done.stderr


def test_a_run_that_is_running_cannot_be_replayed(run: Run) -> None:
    daemon = run.daemon()
    try:
        daemon.wait_serving()
        done = command("replay", run.config)
        assert done.returncode == 75
        assert f"pid {daemon.process.pid}" in done.stderr
        daemon.stop()
    finally:
        daemon.end()


def test_a_folder_without_a_ledger_names_no_configuration(tmp_path: Path) -> None:
    done = command("replay", tmp_path)
    assert (done.returncode, done.stdout) == (64, "")
    assert "give the YAML" in done.stderr
    done = command("replay", tmp_path / "none.yaml")
    assert done.returncode == 78


def test_help_says_what_can_be_done() -> None:
    text = command("dead", "--help").stdout
    assert "list" in text
    assert "retry" in text
    assert "--logger" in command("replay", "--help").stdout


def test_the_last_line_of_the_problem_is_listed_and_moves_no_cursor(tmp_path: Path) -> None:
    (tmp_path / "ledger").mkdir()
    problem = "Traceback (most recent call last):\n  ...\nValueError: \x1b[2J (mine.py:7, in log)"
    line = DeadLine("a", "mine", "exception", problem, 1, 1, 5, "today", None)
    (tmp_path / "dead.jsonl").write_bytes(pack_line(line))
    assert command("dead", "list", tmp_path).stdout == (
        "mine: a: exception, today: ValueError: \\x1b[2J (mine.py:7, in log)\n"
    )
