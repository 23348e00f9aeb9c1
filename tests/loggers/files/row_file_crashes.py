"""A program for the tests of the row file: it delivers rows, and dies or fails on the way.

``deliver FOLDER`` delivers what was not released yet.  ``crash FOLDER MODE`` does so in processes
of which the first fails at its first call of the system that could leave a trace, the next at its
second, and so on; each is followed by one that delivers the rest.  ``check FOLDER`` is a part of
that.  It ends with 1 and a line on standard error when a row is missing, torn or there twice.
"""

from __future__ import annotations

import csv
import errno
import itertools
import os
import random
import signal
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from millpond_loggers.files import batch_record
from millpond_loggers.files.row_file import RowFile

RESULTS = range(1, 25)
# At these results a column is added.
COLUMNS = {1: b"id,text", 4: b"id,text,b", 11: b"id,text,b,c"}
BATCHES = (1, 4, 6)
CALLS = ("open", "write", "pwrite", "replace", "unlink", "ftruncate", "fsync")
TRIES = 4
NEVER = 1 << 30
MODES = ("dies after", "dies midway", "fails", "fails, then dies")


def deliver(folder: str) -> None:
    """Be the runner, and a logger like that for CSV: log, flush, release."""
    released = _Released(folder)
    waiting = [number for number in RESULTS if number not in released.numbers]
    rows = _open(folder)
    for size in itertools.cycle(BATCHES):
        batch, waiting = waiting[:size], waiting[size:]
        for _ in range(TRIES):
            try:
                for number in batch:
                    _log(rows, number)
                rows.flush()
            except OSError:  # Told to the daemon, which sends them again.
                continue
            released.add(batch)
            break
        else:
            raise OSError("this process must be started again")
        if not waiting:
            break
    rows.close()


def _open(folder: str) -> RowFile:
    return RowFile(folder, "rows", starts_with=b"id", is_csv=True)


def _log(rows: RowFile, number: int) -> None:
    wanted = max((header for first, header in COLUMNS.items() if first <= number), key=len)
    has = 0 if rows.header is None else rows.header.count(b",") + 1
    if wanted.count(b",") + 1 > has:
        rows.widen(wanted + b"\n", b"," * (wanted.count(b",") + 1 - has))
    assert rows.header is not None
    text = b'"%s\n, ""%d"""' % (b"x" * (number * 37 % 200), number)
    padding = b"," * (rows.header.count(b",") - 1)
    rows.append(b"%d,%s%s\n" % (number, text, padding), (7, number))


class _Released:
    """What the daemon knows; one call, which no fault hits, for each batch."""

    write = staticmethod(os.write)
    open = staticmethod(os.open)

    def __init__(self, folder: str) -> None:
        path = Path(folder, "released")
        self.numbers = set(map(int, path.read_text().split())) if path.exists() else set()
        self._file = self.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)

    def add(self, numbers: list[int]) -> None:
        self.write(self._file, "".join(f"{number}\n" for number in numbers).encode())


def check(folder: str) -> None:
    with Path(folder, "rows").open(newline="") as file:
        header, *rows = csv.reader(file)
    assert header == ["id", "text", "b", "c"], header
    assert all(len(row) == len(header) for row in rows), rows
    counts = Counter(int(row[0]) for row in rows)
    assert counts == Counter(RESULTS), (counts - Counter(RESULTS), Counter(RESULTS) - counts)
    assert all(row[1].endswith(f'"{row[0]}"') for row in rows)


# Faults.


class Fault:
    """Counts calls, and does something at one of them."""

    def __init__(self, at: int, mode: str) -> None:
        self.count = itertools.count(1)
        self.at = at
        self.mode = mode

    def install(self) -> None:
        for name in CALLS:
            setattr(os, name, self._wrap(getattr(os, name)))

    def _wrap(self, call: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(*arguments: Any, **keywords: Any) -> Any:
            beyond = next(self.count) - self.at
            if beyond < 0 or (beyond > 0 and self.mode != "fails, then dies"):
                return call(*arguments, **keywords)
            if self.mode == "dies after":
                with suppress(OSError):
                    call(*arguments, **keywords)
            if call.__name__ in ("write", "pwrite") and self.mode in ("dies midway", "fails"):
                content = memoryview(arguments[1])
                call(arguments[0], content[: len(content) // 2], *arguments[2:])
            if self.mode == "fails" or (self.mode == "fails, then dies" and beyond < 3):
                raise OSError(errno.ENOSPC, "full")
            return os.kill(os.getpid(), signal.SIGKILL)

        return wrapped


def in_a_process(folder: str, fault: Fault) -> None:
    """Deliver in a child, and leave in a file how many calls it made."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            fault.install()
            deliver(folder)
            code = 0
            Path(folder, "calls").write_text(str(next(fault.count)))
        except OSError:
            code = 2
        finally:
            os._exit(code)
    _, status = os.waitpid(pid, 0)
    assert status in (0, 2 << 8, signal.SIGKILL), status


def crash(folder: str, mode: str) -> None:
    in_a_process(folder, Fault(NEVER, mode))
    calls = int(Path(folder, "calls").read_text())
    chance = random.Random(mode)
    for at in range(1, calls + 1):
        with tempfile.TemporaryDirectory(dir=folder) as own:
            in_a_process(own, Fault(at, mode))
            if at % 2:  # And again, while what is left of the first is put right.
                in_a_process(own, Fault(chance.randrange(1, 20), chance.choice(MODES)))
            in_a_process(own, Fault(NEVER, mode))
            try:
                check(own)
            except BaseException:
                sys.stderr.write(f"{mode} at call {at} of {calls}\n")
                raise


if __name__ == "__main__":
    # Short ones, so that they are replaced in between.
    batch_record.RECORD_BYTES_MAX = 300
    batch_record.KEYS_KEPT = 20
    {"deliver": deliver, "check": check, "crash": crash}[sys.argv[1]](*sys.argv[2:])
