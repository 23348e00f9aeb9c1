"""The kit for authors of loggers: a pond in memory, and the suite that every logger should pass."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from millpond_loggers.testing.pond import MemoryPond, Result

if TYPE_CHECKING:
    from millpond_loggers.testing.conformance import LoggerConformance

__all__ = ["LoggerConformance", "MemoryPond", "Result"]


def __getattr__(name: str) -> Any:
    """Import the suite when it is asked for: it needs pytest, and the pond does not."""
    if name != "LoggerConformance":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import pytest  # noqa: PLC0415

    place = f"{__name__}.conformance"
    if place not in sys.modules:  # Then its failing asserts show their values.
        pytest.register_assert_rewrite(place)
    from millpond_loggers.testing.conformance import LoggerConformance  # noqa: PLC0415

    return LoggerConformance
