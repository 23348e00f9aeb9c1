"""Let the n-th call that a daemon makes on some files fail, or kill it there, with strace."""

from __future__ import annotations

import re
import shutil
import sys
from collections import Counter
from pathlib import Path
from typing import NamedTuple
from unittest.mock import patch

import pytest
from system.harness import Daemon, wait_until

CALLS = (
    *("openat", "mkdir", "fallocate", "write", "pwrite64", "ftruncate"),
    *("fsync", "fdatasync", "rename", "unlink", "unlinkat"),
)
SEGMENTS = 12


class Injection(NamedTuple):
    """The n-th call of that name, of each thread, does this: an error's name, or KILL."""

    call: str
    n: int
    what: str

    def __str__(self) -> str:
        return f"{self.call} {self.n} {self.what}"


def check_strace() -> None:
    """Skip the test where there is none."""
    if shutil.which("strace") is None:
        pytest.skip("strace is not installed")


def watched(run: Path, logger: str) -> list[Path]:
    """The files of the ledger, of the spill of one logger, and the list of the dead."""
    spill = run / "spill" / logger
    return [
        run / "ledger",
        *(run / "ledger" / f"00000{number}.{kind}" for number in (1, 2) for kind in _KINDS),
        run / "spill",
        spill,
        spill / ".probe",
        *(spill / f"{number:08}.seg" for number in range(1, SEGMENTS)),
        run / "dead.jsonl",
    ]


_KINDS = ("jsonl", "marks")


def traced_python(folder: Path, files: list[Path], injection: Injection | None) -> Path:
    """A program that is Python under strace; what it traces is in `trace` beside it."""
    what = ""
    if injection is not None:
        how = "signal=KILL" if injection.what == "KILL" else f"error={injection.what}"
        what = f"-e inject={injection.call}:{how}:when={injection.n}"
    names = " ".join(f"-P {path}" for path in files)
    # The loggers are not traced: `-b execve` lets go of what the daemon starts.
    program = folder / "python"
    program.write_text(
        f"#!/bin/sh\nexec strace -D -f -b execve -qq -o {folder / 'trace'} "
        f'-e trace={",".join(CALLS)} {what} {names} {sys.executable} "$@"\n'
    )
    program.chmod(0o755)
    return program


def start_traced(folder: Path, config: dict[str, object], program: Path) -> Daemon:
    """Start a daemon by that program; it may end before it serves."""
    with patch.object(sys, "executable", str(program)):
        daemon = Daemon(folder, config)

    def is_decided() -> bool:
        if daemon.process.poll() is not None:
            return True
        try:
            return daemon.status()["state"] == "running"
        except OSError:
            return False

    wait_until(is_decided, f"it serves or ends; its log:\n{daemon.log}")
    return daemon


def count_calls(trace: Path) -> Counter[str]:
    """How often the thread that did it most often did each call."""
    by_thread: Counter[tuple[str, str]] = Counter()
    for line in trace.read_text().splitlines():
        found = re.match(r"(\d+) +(\w+)\(", line)
        if found:
            by_thread[found[1], found[2]] += 1
    counts: Counter[str] = Counter()
    for (_, call), count in by_thread.items():
        counts[call] = max(counts[call], count)
    return counts
