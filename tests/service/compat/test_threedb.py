"""The two names that replace 3DB's, and what goes with them."""

from __future__ import annotations

from millpond.compat import threedb
from millpond.compat.appended_loggers import LoggerManager
from millpond.compat.cyclic_buffer import CyclicBuffer


def test_the_names_are_those_of_3db() -> None:
    assert threedb.CyclicBuffer is CyclicBuffer
    assert threedb.BigChungusCyclicBuffer is CyclicBuffer
    assert threedb.LoggerManager is LoggerManager
    assert all(hasattr(threedb, name) for name in threedb.__all__)


def test_the_interface_is_that_of_3db() -> None:
    for name in ("declare_buffers", "allocate", "register", "free", "process_events", "close"):
        assert callable(getattr(threedb.CyclicBuffer, name))
    assert callable(threedb.CyclicBuffer.__getitem__)
    for name in ("append", "log", "start", "join"):
        assert callable(getattr(threedb.LoggerManager, name))
