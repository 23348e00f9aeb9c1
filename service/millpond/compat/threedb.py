"""In place of 3DB's buffer and of its collection of loggers: the same interface, a daemon behind.

In 3DB's ``main``, replace two imports::

    from millpond.compat.threedb import CyclicBuffer, LoggerManager

The daemon is started when the loggers are, or before the first fork or result.  With
``MILLPOND_SOCKET`` in the environment, a running one is joined.
"""

from __future__ import annotations

from millpond.compat.appended_loggers import LoggerManager
from millpond.compat.cyclic_buffer import CyclicBuffer
from millpond.compat.cyclic_buffer import CyclicBuffer as BigChungusCyclicBuffer
from millpond.compat.delivery import ResultsMissing
from millpond.errors import DaemonUnreachable, InvalidResult, PondFull

__all__ = [
    "BigChungusCyclicBuffer",
    "CyclicBuffer",
    "DaemonUnreachable",
    "InvalidResult",
    "LoggerManager",
    "PondFull",
    "ResultsMissing",
]
