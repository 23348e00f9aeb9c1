"""What a logger prints, line by line, within bounds: for the daemon's own log."""

from __future__ import annotations

import re
from typing import Final

LINE_BYTES_MAX: Final = 8 * 1024
# Kept in a minute; the rest is counted.  A logger in a loop must not fill the disk.
BYTES_PER_MINUTE: Final = 1024 * 1024
UNPRINTABLE: Final = re.compile(
    r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]"
)


class LineCapture:
    """Cuts what one stream brings into lines, and drops what is too much."""

    def __init__(self) -> None:
        self._rest = b""
        self._budget = float(BYTES_PER_MINUTE)
        self._filled_s: float | None = None
        self.dropped_bytes = 0

    def feed(self, data: bytes, now_s: float) -> list[str]:
        """Take bytes and give the lines that are whole, escaped and at most `LINE_BYTES_MAX`."""
        if self._filled_s is not None:
            refill = (now_s - self._filled_s) * BYTES_PER_MINUTE / 60
            self._budget = min(float(BYTES_PER_MINUTE), self._budget + refill)
        self._filled_s = now_s
        *lines, self._rest = (self._rest + data).split(b"\n")
        if len(self._rest) > LINE_BYTES_MAX:
            lines.append(self._rest)
            self._rest = b""
        return [text for line in lines if (text := self._keep(line)) is not None]

    def finish(self) -> list[str]:
        """Give the last line, which has no end."""
        rest, self._rest = self._rest, b""
        return [text for line in (rest,) if line and (text := self._keep(line)) is not None]

    def _keep(self, line: bytes) -> str | None:
        if self._budget < len(line):
            self.dropped_bytes += len(line) + 1
            return None
        self._budget -= len(line) + 1
        text = line[:LINE_BYTES_MAX].rstrip(b"\r").decode(errors="backslashreplace")
        if len(line) > LINE_BYTES_MAX:
            text += f" ... ({len(line) - LINE_BYTES_MAX} bytes more)"
        return UNPRINTABLE.sub(lambda found: f"\\x{ord(found.group()):02x}", text)
