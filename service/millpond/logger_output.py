"""What a logger prints, line by line, within bounds: for the daemon's own log."""

from __future__ import annotations

import re
from typing import Final

LINE_BYTES_MAX: Final = 8 * 1024
# Kept in a minute; the rest is counted.  A logger in a loop must not fill the disk.
BYTES_PER_MINUTE: Final = 1024 * 1024
LINE_COST_BYTES: Final = 128  # What stands around each line in the log: time, logger, stream.
# Printed lines of one stream that are shown in a second; a logger that prints arrays has many.
LINES_PER_SECOND: Final = 40
# Anything but a tab that moves a cursor, ends a line or turns the direction of writing.
UNPRINTABLE: Final = re.compile(
    r"[\x00-\x08\x0a-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069]"
)


def escape(text: str) -> str:
    """The same text, of which a log or a terminal makes nothing but text."""
    return UNPRINTABLE.sub(lambda found: found.group().encode("unicode_escape").decode(), text)


class LineCapture:
    """Cuts what one stream brings into lines, and drops what is too much.

    At the first line that is too much the rest of the block goes too, unseen: a flood costs what
    is kept of it, not what comes.
    """

    def __init__(self) -> None:
        self._line = b""  # The beginning of the line that has no end yet.
        self._cut_bytes = 0  # How much of that line was let go.
        self._is_skipping = False  # The beginning of that line was dropped, so all of it is.
        self._budget = float(BYTES_PER_MINUTE)
        self._filled_s: float | None = None
        self.dropped_bytes = 0

    def feed(self, data: bytes, now_s: float) -> list[str]:
        """Take bytes and give the lines that are whole, escaped and at most `LINE_BYTES_MAX`."""
        self._refill(now_s)
        lines: list[str] = []
        start = self._skip(data) if self._is_skipping else 0
        while (end := data.find(b"\n", start)) >= 0:
            self._grow(data[start:end])
            start = end + 1
            line = self._take_line(end_bytes=1)
            if line is None:
                self.dropped_bytes += len(data) - start
                self._is_skipping = not data.endswith(b"\n")
                return lines
            lines.append(line)
        self._grow(data[start:])
        return lines

    def finish(self) -> list[str]:
        """Give the last line, which has no end."""
        line = self._take_line(end_bytes=0) if self._line else None
        return [] if line is None else [line]

    def _refill(self, now_s: float) -> None:
        if self._filled_s is not None:
            refill = (now_s - self._filled_s) * BYTES_PER_MINUTE / 60
            self._budget = min(float(BYTES_PER_MINUTE), self._budget + refill)
        self._filled_s = now_s

    def _skip(self, data: bytes) -> int:
        """Drop the rest of a line whose beginning was dropped; say where the next one begins."""
        start = data.find(b"\n") + 1
        self._is_skipping = start == 0
        start = start or len(data)
        self.dropped_bytes += start
        return start

    def _grow(self, piece: bytes) -> None:
        room = LINE_BYTES_MAX - len(self._line)
        self._line += piece[:room]
        self._cut_bytes += max(0, len(piece) - room)

    def _take_line(self, *, end_bytes: int) -> str | None:
        """The line, now that it is whole; None when it is too much."""
        line, self._line = self._line, b""
        cut_bytes, self._cut_bytes = self._cut_bytes, 0
        cost = len(line) + LINE_COST_BYTES
        if self._budget < cost:
            self.dropped_bytes += len(line) + cut_bytes + end_bytes
            return None
        text = escape(line.rstrip(b"\r").decode(errors="backslashreplace"))
        self._budget -= max(cost, len(text) + LINE_COST_BYTES)  # Escapes are longer.
        return f"{text} ... ({cut_bytes} bytes more)" if cut_bytes else text


class LineLimit:
    """Lets so many lines through in each second, and counts the others.

    Attributes:
        left: Lines that were not let through, since that was told last.
    """

    def __init__(self) -> None:
        self._since_s = -1.0
        self._count = 0
        self.left = 0

    def admits(self, now_s: float) -> bool:
        """Whether one more line is let through; the seconds begin with a line."""
        if not 0 <= now_s - self._since_s < 1:
            self._since_s, self._count = now_s, 0
        self._count += 1
        is_within = self._count <= LINES_PER_SECOND
        self.left += not is_within
        return is_within

    def take_left(self) -> str:
        """The line that stands for those; nothing if there are none."""
        left, self.left = self.left, 0
        return f"... {left} more lines" if left else ""
