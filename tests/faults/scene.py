"""The stage of a fault test: a run folder, its daemons and renderers, and how all of them end."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
from faults.oracle import Account, Journals, judge, read_csv, read_dead, read_journals, read_json
from faults.oracle import read_kept as read_diary
from system.harness import SMALL, WATCHDOG_S, Daemon, wait_until

HERE = Path(__file__).parent
# Restarts as often as the test likes, quickly.
OFTEN = {"intensity": 1000, "period_s": 60, "delay_s": 0.05, "delay_s_max": 0.1}
# No process of a daemon may be left longer after its end.
STRAY_S = 1.0


def diary(name: str, **policy: Any) -> dict[str, Any]:
    """A logger that writes down what it gets, for the configuration."""
    return {"module": str(HERE / "plugins" / "diary.py"), "name": name, **policy}


def brood(name: str, **policy: Any) -> dict[str, Any]:
    """A logger that starts processes or floods its output, for the configuration."""
    return {"module": str(HERE / "plugins" / "brood.py"), "name": name, **policy}


def rows(kind: str, **policy: Any) -> dict[str, Any]:
    """A built-in logger, csv or json, for the configuration."""
    return {"module": kind, "name": kind, **policy}


class RendererProcess:
    """A renderer with a journal; see `renderer.py`."""

    def __init__(self, folder: Path, run: Path, name: str, wanted: dict[str, Any]) -> None:
        self.journal = folder / f"{name}.journal"
        self.journal.touch()
        arguments = {"run": str(run), "journal": str(self.journal), "name": name, **wanted}
        self.error_path = folder / f"{name}.stderr"
        with self.error_path.open("ab") as errors:
            self.process = subprocess.Popen(
                [sys.executable, str(HERE / "renderer.py"), json.dumps(arguments)],
                stdin=subprocess.PIPE,
                stderr=errors,
            )

    def wait_going(self) -> RendererProcess:
        """Wait until results were acknowledged."""
        wait_until(lambda: self.journals().acked or self.has_ended(), "a result is acknowledged")
        return self

    def journals(self) -> Journals:
        return read_journals(self.journal)

    def has_ended(self) -> bool:
        return self.process.poll() is not None

    def finish(self) -> Journals:
        """Ask it to end, or wait for it if it has a count, and give its journal."""
        self.close()
        return self.wait()

    def wait(self, within_s: float = WATCHDOG_S) -> Journals:
        code = self.process.wait(within_s)
        assert code == 0, self.error_path.read_text()
        self.close()
        return self.journals()

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(WATCHDOG_S)
        self.close()

    def close(self) -> None:
        assert self.process.stdin is not None
        with suppress(BrokenPipeError):
            self.process.stdin.close()


@dataclass
class Outcome:
    """What the epilogue found."""

    journals: Journals
    accounts: dict[str, Account]
    dead: list[dict[str, Any]]
    log: str

    def assert_nothing_lost(self, *, exact: tuple[str, ...] = ("csv", "json")) -> None:
        """Every acknowledged result has one outcome for each logger.

        Args:
            exact: Loggers that must also have each id once, if they are there.
        """
        for name, account in self.accounts.items():
            assert not account.lost, f"{name} lost {account.lost[:10]}"
            assert not account.dead_twice, f"{name}: dead twice {account.dead_twice[:10]}"
            assert not account.strangers, f"{name}: never published {account.strangers[:10]}"
            if name in exact:
                assert not account.doubled, f"{name} has twice {account.doubled[:10]}"
                assert not account.both, f"{name}: recorded and dead {account.both[:10]}"

    def dead_of(self, logger: str) -> list[dict[str, Any]]:
        return [line for line in self.dead if line["logger"] == logger]


class Scene:
    """One run folder and what happens to it.

    Args:
        folder: An empty folder.
        seed: For the renderers' choices.
    """

    def __init__(self, folder: Path, seed: int) -> None:
        self.folder = folder
        self.seed = seed
        self.config: dict[str, Any] = {}
        self.arguments: tuple[str, ...] = ()
        self.daemons: list[Daemon] = []
        self.renderers: list[RendererProcess] = []

    @property
    def daemon(self) -> Daemon:
        return self.daemons[-1]

    @property
    def run(self) -> Path:
        return self.daemon.run

    def start(self, loggers: list[Any], *arguments: str, **sections: Any) -> Daemon:
        """Start a daemon, and wait until all loggers run."""
        self.config = {
            "buffer": {"slots": 64, "channels": SMALL},
            "logging": {"logger_modules": loggers},
            **sections,
        }
        self.arguments = arguments
        daemon = self.restart()
        daemon.wait_state("running")
        return daemon

    def restart(self) -> Daemon:
        """Start a daemon on the same run folder."""
        self.daemons.append(Daemon(self.folder / "d", self.config, *self.arguments))
        self.daemon.wait_serving()
        return self.daemon

    def renderer(self, name: str, **wanted: Any) -> RendererProcess:
        """Start a renderer; see `renderer.DEFAULTS`."""
        wanted = {"seed": self.seed, **wanted}
        self.renderers.append(RendererProcess(self.folder, self.run, name, wanted))
        return self.renderers[-1]

    def journals(self) -> Journals:
        return read_journals(*(renderer.journal for renderer in self.renderers))

    # What the daemon says.

    def row(self, logger: str) -> dict[str, Any]:
        return self.daemon.status()["loggers"][logger]

    def check_books(self) -> dict[str, Any]:
        """Every count of the daemon adds up at this moment; {} when it does not answer."""
        with suppress(OSError):
            now = self.daemon.status()
            for name, row in now["loggers"].items():
                parts = ("delivered", "dead", "queued", "in_window", "spilled")
                assert min(row[part] for part in parts) >= 0, f"{name}: {row}"
                assert row["published"] == sum(row[part] for part in parts), f"{name}: {row}"
            assert 0 <= now["slots"]["free"] <= now["slots"]["total"]
            return now
        return {}

    def wait_settled(self, within_s: float = WATCHDOG_S) -> dict[str, Any]:
        """Wait until every result has its outcome, those on the disk too."""

        def settled() -> dict[str, Any]:
            now = self.check_books()
            rows = now["loggers"].values() if now else ()
            is_over = all(row["published"] == row["delivered"] + row["dead"] for row in rows)
            return now if now and is_over else {}

        with show_status(self):
            return wait_until(settled, "every result has its outcome", within_s=within_s)

    # The end.

    def epilogue(self, *, within_s: float = WATCHDOG_S, **calm: Any) -> Outcome:
        """End in order, start again, publish a good result, settle, end, and look at everything.

        Args:
            within_s: How long the second start may take to settle.
            **calm: Sections of the configuration that the second start has instead.
        """
        for renderer in self.renderers:
            if not renderer.has_ended():
                renderer.finish()
        if self.daemon.process.poll() is None:
            self.stop()
        self.config = {**self.config, **calm}
        self.restart()
        last = self.renderer(f"last{len(self.daemons)}", count=1)
        assert len(last.wait().acked) == 1
        now = self.wait_settled(within_s)
        assert now["slots"]["free"] == now["slots"]["total"], now
        log = self.stop()
        self.assert_no_strays()
        check_verify(self.run)
        return self.look(log)

    def stop(self) -> str:
        """End the daemon in order: its exit code says whether something is dead."""
        log = self.daemon.stop(code=None)
        assert self.daemon.process.returncode in (0, 1), log[-5000:]
        assert "Traceback" not in _own_words(log), log[-5000:]
        return log

    def look(self, log: str = "") -> Outcome:
        """Read what there is now."""
        journals = self.journals()
        dead = read_dead(self.run, journals.keys)
        accounts = {
            name: judge(journals, name, recorded, dead) for name, recorded in self.recorded()
        }
        return Outcome(journals, accounts, dead, log)

    def recorded(self) -> Iterator[tuple[str, list[str]]]:
        """What each logger has recorded, in order."""
        for logger in self.config["logging"]["logger_modules"]:
            name, module = logger["name"], logger["module"]
            if module == "csv":
                yield name, read_csv(self.run / "details.csv")
            elif module == "json":
                yield name, read_json(self.run / "details.log")
            elif module.endswith("diary.py"):
                yield name, read_diary(self.run / f"{name}.kept")

    def strays(self) -> list[int]:
        """The processes that a daemon of this run has started: they have its mark."""
        found = self.run.stat()
        # Behind the slash is the number of the daemon.
        mark = f"MILLPOND_RUN={found.st_dev}:{found.st_ino}/".encode()
        pids = []
        for place in Path("/proc").iterdir():
            with suppress(OSError):
                if place.name.isdigit():
                    variables = (place / "environ").read_bytes().split(b"\0")
                    if any(variable.startswith(mark) for variable in variables):
                        pids.append(int(place.name))
        return pids

    def assert_no_strays(self) -> None:
        """Nothing is left of the daemons and loggers, no zombie either."""
        wait_until(lambda: not self.strays(), "no process is left", within_s=STRAY_S + 1)
        own = psutil.Process().children()
        assert not [child for child in own if child.status() == psutil.STATUS_ZOMBIE]

    def close(self) -> None:
        """End whatever is left, after a test that failed."""
        for renderer in self.renderers:
            if not renderer.has_ended():
                renderer.kill()
            renderer.close()
        for daemon in self.daemons:
            daemon.end()
        for pid in self.strays() if self.daemons and self.run.exists() else ():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


@contextmanager
def show_status(scene: Scene) -> Iterator[None]:
    """Say what the daemon says when the body fails."""
    try:
        yield
    except BaseException as error:
        with suppress(OSError):
            error.add_note(json.dumps(scene.daemon.status(), indent=1))
        error.add_note(scene.daemon.log[-5000:])
        raise


def check_verify(run: Path) -> None:
    """`millpond verify` finds nothing wrong."""
    verify = subprocess.run(
        [sys.executable, "-m", "millpond", "verify", str(run)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert verify.returncode == 0, verify.stdout + verify.stderr


def random_logger(scene: Scene, chance: random.Random, number: int) -> str:
    """Send a signal to one of the loggers that run, and give its name; "" when none does."""
    found = scene.daemon.try_status()
    running = [n for n, row in found.get("loggers", {}).items() if row["state"] == "running"]
    if not running:
        return ""
    name = chance.choice(running)
    scene.daemon.signal_child(found["loggers"][name]["pid"], number)
    return name


def wait_s(seconds: float) -> None:
    """Let a fault last: the one thing that is a matter of time and not of a condition."""
    time.sleep(seconds)


def _own_words(log: str) -> str:
    """The lines of the daemon itself, without what its loggers printed or raised."""
    skipped = ("logger says", "logger failed", "result failed", "results lost")
    # What is indented is the traceback of a logger.
    lines = [line for line in log.splitlines() if not line.startswith("    ")]
    return "\n".join(line for line in lines if not any(word in line for word in skipped))
