"""Processes that run a logger and are killed: ``python -m`` this, started by `Victims`.

It imports the logger once; for each line of JSON on its standard input it forks a process that
runs the logger on results of its own making, and answers with a line that says how that ended.
A second one that is given the same folder and books goes on where the first one was killed.
"""

from __future__ import annotations

import importlib
import itertools
import os
import signal
import sys
import traceback
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import orjson

from millpond.core.layout import channels_from_json
from millpond_loggers.plugin import load
from millpond_loggers.testing.faults import Fault
from millpond_loggers.testing.pond import MemoryPond, Result
from millpond_loggers.testing.scene import arguments_of, arrays_of, id_of

BATCHES: Final = (1, 4, 6)
SLOT_COUNT: Final = 64
# As often as the daemon sends a result whose `log` raises.
TRIES: Final = 5
HANG_S: Final = 60
RENDERER: Final = 4711
# How one ends that was not killed; RAISED only by a fault of this module.
ENDED, RAISED = 0, 2
# Kept before a fault is put in its place.
_write = os.write


class Books:
    """What is known outside of the process: the numbers of the results that it has released."""

    def __init__(self, path: str) -> None:
        self._file = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o644)
        self.numbers = {int(line) for line in Path(path).read_text().split()}

    def add(self, number: int) -> None:
        """Write one down."""
        self.numbers.add(number)
        _write(self._file, b"%d\n" % number)


class Victim:
    """Runs a logger in this process, until it is killed or at the end.

    Args:
        case: ``root_dir``, ``books``, ``channels``, ``options``, ``config``, ``count`` of results;
            ``point`` and ``at``, or ``operation`` and ``how``, if it is to be killed.
    """

    def __init__(self, case: dict[str, Any]) -> None:
        self._books = Books(case["books"])
        self._point: str = case.get("point", "")
        self._at: int = case.get("at", 0)
        self._numbers = range(1, case["count"] + 1)
        self._channels = channels_from_json(case["channels"])
        self.fault = Fault(case.get("operation", 0), case.get("how", ""))
        self._pond = MemoryPond(
            case["root_dir"],
            {channel.name: (channel.shape, channel.dtype) for channel in self._channels},
            slots=SLOT_COUNT,
            options=case["options"],
            config=case["config"],
        )

    def run(self, logger_class: Any) -> None:
        """Deliver what was not released yet, and end."""
        waiting = [self._result(n) for n in self._numbers if n not in self._books.numbers]
        self.fault.install()
        self._pond.start(logger_class, watch=self._reached)
        for batch in _batches(waiting):
            self._deliver(batch)
        self._pond.end()

    def _result(self, number: int) -> Result:
        arrays = arrays_of(self._channels, number)
        key = (RENDERER, number)
        return Result(id_of(number), arguments_of(number), {"model": "cup"}, arrays, key)

    def _deliver(self, batch: Sequence[Result]) -> None:
        with suppress(Exception):  # Told to the daemon, which sends them again.
            self._pond.deliver(batch)
        for attempt in range(TRIES):
            for result in self._pond.waiting:
                try:
                    self._pond.deliver([result])
                except Exception:
                    if attempt == TRIES - 1:
                        raise

    def _reached(self, point: str) -> None:
        for result in self._pond.released:
            if result.key[1] not in self._books.numbers:
                self._books.add(result.key[1])
        if point == self._point:
            self._at -= 1
            if self._at == 0:
                os.kill(os.getpid(), signal.SIGKILL)


def _batches(results: Sequence[Result]) -> Iterator[Sequence[Result]]:
    start = 0
    for size in itertools.cycle(BATCHES):
        if start >= len(results):
            return
        yield results[start : start + size]
        start += size


def _run_in_fork(logger_class: Any, case: dict[str, Any]) -> dict[str, Any]:
    """Run a case in a process of its own; how that ended, and what it said of itself."""
    answer_read, answer_write = os.pipe()
    pid = os.fork()
    if pid == 0:
        code = RAISED
        try:
            os.close(answer_read)
            signal.alarm(HANG_S)
            answer = orjson.dumps(_run(logger_class, case))
            while answer:
                answer = answer[_write(answer_write, answer) :]
            code = ENDED
        finally:
            os._exit(code)
    os.close(answer_write)
    with os.fdopen(answer_read, "rb") as file:
        said = orjson.loads(file.read() or b"{}")
    _, status = os.waitpid(pid, 0)
    return {"status": os.waitstatus_to_exitcode(status), **said}


def _run(logger_class: Any, case: dict[str, Any]) -> dict[str, Any]:
    imported = set(sys.modules)
    victim = Victim(case)
    try:
        victim.run(logger_class)
    except BaseException:  # noqa: BLE001  Whatever it is, it is told.
        return {"problem": traceback.format_exc().encode(errors="replace").decode()}
    modules = sorted(set(sys.modules) - imported)
    return {"operations": victim.fault.count, "modules": modules}


def _import(modules: Sequence[str]) -> None:
    """Import what a process has imported, so that the next one finds it there."""
    for module in modules:
        with suppress(Exception):  # Then the next one does it itself, and raises.
            importlib.import_module(module)


def main(arguments: list[str]) -> None:
    """Answer line by line."""
    kind, place = arguments
    answers = os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(2, 1)  # What a logger prints is no answer.
    sys.path[:] = orjson.loads(sys.stdin.buffer.readline())
    logger_class = load(kind, place)
    _import(getattr(logger_class, "libraries", ()))
    for line in sys.stdin.buffer:
        answer = _run_in_fork(logger_class, orjson.loads(line))
        _import(answer.pop("modules", ()))
        answers.write(orjson.dumps(answer) + b"\n")


if __name__ == "__main__":
    main(sys.argv[1:])
