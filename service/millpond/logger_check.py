"""Importing the loggers of a configuration in a process of its own, to see whether they can be."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from millpond.config.model import Config
from millpond.module_search import FoundModule

IMPORT_S_MAX: Final = 60


def check_loggers(config: Config, modules: Mapping[str, FoundModule]) -> None:
    """Import each logger's module in a child process.

    Raises:
        ConfigError: One cannot serve; with the place of its ``module`` in the file.
    """
    for index, logger in enumerate(config.loggers):
        found = modules[logger.name]
        problem = _import_problem(config, found)
        if problem:
            raise config.error(problem, "logging", "logger_modules", index, "module")


def _import_problem(config: Config, found: FoundModule) -> str:
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
        child = subprocess.run(
            command, capture_output=True, text=True, timeout=IMPORT_S_MAX, check=False
        )
    except subprocess.TimeoutExpired:
        return f"importing {found.value} takes more than {IMPORT_S_MAX} s"
    if child.returncode == 0:
        return ""
    return child.stderr.strip() or f"importing {found.value} ended with {child.returncode}"
