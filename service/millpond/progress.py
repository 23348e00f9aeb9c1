"""One line at the bottom of a terminal: how the run goes."""

from __future__ import annotations

import time
from types import TracebackType
from typing import Any, Self

from rich.console import Console
from rich.live import Live
from rich.text import Text


class ProgressLine:
    """Shows results, rate, free slots and the lag of each logger; log lines scroll above it."""

    def __init__(self) -> None:
        self._live = Live(console=Console(stderr=True), auto_refresh=False, transient=True)
        self._last: tuple[float, int] | None = None

    def update(self, status: dict[str, Any]) -> None:
        """Draw it anew."""
        now_s, results = time.monotonic(), status["results"]
        rate = 0.0
        if self._last is not None and now_s > self._last[0]:
            rate = (results - self._last[1]) / (now_s - self._last[0])
        self._last = (now_s, results)
        self._live.update(_line(progress_text(status, rate)), refresh=True)

    def __enter__(self) -> Self:
        """Begin to draw."""
        self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Remove it."""
        self._live.stop()


def _line(text: str) -> Text:
    return Text(text, no_wrap=True, overflow="ellipsis")


def progress_text(status: dict[str, Any], rate: float) -> str:
    """The line: ``running  1200 results  88/s  240/256 free  csv +0  image +14``."""
    slots = status["slots"]
    lags = [_lag(name, row) for name, row in status["loggers"].items()]
    parts = [
        status["state"],
        f"{status['results']} results",
        f"{rate:.0f}/s",
        f"{slots['free']}/{slots['total']} free",
        *lags,
    ]
    return "  ".join(parts)


def _lag(name: str, row: dict[str, Any]) -> str:
    lag = row["queued"] + row["in_window"]
    state = "" if row["state"] == "running" else f" ({row['state']})"
    dead = f" {row['dead']} dead" if row["dead"] else ""
    return f"{name} +{lag}{dead}{state}"
