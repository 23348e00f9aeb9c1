"""What the supervisor has to say, as lines of the daemon's log."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Final

import structlog

from millpond.core.commands import (
    BuryResults,
    ReportDead,
    ReportExit,
    ReportRaised,
    ReportResumed,
    ReportSuspended,
)
from millpond.core.logger_record import brief

IDS_SHOWN_MAX: Final = 10  # In one line of the log; the list of the dead has them all.
TRACEBACKS_MAX: Final = (
    100  # Different ones; a problem that names each result is a new one each time.
)

DROPS_S: Final = 1.0  # Between two lines about results that are dropped on purpose.

log = structlog.get_logger(__name__)


class Reports:
    """Says what happened to loggers and results.

    Args:
        names: The loggers' names, in the order of the configuration.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self._names = names
        self._drops: dict[str, int] = {}  # Those that are not in the log yet.
        self._drops_told_s: dict[str, float] = {}
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
        """Results will never reach a logger: some ids, and each traceback once."""
        name = self._names[report.logger]
        ids = [result.id for result in report.results]
        if report.reason == "dropped":  # As the operator wants it; the list has them all.
            self._dropped(name, len(ids))
            return
        problem = brief(report.problem)
        if problem != report.problem.strip() and self._is_new(name, problem):
            log.error("logger failed", logger=name, result=ids[0], traceback=report.problem)
        log.error(
            "results lost",
            logger=name,
            count=len(ids),
            reason=report.reason,
            ids=shown(ids),
            problem=problem,
        )

    def _dropped(self, name: str, count: int) -> None:
        count += self._drops.get(name, 0)
        now_s = time.monotonic()
        if now_s - self._drops_told_s.get(name, -DROPS_S) < DROPS_S:
            self._drops[name] = count
            return
        self._drops[name], self._drops_told_s[name] = 0, now_s
        log.warning("results dropped", logger=name, count=count)

    def _is_new(self, name: str, problem: str) -> bool:
        if (name, problem) in self._told or len(self._told) >= TRACEBACKS_MAX:
            return False
        self._told.add((name, problem))
        return True


def shown(ids: Sequence[str]) -> list[str]:
    """The first of many ids, for one line of the log."""
    return [*ids[:IDS_SHOWN_MAX], *(["..."] if len(ids) > IDS_SHOWN_MAX else [])]
