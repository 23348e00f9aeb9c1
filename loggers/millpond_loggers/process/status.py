"""What a logger tells the daemon: that it is made, that it could not be, what it did not record."""

from __future__ import annotations

import os
from typing import Final, Protocol

from millpond.core.wire import Kind, pack
from millpond_loggers.process.problem import describe, errno_of

PROBLEM_CHARACTERS_MAX: Final = 16_000


class Reports(Protocol):
    """Who is told that a result is not recorded."""

    def raised(self, slot: int, generation: int, error: Exception) -> None:
        """Take note of the error, for the result in this use of this slot."""


class Status:
    """The pipe to the daemon.

    Args:
        fd: Its writing end.
    """

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def ready(self) -> None:
        """Say that the logger is made, and that jobs may come."""
        self._send(pack(Kind.READY))

    def failed(self, problem: str, number: int = 0) -> None:
        """Say why the logger could not be made, and the errno if the system said no."""
        self._send(pack(Kind.FAILED, _body(problem), sequence=number))

    def raised(self, slot: int, generation: int, error: Exception) -> None:
        """Say that a result is not recorded, and the errno if the system said no."""
        body, number = _body(describe(error)), errno_of(error)
        frame = pack(Kind.RAISED, body, slot=slot, generation=generation, sequence=number)
        self._send(frame)

    def _send(self, data: bytes) -> None:
        rest = memoryview(data)
        try:
            while rest:
                rest = rest[os.write(self._fd, rest) :]
        except BrokenPipeError:
            return  # The daemon is gone; the logger still finishes what it was sent.


def _body(problem: str) -> bytes:
    """The text in UTF-8; a long one keeps its end, where the cause stands."""
    if len(problem) > PROBLEM_CHARACTERS_MAX:
        problem = "..." + problem[-PROBLEM_CHARACTERS_MAX:]
    return problem.encode(errors="replace")
