"""The daemon's own log: one line an event, for people or as JSON."""

from __future__ import annotations

import sys
from typing import Any, Literal

import structlog


def configure(log_format: Literal["auto", "console", "json"]) -> None:
    """Send the daemon's log to the standard error.

    Args:
        log_format: ``json`` gives one object a line; ``auto`` is ``console``, with colours on a
            terminal.
    """
    renderer: Any = (
        structlog.processors.JSONRenderer()
        if log_format == "json"
        else structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty(), pad_event_to=24)
    )
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=False),
            renderer,
        ],
        logger_factory=lambda *_: _StandardError(),
        cache_logger_on_first_use=True,
    )


class _StandardError:
    """Writes to what `sys.stderr` is at the moment, so that a progress line can stay below."""

    def msg(self, message: str) -> None:
        sys.stderr.write(f"{message}\n")

    debug = info = warning = error = critical = exception = msg
