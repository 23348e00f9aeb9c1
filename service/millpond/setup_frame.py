"""What the configuration says of a logger, for the core, for its processes and for the ledger."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import msgspec

from millpond.config.loggers import Process
from millpond.config.model import Config
from millpond.core.layout import Layout
from millpond.core.logger_record import LoggerSpec
from millpond.core.restart import RestartPolicy
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


def make_spec(process: Process, slot_count: int) -> LoggerSpec:
    """What the core has to know of one process of a logger."""
    logger = process.logger
    window_max = logger.max_in_window
    if logger.when_full != "block":  # Nobody waits for it, so it must not have most of the slots.
        window_max = min(window_max, max(1, slot_count // (4 * logger.instances)))
    return LoggerSpec(
        name=process.name,
        window_max=window_max,
        start_s=logger.start_s,
        stop_s=logger.stop_s,
        hang_s=logger.hang_s,
        when_full=logger.when_full,
        on_crash=logger.on_crash,
        restart=RestartPolicy(**logger.restart.model_dump()),
    )


def share_out(processes: Sequence[Process], counts: Sequence[int]) -> list[int]:
    """How much of what waits for each logger falls to each process, as equal as possible."""
    shares = []
    for process in processes:
        whole, rest = divmod(counts[process.team], process.logger.instances)
        shares.append(whole + (process.instance <= rest))
    return shares


def make_setup(
    config: Config, index: int, module: FoundModule, layout: Layout, experiment: msgspec.Raw
) -> bytes:
    """Make the SETUP frame of one process of a logger.

    Args:
        config: The configuration.
        index: Which of all processes it is.
        module: Where the module of its logger was found.
        layout: Where the channels lie.
        experiment: What `encode_experiment` made.
    """
    process = config.processes[index]
    spec = process.logger
    setup = {
        "index": index,
        "name": spec.name,
        "kind": module.kind,
        "place": module.value,
        "options": spec.options,
        "instance": process.instance,
        "instances": spec.instances,
        "wanted": spec.channels,
        "arrays": spec.arrays,
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
            "instances": logger.instances,
            "wanted": logger.channels,
        }
        for logger, module in zip(config.loggers, modules, strict=True)
    ]
