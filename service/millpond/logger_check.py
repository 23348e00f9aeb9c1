"""Trying the loggers of a configuration, each in a process of its own: its module, its options."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import msgspec

from millpond.config.loggers import LoggerConfig
from millpond.config.model import Config
from millpond.module_search import FoundModule

IMPORT_S_MAX: Final = 60
# How that process says that the module is good and the options are not.
EXIT_OPTIONS: Final = 2


def check_loggers(config: Config, modules: Mapping[str, FoundModule]) -> None:
    """Import each logger's module in a child process, and check its options there.

    Raises:
        ConfigError: One cannot serve; with the place of its ``module`` or ``options`` in the file.
    """
    for index, logger in enumerate(config.loggers):
        key, problem = _try(config, logger, modules[logger.name])
        if problem:
            raise config.error(problem, "logging", "logger_modules", index, key)


def _try(config: Config, logger: LoggerConfig, found: FoundModule) -> tuple[str, str]:
    """Which key is wrong, and why; no problem when all is well."""
    command = [
        sys.executable,
        "-P",  # Not the current folder first: a json.py there is not the library's.
        "-m",
        "millpond_loggers.plugin",
        found.kind,
        found.value,
        str(Path.cwd()),
        str(config.source.parent),
    ]
    try:
        options = msgspec.json.encode(logger.options)
    except (TypeError, ValueError) as error:
        return "options", f"loggers get them as JSON, and it has no such value: {error}"
    try:
        child = subprocess.run(
            command, input=options, capture_output=True, timeout=IMPORT_S_MAX, check=False
        )
    except subprocess.TimeoutExpired:
        return "module", f"importing {found.value} takes more than {IMPORT_S_MAX} s"
    if child.returncode == 0:
        return "", ""
    said = child.stderr.decode(errors="backslashreplace").strip()
    if child.returncode == EXIT_OPTIONS and said:
        return "options", said
    return "module", said or f"importing {found.value} ended with {child.returncode}"
