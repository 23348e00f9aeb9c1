"""The loggers of a 3DB experiment: 3DB's collection of them, run by a daemon."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from io import IOBase
from pathlib import Path
from types import ModuleType
from typing import Any

from millpond.compat.cyclic_buffer import DEFAULT_OUTPUT_DIR, WAIT_S, CyclicBuffer, live_buffers
from millpond.compat.messages import End, Log
from millpond.compat.own_daemon import Plan
from millpond.compat.threedb_values import job_of
from millpond.errors import InvalidResult


class LoggerManager:
    """The loggers of an experiment, which a daemon runs.

    Args:
        buffer: Where the results are; by default what the loggers say that are appended, or else
            the only one that there is.
        output_dir: Where they write; by default what the loggers say that are appended.
        config: The experiment, as a mapping; by default what the loggers say.
        patience_s: Seconds that `join` waits while nothing is recorded.

    Attributes:
        loggers: What will be run: entries of ``logger_modules``.
    """

    def __init__(
        self,
        *,
        buffer: CyclicBuffer | None = None,
        output_dir: str | os.PathLike[str] | None = None,
        config: Mapping[str, Any] | None = None,
        patience_s: float = WAIT_S,
    ) -> None:
        self.loggers: list[Any] = []
        self._output_dir = Path(output_dir) if output_dir is not None else None
        self._config = config
        self._patience_s = patience_s
        self._buffer = buffer

    def append(self, logger: Any) -> None:
        """Add a logger.

        Args:
            logger: One that was made as ``Logger(root_dir, result_buffer, config)``: the daemon
                makes another one of its class, and this one is not used.  Or what a configuration
                has in ``logger_modules``: a name, a dotted path, a mapping with ``module``; or
                the module itself.

        Raises:
            InvalidResult: It is none of these, or the daemon runs already.
        """
        if isinstance(logger, ModuleType):
            entry: Any = logger.__name__
        elif isinstance(logger, str | Mapping):
            entry = logger
        elif callable(getattr(logger, "log", None)) and not isinstance(logger, type):
            self._take_from(logger)
            entry = _module_of(type(logger))
            _let_go(logger)
        else:
            raise InvalidResult(f"{logger!r} is no logger, and names none")
        self._known_buffer().attach(self, getattr(logger, "regid", None))
        self.loggers.append(entry)

    def _take_from(self, logger: Any) -> None:
        """What one that was made says about the experiment."""
        buffer = getattr(logger, "buffer", None)
        if not isinstance(buffer, CyclicBuffer):
            raise InvalidResult(
                f"the buffer of {type(logger).__name__} is a {type(buffer).__name__}: make it with "
                "the CyclicBuffer of millpond.compat.threedb"
            )
        self._buffer = buffer
        if self._output_dir is None:
            self._output_dir = Path(logger.root_dir)
        if self._config is None:
            self._config = getattr(logger, "config", None)

    def plan(self, slots: int) -> Plan:
        """What is started for these loggers."""
        folder = (self._output_dir or Path(DEFAULT_OUTPUT_DIR)).absolute()
        return Plan(folder, tuple(self.loggers), self._config or {}, slots)

    def start(self) -> None:
        """Start the daemon with the loggers, or join it.

        Raises:
            InvalidResult: The channels are not declared.
            DaemonUnreachable: It could not be started; the message has its last words.
        """
        self._known_buffer().process_events()

    def log(self, item: Mapping[str, Any] | None) -> None:
        """Let every logger record a result; its slot goes to them when everybody has freed it.

        Args:
            item: ``id``, ``render_args``, ``result_ix``, and what else the loggers shall get.
                None: no more results come.

        Raises:
            InvalidResult: The item cannot be sent.
            LookupError: Its result was freed, or logged before, or the end was said.
            DaemonUnreachable: The daemon, or the owner of the buffer, has ended; for a forked
                process also when the end was said.
        """
        buffer = self._known_buffer()
        buffer.tell(End() if item is None else Log(*job_of(item)))

    def join(self) -> None:
        """Wait until every logger has every result.

        Raises:
            ResultsMissing: Some do not have everything; the message says which.
            DaemonUnreachable: Nothing was recorded for `patience_s`, or the daemon failed.
            InvalidResult: This process was forked from the one that made the buffer.
        """
        buffer = self._known_buffer()
        buffer.end()
        buffer.wait_delivered(self._patience_s)

    def _known_buffer(self) -> CyclicBuffer:
        if self._buffer is None:
            buffers = live_buffers()
            if len(buffers) != 1:
                raise InvalidResult(
                    f"there are {len(buffers)} buffers: make one CyclicBuffer, or say which one is "
                    "meant: LoggerManager(buffer=...)"
                )
            self._buffer = buffers[0]
        return self._buffer


def _let_go(logger: Any) -> None:
    """Have a logger that will not be used give back its files, which it may have locked.

    Those of 3DB are not ended: what they write at their end would stand in the file twice.
    """
    bases = type(logger).__mro__
    is_of_3db = any(base.__module__.partition(".")[0] == "threedb" for base in bases)
    if not is_of_3db and callable(getattr(logger, "end", None)):
        logger.end()
        return
    for value in vars(logger).values():
        if isinstance(value, IOBase):
            value.close()


def _module_of(logger: type) -> str:
    """The module that exports this class as ``Logger``."""
    own = sys.modules.get(logger.__module__)
    if own is not None and vars(own).get("Logger") is logger and own.__name__ != "__main__":
        return own.__name__
    for name, module in list(sys.modules.items()):
        if name != "__main__" and getattr(module, "__dict__", {}).get("Logger") is logger:
            return name
    raise InvalidResult(
        f"no module exports {logger.__name__} as `Logger`: write `Logger = {logger.__name__}` at "
        "the end of its file, and import it from there"
    )
