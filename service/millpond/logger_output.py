"""What a logger prints, line by line, within bounds: for the daemon's own log."""

from __future__ import annotations

import re
from typing import Final

LINE_BYTES_MAX: Final = 8 * 1024
# Kept in a minute; the rest is counted.  A logger in a loop must not fill the disk.
BYTES_PER_MINUTE: Final = 1024 * 1024
LINE_COST_BYTES: Final = 128  # What stands around each line in the log: time, logger, stream.
# Anything but a tab that moves a cursor, ends a line or turns the direction of writing.
UNPRINTABLE: Final = re.compile(
    r"[\x00-\x08\x0a-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069]"
)


def escape(text: str) -> str:
    """The same text, of which a log or a terminal makes nothing but text."""
    return UNPRINTABLE.sub(lambda found: found.group().encode("unicode_escape").decode(), text)


class LineCapture:
    """Cuts what one stream brings into lines, and drops what is too much."""

    def __init__(self) -> None:
        self._line = b""  # The beginning of the line that has no end yet.
        self._cut_bytes = 0  # How much of that line was let go.
        self._budget = float(BYTES_PER_MINUTE)
        self._filled_s: float | None = None
        self.dropped_bytes = 0

    def feed(self, data: bytes, now_s: float) -> list[str]:
        """Take bytes and give the lines that are whole, escaped and at most `LINE_BYTES_MAX`."""
        if self._filled_s is not None:
            refill = (now_s - self._filled_s) * BYTES_PER_MINUTE / 60
            self._budget = min(float(BYTES_PER_MINUTE), self._budget + refill)
        self._filled_s = now_s
        *ends, rest = data.split(b"\n")
        lines = []
        for end in ends:
            self._grow(end)
            lines += self._take_line()
        self._grow(rest)
        return lines

    def finish(self) -> list[str]:
        """Give the last line, which has no end."""
        return self._take_line() if self._line else []

    def _grow(self, piece: bytes) -> None:
        room = LINE_BYTES_MAX - len(self._line)
        self._line += piece[:room]
        self._cut_bytes += max(0, len(piece) - room)

    def _take_line(self) -> list[str]:
        """The line, now that it is whole; empty when it is too much."""
        line, self._line = self._line, b""
        cut_bytes, self._cut_bytes = self._cut_bytes, 0
        cost = len(line) + LINE_COST_BYTES
        if self._budget < cost:
            self.dropped_bytes += len(line) + cut_bytes + 1
            return []
        text = escape(line.rstrip(b"\r").decode(errors="backslashreplace"))
        self._budget -= max(cost, len(text) + LINE_COST_BYTES)  # Escapes are longer.
        return [f"{text} ... ({cut_bytes} bytes more)" if cut_bytes else text]
