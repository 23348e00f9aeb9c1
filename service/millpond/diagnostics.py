"""The daemon's own log: one line an event, for people or as JSON."""

from __future__ import annotations

import contextlib
import select
import sys
from dataclasses import dataclass
from typing import Any, Final, Literal

import structlog
from structlog.typing import EventDict

from millpond.core.logger_record import brief
from millpond.logger_output import escape

# Values that may have many lines, of which the last one says most.
TRACEBACKS: Final = ("traceback", "problem")
# Different ones that are shown whole; each is shown once.
TRACEBACKS_MAX: Final = 1000
# A pipe that can be written at all takes 4,096 bytes (PIPE_BUF); a character has four at most.
WRITE_CHARACTERS: Final = 1024


def configure(log_format: Literal["auto", "console", "json"]) -> None:
    """Send the daemon's log to the standard error.

    Args:
        log_format: ``json`` gives one object a line; ``auto`` is ``console``, with colours on a
            terminal.
    """
    rendering: list[Any] = (
        [structlog.processors.JSONRenderer()]
        if log_format == "json"
        else [
            _Below(),
            _quote,
            structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty(), pad_event_to=24),
        ]
    )
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=False),
            *rendering,
        ],
        logger_factory=lambda *_: STANDARD_ERROR,
        cache_logger_on_first_use=True,
    )


class _Below:
    """Moves what has many lines below the line of the event, indented; each once.

    In that line is the gist of it.  An indented line cannot be taken for an event.
    """

    def __init__(self) -> None:
        self._shown: set[int] = set()

    def __call__(self, _: Any, __: str, event: EventDict) -> EventDict:
        for key in TRACEBACKS:
            text = event.get(key)
            if not isinstance(text, str) or "\n" not in text.strip("\n"):
                continue
            event[key] = brief(text)
            if hash(text) not in self._shown:
                if len(self._shown) < TRACEBACKS_MAX:
                    self._shown.add(hash(text))
                lines = text.strip("\n").split("\n")
                event["exception"] = "\n".join(f"    {escape(line)}" for line in lines)
        return event


@dataclass(frozen=True, slots=True)
class _Quoted:
    """Text that the console shows as Python would write it."""

    text: str

    def __repr__(self) -> str:
        return repr(self.text)


def _quote(_: Any, __: str, event: EventDict) -> EventDict:
    """Let no value end a line, move the cursor or colour the terminal.  JSON sees to it itself."""
    for key, value in event.items():
        if key != "exception" and isinstance(value, str) and not value.isprintable():
            event[key] = _Quoted(value)
    return event


class _StandardError:
    """Writes to what `sys.stderr` is at the moment, so that a progress line can stay below.

    A reader that has stopped reading costs lines, which are counted, and never time.
    """

    def __init__(self) -> None:
        self._lost_count = 0
        self._is_torn = False  # The last line was cut off.

    def msg(self, message: str) -> None:
        if self._lost_count and _is_writable():
            message = f"({self._lost_count} lines before this one found no reader)\n{message}"
        text = f"\n{message}\n" if self._is_torn else f"{message}\n"
        for start in range(0, len(text), WRITE_CHARACTERS):
            if not _is_writable():
                self._lost_count += 1
                self._is_torn = self._is_torn or start > 0
                return
            # Nobody reads it any more, or its disk is full: that is no reason to end the run.
            with contextlib.suppress(OSError):
                sys.stderr.write(text[start : start + WRITE_CHARACTERS])
                sys.stderr.flush()
        self._lost_count = 0
        self._is_torn = False

    debug = info = warning = error = critical = exception = msg


STANDARD_ERROR: Final = _StandardError()


def _is_writable() -> bool:
    """Whether a write to the standard error would not wait."""
    poll = select.poll()
    try:
        poll.register(sys.stderr.fileno(), select.POLLOUT)
    except (OSError, ValueError):
        return True  # It is no file: nothing waits.
    return bool(poll.poll(0))
