"""Making a logger from what the first frame says: its buffer, its configuration, itself."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any, Final

from millpond.core.layout import Layout
from millpond_loggers.plugin import PluginError
from millpond_loggers.process.shared_results import SharedResults
from millpond_loggers.process.threedb_loggers import prepare

METHODS: Final = ("log", "log_many", "flush", "end")


def make_logger(
    logger_class: Callable[..., Any], setup: Mapping[str, Any], layout: Layout, segment_fd: int
) -> tuple[Any, SharedResults]:
    """Make the buffer of a logger, and the logger.

    Args:
        logger_class: What its module exports.
        setup: The first frame: ``index``, ``name``, ``place``, ``options``, ``root_dir``,
            ``experiment``; and, if they are not the usual ones, ``instance``, ``instances``,
            ``wanted`` (the channels that it gets) and ``arrays``.
        layout: Where the channels lie.
        segment_fd: The segment, opened read-only.

    Raises:
        ConfigError: An option is wrong, or the pond has not a channel that is wanted.
        PluginError: What it has cannot serve as a logger.
    """
    make, results_class = prepare(logger_class, setup.get("arrays"))
    results = results_class(
        layout, segment_fd, regid=setup["index"] + 1, wanted=setup.get("wanted")
    )
    own = {
        "name": setup["name"],
        "module": setup["place"],
        "options": setup["options"],
        "instance": setup.get("instance", 1),
        "instances": setup.get("instances", 1),
    }
    logger = make(setup["root_dir"], results, {**setup["experiment"], "logger": own})
    for name in METHODS:
        if inspect.iscoroutinefunction(getattr(logger, name, None)):
            raise PluginError(
                f"`async def {name}` in {setup['place']} would never be run: write `def {name}`"
            )
    return logger, results
