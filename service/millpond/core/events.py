"""What can happen: the only way into the supervisor.  The counterpart is `commands`.

Renderers are numbers from 1, given by the daemon; loggers are their index in the configuration.
"""

from __future__ import annotations

from dataclasses import dataclass

from millpond.core.deliveries import Result
from millpond.core.slots import SlotRef


@dataclass(frozen=True, slots=True)
class RendererJoined:
    """A renderer was welcomed."""

    renderer: int
    pid: int


@dataclass(frozen=True, slots=True)
class ResultsPublished:
    """A renderer wrote results; they come in its order, many at a time."""

    renderer: int
    results: list[Result]


@dataclass(frozen=True, slots=True)
class SlotsReturned:
    """A renderer will not publish these."""

    renderer: int
    slots: list[SlotRef]


@dataclass(frozen=True, slots=True)
class SlotWanted:
    """A renderer has no slot left and waits.

    Args:
        asks_who: Whether it wants to be told who holds them, if it gets none.
    """

    renderer: int
    asks_who: bool = True


@dataclass(frozen=True, slots=True)
class RendererLeft:
    """The connection of a renderer is gone, and most likely its process."""

    renderer: int


@dataclass(frozen=True, slots=True)
class LoggerSpawned:
    """The process of a logger was started."""

    logger: int
    pid: int


@dataclass(frozen=True, slots=True)
class LoggerReady:
    """A logger has made its files and takes jobs."""

    logger: int


@dataclass(frozen=True, slots=True)
class LoggerFailed:
    """A logger could not be made; its process will end.

    Args:
        error_number: The errno of an `OSError`, or 0.
    """

    logger: int
    problem: str
    error_number: int = 0


@dataclass(frozen=True, slots=True)
class LoggerRaised:
    """`log` raised for one result; the logger goes on.

    Args:
        error_number: The errno of an `OSError`, or 0.
    """

    logger: int
    slot: int
    generation: int
    problem: str
    error_number: int = 0


@dataclass(frozen=True, slots=True)
class LoggerExited:
    """The process of a logger was reaped, and nothing of it is left.

    Args:
        cause: ``crash(SIGSEGV)``, ``exit(1)`` ...
        output: The last lines that it wrote to stderr.
    """

    logger: int
    cause: str
    output: str = ""


@dataclass(frozen=True, slots=True)
class DoorbellRang:
    """A logger has released results; which ones stands in its acks."""

    logger: int


@dataclass(frozen=True, slots=True)
class ResultsKept:
    """What a `SpillResults` or `BuryResults` named is on the disk."""

    token: int


@dataclass(frozen=True, slots=True)
class KeepingFailed:
    """What it named is not on the disk, and nobody reads its slots any more."""

    token: int
    problem: str


@dataclass(frozen=True, slots=True)
class ResultsReplayed:
    """What a `ReplayResults` named is in its slots.

    Args:
        results: In order, each in one of the slots that were given for it.
        corrupt: Those that cannot be read; each names the slot that it would have had.
    """

    logger: int
    token: int
    results: list[Result]
    corrupt: list[Result]


@dataclass(frozen=True, slots=True)
class TimePassed:
    """The moment that `Supervisor.wake_at_s` named has come, or any later one."""


@dataclass(frozen=True, slots=True)
class StopRequested:
    """An operator, or the end of the work, asks the daemon to drain and end."""


@dataclass(frozen=True, slots=True)
class StopNow:
    """The operator asked again: end without draining."""


Event = (
    RendererJoined
    | ResultsPublished
    | SlotsReturned
    | SlotWanted
    | RendererLeft
    | LoggerSpawned
    | LoggerReady
    | LoggerFailed
    | LoggerRaised
    | LoggerExited
    | DoorbellRang
    | ResultsKept
    | KeepingFailed
    | ResultsReplayed
    | TimePassed
    | StopRequested
    | StopNow
)
