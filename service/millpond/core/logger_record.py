"""What the supervisor knows of one logger."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from millpond.core.deliveries import Deliveries
from millpond.core.lifecycle import HAS_PROCESS, Input, State, step
from millpond.core.restart import RestartHistory, RestartPolicy


@dataclass(frozen=True, slots=True)
class LoggerSpec:
    """What the operator wants of one logger.

    Args:
        name: Its name in the configuration.
        window_max: Results that may be in its pipe at a time.
        start_s: Seconds it may take until it is ready.
        stop_s: Seconds it may take to end when it is asked to.
        hang_s: Seconds without any progress after which it is taken to hang.
        when_full: What happens to its waiting results when slots run short: the renderers wait
            for it, they go to the disk, or they are dropped.
        on_crash: What happens to those that it had not released when it ended: they are
            delivered again, or dropped.
        restart: When it is started again.
    """

    name: str
    window_max: int = 32
    start_s: float = 60.0
    stop_s: float = 5.0
    hang_s: float = 30.0
    when_full: Literal["block", "spill", "drop"] = "block"
    on_crash: Literal["redeliver", "drop"] = "redeliver"
    restart: RestartPolicy = field(default_factory=RestartPolicy)


class LoggerRecord:
    """One logger: its life, its results, its recent exits."""

    def __init__(self, spec: LoggerSpec) -> None:
        self.spec = spec
        self.state = State.DOWN
        self.deliveries = Deliveries(spec.window_max)
        self.history = RestartHistory(spec.restart)
        self.pid = 0
        self.restarts = 0
        self.ready_since_s: float | None = None
        self.kill_cause = ""  # Why we ended its present process: the cause of its exit.
        self.progress_s = 0.0  # When it last released or raised, or got something to do.
        self.suspects = 0  # Results at the head of its queue that are sent one by one.
        self.is_alone = False  # The window holds one of those.
        self.word = 0  # What it said at its last ring that it was doing.
        self.is_suspended = False  # Its disk failed; it is tried again at an alarm.
        self.is_disk_bad = False  # The same, until something was recorded again.
        self.start_problem = ""  # Why its present process could not be made.
        self.start_error = 0  # The errno of that.
        self.last_exit = ""  # Why its last process ended.
        self.last_error = ""
        self.ended_badly = False  # When it was asked to end.

    def advance(self, stimulus: Input) -> None:
        """Go on in its life."""
        self.state = step(self.state, stimulus)
        if self.state not in HAS_PROCESS:
            self.pid = 0
            self.ready_since_s = None

    @property
    def is_broken(self) -> bool:
        """Whether it ended and is not back yet: the renderers do not wait for it.

        One that starts for the first time is not broken: its imports take a moment, and the
        first results are worth waiting for.  One that is being killed has ended for them.
        """
        if self.kill_cause:
            return True
        if self.state is State.STARTING:
            return self.restarts > 0
        return self.state in (State.BACKOFF, State.FATAL)

    @property
    def room(self) -> int:
        """How many results it may be sent now."""
        if self.state is not State.RUNNING or self.is_suspended or self.kill_cause:
            return 0
        count = len(self.deliveries.window)
        room = self.spec.window_max - count
        if self.suspects or self.is_alone:
            # One after the other, so that the one which ends it is known for sure.
            is_busy = count > self.deliveries.kept
            return 0 if is_busy else min(room, 1) if self.suspects else room
        return room

    def note_word(self, word: int, now_s: float) -> bool:
        """See how far it is, and whether everything that it was sent is logged and only kept.

        Args:
            word: What it says that it is doing.
            now_s: The present moment.

        Returns:
            Whether it takes more than it did a moment ago.
        """
        if word != self.word:  # One that keeps slots logs without releasing.
            self.word, self.progress_s = word, now_s
        deliveries = self.deliveries
        is_new = len(deliveries.window) > deliveries.kept and deliveries.has_returned(word)
        if is_new:
            deliveries.kept = len(deliveries.window)
        return is_new

    @property
    def spills(self) -> bool:
        """Whether what waits for it leaves the slots for the disk when these run short."""
        if self.is_broken:
            return self.spec.on_crash == "redeliver"
        if self.is_suspended and self.spec.on_crash == "redeliver":
            return True
        return self.spec.when_full == "spill"

    @property
    def drops(self) -> bool:
        """Whether what waits for it is given up when slots run short."""
        if self.is_broken:
            return self.spec.on_crash == "drop"
        return self.spec.when_full == "drop"

    def is_drained(self, word: int) -> bool:
        """Whether a stop need not wait for it.

        Args:
            word: What it says that it is doing.
        """
        deliveries = self.deliveries
        if deliveries.is_settled or self.state is State.FATAL:
            return True
        # What it only keeps, it releases when it is asked to end.
        is_all_sent = deliveries.unsettled == len(deliveries.window)
        return is_all_sent and deliveries.has_returned(word)

    def statistics(self) -> dict[str, object]:
        """Its numbers, as ``/status`` shows them."""
        deliveries = self.deliveries
        return {
            "pid": self.pid or None,
            "state": self.state.value,
            "is_suspended": self.is_disk_bad,
            "restarts": self.restarts,
            "published": deliveries.published,
            "delivered": deliveries.delivered,
            "queued": deliveries.queued,
            "in_window": len(deliveries.window),
            "spilled": deliveries.spilled,
            "dead": deliveries.dead,
            "last_error": self.last_error or None,
            "ended_badly": self.ended_badly,
        }


def brief(problem: str) -> str:
    """A problem in one line: what was tried, and the last line of its traceback."""
    lines = problem.strip().splitlines()
    if len(lines) <= 1:
        return problem.strip()
    first = "" if lines[0].startswith("Traceback") else f"{lines[0]} "
    return first + lines[-1].strip()
