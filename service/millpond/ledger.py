"""The ledger of a run: which results were published, and which of them each logger has.

A file for each start of the daemon, ``<run>/ledger/000001.jsonl``, and a line for each fact::

    {"start": {"number": 1, "loggers": [...], "renderer_last": 0, "pending": {...}, ...}}
    {"channels": {...}}              the channels, when a renderer declared them
    {"renderer": [18, 4711]}         number and pid of one that joined
    {"p": [18, 1, ["a", "b"]]}       published: renderer, first sequence, ids
    {"d": ["csv", 18, 1, 2]}         delivered: logger, renderer, first and last sequence
    {"f": ["csv", 18, 3, 3]}         filtered: published, and the logger does not want it
    {"o": ["csv", 18, 3, 3]}         dead or on the disk; which of them is told there
    {"end": {"at": ...}}             the orderly end: what has no outcome is on the disk

Beside it lies ``000001.marks``, a table of words, as long as the daemon runs and after a crash: for
each renderer its last sequence, and for each logger the mark: up to it every result is delivered or
has an "o" or "f" line.  A mark is one store for a batch; "d" lines catch up with the marks later.

Nothing here waits for the disk but `begin`, `sync` and `close`.
"""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import orjson

from millpond import __version__
from millpond.core.deliveries import Result
from millpond.core.ranges import RangeSet, ResultRanges
from millpond.ledger_file import EXTENT_BYTES, ROWS, LineFile, Marks
from millpond.ledger_previous import Previous
from millpond.ledger_reader import FOLDER_NAME, last_number, lines_path, marks_path

# Lines that wait because the disk is full: some 400,000 results, beyond which they are counted.
WAITING_BYTES_MAX: Final = 16 << 20


class Ledger:
    """Writes the file of this start, and has read that of the one before.

    One thread calls everything but `sync`, which another one may call meanwhile.

    Attributes:
        previous: What the last start left.
        number: Which start this is, from 1.
        lost_lines: Lines that could not be kept until the disk had room again.

    Args:
        run: The run folder, which exists.
        loggers: ``name``, ``kind``, ``place`` and ``options`` of each, in the order of their index.
        extent_bytes: By how much the file grows; for tests.
        rows: Renderers that can have marks at a time; for tests.
    """

    def __init__(
        self,
        run: Path,
        loggers: Sequence[Mapping[str, Any]],
        *,
        extent_bytes: int = EXTENT_BYTES,
        rows: int = ROWS,
    ) -> None:
        self.previous = Previous.read(run, [str(logger["name"]) for logger in loggers])
        self.number = last_number(run) + 1
        self.lost_lines = 0
        self._run = run
        self._loggers = [dict(logger) for logger in loggers]
        self._names = [orjson.dumps(logger["name"]) for logger in loggers]
        self._extent_bytes = extent_bytes
        self._row_count = rows
        self._rows: dict[int, _Row] = {}
        self._accounts: list[dict[int, _Account]] = [{} for _ in loggers]
        self._fresh: list[_Account] = []  # Whose marks are ahead of their "d" lines.
        self._left: set[int] = set()
        self._has_left = False
        self._waiting: deque[tuple[bytes, _Other | None]] = deque()
        self._waiting_bytes = 0
        self._synced_length = 0
        self._room_problem = ""
        self._sync_problem = ""

    def begin(
        self,
        pending: Mapping[str, ResultRanges],
        *,
        renderer_last: int = 0,
        **others: Any,
    ) -> None:
        """Make the file; call this when what the last start left unaccounted has been told.

        Args:
            pending: Results of earlier starts that this one has to deliver, by logger.
            renderer_last: The last number that an earlier renderer has, if that is known from
                elsewhere to be larger than the ledger's.
            others: What else the first line says: ``config``, ``output_dir``, ``channels``.

        Raises:
            OSError: The disk has no room, or the folder cannot be written.
        """
        start = {
            "number": self.number,
            "pid": os.getpid(),
            "at": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
            "version": __version__,
            "loggers": self._loggers,
            "renderer_last": max(renderer_last, self.previous.renderer_last),
            "pending": {name: results.to_json() for name, results in pending.items()},
            **others,
        }
        line = _line({"start": start})
        path = lines_path(self._run, self.number)
        path.parent.mkdir(exist_ok=True)
        extent_bytes = self._extent_bytes
        while extent_bytes < len(line):
            extent_bytes *= 2
        marks = marks_path(self._run, self.number)
        marks.unlink(missing_ok=True)  # Of a start that was cut short before there was a line.
        self._marks = Marks(marks, len(self._loggers), rows=self._row_count)
        try:
            self._file = LineFile(path, extent_bytes=extent_bytes)
        except OSError:
            self._marks.close(remove=True)
            raise
        self._words = self._marks.words
        self._file.append(line)
        self.sync()
        folder = os.open(self._run / FOLDER_NAME, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

    @property
    def needs_sync(self) -> bool:
        """Whether `prepare` and `sync` have something to do."""
        return bool(
            self._file.length != self._synced_length
            or self._fresh
            or self._waiting
            or self._has_left
            or self._file.needs_room
        )

    @property
    def problem(self) -> str:
        """What keeps lines out of the file or off the disk; empty when all is well."""
        lost = f"{self.lost_lines} lines were lost" if self.lost_lines else ""
        return "; ".join(text for text in (self._room_problem, self._sync_problem, lost) if text)

    def channels(self, declared: Mapping[str, Any]) -> None:
        """Note the channels, in the form of `core.layout.channels_to_json`."""
        self._append(_line({"channels": declared}))

    def renderer_joined(self, renderer: int, pid: int) -> None:
        """Note a renderer, whose results come next; its number is new."""
        self._append(b'{"renderer":[%d,%d]}\n' % (renderer, pid))
        base = self._marks.take_row(renderer)
        if base is not None:
            self._rows[renderer] = _Row(base)
            for logger, accounts in enumerate(self._accounts):
                accounts[renderer] = _Account(logger, renderer, base + 2 + logger)

    def renderer_left(self, renderer: int) -> None:
        """Note that no more results of this renderer will come."""
        if renderer in self._rows:
            self._left.add(renderer)
            self._has_left = True

    def published(self, results: Sequence[Result]) -> None:
        """Note results of one renderer, in sequence and without a gap, as the supervisor has them.

        Call this before any logger is given one of them.
        """
        renderer, first = results[0].renderer, results[0].sequence
        last = first + len(results) - 1
        ids = [result.id for result in results]
        try:
            told = orjson.dumps(ids)
        except orjson.JSONEncodeError:  # Half a surrogate pair.
            ids = [id.encode("utf-8", "backslashreplace").decode() for id in ids]
            told = orjson.dumps(ids)
        self._append(b'{"p":[%d,%d,%b]}\n' % (renderer, first, told))
        row = self._rows.get(renderer)
        if row is not None and first == row.published + 1:
            row.published = last
            self._words[row.base + 1] = last

    def delivered(self, logger: int, results: Sequence[Result]) -> None:
        """Note what a logger has released; it survives a kill of the daemon at once.

        Args:
            logger: Its index.
            results: Of any renderers, also of earlier starts.
        """
        for renderer, first, last in _runs(results):
            account = self._accounts[logger].get(renderer)
            if account is None or first != account.mark + 1 or account.beyond:
                self._append(self._range_line(b"d", logger, renderer, first, last))
                if account is not None:
                    self._settle(account, first, last)
                continue
            account.mark = last
            self._words[account.word] = last
            if not account.fresh_first:
                account.fresh_first = first
                self._fresh.append(account)

    def filtered(self, logger: int, results: Sequence[Result]) -> None:
        """Note results that a logger does not want; call this after `published`."""
        for renderer, first, last in _runs(results):
            self._tell_other(b"f", logger, renderer, first, last)

    def otherwise(self, logger: int, results: Sequence[Result]) -> None:
        """Note results that are dead or on the disk; call this when that is durable."""
        for renderer, first, last in _runs(results):
            if renderer in self._accounts[logger]:
                self._tell_other(b"o", logger, renderer, first, last)

    def prepare(self) -> None:
        """Store every line that is due; `sync` comes next."""
        self._drain()
        fresh, self._fresh = self._fresh, []
        for account in fresh:
            self._tell_fresh(account)
        self._has_left = False
        if self._left and not self._waiting:
            for renderer in [number for number in self._left if self._is_settled(number)]:
                self._left.discard(renderer)
                self._marks.free_row(self._rows.pop(renderer).base)
                for accounts in self._accounts:
                    del accounts[renderer]

    def sync(self) -> None:
        """Wait for the disk, and make room for more lines; what fails is told by `problem`."""
        length = self._file.length
        try:
            self._file.sync()
            self._synced_length = length
        except OSError as error:
            # A later success says nothing about the pages that failed, so this stays.
            self._sync_problem = f"the disk failed to take lines: {error.strerror}"
        try:
            self._file.make_room()
            self._room_problem = ""
        except OSError as error:
            self._room_problem = f"no room for more lines: {error.strerror}"

    def close(self, *, is_end: bool = True) -> None:
        """Write what is due, and close.

        Args:
            is_end: It is an orderly end: what has no outcome is on the disk.

        Raises:
            OSError: The disk failed at last.
        """
        self.prepare()
        if self._waiting:
            self.sync()
            self._drain()
        if is_end:
            self._append(_line({"end": {"at": time.strftime("%Y-%m-%dT%H:%M:%S%z")}}))
        is_whole = is_end and not self._waiting and not self.lost_lines
        try:
            self._file.close()
        finally:
            self._marks.close(remove=is_whole)

    def _append(self, line: bytes, other: _Other | None = None) -> bool:
        """Store a line, or let it wait; returns whether it is stored."""
        if not self._waiting and self._file.append(line):
            return True
        if self._waiting_bytes + len(line) > WAITING_BYTES_MAX:
            self.lost_lines += 1
        else:
            self._waiting.append((line, other))
            self._waiting_bytes += len(line)
        return False

    def _drain(self) -> None:
        while self._waiting:
            line, other = self._waiting[0]
            if not self._file.append(line):
                return
            self._waiting.popleft()
            self._waiting_bytes -= len(line)
            if other is not None:
                self._settle(*other)

    def _range_line(self, kind: bytes, logger: int, renderer: int, first: int, last: int) -> bytes:
        return b'{"%b":[%b,%d,%d,%d]}\n' % (kind, self._names[logger], renderer, first, last)

    def _tell_other(self, kind: bytes, logger: int, renderer: int, first: int, last: int) -> None:
        account = self._accounts[logger].get(renderer)
        line = self._range_line(kind, logger, renderer, first, last)
        # The mark passes them only when their line is in the file, for what lies below a mark and
        # has no such line counts as delivered.
        other = None if account is None else (account, first, last)
        if self._append(line, other) and account is not None:
            self._settle(account, first, last)

    def _settle(self, account: _Account, first: int, last: int) -> None:
        """Take note of results that have a line of their own, and move the mark past them."""
        self._tell_fresh(account)
        account.beyond.add(first, last)
        account.mark = account.beyond.take_run(account.mark + 1)
        self._words[account.word] = account.mark

    def _tell_fresh(self, account: _Account) -> None:
        """Append the line for what only the mark says."""
        first, account.fresh_first = account.fresh_first, 0
        if first:
            line = self._range_line(b"d", account.logger, account.renderer, first, account.mark)
            self._append(line)

    def _is_settled(self, renderer: int) -> bool:
        """Whether each logger has an outcome for each of its results, and lines say which."""
        published = self._rows[renderer].published
        return all(
            account.mark >= published and not account.fresh_first
            for account in (accounts[renderer] for accounts in self._accounts)
        )


class _Row:
    """What was published by a renderer that has a row of marks."""

    __slots__ = ("base", "published")

    def __init__(self, base: int) -> None:
        self.base = base
        self.published = 0  # Its last sequence.


class _Account:
    """What one logger has of one renderer."""

    __slots__ = ("beyond", "fresh_first", "logger", "mark", "renderer", "word")

    def __init__(self, logger: int, renderer: int, word: int) -> None:
        self.logger = logger
        self.renderer = renderer
        self.word = word  # Where the mark is stored.
        self.mark = 0  # Up to this sequence every one has an outcome.
        self.fresh_first = 0  # From here to the mark no "d" line says so yet; 0: none is due.
        self.beyond = RangeSet()  # Those behind the mark that have one.


_Other = tuple[_Account, int, int]


def _runs(results: Sequence[Result]) -> Iterable[tuple[int, int, int]]:
    """The results as (renderer, first sequence, last sequence)."""
    if not results:
        return ()
    renderer, first = results[0].renderer, results[0].sequence
    expected = first
    for result in results:
        if result.sequence != expected or result.renderer != renderer:
            return ResultRanges((result.renderer, result.sequence) for result in results).ranges
        expected += 1
    return ((renderer, first, expected - 1),)


def _line(fact: Mapping[str, Any]) -> bytes:
    return orjson.dumps(fact, option=orjson.OPT_APPEND_NEWLINE | orjson.OPT_NON_STR_KEYS)
