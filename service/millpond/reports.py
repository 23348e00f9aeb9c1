"""What the supervisor has to say, as lines of the daemon's log and of the list of the dead."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import structlog

from millpond.core.commands import ReportDead, ReportExit
from millpond.core.logger_record import brief
from millpond.run_folder import RunFolder

IDS_SHOWN_MAX: Final = 10  # In one line of the log; the list of the dead has them all.
TRACEBACKS_MAX: Final = (
    100  # Different ones; a problem that names each result is a new one each time.
)

log = structlog.get_logger(__name__)


class Reports:
    """Says what happened to loggers and results.

    Args:
        names: The loggers' names, in the order of the configuration.
        folder: Where the list of the dead is.
    """

    def __init__(self, names: Sequence[str], folder: RunFolder) -> None:
        self._names = names
        self._folder = folder
        self.unlisted = 0  # The dead that the list lacks.
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

    def dead(self, report: ReportDead) -> None:
        """Results will never reach a logger.

        All are in the list of the dead; the log has some ids, and each traceback once.
        """
        name = self._names[report.logger]
        ids = [result.id for result in report.results]
        problem = brief(report.problem)
        if problem != report.problem.strip() and self._is_new(name, problem):
            log.error("logger raised", logger=name, result=ids[0], traceback=report.problem)
        log.error(
            "results lost",
            logger=name,
            count=len(ids),
            reason=report.reason,
            ids=[*ids[:IDS_SHOWN_MAX], *(["..."] if len(ids) > IDS_SHOWN_MAX else [])],
            problem=problem,
        )
        try:
            self._folder.list_dead(name, report.results, report.reason, problem)
        except OSError as error:
            self.unlisted += len(ids)
            log.error("list of lost results not written", problem=str(error), ids=ids)

    def _is_new(self, name: str, problem: str) -> bool:
        if (name, problem) in self._told or len(self._told) >= TRACEBACKS_MAX:
            return False
        self._told.add((name, problem))
        return True
