"""3DB's own loggers, and those that people wrote for 3DB, as loggers of millpond.

A logger that derives from a class of 3DB's runs as it is.  It gets tensors, the keys of
``render_args`` that 3DB gives, and the defaults of 3DB's ``main``.  Its `end` is called once, and
never ``log(None)``.  It is made, but never started: 3DB's base class is a process.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from millpond_loggers.extras import require
from millpond_loggers.process.shared_results import SharedResults
from millpond_loggers.process.torch_results import TorchResults

PACKAGE: Final = "threedb"
# What 3DB's `main` takes when an experiment names no engine.
DEFAULT_ENGINE: Final = "threedb.rendering.render_blender"

Make = Callable[[str, SharedResults, Mapping[str, Any]], Any]
"""Makes a logger: its class, or what stands for it."""


def prepare(logger: Callable[..., Any], arrays: str | None) -> tuple[Make, type[SharedResults]]:
    """Find out how a logger is made, and what it sees its results through.

    Args:
        logger: What its module exports as ``Logger``.
        arrays: ``numpy`` or ``torch``; None: tensors for a logger of 3DB's, else arrays.

    Raises:
        ConfigError: It wants tensors, and torch is missing.
    """
    is_3db = is_threedb(logger)
    if arrays == "torch" or (arrays is None and is_3db):
        require("torch", extra=None, what="a logger with arrays: torch")
        results: type[SharedResults] = TorchResults
    else:
        results = SharedResults
    if not is_3db:
        return logger, results

    def make(root_dir: str, buffer: SharedResults, config: Mapping[str, Any]) -> ThreedbLogger:
        return ThreedbLogger(logger(root_dir, buffer, _experiment(config)))

    return make, results


def is_threedb(logger: object) -> bool:
    """Whether it is a class of 3DB's, or derives from one.  Nothing is imported for it."""
    bases = logger.__mro__ if isinstance(logger, type) else ()
    return any(base.__module__.partition(".")[0] == PACKAGE for base in bases)


class ThreedbLogger:
    """Stands between the runner and a logger of 3DB's.

    Args:
        logger: The logger, made.
    """

    def __init__(self, logger: Any) -> None:
        self._logger = logger
        self.keeps_slots = bool(getattr(logger, "keeps_slots", False))

    def log(self, item: dict[str, Any]) -> None:
        """Give it one result, with the item as 3DB makes it."""
        item["render_args"] = {
            threedb_key(name): value for name, value in item["render_args"].items()
        }
        if "control_order" in item:
            item["control_order"] = [
                tuple(place) if isinstance(place, list) else place
                for place in item["control_order"]
            ]
        self._logger.log(item)

    def flush(self) -> None:
        """Flush it, and every file that it has open in an attribute.

        3DB's loggers never flush: what they wrote would be lost with the process although its
        slot was given back.
        """
        for value in (self._logger, *vars(self._logger).values()):
            flush = getattr(value, "flush", None)
            if callable(flush) and not getattr(value, "closed", False):
                flush()

    def end(self) -> None:
        """Let it finish."""
        self._logger.end()


def threedb_key(name: str) -> str | tuple[str, str]:
    """The key of a control's argument as 3DB has it: ``("Camera", "zoom")`` for ``Camera.zoom``.

    A name without a dot stays as it is.
    """
    control, dot, argument = name.partition(".")
    return (control, argument) if dot else name


def _experiment(config: Mapping[str, Any]) -> dict[str, Any]:
    """The experiment as 3DB's `main` gives it to its loggers."""
    given = config.get("render_args")
    if given is None:
        return dict(config)
    return {**config, "render_args": {"engine": DEFAULT_ENGINE, **given}}
