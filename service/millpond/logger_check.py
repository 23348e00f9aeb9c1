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


class Answer(msgspec.Struct, frozen=True):
    """What a good logger says of itself; see ``millpond_loggers.plugin``."""

    writes: dict[str, str]
    note: str


class _Bad(Exception):
    """A logger that cannot serve: which of its keys is wrong, and why."""

    def __init__(self, key: str, problem: str) -> None:
        super().__init__(problem)
        self.key = key


def check_loggers(config: Config, modules: Mapping[str, FoundModule]) -> list[str]:
    """Import each logger's module in a child process, and check its options there.

    Returns:
        What the authors of these loggers should know, a line for each.

    Raises:
        ConfigError: One cannot serve, or writes where another one does; with the place of its
            ``module`` or ``options`` in the file.
    """
    first: dict[tuple[object, ...], str] = {}
    notes: dict[str, None] = {}
    for index, logger in enumerate(config.loggers):
        path = ("logging", "logger_modules", index)
        found = modules[logger.name]
        try:
            answer = _ask(config, logger, found)
        except _Bad as bad:
            raise config.error(str(bad), *path, bad.key) from None
        if answer.note:
            notes[f"{found.value}: {answer.note}"] = None
        if answer.writes:
            place: tuple[object, ...] = (found, *answer.writes.items())
            if "file" not in answer.writes:  # Files named by id and channel may lie side by side.
                channels = (str(logger.options.get("channels")), logger.channels)
                place += (channels, logger.when, logger.sample)
            if (other := first.setdefault(place, logger.name)) != logger.name:
                raise config.error(_same_place(logger, other, answer.writes), *path, "options")
    return list(notes)


def _same_place(logger: LoggerConfig, other: str, writes: Mapping[str, str]) -> str:
    key, value = next(iter(writes.items()))
    return (
        f"'{other}' and '{logger.name}' would both write {value}: give one of them another "
        f"{key}, such as options: {{{key}: {logger.name}{Path(value).suffix}}}"
    )


def _ask(config: Config, logger: LoggerConfig, found: FoundModule) -> Answer:
    """What a logger says of itself.

    Raises:
        _Bad: It cannot serve.
    """
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
        problem = f"loggers get them as JSON, and it has no such value: {error}"
        raise _Bad("options", problem) from None
    try:
        child = subprocess.run(
            command, input=options, capture_output=True, timeout=IMPORT_S_MAX, check=False
        )
    except subprocess.TimeoutExpired:
        problem = f"importing {found.value} takes more than {IMPORT_S_MAX} s"
        raise _Bad("module", problem) from None
    if child.returncode == 0 and child.stdout:
        return msgspec.json.decode(child.stdout, type=Answer)
    said = child.stderr.decode(errors="backslashreplace").strip()
    if child.returncode == EXIT_OPTIONS and said:
        raise _Bad("options", said)
    raise _Bad("module", said or f"importing {found.value} ended with {child.returncode}")
