"""Which loggers are installed here, and what each says of itself.

The names are those that a configuration may use.  What a module says is asked of it in a child
process, as a plugin is a user's code: one that cannot be imported, or that ends its process, has
its problem told and spoils no other.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any, Final

import msgspec

from millpond.config.loggers import default_logger_name
from millpond.module_search import find_module, short_names

IMPORT_S_MAX: Final = 60


class Option(msgspec.Struct, frozen=True):
    """One of the ``options:`` of a logger, in words; see ``millpond_loggers.catalogue``."""

    name: str
    type: str
    range: str
    is_required: bool
    default: Any
    description: str


class Description(msgspec.Struct, frozen=True):
    """What a logger says of itself; see ``millpond_loggers.catalogue``."""

    summary: str = ""
    extra: str | None = None
    missing: tuple[str, ...] = ()
    install: str = ""
    options: tuple[Option, ...] | None = None
    problem: str = ""


@dataclass(frozen=True, slots=True)
class ListedLogger:
    """One line of the list.

    Attributes:
        name: What a configuration calls it.
        kind: ``module`` or ``file``.
        place: The dotted name of its module, or the path of its file.
        origin: The distribution that gave it a short name, and its version; nothing when none has.
        description: What it says of itself.
    """

    name: str
    kind: str
    place: str
    origin: str
    description: Description

    @property
    def state(self) -> str:
        """Whether it can be used, in a line: ``ready``, what to install, or what is wrong."""
        if self.description.problem:
            return f"cannot be used: {self.description.problem.splitlines()[-1].strip()}"
        if self.description.missing:
            missing = ", ".join(self.description.missing)
            return f"needs {missing}: {self.description.install}"
        return f"ready (extra: {self.description.extra})" if self.description.extra else "ready"

    def to_json(self) -> dict[str, Any]:
        """What ``--json`` shows."""
        about = {"name": self.name, "module": self.place, "origin": self.origin}
        described: dict[str, Any] = msgspec.to_builtins(self.description)
        return {**about, "state": self.state, **described}


def list_loggers() -> list[ListedLogger]:
    """Every logger that has a short name here, in the order of the names."""
    names = sorted(short_names(_search_path()).items())
    places = [("module", entry_point.module) for _, entry_point in names]
    return [
        ListedLogger(name, "module", entry_point.module, _origin(entry_point), description)
        for (name, entry_point), description in zip(names, _describe(places), strict=True)
    ]


def list_logger(module: str) -> ListedLogger:
    """One logger.

    Args:
        module: A short name, a dotted path or a file, as in a configuration.

    Raises:
        millpond.errors.ConfigError: There is no such module or file.
    """
    search_path = _search_path()
    found = find_module(module, search_path, Path.cwd())
    entry_points = short_names(search_path).values()
    origins = [_origin(one) for one in entry_points if one.module == found.value]
    (description,) = _describe([(found.kind, found.value)])
    return ListedLogger(
        name=default_logger_name(module),
        kind=found.kind,
        place=found.value,
        origin=origins[0] if origins else "",
        description=description,
    )


def _origin(entry_point: EntryPoint) -> str:
    return f"{entry_point.dist.name} {entry_point.dist.version}" if entry_point.dist else ""


def _search_path() -> list[str]:
    """Where the loggers of a configuration in this folder would be found."""
    return [str(Path.cwd()), *filter(None, sys.path)]


def _describe(places: Sequence[tuple[str, str]]) -> list[Description]:
    """What each of these modules says; one that ends the child is told, and a new child goes on."""
    described: list[Description] = []
    while len(described) < len(places):
        answers, problem = _ask(places[len(described) :])
        described += answers
        if len(described) < len(places):
            described.append(Description(problem=problem))
    return described


def _ask(places: Sequence[tuple[str, str]]) -> tuple[list[Description], str]:
    """What a child says of these modules, and why it did not say more."""
    # Not the current folder first: a json.py there is not the library's.
    command = [sys.executable, "-P", "-m", "millpond_loggers.catalogue", str(Path.cwd())]
    try:
        child = subprocess.run(
            command,
            input=msgspec.json.encode(places),
            capture_output=True,
            timeout=IMPORT_S_MAX,
            check=False,
        )
        output, said = child.stdout, child.stderr.decode(errors="backslashreplace").strip()
        problem = f"importing it ended with {child.returncode}" + (f":\n{said}" if said else "")
    except subprocess.TimeoutExpired as expired:
        output, problem = expired.stdout or b"", f"importing it takes more than {IMPORT_S_MAX} s"
    whole = output[: output.rfind(b"\n") + 1].splitlines()
    return [msgspec.json.decode(line, type=Description) for line in whole], problem
