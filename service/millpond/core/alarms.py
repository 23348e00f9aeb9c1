"""What is due when: moments on a clock that never goes back, each under a name."""

from __future__ import annotations

from enum import Enum
from typing import NamedTuple


class Why(Enum):
    """What an alarm is about."""

    STATE = "state"  # The present state of a logger has lasted too long, or its rest is over.
    HANG = "hang"  # A logger may have made no progress.
    RETRY = "retry"  # A result that raised may be tried again.
    PROBE = "probe"  # A logger whose disk failed may try it again.
    SPILL = "spill"  # The spill of a logger failed; it may be tried again.
    KEEP = "keep"  # The disk makes no progress with results that hold slots.


class Alarm(NamedTuple):
    """Its name: what it is about, and which logger's it is; 0 where it is nobody's."""

    why: Why
    number: int


class Alarms:
    """All alarms; each has one moment, in seconds."""

    def __init__(self) -> None:
        self.next_s: float | None = None  # The first of them.
        self._due_s: dict[Alarm, float] = {}

    def __contains__(self, alarm: Alarm) -> bool:
        """Whether it is set."""
        return alarm in self._due_s

    def set(self, alarm: Alarm, due_s: float) -> None:
        """Set it, or move it."""
        self._due_s[alarm] = due_s
        self.next_s = min(self._due_s.values())

    def clear(self, alarm: Alarm) -> None:
        """Forget it, if it is set."""
        if self._due_s.pop(alarm, None) is not None:
            self.next_s = min(self._due_s.values(), default=None)

    def take_due(self, now_s: float) -> list[tuple[Alarm, float]]:
        """Take out those whose moment has come, with their moments, the first one first."""
        due = [(alarm, due_s) for alarm, due_s in self._due_s.items() if due_s <= now_s]
        for alarm, _ in due:
            self.clear(alarm)
        due.sort(key=lambda pair: pair[1])
        return due
