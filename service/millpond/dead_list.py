"""The list of the dead, ``dead.jsonl``: a line for each result that a logger will never get.

Lines are appended whole or not at all, by the daemon and by `retract`, and read by anybody.  A
process that was killed while it appended leaves a torn line; it is closed off by the next one that
appends, and passed over by readers.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO, Final, NamedTuple

import orjson

DEAD_NAME: Final = "dead.jsonl"
# A line is an id, some words and the end of a traceback; what is longer is no line of ours.
LINE_BYTES_MAX: Final = 4 * 1024 * 1024
_SAFE_FLAGS: Final = os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK


class DeadLine(NamedTuple):
    """A result that a logger will never get.

    Args:
        id: The renderer's name for it.
        logger: Which logger.
        reason: Why, in a word.
        problem: Why, in full.
        renderer: The number of its renderer in the run.
        sequence: Which of that renderer's results it is.
        attempts: How often the logger had it.
        at: When, local time with offset.
        arrays: Where its arrays are kept, relative to the run folder; None when they are not.
    """

    id: str
    logger: str
    reason: str
    problem: str
    renderer: int
    sequence: int
    attempts: int
    at: str
    arrays: str | None

    @property
    def key(self) -> tuple[str, int, int]:
        """What it is about: (logger, renderer, sequence)."""
        return (self.logger, self.renderer, self.sequence)


class Retraction(NamedTuple):
    """A dead result that was taken back: what becomes of it is told elsewhere."""

    logger: str
    renderer: int
    sequence: int
    at: str


class DeadList:
    """The list of one run folder, open for appending.

    Whoever moves or removes the file meanwhile finds a new one.

    Args:
        folder: The run folder.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / DEAD_NAME
        self._fd: int | None = None

    def append(self, lines: bytes) -> None:
        """Append whole lines, and wait until they are on the disk.

        Raises:
            OSError: They are not, and nothing of them is in the list; or it is a symlink, or
                another process holds its lock.
        """
        file_fd = self._open()
        # Whoever holds it writes a few lines; the next call tries again.
        try:
            fcntl.flock(file_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise BlockingIOError(error.errno, "another process holds its lock") from None
        try:
            end = os.fstat(file_fd).st_size
            if end and os.pread(file_fd, 1, end - 1) != b"\n":
                lines = b"\n" + lines  # Close off what somebody could not finish.
            try:
                rest = memoryview(lines)
                while rest:  # The last bytes of a disk take a part of them.
                    rest = rest[os.write(file_fd, rest) :]
                os.fdatasync(file_fd)
            except OSError:
                # Should that fail too, readers pass over a part of a line, and of whole lines
                # that are written again the last counts.
                with suppress(OSError):
                    os.ftruncate(file_fd, end)
                raise
        finally:
            fcntl.flock(file_fd, fcntl.LOCK_UN)

    def close(self) -> None:
        """Close the file."""
        if self._fd is not None:
            descriptor, self._fd = self._fd, None
            os.close(descriptor)

    def _open(self) -> int:
        if self._fd is not None:
            try:
                named = self._path.lstat()
            except FileNotFoundError:
                named = None
            if named is not None and os.path.samestat(named, os.fstat(self._fd)):
                return self._fd
            self.close()
        flags = os.O_RDWR | os.O_APPEND | os.O_CREAT
        file_fd = os.open(self._path, flags | _SAFE_FLAGS, 0o644)
        try:
            _check_regular(file_fd)
            _sync_folder(self._path.parent)
        except OSError:
            os.close(file_fd)
            raise
        self._fd = file_fd
        return file_fd


def retract(folder: Path, keys: Iterable[tuple[str, int, int]]) -> None:
    """Take dead results back: from now on they are not dead.

    Args:
        folder: The run folder.
        keys: (logger, renderer, sequence) of each.

    Raises:
        OSError: None of them is taken back.
    """
    at = local_time()
    lines = b"".join(
        orjson.dumps(
            {
                "retracted": True,
                "logger": logger,
                "renderer": renderer,
                "sequence": sequence,
                "at": at,
            },
            option=orjson.OPT_APPEND_NEWLINE,
        )
        for logger, renderer, sequence in keys
    )
    if not lines:
        return
    dead_list = DeadList(folder)
    try:
        dead_list.append(lines)
    finally:
        dead_list.close()


def read_dead(folder: Path, problems: list[str] | None = None) -> Iterator[DeadLine]:
    """Every death in the list of a run folder, in order, those taken back later included.

    Args:
        folder: The run folder; without a list there is nothing to read.
        problems: Gets a sentence for each line that is none; such lines are passed over.

    Raises:
        OSError: The list is there and cannot be read.
    """
    for line in read_lines(folder, problems):
        if isinstance(line, DeadLine):
            yield line


def dead_of(
    folder: Path, problems: list[str] | None = None
) -> dict[tuple[str, int, int], DeadLine]:
    """The results that are dead now, by (logger, renderer, sequence); see `read_dead`.

    Of several deaths of one result the last counts.

    Raises:
        OSError: The list is there and cannot be read.
    """
    dead: dict[tuple[str, int, int], DeadLine] = {}
    for line in read_lines(folder, problems):
        if isinstance(line, DeadLine):
            dead.pop(line.key, None)  # So that the order is that of the last deaths.
            dead[line.key] = line
        else:
            dead.pop((line.logger, line.renderer, line.sequence), None)
    return dead


def read_lines(folder: Path, problems: list[str] | None = None) -> Iterator[DeadLine | Retraction]:
    """Every line of the list; see `read_dead`.

    Raises:
        OSError: The list is there and cannot be read.
    """
    try:
        file_fd = os.open(folder / DEAD_NAME, os.O_RDONLY | _SAFE_FLAGS)
    except FileNotFoundError:
        return
    with os.fdopen(file_fd, "rb") as file:
        number = 0
        while raw := _read_line(file):
            number += 1
            line = parse_line(raw)
            if line is not None:
                yield line
            elif problems is not None and raw.strip():
                problems.append(f"{DEAD_NAME}:{number}: this is no line of the list")


def parse_line(raw: bytes) -> DeadLine | Retraction | None:
    """Read a line; None when it is torn, or no line of ours.

    A part of a line is never taken for a line: what begins with a brace ends with its brace.
    """
    try:
        fields = orjson.loads(raw)
    except orjson.JSONDecodeError:
        return None
    match fields:
        case {
            "retracted": True,
            "logger": str(logger),
            "renderer": int(renderer),
            "sequence": int(sequence),
        }:
            return Retraction(logger, renderer, sequence, str(fields.get("at", "")))
        case {
            "id": str(id),
            "logger": str(logger),
            "renderer": int(renderer),
            "sequence": int(sequence),
        }:
            arrays = fields.get("arrays")
            return DeadLine(
                id=id,
                logger=logger,
                reason=str(fields.get("reason", "")),
                problem=str(fields.get("problem", "")),
                renderer=renderer,
                sequence=sequence,
                attempts=_count(fields.get("attempts")),
                at=str(fields.get("at", "")),
                arrays=arrays if isinstance(arrays, str) else None,
            )
    return None


def pack_line(line: DeadLine) -> bytes:
    """Make the line for a death."""
    fields = {name: _plain(value) for name, value in line._asdict().items()}
    return orjson.dumps(fields, option=orjson.OPT_APPEND_NEWLINE)


def local_time() -> str:
    """Now, as lines have it: local time with the offset."""
    return time.strftime("%Y-%m-%dT%H:%M:%S%z")


def _plain(value: Any) -> Any:
    """The value without lone surrogates, which JSON does not have."""
    return value.encode(errors="backslashreplace").decode() if isinstance(value, str) else value


def _count(value: object) -> int:
    return value if isinstance(value, int) else 0


def _read_line(file: BinaryIO) -> bytes:
    """The next line; of one that is too long, a part that is no line."""
    line = file.readline(LINE_BYTES_MAX)
    if len(line) == LINE_BYTES_MAX:
        rest = line
        while rest and not rest.endswith(b"\n"):
            rest = file.readline(LINE_BYTES_MAX)
        if rest is not line:
            return b"-"
    return line


def _check_regular(file_fd: int) -> None:
    if not stat.S_ISREG(os.fstat(file_fd).st_mode):
        raise OSError(errno.EINVAL, "it is no regular file")


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
