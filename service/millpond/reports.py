"""What the supervisor has to say, as lines of the daemon's log."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol

import structlog

from millpond.core.commands import (
    BuryResults,
    ReportDead,
    ReportExit,
    ReportRaised,
    ReportResumed,
    ReportSuspended,
)
from millpond.core.deliveries import Result
from millpond.core.logger_record import brief

IDS_SHOWN_MAX: Final = 10  # In one line of the log; the list of the dead has them all.
# Different ones; a problem that names each result is a new one each time.
TRACEBACKS_MAX: Final = 100
# Between two lines about results that one logger will never get for the same reason.
GROUP_S: Final = 1.0

log = structlog.get_logger(__name__)


class Timer(Protocol):
    """What can be cancelled."""

    def cancel(self) -> None:
        """Do not call."""


@dataclass(slots=True)
class _Group:
    """Results of one kind that are not in the log yet, and when they will be."""

    timer: Timer
    count: int = 0
    ids: list[str] = field(default_factory=list)  # As many as are shown, and one more.

    def add(self, results: Sequence[Result]) -> None:
        self.count += len(results)
        room = IDS_SHOWN_MAX + 1 - len(self.ids)
        self.ids += [result.id for result in results[:room]]


class Reports:
    """Says what happened to loggers and results.

    Args:
        names: The loggers' names, in the order of the configuration.
        call_later: Calls a function after so many seconds.
    """

    def __init__(
        self,
        names: Sequence[str],
        call_later: Callable[[float, Callable[[], None]], Timer],
    ) -> None:
        self._names = names
        self._call_later = call_later
        # By logger, reason and problem.
        self._groups: dict[tuple[str, str, str], _Group] = {}
        self._told: set[tuple[str, str]] = set()  # Problems whose traceback is in the log.

    def exit(self, report: ReportExit) -> None:
        """A logger ended."""
        name = self._names[report.logger]
        if report.restart_s is None:
            log.warning("logger ended badly", logger=name, cause=report.cause)
        elif report.is_fatal:
            log.error(
                "logger given up",
                logger=name,
                cause=report.cause,
                retry_s=report.restart_s,
            )
        else:
            restart_s = round(report.restart_s, 3)
            log.warning("logger ended", logger=name, cause=report.cause, restart_s=restart_s)

    def raised(self, report: ReportRaised) -> None:
        """A logger raised for a result, which it gets again: each kind of problem once."""
        name, problem = self._names[report.logger], brief(report.problem)
        if self._is_new(name, f"raised: {problem}"):
            log.warning(
                "logger raised",
                logger=name,
                result=report.result.id,
                problem=problem,
                again_s=report.again_s,
            )

    def suspended(self, report: ReportSuspended) -> None:
        """A logger cannot write, and it is not the fault of a result."""
        log.error(
            "logger cannot write",
            logger=self._names[report.logger],
            problem=report.problem,
            probe_s=report.probe_s,
        )

    def resumed(self, report: ReportResumed) -> None:
        """It can again."""
        log.warning("logger writes again", logger=self._names[report.logger])

    def dead(self, report: ReportDead | BuryResults) -> None:
        """Results will never reach a logger: some ids, and each traceback once.

        The first of a kind are told at once, those of the next second together.
        """
        name, problem = self._names[report.logger], brief(report.problem)
        if problem != report.problem.strip() and self._is_new(name, problem):
            first = report.results[0].id
            log.error("logger failed", logger=name, result=first, traceback=report.problem)
        kind = (name, report.reason, problem)
        group = self._groups.get(kind)
        if group is not None:
            group.add(report.results)
            return
        self._groups[kind] = group = _Group(self._call_later(GROUP_S, lambda: self._tell(kind)))
        group.add(report.results)
        self._say(kind, group)

    def close(self) -> None:
        """Tell what is not told yet."""
        groups, self._groups = self._groups, {}
        for kind, group in groups.items():
            group.timer.cancel()
            self._say(kind, group)

    def _tell(self, kind: tuple[str, str, str]) -> None:
        group = self._groups[kind]
        if group.count == 0:
            del self._groups[kind]
            return
        self._say(kind, group)
        group.timer = self._call_later(GROUP_S, lambda: self._tell(kind))

    def _say(self, kind: tuple[str, str, str], group: _Group) -> None:
        """Tell a group, and begin it anew."""
        (name, reason, problem), count, ids = kind, group.count, shown(group.ids)
        group.count, group.ids = 0, []
        if count == 0:
            return
        if reason == "dropped":  # As the operator wants it; the list has them all.
            log.warning("results dropped", logger=name, count=count)
            return
        log.error("results lost", logger=name, count=count, reason=reason, ids=ids, problem=problem)

    def _is_new(self, name: str, problem: str) -> bool:
        if (name, problem) in self._told or len(self._told) >= TRACEBACKS_MAX:
            return False
        self._told.add((name, problem))
        return True


def shown(ids: Sequence[str]) -> list[str]:
    """The first of many ids, for one line of the log."""
    return [*ids[:IDS_SHOWN_MAX], *(["..."] if len(ids) > IDS_SHOWN_MAX else [])]
