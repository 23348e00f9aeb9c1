"""Asking each logger of a run what its files hold, each in a process of its own.

`millpond_loggers.audit` does it there; it gets how many results of each id were delivered, and how
many more there are, which may have been written too before something died.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final

import orjson

from millpond.core.ranges import ResultRanges
from millpond.ledger_reader import Start, read_published

# A table of a hundred gigabytes can be read in that time.
AUDIT_S_MAX: Final = 3600


@dataclass(frozen=True, slots=True)
class FileReport:
    """What the files of one logger hold.

    Args:
        not_checked: Why nothing is known; empty if it is.
        expected: Results that should be there.
        missing: Id to how many of its results are not.
        extra: Id to how many results are there that should not be; none while a daemon runs.
        unacknowledged: Results that were written, though nobody was told in time.
        repeated: Ids of which more than one result was delivered; they may share a file.
    """

    not_checked: str
    expected: int
    missing: Mapping[str, int]
    extra: Mapping[str, int]
    unacknowledged: int
    repeated: int = 0

    @property
    def wrong(self) -> list[tuple[str, list[str]]]:
        """What is wrong, and with which ids."""
        kinds = {"delivered, not in its files": self.missing, "in its files too often": self.extra}
        return [(kind, list(ids)) for kind, ids in kinds.items() if ids]

    @property
    def text(self) -> str:
        """What was found in a few words."""
        if self.not_checked:
            return f"files not checked: {self.not_checked}"
        text = f"files: {self.expected} expected, {sum(self.missing.values())} missing"
        if self.repeated:
            came = "1 id came" if self.repeated == 1 else f"{self.repeated} ids came"
            text += f" ({came} more than once)"
        if self.extra:
            text += f", {sum(self.extra.values())} too many"
        if self.unacknowledged:
            text += f", {self.unacknowledged} written though not acknowledged"
        return text

    def to_json(self) -> dict[str, Any]:
        """For scripts."""
        return asdict(self)


def check_files(
    run: Path, starts: list[Start], *, is_running: bool
) -> Iterator[tuple[str, FileReport]]:
    """Check every logger that the run ever had, once for each of its definitions.

    Args:
        run: The run folder, where the files are.
        starts: The ledger.
        is_running: A daemon writes to the files meanwhile.
    """
    definitions: dict[str, tuple[dict[str, Any], list[Start]]] = {}
    for start in starts:
        for logger in start.loggers:
            if {"name", "kind", "place"} <= set(logger):
                told = definitions.setdefault(json.dumps(logger, sort_keys=True), (logger, []))
                told[1].append(start)
    for logger, its_starts in definitions.values():
        name = str(logger["name"])
        delivered = _delivered(name, its_starts)
        others = [(name, _published(name, starts).difference(delivered))]
        # Another definition may have written to the same file before.
        for other, other_starts in definitions.values():
            if _file_of(other) == _file_of(logger) and other["name"] != name:
                others.append((str(other["name"]), _published(str(other["name"]), other_starts)))
        expected, nameless = _count_ids(run, starts, delivered, [some for _, some in others])
        channels = next((start.channels for start in reversed(its_starts) if start.channels), None)
        report = _ask(run, logger, its_starts, channels, expected)
        # A daemon that was killed while the disk was full has not told every id; and one that runs
        # goes on publishing.
        if is_running or sum(report.extra.values()) <= nameless:
            report = replace(report, extra={})
        yield name, report


def _file_of(logger: Mapping[str, Any]) -> tuple[str, str, str]:
    options = logger.get("options")
    file = options.get("file") if isinstance(options, dict) else None
    return str(logger["kind"]), str(logger["place"]), str(file)


def _delivered(name: str, starts: Iterable[Start]) -> ResultRanges:
    parts = [start.delivered[name] for start in starts if name in start.delivered]
    return ResultRanges().union(*parts)


def _published(name: str, starts: Iterable[Start]) -> ResultRanges:
    parts = [
        start.published.difference(start.filtered.get(name, ResultRanges()))
        for start in starts
        if name in start.logger_names
    ]
    return ResultRanges().union(*parts)


def _count_ids(
    run: Path, starts: Iterable[Start], delivered: ResultRanges, others: list[ResultRanges]
) -> tuple[dict[str, list[int]], int]:
    """Id to how many of its results were delivered, and how many more there are.

    Returns:
        That, and how many of these results have no id in the ledger.
    """
    named = 0
    counts: dict[str, list[int]] = {}
    wanted = delivered.union(*others)
    for start in starts:
        for renderer, first, ids in read_published(run, start, wanted):
            for sequence, id in enumerate(ids, first):
                key = (renderer, sequence)
                named += key in wanted
                count = counts.setdefault(id, [0, 0])
                count[0] += key in delivered
                count[1] += sum(key in results for results in others)
    return counts, len(wanted) - named


def _ask(
    run: Path,
    logger: Mapping[str, Any],
    starts: list[Start],
    channels: Mapping[str, Any] | None,
    expected: Mapping[str, list[int]],
) -> FileReport:
    config = str(starts[-1].first.get("config") or "")
    question = {
        "root_dir": str(run.absolute()),
        "kind": logger["kind"],
        "place": logger["place"],
        "options": logger.get("options") or {},
        "instances": logger.get("instances", 1),
        "wanted": logger.get("wanted"),
        "channels": channels,
        "folders": [str(Path.cwd()), *([str(Path(config).parent)] if config else [])],
    }
    lines = [orjson.dumps(question), *(orjson.dumps([id, *n]) for id, n in expected.items())]
    try:
        child = subprocess.run(
            [sys.executable, "-P", "-m", "millpond_loggers.audit"],
            input=b"\n".join(lines),
            capture_output=True,
            timeout=AUDIT_S_MAX,
            check=False,
        )
        found = orjson.loads(child.stdout)
    except subprocess.TimeoutExpired:
        return FileReport(f"it takes more than {AUDIT_S_MAX} s", 0, {}, {}, 0)
    except orjson.JSONDecodeError:
        said = child.stderr.decode(errors="backslashreplace").strip().splitlines()
        problem = said[-1] if said else f"the check ended with {child.returncode}"
        return FileReport(problem, 0, {}, {}, 0)
    repeated = sum(delivered > 1 for delivered, _ in expected.values())
    return FileReport(**found, repeated=0 if found["not_checked"] else repeated)
