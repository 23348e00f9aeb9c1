"""One daemon whose n-th call on the disk fails or is its last, and the one that comes after it."""

from __future__ import annotations

import random
import shutil
import signal
from collections import Counter
from collections.abc import Callable
from itertools import product, zip_longest
from pathlib import Path
from subprocess import TimeoutExpired
from typing import Any

import numpy as np
from faults.disk_injection import Injection, count_calls, start_traced, traced_python, watched
from faults.disk_places import durable_keys
from faults.oracle import UNACCOUNTED, Journals, judge, read_csv, read_dead
from faults.scene import check_verify, rows
from system.harness import SMALL, Daemon, wait_until

import millpond

RESULTS = 40
ZEROS: dict[str, Any] = {
    "rgb": np.zeros((3, 16, 16), np.float32),
    "loss": 0.0,
    "is_correct": True,
}
CONFIG: dict[str, Any] = {
    "buffer": {"slots": 16, "channels": SMALL},
    "logging": {
        "logger_modules": [rows("csv", when_full="spill", hang_s=120, max_in_window=4, stop_s=1)]
    },
}
Act = Callable[[Daemon, Journals], None]


def publish(daemon: Daemon, journals: Journals) -> None:
    """Publish, noting what is meant and what is acknowledged."""
    with millpond.connect(daemon.run, claim_timeout_s=20) as pond:
        for number in range(RESULTS):
            id = f"r-{number:07d}-well"
            journals.intended.add(id)
            pond.publish(id, {"n": number}, **ZEROS)
            connection = pond._connection
            assert connection is not None
            journals.keys[connection.renderer, connection.sequence] = id
            pond.flush()
            journals.acked.append(id)


def spill_and_replay(daemon: Daemon, journals: Journals) -> None:
    """Publish to a stopped logger, which then goes on; the daemon may be gone at any moment."""
    try:
        pid = daemon.signal_logger("csv", signal.SIGSTOP)
        publish(daemon, journals)
    except (millpond.DaemonUnreachable, OSError):
        daemon.process.wait(20)  # Whoever did not answer is dead, and not stuck.
        return
    daemon.signal_child(pid, signal.SIGCONT)
    wait_over(daemon)


def wait_over(daemon: Daemon, _: Journals | None = None) -> None:
    """Wait until every result has its outcome, or the daemon is dead."""

    def is_over() -> bool:
        try:
            row = daemon.status()["loggers"]["csv"]
        except OSError:
            return daemon.process.wait(20) is not None
        return bool(row["delivered"] + row["dead"] == row["published"])

    wait_until(is_over, f"every result has its outcome; log:\n{daemon.log[-3000:]}")


def leave_behind(folder: Path) -> Journals:
    """A run folder whose daemon was killed: results in its memory, and on its disk."""
    journals = Journals()
    daemon = Daemon(folder, CONFIG)
    try:
        daemon.wait_state("running")
        daemon.signal_logger("csv", signal.SIGSTOP)
        publish(daemon, journals)
        wait_until(lambda: daemon.status()["loggers"]["csv"]["spilled"] > RESULTS / 2, "spilled")
    finally:
        daemon.end()
    # As if the last write had not been finished.
    last = max((daemon.run / "spill" / "csv").glob("*.seg"))
    with last.open("ab") as file:
        file.write(b"\xf5mpR" + bytes(100))
    return journals


class Case:
    """One daemon with one injection, in a folder of its own.

    Args:
        folder: Is made.
        act: What is done with the daemon.
        before: A run folder that is there already, and what was published into it.
    """

    def __init__(self, folder: Path, act: Act, before: tuple[Path, Journals] | None = None) -> None:
        folder.mkdir()
        self.folder = folder
        self.act = act
        self.journals = Journals()
        self.is_started = False
        self.kills = 0
        if before is not None:
            run, journals = before
            no_sockets = shutil.ignore_patterns("*.sock", "*.lock")
            shutil.copytree(run, folder / "d" / "run", ignore=no_sockets)
            self.journals = Journals(set(journals.intended), list(journals.acked), journals.keys)
            self.kills = 1

    def run(self, injection: Injection | None) -> Counter[str]:
        """Do it, and give how often the calls were done."""
        self.kills += injection is not None and injection.what == "KILL"
        run = (self.folder / "d" / "run").resolve()
        durable = durable_keys(run, "csv")
        program = traced_python(self.folder, watched(run, "csv"), injection)
        daemon = start_traced(self.folder / "d", CONFIG, program)
        try:
            self.is_started = daemon.process.poll() is None
            if self.is_started:
                self.act(daemon, self.journals)
            daemon.stop(code=None)
            assert "Traceback" not in daemon.log, daemon.log[-4000:]
            self.check_end(daemon, injection)
        finally:
            daemon.end()
        counts = count_calls(self.folder / "trace")
        self.go_on(run, durable | durable_keys(run, "csv"))
        return counts

    def check_end(self, daemon: Daemon, injection: Injection | None) -> None:
        code = daemon.process.returncode
        if injection is not None and injection.what == "KILL":
            assert code in (0, 1, -signal.SIGKILL), daemon.log[-4000:]
        elif self.is_started:
            assert code in (0, 1), daemon.log[-4000:]
        else:  # It may refuse to start on such a disk, with a word.
            assert code > 0, daemon.log[-4000:]
            assert daemon.log.strip()

    def go_on(self, run: Path, durable: set[tuple[int, int]]) -> None:
        """Start again without a fault, and look at everything."""
        daemon = Daemon(self.folder / "d", CONFIG)
        try:
            daemon.wait_state("running")
            with millpond.connect(run, claim_timeout_s=20) as pond:
                pond.publish("last-0-well", {"n": 0}, **ZEROS)
            self.journals.intended.add("last-0-well")
            self.journals.acked.append("last-0-well")
            wait_over(daemon)
            daemon.stop(code=None)
            assert daemon.process.returncode in (0, 1), daemon.log[-4000:]
        finally:
            daemon.end()
        self.judge(run, durable)
        check_verify(run)

    def judge(self, run: Path, durable: set[tuple[int, int]]) -> None:
        dead = read_dead(run, self.journals.keys)
        account = judge(self.journals, "csv", read_csv(run / "details.csv"), dead)
        assert not account.lost, account.lost
        assert not account.doubled, account.doubled
        assert not account.dead_twice, account.dead_twice
        assert not account.both, account.both
        assert not account.strangers, account.strangers
        lost = {(d["renderer"], d["sequence"]) for d in dead if d["reason"] == UNACCOUNTED}
        assert not lost & durable, f"was called durable, and is lost: {sorted(lost & durable)}"
        assert not lost or self.kills, "nobody was killed, and results are unaccounted for"


def injections(counts: Counter[str], chance: random.Random, count: int | None) -> list[Injection]:
    """Every call that a good run does, failing in each way, or so many of them.

    Few of each kind of call, rather than many of the most frequent one.
    """
    kinds = []
    for call, what in product(sorted(counts), ("EIO", "ENOSPC", "KILL")):
        kinds.append([Injection(call, n, what) for n in range(1, counts[call] + 1)])
        chance.shuffle(kinds[-1])
    chance.shuffle(kinds)
    found = [one for row in zip_longest(*kinds) for one in row if one is not None]
    return found[:count]


def failures(cases: list[Injection], make: Callable[[int], Case]) -> list[str]:
    """Do all of these; say what went wrong.  The folders of the good ones are removed."""
    failed = []
    for number, injection in enumerate(cases):
        case = make(number)
        try:
            case.run(injection)
        except (AssertionError, OSError, millpond.MillpondError, TimeoutExpired) as error:
            failed.append(f"{number}: {injection}: {error!r}")
        else:
            shutil.rmtree(case.folder)
    return failed
