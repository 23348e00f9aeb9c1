"""What should be done: the only way out of the supervisor.  The counterpart is `events`.

Reports are commands too, so that a test can assert that a message follows from an event.
"""

from __future__ import annotations

from dataclasses import dataclass

from millpond.core.deliveries import Result
from millpond.core.slots import SlotRef


@dataclass(frozen=True, slots=True)
class GrantSlots:
    """Tell a renderer which slots it may write into."""

    renderer: int
    slots: list[SlotRef]


@dataclass(frozen=True, slots=True)
class TellHolders:
    """Tell a waiting renderer who holds the slots."""

    renderer: int
    text: str


@dataclass(frozen=True, slots=True)
class TellClosing:
    """Tell a renderer that it gets no more slots."""

    renderer: int


@dataclass(frozen=True, slots=True)
class EndRenderer:
    """Close the connection of a renderer; `problem` is empty when it did nothing wrong."""

    renderer: int
    problem: str


@dataclass(frozen=True, slots=True)
class SendJobs:
    """Send the frames of these results to a logger, in order."""

    logger: int
    results: list[Result]


@dataclass(frozen=True, slots=True)
class SpawnLogger:
    """Start the process of a logger."""

    logger: int


@dataclass(frozen=True, slots=True)
class CloseLogger:
    """Close the pipe of a logger: it finishes what is in it and ends."""

    logger: int


@dataclass(frozen=True, slots=True)
class KillLogger:
    """End the process of a logger at once.

    Args:
        dump: Have it write its stacks first, if it still can.
    """

    logger: int
    why: str
    dump: bool = False


@dataclass(frozen=True, slots=True)
class SpillResults:
    """Copy results out of their slots to the disk; `ResultsKept` or `KeepingFailed` follows.

    Args:
        home: The token of the batch behind which the disk has them; their own, if there is none.
    """

    logger: int
    token: int
    results: list[Result]
    home: int


@dataclass(frozen=True, slots=True)
class BuryResults:
    """Note results as dead, and keep their arrays; `ResultsKept` or `KeepingFailed` follows."""

    logger: int
    token: int
    results: list[Result]
    reason: str
    problem: str
    attempts: int


@dataclass(frozen=True, slots=True)
class CancelKeeping:
    """Give up what one of these two named, and undo what was written of it."""

    token: int


@dataclass(frozen=True, slots=True)
class ReplayResults:
    """Read the next results of a batch back into these slots; `ResultsReplayed` follows.

    Args:
        token: The home of the batch.
    """

    logger: int
    token: int
    slots: list[SlotRef]


@dataclass(frozen=True, slots=True)
class RecordPublished:
    """Note in the ledger that a renderer published these, in its order."""

    results: list[Result]


@dataclass(frozen=True, slots=True)
class RecordFiltered:
    """Note in the ledger that a team of loggers does not want these; they were published."""

    team: int
    results: list[Result]


@dataclass(frozen=True, slots=True)
class RecordDelivered:
    """Note in the ledger that a logger has recorded these."""

    logger: int
    results: list[Result]


@dataclass(frozen=True, slots=True)
class ReportReady:
    """Say that a logger takes jobs."""

    logger: int


@dataclass(frozen=True, slots=True)
class ReportExit:
    """Say that a logger ended, and what is done about it.

    Args:
        restart_s: Seconds until it is started again.
        is_fatal: Whether it was given up, and `restart_s` is the long rest.
    """

    logger: int
    cause: str
    restart_s: float | None
    is_fatal: bool


@dataclass(frozen=True, slots=True)
class ReportRaised:
    """Say that a logger raised for a result, which it gets again."""

    logger: int
    result: Result
    problem: str
    again_s: float


@dataclass(frozen=True, slots=True)
class ReportSuspended:
    """Say that a logger cannot write for want of a disk, and is tried again."""

    logger: int
    problem: str
    probe_s: float


@dataclass(frozen=True, slots=True)
class ReportResumed:
    """Say that a logger whose disk failed writes again."""

    logger: int


@dataclass(frozen=True, slots=True)
class ReportDead:
    """Say which results one logger will never get, and why.  Each is reported once."""

    logger: int
    results: list[Result]
    reason: str
    problem: str


@dataclass(frozen=True, slots=True)
class Finish:
    """Everything has its outcome and no logger runs: the daemon may end."""


Command = (
    GrantSlots
    | TellHolders
    | TellClosing
    | EndRenderer
    | SendJobs
    | SpawnLogger
    | SpillResults
    | BuryResults
    | CancelKeeping
    | ReplayResults
    | RecordPublished
    | RecordFiltered
    | RecordDelivered
    | CloseLogger
    | KillLogger
    | ReportReady
    | ReportExit
    | ReportRaised
    | ReportSuspended
    | ReportResumed
    | ReportDead
    | Finish
)
