"""The daemon's own log: one line an event, for people or as JSON."""

from __future__ import annotations

import contextlib
import sys
from dataclasses import dataclass
from typing import Any, Literal

import structlog
from structlog.typing import EventDict


def configure(log_format: Literal["auto", "console", "json"]) -> None:
    """Send the daemon's log to the standard error.

    Args:
        log_format: ``json`` gives one object a line; ``auto`` is ``console``, with colours on a
            terminal.
    """
    rendering: list[Any] = (
        [structlog.processors.JSONRenderer()]
        if log_format == "json"
        else [_quote, structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty(), pad_event_to=24)]
    )
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=False),
            *rendering,
        ],
        logger_factory=lambda *_: _StandardError(),
        cache_logger_on_first_use=True,
    )


@dataclass(frozen=True, slots=True)
class _Quoted:
    """Text that the console shows as Python would write it."""

    text: str

    def __repr__(self) -> str:
        return repr(self.text)


def _quote(_: Any, __: str, event: EventDict) -> EventDict:
    """Let no value end a line, move the cursor or colour the terminal.  JSON sees to it itself."""
    for key, value in event.items():
        if isinstance(value, str) and not value.isprintable():
            event[key] = _Quoted(value)
    return event


class _StandardError:
    """Writes to what `sys.stderr` is at the moment, so that a progress line can stay below."""

    def msg(self, message: str) -> None:
        # Nobody reads it any more, or its disk is full: that is no reason to end the run.
        with contextlib.suppress(OSError):
            sys.stderr.write(f"{message}\n")

    debug = info = warning = error = critical = exception = msg
