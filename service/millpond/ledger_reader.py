"""Reading the ledger of a run: what a start of the daemon published, delivered and left.

Whatever is in the files, reading goes on: lines that make no sense are skipped and counted.  Only
ranges are kept, so a million results are small; the ids are read again for those that matter.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, Final

import orjson

from millpond.core.ranges import ResultRanges, check_range
from millpond.ledger_file import read_marks

FOLDER_NAME: Final = "ledger"
PIECE_BYTES: Final = 1 << 20
# The first line holds the options of all loggers, the others less.
LINE_BYTES_MAX: Final = 16 << 20
# A daemon on a full disk publishes so much without a line at most; what is more is damage.
UNLISTED_MAX: Final = 10_000_000

_NAME: Final = re.compile(r"([0-9]{6,12})\.jsonl", re.ASCII)


def lines_path(run: Path, number: int) -> Path:
    """The file with the lines of a start."""
    return run / FOLDER_NAME / f"{number:06}.jsonl"


def marks_path(run: Path, number: int) -> Path:
    """The file with the marks of a start."""
    return run / FOLDER_NAME / f"{number:06}.marks"


def numbers(run: Path) -> list[int]:
    """The starts that have a file, sorted; none if there is no ledger."""
    try:
        names = [entry.name for entry in (run / FOLDER_NAME).iterdir()]
    except OSError:
        return []
    return sorted(int(match[1]) for name in names if (match := _NAME.fullmatch(name)))


def last_number(run: Path) -> int:
    """The last start; 0 if there was none."""
    return (numbers(run) or [0])[-1]


def config_of(run: Path) -> Path | None:
    """The configuration that the last start had; None if no line tells."""
    for number in reversed(numbers(run)):
        with suppress(OSError):
            for _, facts in Lines(lines_path(run, number)):
                match facts:
                    case [{"start": {"config": str(config)}}, *_]:
                        return Path(config)
                break  # Only the first line tells.
    return None


class Lines:
    """The facts of a file, read in pieces.

    Attributes:
        corrupt: Lines that are no JSON object, so far.

    Args:
        path: The file.
    """

    def __init__(self, path: Path) -> None:
        self.corrupt = 0
        self._path = path

    def __iter__(self) -> Iterator[tuple[int, list[dict[str, Any]]]]:
        """Many facts at a time, and the offset of their piece.

        Raises:
            OSError: The file cannot be read.
        """
        with self._path.open("rb") as file:
            offset = 0
            while piece := _read_piece(file):
                yield offset, self._parse(piece)
                offset += len(piece)

    def read(self, offsets: Iterable[int]) -> Iterator[list[dict[str, Any]]]:
        """The facts of these pieces.

        Raises:
            OSError: The file cannot be read.
        """
        with self._path.open("rb") as file:
            for offset in offsets:
                file.seek(offset)
                yield self._parse(_read_piece(file))

    def _parse(self, piece: bytes) -> list[dict[str, Any]]:
        # Behind the content are NULs, and perhaps a line that was torn before its first byte came.
        content = piece.rstrip(b"\0").removesuffix(b"\n")
        if not content:
            return []
        try:
            found = orjson.loads(b"[%b]" % content.replace(b"\n", b","))
        except orjson.JSONDecodeError:
            found = [self._parse_line(line) for line in content.split(b"\n")]
        facts = [fact for fact in found if type(fact) is dict]
        self.corrupt += len(found) - len(facts)
        return facts

    def _parse_line(self, line: bytes) -> Any:
        if line.startswith(b"\0"):
            return {}  # No fact, and nothing wrong.
        try:
            return orjson.loads(line)
        except orjson.JSONDecodeError:
            return None


def _read_piece(file: BinaryIO) -> bytes:
    return file.read(PIECE_BYTES) + file.readline(LINE_BYTES_MAX)


@dataclass
class Start:
    """What the files of one start say.

    Attributes:
        number: Which start it was.
        first: What its first line says; empty if there is none.
        logger_names: To whom its results are owed.
        channels: As `core.layout.channels_to_json` has them; None if no line tells.
        renderer_last: The largest number of a renderer.
        published: All results of its renderers.
        delivered: By logger; also those of earlier starts that it delivered.
        filtered: By logger; those that it did not want.
        pending: By logger; those of earlier starts that it took over.
        is_closed: It came to an orderly end.
        is_empty: No line of it can be read.
        pieces: The offset of each piece of its file, and what was published there.
        problems: What is wrong with the files, for people.
    """

    number: int
    first: dict[str, Any] = field(default_factory=dict)
    logger_names: list[str] = field(default_factory=list)
    channels: dict[str, Any] | None = None
    renderer_last: int = 0
    published: ResultRanges = field(default_factory=ResultRanges)
    delivered: dict[str, ResultRanges] = field(default_factory=dict)
    filtered: dict[str, ResultRanges] = field(default_factory=dict)
    pending: dict[str, ResultRanges] = field(default_factory=dict)
    is_closed: bool = False
    is_empty: bool = True
    pieces: list[tuple[int, ResultRanges]] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    def owed(self, logger: str) -> ResultRanges:
        """What this start had to bring to a logger."""
        own = self.published if logger in self.logger_names else ResultRanges()
        unwanted = self.filtered.get(logger)
        if unwanted is not None:
            own = own.difference(unwanted)
        return own.union(self.pending.get(logger, ResultRanges()))

    @property
    def loggers(self) -> list[dict[str, Any]]:
        """The definitions of its loggers: ``name``, ``kind``, ``place``, ``options``."""
        given = self.first.get("loggers")
        listed = given if isinstance(given, list) else []
        return [logger for logger in listed if isinstance(logger, dict)]


def read_start(run: Path, number: int, logger_names: Sequence[str] = ()) -> Start:
    """Read the files of a start.

    Args:
        run: The run folder.
        number: Which start.
        logger_names: Whose it was, if its first line cannot be read.
    """
    start = Start(number)
    path = lines_path(run, number)
    marks = _read_rows(marks_path(run, number), start)  # First, for they may grow meanwhile.
    others: dict[str, ResultRanges] = {}
    lines = Lines(path)
    wrong = 0
    try:
        for offset, facts in lines:
            start.is_empty = start.is_empty and not any(facts)
            published, skipped = _take_all(facts, start, others)
            wrong += skipped
            start.pieces.append((offset, published))
            for renderer, first, last in published.ranges:
                start.published.add(renderer, first, last)
    except OSError as error:
        start.problems.append(f"{path.name} cannot be read: {error.strerror}")
    if lines.corrupt + wrong:
        start.problems.append(f"{path.name} has {lines.corrupt + wrong} lines that make no sense")
    if not start.first and not start.is_empty:
        start.problems.append(f"{path.name} has no first line that says which loggers there were")
        start.logger_names = list(logger_names)
    _apply_marks(marks, start, others)
    start.renderer_last = max([start.renderer_last, *start.published.by_renderer])
    return start


def _take_all(
    facts: Iterable[dict[str, Any]], start: Start, others: dict[str, ResultRanges]
) -> tuple[ResultRanges, int]:
    """Take facts in; returns what they say was published, and how many make no sense."""
    published, wrong = ResultRanges(), 0
    # Nearly all are published results that go on where the last ones ended.
    renderer = begin = end = 0
    for fact in facts:
        try:
            given = fact.get("p")
            if given is None:
                _take(fact, start, others)
                continue
            number, first, ids = given
            if number != renderer or first != end or type(ids) is not list:
                _check_published(number, first, ids)
                published.add(renderer, begin, end - 1)
                renderer, begin, end = number, first, first
            end += len(ids)
        except (LookupError, TypeError, ValueError, AttributeError):
            wrong += 1
    published.add(renderer, begin, end - 1)
    return published, wrong


def _check_published(number: Any, first: Any, ids: Any) -> None:
    if type(number) is not int or type(first) is not int or type(ids) is not list:
        raise ValueError("these are no results")


def _take(fact: Mapping[str, Any], start: Start, others: dict[str, ResultRanges]) -> None:
    """Take in a fact that is not about published results; raises if it makes no sense."""
    kind = next(iter(fact), "")
    found = {"d": start.delivered, "f": start.filtered, "o": others}.get(kind)
    if found is not None:
        logger, renderer, first, last = fact[kind]
        if type(renderer) is not int:
            raise ValueError("no renderer")
        found.setdefault(str(logger), ResultRanges()).add(renderer, *check_range(first, last))
    elif "renderer" in fact:
        start.renderer_last = max(start.renderer_last, int(fact["renderer"][0]))
    elif "start" in fact:
        first_line = dict(fact["start"])
        names = [str(logger["name"]) for logger in first_line["loggers"]]
        pending = {
            str(logger): ResultRanges.from_json(ranges)
            for logger, ranges in first_line["pending"].items()
        }
        start.renderer_last = max(start.renderer_last, int(first_line["renderer_last"]))
        start.first, start.logger_names, start.pending = first_line, names, pending
        start.channels = start.channels or first_line.get("channels")
    elif "channels" in fact:
        start.channels = dict(fact["channels"])
    elif "end" in fact:
        start.is_closed = True
    # A later version may have other facts; they are its own.


def _read_rows(path: Path, start: Start) -> list[tuple[int, int, list[int]]]:
    try:
        return read_marks(path)
    except FileNotFoundError:
        return []  # Of an orderly end: all is in the lines.
    except (OSError, ValueError) as error:
        start.problems.append(f"marks cannot be read: {error}")
        return []


def _apply_marks(
    rows: Iterable[tuple[int, int, list[int]]], start: Start, others: Mapping[str, ResultRanges]
) -> None:
    """Add what only the marks know."""
    marked = {name: ResultRanges() for name in start.logger_names}
    for renderer, last, marks in rows:
        ranges = start.published.by_renderer.get(renderer)
        listed = ranges.last if ranges else 0
        if last > listed + UNLISTED_MAX or len(marks) != len(start.logger_names):
            start.problems.append(f"the marks of renderer {renderer} make no sense")
            continue
        if last > listed:
            start.published.add(renderer, 1, last)
        # The line of a batch is stored before its mark, so no mark is beyond the last line.
        for name, mark in zip(start.logger_names, marks, strict=True):
            marked[name].add(renderer, 1, min(mark, max(last, listed)))
    for name, results in marked.items():
        known = start.delivered.get(name, ResultRanges())
        elsewhere = others.get(name, ResultRanges())
        unwanted = start.filtered.get(name, ResultRanges())
        start.delivered[name] = known.union(results.difference(elsewhere).difference(unwanted))


def read_ids(run: Path, start: Start, wanted: ResultRanges) -> dict[tuple[int, int], str]:
    """The ids of those wanted results that a start published, by (renderer, sequence).

    Ids that were never written, or cannot be read any more, are left out.
    """
    ids: dict[tuple[int, int], str] = {}
    for renderer, first, told in read_published(run, start, wanted):
        ranges = wanted.by_renderer.get(renderer)
        if ranges is not None and ranges.first < first + len(told) and first <= ranges.last:
            for sequence, id in enumerate(told, first):
                if sequence in ranges:
                    ids[renderer, sequence] = str(id)
    return ids


def read_published(
    run: Path, start: Start, wanted: ResultRanges
) -> Iterator[tuple[int, int, list[str]]]:
    """What a start published, as (renderer, first sequence, ids), in the order of the file.

    All that is wanted is there, and some that is not.
    """
    offsets = [offset for offset, published in start.pieces if published.intersection(wanted)]
    try:
        for facts in Lines(lines_path(run, start.number)).read(offsets):
            for fact in facts:
                given = fact.get("p")
                if given is not None:
                    try:
                        renderer, first, ids = given
                        _check_published(renderer, first, ids)
                    except (TypeError, ValueError):
                        continue  # `read_start` counts them.
                    yield renderer, first, ids
    except OSError:
        return
