"""The kit for authors of loggers: a pond in memory, and the suite that each should pass."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from millpond_loggers import testing

if TYPE_CHECKING:
    from millpond_loggers.testing import LoggerConformance, MemoryPond, Result

__all__ = ["LoggerConformance", "MemoryPond", "Result"]


def __getattr__(name: str) -> Any:
    """Only the suite needs pytest."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(testing, name)
