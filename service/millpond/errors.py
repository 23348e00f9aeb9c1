"""Every error that millpond raises, by whose fault it is."""

from __future__ import annotations


class MillpondError(Exception):
    """The base of all others; never raised itself."""


class ConfigError(MillpondError):
    """The operator's: a configuration that cannot be run.  Nothing was started.

    Args:
        problem: What is wrong and what to do about it.
        key: The path of the key, such as ``logging.logger_modules[2].hang_s``.
        file: The file it was read from.
        line: The line in that file, counted from 1.
    """

    def __init__(
        self, problem: str, *, key: str = "", file: str = "", line: int | None = None
    ) -> None:
        place = f"{file}:{line}" if file and line is not None else file
        super().__init__(": ".join(part for part in (place, key, problem) if part))
        self.problem = problem
        self.key = key
        self.file = file
        self.line = line


class SegmentError(MillpondError):
    """The system's: the shared memory cannot be had."""


class PeerError(MillpondError):
    """A peer's: it said something that it may not say.  Nothing has changed; the peer is ended."""


class InvalidResult(MillpondError, ValueError):
    """The renderer's: a result that does not fit the channels or the job.  Nothing was sent."""


class DaemonUnreachable(MillpondError, ConnectionError):
    """The daemon is absent, gone, or does not answer within the caller's deadline."""


class ChannelsRefused(MillpondError, ValueError):
    """The renderer's channels are not the pond's.  Both lists are in the message."""


class PondFull(MillpondError, TimeoutError):
    """No slot came free within the caller's deadline.  The message names who holds them."""
