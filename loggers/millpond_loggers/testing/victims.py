"""The test's end of the processes that run a logger and are killed; see `victim`."""

from __future__ import annotations

import atexit
import os
import select
import signal
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from typing import IO, Any, Final

import orjson

from millpond_loggers.testing.victim import HANG_S

# Beyond the time that a process has before it is ended itself.
ANSWER_S: Final = HANG_S + 30
_STDERR_CHARACTERS: Final = 4000


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a process ended.

    Attributes:
        is_killed: It was killed at the chosen point.
        operations: How many operations on files there were; 0 if it did not come to its end.
        problem: The traceback of what it raised; empty if it did not.
    """

    is_killed: bool
    operations: int
    problem: str


class Victims:
    """One program that forks them.

    Args:
        kind: ``module`` or ``file``.
        place: The dotted name of the logger's module, or the path of the file.
    """

    def __init__(self, kind: str, place: str) -> None:
        self._errors: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115  Closed by `close`.
        # One thread: what a library starts when it is imported would not be there after a fork.
        quiet = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "millpond_loggers.testing.victim", kind, place],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            env=os.environ | quiet | {"PYTHONDONTWRITEBYTECODE": "1"},
        )
        self._ask([folder for folder in sys.path if folder])

    def run(self, case: dict[str, Any]) -> Outcome:
        """Run a case; see `victim.Victim`.

        Raises:
            RuntimeError: The process hung, or died in another way than the chosen one.
        """
        self._ask(case)
        answer = orjson.loads(self._read())
        status = answer["status"]
        if status == -signal.SIGKILL and (case.get("point") or case.get("operation")):
            return Outcome(is_killed=True, operations=0, problem="")
        if status == 0:
            problem = answer.get("problem", "")
            return Outcome(is_killed=False, operations=answer.get("operations", 0), problem=problem)
        why = f"ended with {status}"
        if status < 0:
            why = f"died of signal {-status}"
        if status == -signal.SIGALRM:
            why = f"was not done after {HANG_S} s"
        raise RuntimeError(f"the logger {why}; it said: {self._said()}")

    def close(self) -> None:
        """End the program."""
        for stream in (self._process.stdin, self._process.stdout):
            assert stream is not None
            stream.close()
        self._process.wait()
        self._errors.close()

    def _ask(self, question: Any) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(orjson.dumps(question) + b"\n")
        self._process.stdin.flush()

    def _read(self) -> bytes:
        assert self._process.stdout is not None
        ready, _, _ = select.select([self._process.stdout], [], [], ANSWER_S)
        line = self._process.stdout.readline() if ready else b""
        if not line:
            raise RuntimeError(f"no answer from the logger's process; it said: {self._said()}")
        return line

    def _said(self) -> str:
        self._errors.seek(0)
        return self._errors.read().decode(errors="replace")[-_STDERR_CHARACTERS:]


_latest: list[tuple[tuple[str, str], Victims]] = []


def victims_of(kind: str, place: str) -> Victims:
    """Those of one logger: the program is kept until another logger's are wanted."""
    if _latest and _latest[0][0] != (kind, place):
        close_victims()
    if not _latest:
        _latest.append(((kind, place), Victims(kind, place)))
    return _latest[0][1]


@atexit.register
def close_victims() -> None:
    """End the program that is kept, if there is one."""
    while _latest:
        _latest.pop()[1].close()
