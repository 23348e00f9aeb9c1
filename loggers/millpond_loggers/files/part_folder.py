"""Numbered files in a folder, each for many results: ``part-000001.parquet`` and so on.

A part is there whole or not at all.  Until it is, its results lie in a journal beside it, and each
is safe there when `flush` returns: a logger that is made again after a crash makes a part of what
it finds, and goes on with the next number.

Every result has a key.  One whose key is known already is a result that came twice, and is not
taken again; the keys of parts that are in place are in the journal too.
"""

from __future__ import annotations

import logging
import os
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Final

import orjson

from millpond_loggers.files.journal import Contents, Journal, Record, pack_record, read_journal
from millpond_loggers.files.known_keys import KEYS_KEPT, Key, remember
from millpond_loggers.files.names import (
    open_beneath,
    open_folder,
    remove_leftovers,
    replace_atomically,
)
from millpond_loggers.files.part_names import PartNames

log = logging.getLogger(__name__)

# A part that could not be written is tried again after so long; its results are safe meanwhile.
RETRY_S: Final = 10.0

Write = Callable[[int, Any, Sequence[Record]], None]
"""Fills a file: its descriptor, what is known of all records, the records."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """When a part has enough.

    Args:
        rows: Results.
        size: Bytes in the journal.
        age_s: Seconds since its first result.
    """

    rows: int
    size: int
    age_s: float


class PartFolder:
    """Takes results, and makes parts of them; made once in a process, and again after a crash.

    Args:
        root_dir: The output folder, which exists.
        names: What the folder and its files are called.
        bounds: When a part has enough.
        about: What `write` must know of all records, as plain values.  It is in the journal too,
            for what this process leaves may be written by a later one, with other options.
        write: Fills the file of a part.

    Attributes:
        known: Keys of results that are recorded: at least the latest `KEYS_KEPT`.

    Raises:
        OSError: The folder cannot be used, what a journal holds cannot become a part, or another
            logger writes to the journal.
    """

    def __init__(
        self, root_dir: str, names: PartNames, bounds: Bounds, *, about: Any, write: Write
    ) -> None:
        self._names = names
        self._bounds = bounds
        self._about = about
        self._write = write
        self._waiting: dict[Key, bytes] = {}
        self.known: dict[Key, None] = {}
        # Whether the part that the journal is for is in place: then nothing is appended to it.
        self._is_placed = False
        self._due_s = self._retry_s = 0.0  # When a part is old, and may be tried.
        self._journal: Journal | None = None
        self._folder = open_folder(root_dir, name=names.folder)
        try:
            remove_leftovers(self._folder)
            for name in self._abandoned():
                with closing(self._open(name)) as journal:
                    self._take_over(journal)
                    journal.remove()
            self._journal = self._open(names.journal)
            self._take_over(self._journal)
            self._number = self._next_number(self._journal.about)
            self._begin()
        except BaseException:
            self._close_descriptors()
            raise

    def append(self, key: Key, pieces: Sequence[Any]) -> None:
        """Take a result, to be recorded by `flush` unless its key is known.

        Args:
            key: The renderer and the sequence: `ResultBuffer.key_of`.
            pieces: Bytes, or arrays that are contiguous; they are copied.  The first is a JSON
                object with the ``id``.
        """
        if key not in self.known:
            self._waiting[key] = pack_record(key, pieces)

    def flush(self) -> None:
        """Record what waits, and make a part if there is enough.

        That a part cannot be written is no error: its results are safe, and it is tried again.

        Raises:
            OSError: What waits cannot be recorded; no result since the last flush is.
        """
        try:
            if self._waiting:
                self._record()
        finally:
            self._waiting.clear()
        if self._journal is not None and self._is_due(self._journal):
            try:
                self._finish()
            except Exception as problem:  # noqa: BLE001  Whatever a library raises, no result is lost.
                self._retry_s = time.monotonic() + RETRY_S
                log.warning(
                    "part cannot be written, its results stay in the journal part=%s error=%r "
                    "retry_s=%g",
                    self._journal.about["part"],
                    problem,
                    RETRY_S,
                )

    def close(self) -> None:
        """Record what waits, make the last part, and close.  The second time does nothing.

        Raises:
            OSError: A file cannot be written.  What was flushed is in the journal.
        """
        if self._journal is None:
            return
        try:
            if self._waiting:
                self._record()
            if self._journal.count and not self._is_placed:
                self._finish()
        finally:
            self._close_descriptors()

    def _record(self) -> None:
        assert self._journal is not None
        if self._is_placed:
            self._begin()
        if not self._journal.count:
            self._due_s = time.monotonic() + self._bounds.age_s
        self._journal.append(self._waiting.values())
        remember(self.known, self._waiting, kept=KEYS_KEPT)

    def _is_due(self, journal: Journal) -> bool:
        bounds, now_s = self._bounds, time.monotonic()
        if not journal.count or self._is_placed or now_s < self._retry_s:
            return False
        is_large = journal.count >= bounds.rows or journal.size >= bounds.size
        return is_large or now_s >= self._due_s

    def _finish(self) -> None:
        assert self._journal is not None
        self._put(self._journal)
        self._is_placed = True
        self._number += 1
        self._begin()

    def _put(self, journal: Journal) -> None:
        """Put the part in place that a journal is for."""
        about, records = journal.about["about"], journal.records()

        def fill(descriptor: int) -> None:
            self._write(descriptor, about, records)
            os.fsync(descriptor)  # It takes the place of results that may long be on the disk.

        replace_atomically(self._folder, journal.about["part"], fill)

    def _begin(self) -> None:
        """Begin the journal of the next part; it says which results are in place."""
        assert self._journal is not None
        about = {"part": self._names.part(self._number), "about": self._about}
        self._journal.begin(about, list(self.known)[-KEYS_KEPT:])
        self._is_placed = False

    def _take_over(self, journal: Journal) -> None:
        """Make a part of what an earlier process left, unless it had come to that itself."""
        remember(self.known, journal.keys, kept=KEYS_KEPT)
        if journal.count and not _is_there(self._folder, journal.about["part"]):
            log.info("part of an earlier process part=%s", journal.about["part"])
            self._put(journal)

    def _next_number(self, about: Any) -> int:
        """What no part has that is there; nor one that was moved away, if the journal tells."""
        last = max(map(self._names.number, _list(self._folder)), default=0)
        told = 0 if about is None else self._names.number(about["part"])
        is_used = told > 0 and _is_there(self._folder, self._names.part(told))
        return max(last + 1, told + is_used)

    def _abandoned(self) -> list[str]:
        """Journals that nobody else would look after; the first of several processes does."""
        if self._names.instance > 1:
            return []
        return sorted(filter(self._names.is_abandoned, _list(self._folder)))

    def _open(self, name: str) -> Journal:
        remedy = "give one of the two loggers another `options: {folder: ...}`"
        return Journal(self._folder, name, remedy=remedy)

    def _close_descriptors(self) -> None:
        if self._journal is not None:
            self._journal.close()
            self._journal = None
        os.close(self._folder)


def recorded_ids(
    root_dir: str, names: PartNames, ids_of: Callable[[BinaryIO], Iterable[str]]
) -> Counter[str]:
    """How often each id is in the parts and in the journal of a process; nothing is changed.

    Args:
        root_dir: The output folder.
        names: What the files are called.
        ids_of: The ids in the file of a part.

    Raises:
        OSError: Something cannot be read.
    """
    counts: Counter[str] = Counter()
    if not Path(root_dir, names.folder).is_dir():
        return counts
    folder = open_folder(root_dir, name=names.folder)
    try:
        # First the journal: what becomes a part meanwhile is found in one of the two.
        journal = _read_journal(folder, names.journal)
        parts = {name for name in _list(folder) if names.number(name)}
        if journal is not None and journal.about is not None and journal.about["part"] not in parts:
            counts.update(orjson.loads(pieces[0])["id"] for _, pieces in journal.records)
        for name in sorted(parts):
            with os.fdopen(open_beneath(folder, name, os.O_RDONLY), "rb") as file:
                counts.update(ids_of(file))
    finally:
        os.close(folder)
    return counts


def last_part(root_dir: str, names: PartNames) -> Path | None:
    """The part of this process with the highest number; None if it has made none."""
    folder = Path(root_dir, names.folder)
    if not folder.is_dir():
        return None
    last = max((names.number(path.name) for path in folder.iterdir()), default=0)
    return folder / names.part(last) if last else None


def _read_journal(folder: int, name: str) -> Contents | None:
    try:
        file = open_beneath(folder, name, os.O_RDONLY)
    except FileNotFoundError:
        return None
    try:
        return read_journal(file)
    finally:
        os.close(file)


def _list(folder: int) -> list[str]:
    with os.scandir(folder) as entries:
        return [entry.name for entry in entries]


def _is_there(folder: int, name: str) -> bool:
    try:
        os.stat(name, dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return True
