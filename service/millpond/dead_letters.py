"""The dead letters: results that a logger will never get, each listed, with its arrays if possible.

``dead.jsonl`` (see `dead_list`) is the only list of the dead.  A line that the disk does not take
waits in memory and is tried again; a reserve of disk space is given up for the lines when the disk
is full.  Arrays (see `dead_arrays`) are kept while there is room, and their loss is told in the
line.
"""

from __future__ import annotations

import errno
import os
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final, NamedTuple

from millpond.core.layout import Layout
from millpond.dead_arrays import (
    DEAD_FOLDER_NAME,
    ArraysFull,
    DeadArrays,
    load_letter,
    safe_name,
)
from millpond.dead_list import (
    DEAD_NAME,
    DeadLine,
    DeadList,
    dead_of,
    local_time,
    pack_line,
    read_dead,
    retract,
)

__all__ = [
    "DEAD_FOLDER_NAME",
    "DEAD_NAME",
    "DeadLetters",
    "DeadLine",
    "Letter",
    "dead_of",
    "load_letter",
    "read_dead",
    "retract",
    "safe_name",
]

# Lines that wait for the disk: with the usual 300 bytes of each, 30 MB.
WAITING_MAX = 100_000
# With long problems they may be longer.
WAITING_BYTES_MAX = 64 * 1024 * 1024
RESERVE_NAME: Final = ".reserve"
# Some thousand lines.
RESERVE_BYTES: Final = 1024 * 1024
# The last lines of a traceback say most.
PROBLEM_CHARS_MAX: Final = 16 * 1024
_FULL: Final = {errno.ENOSPC, errno.EDQUOT}


class Letter(NamedTuple):
    """A result that is dead for a logger.

    Args:
        renderer: The number of its renderer in the run.
        sequence: Which of that renderer's results it is.
        id: The renderer's name for it.
        attempts: How often the logger had it.
        payload: The bytes of its slot; None when its arrays are not to be kept.
        body: Its job, JSON.
    """

    renderer: int
    sequence: int
    id: str
    attempts: int
    payload: bytes | memoryview | None
    body: bytes


class DeadLetters:
    """Lists the dead of one run, and keeps their arrays.  One thread calls it.

    Args:
        folder: The run folder.
        layout: Where the channels lie in a slot; None when no arrays are to be kept.
        arrays_bytes_max: At most so many bytes of arrays are kept, those of earlier daemons
            included.
    """

    def __init__(self, folder: Path, layout: Layout | None, *, arrays_bytes_max: int) -> None:
        self._list = DeadList(folder)
        self._arrays = (
            None if layout is None else DeadArrays(folder, layout, bytes_max=arrays_bytes_max)
        )
        self._reserve = folder / DEAD_FOLDER_NAME / RESERVE_NAME
        self._waiting: deque[bytes] = deque()
        self._waiting_bytes = 0
        self._unlisted = 0
        self._problem = ""

    @property
    def unlisted(self) -> int:
        """Dead results that are in no list and never will be: too many lines waited."""
        return self._unlisted

    @property
    def waiting(self) -> int:
        """Lines that the disk has not taken yet."""
        return len(self._waiting)

    @property
    def problem(self) -> str:
        """Why the disk did not take the lines; "" when it has all of them."""
        return self._problem

    @property
    def arrays_bytes(self) -> int:
        """Bytes of all kept arrays."""
        return self._arrays.bytes_used if self._arrays else 0

    def bury(self, logger: str, letters: Sequence[Letter], *, reason: str, problem: str) -> bool:
        """Keep the arrays of dead results, then list them.

        Args:
            logger: Who will never get them.
            letters: Which; those whose arrays are kept have them on the disk before their line.
            reason: Why, in a word.
            problem: Why, in full; the end of it is listed.

        Returns:
            Whether every line, of this call and of earlier ones, is on the disk.  Lines that are
            not wait for the next call.
        """
        self._make_reserve()
        at = local_time()
        problem = problem[-PROBLEM_CHARS_MAX:]
        for letter in letters:
            arrays, loss = self._keep(logger, letter)
            line = DeadLine(
                id=letter.id,
                logger=logger,
                reason=reason,
                problem="; ".join(filter(None, (problem, loss))),
                renderer=letter.renderer,
                sequence=letter.sequence,
                attempts=letter.attempts,
                at=at,
                arrays=arrays,
            )
            self._wait(pack_line(line))
        return self._write()

    def retry(self) -> bool:
        """Try again what the disk did not take, and the reserve; whether no line waits."""
        is_done = self._write()
        self._make_reserve()
        return is_done

    def close(self) -> None:
        """Try a last time, give the reserve back, and close the file."""
        self._write()
        self._list.close()
        with suppress(OSError):
            self._reserve.unlink(missing_ok=True)
            self._reserve.parent.rmdir()

    def _keep(self, logger: str, letter: Letter) -> tuple[str | None, str]:
        """Where the arrays are now, or why they are not kept."""
        if self._arrays is None or letter.payload is None:
            return None, ""
        key = (letter.renderer, letter.sequence)
        try:
            path = self._arrays.save(logger, letter.id, key, letter.payload, letter.body)
        except OSError as error:
            return None, f"its arrays are not kept: {error.strerror or error}"
        except (ArraysFull, ValueError) as error:
            return None, f"its arrays are not kept: {error}"
        return path, ""

    def _wait(self, line: bytes) -> None:
        is_over = self._waiting_bytes + len(line) > WAITING_BYTES_MAX
        if is_over or len(self._waiting) >= WAITING_MAX:
            # What waits may fit by now.
            self._write()
            is_over = self._waiting_bytes + len(line) > WAITING_BYTES_MAX
            if is_over or len(self._waiting) >= WAITING_MAX:
                self._unlisted += 1
                return
        self._waiting.append(line)
        self._waiting_bytes += len(line)

    def _write(self) -> bool:
        if not self._waiting:
            return True
        lines = b"".join(self._waiting)
        try:
            try:
                self._list.append(lines)
            except OSError as error:
                if error.errno not in _FULL or not self._reserve.exists():
                    raise
                self._reserve.unlink()
                self._list.append(lines)
        except OSError as error:
            self._problem = f"{DEAD_NAME} cannot be written: {error.strerror or error}"
            return False
        self._waiting.clear()
        self._waiting_bytes = 0
        self._problem = ""
        return True

    def _make_reserve(self) -> None:
        """Have some disk space that can be given up; not having it is no failure."""
        if self._reserve.exists():
            return
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
        with suppress(OSError):
            self._reserve.parent.mkdir(exist_ok=True)
            descriptor = os.open(self._reserve, flags, 0o644)
            try:
                os.posix_fallocate(descriptor, 0, RESERVE_BYTES)
            except OSError:
                self._reserve.unlink()
                raise
            finally:
                os.close(descriptor)
