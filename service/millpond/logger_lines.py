"""The lines that a logger writes with ``self.logger``: how their level travels on standard error.

What is printed in any other way has no mark, and no level.  Only the standard library is used, for
logger processes import this.
"""

from __future__ import annotations

import logging
import re
from typing import Final

LEVELS: Final = (logging.DEBUG, logging.INFO, logging.WARNING, logging.ERROR, logging.CRITICAL)
# Text that nobody prints by accident, and that reads well where no daemon takes it off.
_MARKED: Final = re.compile(r"\[millpond:(DEBUG|INFO|WARNING|ERROR|CRITICAL)\] (.*)", re.DOTALL)


def mark(level: int, text: str) -> str:
    """The lines of a text, each with the level before it; those between two levels have the lower.

    Args:
        level: A level of `logging`.
        text: One line or more.
    """
    name = logging.getLevelName(max((known for known in LEVELS if known <= level), default=10))
    return "\n".join(f"[millpond:{name}] {line}" for line in text.splitlines() or [""])


def unmark(line: str) -> tuple[int, str]:
    """The level of a line and its text; what has no mark is INFO."""
    found = _MARKED.fullmatch(line)
    if found is None:
        return logging.INFO, line
    return logging.getLevelNamesMapping()[found[1]], found[2]
