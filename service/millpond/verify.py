"""Whether the books of a run add up: for every logger, published = delivered + dead + spilled.

Three records are compared: the ledger, the list of the dead, and the spills.  Then each logger's
own files are compared with what it is said to have, in a process of its own.  Nothing is changed,
and a daemon may run meanwhile: what has no outcome yet is then in hand, not missing.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from millpond.core.ranges import ResultRanges
from millpond.ledger_reader import FOLDER_NAME, Start, numbers, read_ids, read_start
from millpond.run_folder import LOCK_NAME
from millpond.verify_files import FileReport, check_files

SHOWN_MAX: Final = 20  # Of each kind, to people; JSON has them all.
SPILL_NAME: Final = "spill"

Key = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Wrong:
    """One thing that does not add up.

    Args:
        kind: What is wrong with all of its kind.
        logger: Whose it is; empty if it is nobody's.
        what: The ids, or where they are not known, the renderer and sequence.
    """

    kind: str
    logger: str
    what: list[str]


@dataclass(slots=True)
class Row:
    """The books of one logger, as counts of results."""

    logger: str
    published: int
    delivered: int
    dead: int
    spilled: int
    filtered: int
    in_hand: int
    missing: int
    files: list[FileReport] = field(default_factory=list)

    @property
    def text(self) -> str:
        """The books in one line."""
        text = (
            f"{self.logger}: {self.published} published = {self.delivered} delivered + "
            f"{self.dead} dead + {self.spilled} on the disk"
        )
        if self.filtered:
            text += f" + {self.filtered} filtered"
        if self.in_hand:
            text += f" + {self.in_hand} in hand"
        if self.missing:
            text += f" + {self.missing} MISSING"
        return "; ".join([text, *(report.text for report in self.files)])


@dataclass(slots=True)
class Report:
    """What `verify` found.

    Attributes:
        run: The run folder.
        is_running: A daemon has it.
        starts: How often a daemon began there.
        rows: A row for each logger that the run ever had.
        wrong: What does not add up.
    """

    run: Path
    is_running: bool
    starts: int
    rows: list[Row] = field(default_factory=list)
    wrong: list[Wrong] = field(default_factory=list)

    @property
    def is_good(self) -> bool:
        """Whether everything adds up."""
        return not self.wrong

    def lines(self) -> list[str]:
        """The report for people."""
        running = "; a daemon is running" if self.is_running else ""
        starts = f"{self.starts} start{'' if self.starts == 1 else 's'}"
        lines = [f"{self.run}: {starts}{running}"]
        lines += [f"  {row.text}" for row in self.rows]
        for wrong in self.wrong:
            whose = f"{wrong.logger}: " if wrong.logger else ""
            shown = [*wrong.what[:SHOWN_MAX], *(["..."] if len(wrong.what) > SHOWN_MAX else [])]
            lines.append(f"WRONG: {whose}{len(wrong.what)} {wrong.kind}: {', '.join(shown)}")
        lines.append("; ".join([self._verdict, *self._reservations()]))
        return lines

    @property
    def _verdict(self) -> str:
        return "everything adds up" if self.is_good else "the books do not add up"

    def _reservations(self) -> Iterator[str]:
        """What the verdict does not say."""
        names = [row.logger for row in self.rows if any(one.not_checked for one in row.files)]
        if names:
            yield f"the files of {', '.join(names)} were not checked"
        if dead := sum(row.dead for row in self.rows):
            yield f"{dead} {'is' if dead == 1 else 'are'} dead: millpond dead list {self.run}"

    def to_json(self) -> dict[str, Any]:
        """The report for scripts, with everything that is wrong."""
        return {
            "run": os.fspath(self.run),
            "running": self.is_running,
            "starts": self.starts,
            "good": self.is_good,
            "loggers": {
                row.logger: {
                    "published": row.published,
                    "delivered": row.delivered,
                    "dead": row.dead,
                    "spilled": row.spilled,
                    "filtered": row.filtered,
                    "in_hand": row.in_hand,
                    "missing": row.missing,
                    "files": [report.to_json() for report in row.files],
                }
                for row in self.rows
            },
            "wrong": [
                {"kind": wrong.kind, "logger": wrong.logger, "results": wrong.what}
                for wrong in self.wrong
            ],
        }


def run_folder_of(where: Path) -> Path:
    """The run folder of a configuration, or the folder itself.

    Raises:
        ConfigError: It is a configuration, and wrong.
        FileNotFoundError: There is no ledger in it.
    """
    run = where
    if where.is_file() or (where.suffix in (".yaml", ".yml") and not where.is_dir()):
        from millpond.config.load import load  # noqa: PLC0415

        run = load(where).output_dir
    if not (run / FOLDER_NAME).is_dir():
        raise FileNotFoundError(f"{run} is no run folder: it has no {FOLDER_NAME}/")
    return run


def verify(run: Path) -> Report:
    """Compare all that a run folder says."""
    from millpond.dead_letters import dead_of  # noqa: PLC0415
    from millpond.dead_retry import taken_back  # noqa: PLC0415
    from millpond.spill import list_spilled  # noqa: PLC0415

    # What a running daemon moves from one record to the next must not be missed in both, so
    # they are read from the first to the last: what was published, then what became of it.
    is_running = has_daemon(run)
    starts = [read_start(run, number) for number in numbers(run)]
    spilled: dict[str, list[Key]] = {}
    for folder in _spill_folders(run, starts):
        spilled.setdefault(folder.name, []).extend(found[:2] for found in list_spilled(folder))
    dead: dict[str, list[Key]] = {}
    for one in taken_back(run):
        spilled.setdefault(one.line.logger, []).append(one.key)
    for logger, renderer, sequence in dead_of(run):
        dead.setdefault(logger, []).append((renderer, sequence))
    if is_running:
        starts = _with_later_outcomes(run, starts)
    return audit(run, starts, dead=dead, spilled=spilled, is_running=is_running)


def audit(
    run: Path,
    starts: list[Start],
    *,
    dead: Mapping[str, Iterable[Key]],
    spilled: Mapping[str, Iterable[Key]],
    is_running: bool,
) -> Report:
    """Compare what was read.

    Args:
        run: The run folder.
        starts: The ledger.
        dead: (renderer, sequence) of the results that are dead, by logger.
        spilled: Of those that have a record in a spill, by logger.
        is_running: A daemon has the run folder.
    """
    report = Report(run, is_running, len(starts))
    books = _Books(run, starts, report)
    _check_ledger(starts, report)
    named = [name for start in starts for name in (*start.logger_names, *start.delivered)]
    for name in dict.fromkeys([*named, *dead, *spilled]):
        books.check(name, ResultRanges(dead.get(name, ())), ResultRanges(spilled.get(name, ())))
    rows = {row.logger: row for row in report.rows}
    for name, found in check_files(run, starts, is_running=is_running):
        rows[name].files.append(found)
        for kind, ids in found.wrong:
            report.wrong.append(Wrong(kind, name, ids))
    return report


def has_daemon(run: Path) -> bool:
    """Whether a daemon has the lock of a run folder."""
    try:
        lock = os.open(run / LOCK_NAME, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        return False
    try:
        fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(lock)
    return False


class _Books:
    """Compares the records of one logger after the other."""

    def __init__(self, run: Path, starts: list[Start], report: Report) -> None:
        self._run = run
        self._starts = starts
        self._report = report

    def check(self, name: str, dead: ResultRanges, spilled: ResultRanges) -> None:
        starts = self._starts
        published = _union(start.published for start in starts if name in start.logger_names)
        filtered = _union(start.filtered[name] for start in starts if name in start.filtered)
        filtered = self._within(filtered).intersection(published)
        wanted = published.difference(filtered)
        delivered = self._within(
            _union(start.delivered[name] for start in starts if name in start.delivered)
        )
        dead, spilled = self._within(dead), self._within(spilled)
        if self._report.is_running:
            # They were read later, and may be of results that were published meanwhile.
            dead, spilled = dead.intersection(published), spilled.intersection(published)
        # A record stays until all of its file have their outcome, so it counts only without one.
        spilled = spilled.difference(delivered).difference(dead)
        missing = wanted.difference(delivered).difference(dead).difference(spilled)
        in_hand = ResultRanges()
        if self._report.is_running and starts:
            in_hand = missing.intersection(starts[-1].owed(name))
            missing = missing.difference(in_hand)
        both = delivered.intersection(dead)
        dead_only = len(dead) - len(both)
        self._report.rows.append(
            Row(
                name,
                len(published),
                len(delivered),
                dead_only,
                len(spilled),
                len(filtered),
                len(in_hand),
                len(missing),
            )
        )
        self._tell("published without an outcome", name, missing)
        self._tell("delivered and dead", name, both)
        self._tell("delivered, never published", name, delivered.difference(published))
        self._tell("dead, never published", name, dead.difference(published))
        self._tell("spilled, never published", name, spilled.difference(published))
        self._tell("filtered, and delivered all the same", name, filtered.intersection(delivered))

    def _within(self, results: ResultRanges) -> ResultRanges:
        """Without those of renderers that are older than the first file of the ledger."""
        before = self._starts[0].first.get("renderer_last", 0) if self._starts else 0
        kept = ResultRanges()
        for renderer, first, last in results.ranges:
            if renderer > before:
                kept.add(renderer, first, last)
        return kept

    def _tell(self, kind: str, name: str, results: ResultRanges) -> None:
        if results:
            ids: dict[Key, str] = {}
            for start in self._starts:
                ids |= read_ids(self._run, start, results)
            what = [ids.get(key, f"(renderer {key[0]}, sequence {key[1]})") for key in results]
            self._report.wrong.append(Wrong(kind, name, what))


def _check_ledger(starts: list[Start], report: Report) -> None:
    # The daemon may be storing a line just where the last file was read.
    settled = starts[:-1] if report.is_running else starts
    problems = [problem for start in settled for problem in start.problems]
    if problems:
        report.wrong.append(Wrong("problems of the ledger", "", problems))
    # A file that grows while it is read may seem to lack a line before its last ones.
    still = starts[:-1] if report.is_running else starts
    gaps = [
        f"(renderer {renderer}, {ranges.to_json()})"
        for start in still
        for renderer, ranges in sorted(start.published.by_renderer.items())
        if ranges.first != 1 or len(ranges.ranges) > 1
    ]
    if gaps:
        report.wrong.append(Wrong("renderers whose sequences have gaps", "", gaps))


def _with_later_outcomes(run: Path, starts: list[Start]) -> list[Start]:
    """The ledger again, but only for what was published when it was read first."""
    if not starts:
        return starts
    first, later = starts[-1], read_start(run, starts[-1].number)
    known = first.published.union(*first.pending.values())
    first.delivered = {
        name: results.intersection(known) for name, results in later.delivered.items()
    }
    return starts


def _spill_folders(run: Path, starts: Iterable[Start]) -> list[Path]:
    """The folder of each logger in every place that the run had for its spills."""
    told = [Path(start.first["spill"]) for start in starts if "spill" in start.first]
    places = dict.fromkeys(path.resolve() for path in [run / SPILL_NAME, *told])
    return [
        folder
        for place in places
        if place.is_dir()
        for folder in sorted(place.iterdir())
        if folder.is_dir()
    ]


def _union(parts: Iterable[ResultRanges]) -> ResultRanges:
    return ResultRanges().union(*parts)
