"""The first frame of a logger: what to make, and everything that it needs for that."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import msgspec

from millpond.config.model import Config
from millpond.core.layout import Layout
from millpond.core.wire import SETUP_BYTES_MAX, Kind, pack
from millpond.module_search import FoundModule

# The rest of the frame is a logger's options and the channels.
EXPERIMENT_BYTES_MAX: Final = SETUP_BYTES_MAX // 2


def encode_experiment(config: Config) -> msgspec.Raw:
    """The experiment file as the loggers get it.

    Raises:
        ConfigError: It holds what JSON does not, or is too large for the first frame.
    """
    try:
        experiment = msgspec.json.encode(config.experiment)
    except (TypeError, ValueError) as error:
        raise config.error(
            f"loggers get this file as JSON, and it has no such value: {error}"
        ) from None
    if len(experiment) > EXPERIMENT_BYTES_MAX:
        raise config.error(
            f"{len(experiment)} bytes as JSON, and loggers can be given at most "
            f"{EXPERIMENT_BYTES_MAX}"
        )
    return msgspec.Raw(experiment)


def make_setup(
    config: Config, logger: int, module: FoundModule, layout: Layout, experiment: msgspec.Raw
) -> bytes:
    """Make the SETUP frame of one logger.

    Args:
        config: The configuration.
        logger: Its index in the configuration.
        module: Where its module was found.
        layout: Where the channels lie.
        experiment: What `encode_experiment` made.
    """
    spec = config.loggers[logger]
    setup = {
        "index": logger,
        "name": spec.name,
        "kind": module.kind,
        "place": module.value,
        "options": spec.options,
        "daemon_pid": os.getpid(),
        "limits": {
            "memory_bytes": spec.limits.memory,
            "file_size_bytes": spec.limits.file_size,
            "open_files": spec.limits.open_files,
            "processes": spec.limits.processes,
            "oom_score_adj": spec.limits.oom_score_adj,
        },
        "root_dir": os.fspath(config.output_dir),
        "search_path": [os.fspath(Path.cwd()), os.fspath(config.source.parent)],
        "experiment": experiment,
        **layout.to_json(),
    }
    return pack(Kind.SETUP, msgspec.json.encode(setup))


def definitions(config: Config, modules: Sequence[FoundModule]) -> list[dict[str, Any]]:
    """The loggers as the ledger has them, so that their files can be checked later."""
    return [
        {
            "name": logger.name,
            "kind": module.kind,
            "place": module.value,
            "options": logger.options,
        }
        for logger, module in zip(config.loggers, modules, strict=True)
    ]
