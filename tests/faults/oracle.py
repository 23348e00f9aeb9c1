"""What must be true after a run with faults, by files that millpond did not write the rules of.

Shares no code with millpond.  It compares the journals of the renderers (`renderer.py`), the files
of the loggers, and the list of the dead, as sets and counts of ids.
"""

from __future__ import annotations

import csv
import json
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

# The one reason that says: the logger may have recorded it all the same.
UNACCOUNTED = "unaccounted"


@dataclass
class Journals:
    """What all renderers of a run wrote down."""

    intended: set[str] = field(default_factory=set)
    acked: list[str] = field(default_factory=list)  # In the order of each renderer.
    keys: dict[tuple[int, int], str] = field(default_factory=dict)  # (renderer, sequence) to id.
    waits: list[float] = field(default_factory=list)  # Seconds, for each result.
    batches: list[tuple[float, int]] = field(default_factory=list)  # When each ended, and its size.
    troubles: list[str] = field(default_factory=list)

    @property
    def rate(self) -> float:
        """Results per second, from the end of the first batch to that of the last one."""
        (first_s, _), *rest = self.batches
        return sum(size for _, size in rest) / (rest[-1][0] - first_s)


def read_journals(*paths: Path) -> Journals:
    """Read journals; the last line of one whose renderer was killed may be torn."""
    found = Journals()
    for path in paths:
        for text in path.read_text().splitlines(keepends=True):
            if not text.endswith("\n"):
                continue
            line = json.loads(text)
            found.intended.update(line.get("intent", ()))
            found.acked += line.get("acked", ())
            if "waits" in line:
                found.waits += line["waits"]
                found.batches.append((line["at"], len(line["waits"])))
            if "trouble" in line:
                found.troubles.append(line["trouble"])
            for id, (renderer, sequence) in line.get("sent", {}).items():
                found.keys[renderer, sequence] = id
    return found


def read_dead(run: Path, keys: dict[tuple[int, int], str] | None = None) -> list[dict[str, Any]]:
    """The lines of the list of the dead; an id that its writer did not know is looked up."""
    path = run / "dead.jsonl"
    lines = [json.loads(line) for line in path.read_bytes().splitlines()] if path.exists() else []
    assert not any(line.get("retracted") for line in lines), "these tests take nothing back"
    for line in lines:
        line["id"] = line["id"] or (keys or {}).get((line["renderer"], line["sequence"]), "")
    return lines


def read_csv(path: Path) -> list[str]:
    """The ids in a file of the CSV logger, in order."""
    if not path.exists():
        return []
    with path.open(newline="") as file:
        return [row["id"] for row in csv.DictReader(file)]


def read_json(path: Path) -> list[str]:
    """The ids in a file of the JSON logger, in order."""
    if not path.exists():
        return []
    return [json.loads(line)["id"] for line in path.read_bytes().splitlines()]


def read_kept(path: Path) -> list[str]:
    """The ids that a logger of `plugins/` was told to flush, in order; torn ones are left out."""
    if not path.exists():
        return []
    return [line[:-1] for line in path.read_text().splitlines(keepends=True) if line[-1] == "\n"]


@dataclass
class Account:
    """What became of every result for one logger."""

    acked: int = 0
    recorded: int = 0  # Different ids.
    dead: Counter[str] = field(default_factory=Counter)  # By reason.
    lost: list[str] = field(default_factory=list)
    doubled: list[str] = field(default_factory=list)  # Recorded more than once.
    both: list[str] = field(default_factory=list)  # Recorded, and dead for a reason that denies it.
    dead_twice: list[str] = field(default_factory=list)
    strangers: list[str] = field(default_factory=list)  # Nobody has published them.


def judge(
    journals: Journals, logger: str, recorded: list[str], dead: list[dict[str, Any]]
) -> Account:
    """Find the outcome of every result for one logger.

    Args:
        journals: Of all renderers of the run.
        logger: Its name.
        recorded: The ids in its file, or that it flushed.
        dead: All lines of the list of the dead.
    """
    counts = Counter(recorded)
    lines = [line for line in dead if line["logger"] == logger]
    reasons = {line["id"]: line["reason"] for line in lines}
    deaths = Counter(line["id"] for line in lines)
    return Account(
        acked=len(journals.acked),
        recorded=len(counts),
        dead=Counter(line["reason"] for line in lines),
        lost=[id for id in journals.acked if id not in counts and id not in deaths],
        doubled=[id for id, count in counts.items() if count > 1],
        both=[id for id, why in reasons.items() if id in counts and why != UNACCOUNTED],
        dead_twice=[id for id, count in deaths.items() if count > 1],
        strangers=sorted((set(counts) | set(deaths)) - journals.intended),
    )


def quantile(values: list[float], part: float) -> float:
    """The value below which this part of them lies; 0 when there are none."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * part))] if ordered else 0.0
