"""Comparing the ids that a logger's files have with those that they should have."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from typing import Final

SHOWN_MAX: Final = 8


def difference(
    found: Sequence[str],
    expected: Sequence[str],
    *,
    optional: Collection[str] = (),
    is_ordered: bool,
    is_exactly_once: bool,
) -> str:
    """What is wrong with the ids in the files, in a line for each kind; empty if nothing is.

    Args:
        found: As they were read.
        expected: As they should be there, in the order of delivery.
        optional: Those of `expected` that may be missing.
        is_ordered: Whether their order counts.
        is_exactly_once: Whether an id may be there only as often as in `expected`.
    """
    has, wants = Counter(found), Counter(expected)
    problems = {
        "missing": [id for id in wants if has[id] < 1 and id not in optional],
        "unknown": [id for id in has if id not in wants],
    }
    if is_exactly_once:
        problems["too few"] = [id for id in wants if 0 < has[id] < wants[id]]
        problems["too many"] = [id for id in wants if has[id] > wants[id]]
    firsts = [id for id in dict.fromkeys(found) if id in wants]
    if is_ordered and firsts != [id for id in dict.fromkeys(expected) if id in has]:
        problems["not in order"] = firsts
    return "\n".join(
        f"{what}: {_shown(ids)} ({len(ids)} of {len(wants)})"
        for what, ids in problems.items()
        if ids
    )


def _shown(ids: Sequence[str]) -> str:
    more = ", ..." if len(ids) > SHOWN_MAX else ""
    return ", ".join(map(repr, ids[:SHOWN_MAX])) + more
