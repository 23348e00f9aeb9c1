"""Waiting until a daemon's loggers have what was published."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from millpond.errors import DaemonUnreachable, MillpondError
from millpond.health_client import fetch_status

LOOK_S: Final = 0.2
_WAITING: Final = ("queued", "in_window", "spilled")


class ResultsMissing(MillpondError):
    """Some results have not reached every logger, and will not."""


def wait_delivered(
    health_socket: Path, patience_s: float, *, has_ended: Callable[[float], bool] | None = None
) -> dict[str, Any]:
    """Wait as long as the loggers get on.

    Args:
        health_socket: Of the daemon.
        patience_s: Seconds that nothing may be recorded while something waits.
        has_ended: Waits for so many seconds, and says whether the daemon has ended: that is then
            what is waited for.  None: it goes on, and its loggers shall have everything.

    Returns:
        The last status that the daemon gave; empty when it gave none.

    Raises:
        DaemonUnreachable: Nothing was recorded for so long, or the daemon does not answer.
    """
    status: dict[str, Any] = {}
    last: object = None
    due_s = time.monotonic() + patience_s
    while True:
        if has_ended is None:
            time.sleep(LOOK_S)
        elif has_ended(LOOK_S):
            return status
        rows: dict[str, Any] = {}
        problem = "it does not answer"
        with contextlib.suppress(OSError):
            status = fetch_status(health_socket)
            rows = status["loggers"]
            problem = describe(rows)
            if has_ended is None and not problem:
                return status
        now = [(row["delivered"], row["dead"], row["spilled"]) for row in rows.values()]
        if rows and now != last:
            last = now
            due_s = time.monotonic() + patience_s
        if time.monotonic() > due_s:
            raise DaemonUnreachable(
                f"the daemon at {health_socket} has recorded nothing for {patience_s:g} s: "
                f"{problem or 'it does not end'}; it goes on, see: millpond status {health_socket}"
            )


def describe(rows: dict[str, Any]) -> str:
    """Which loggers have results to come; nothing when none has."""
    waiting = {name: sum(row[where] for where in _WAITING) for name, row in rows.items()}
    return ", ".join(
        f"{count} results wait for logger '{name}', which is {rows[name]['state']}"
        for name, count in waiting.items()
        if count
    )
