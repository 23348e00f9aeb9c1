"""Finding the logger that a test names."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

from millpond_loggers.plugin import load


def find_logger(module: str, folder: Path) -> tuple[str, str]:
    """The kind and the place of a module, as `plugin.load` takes them.

    Args:
        module: A dotted name, or the path of a file.
        folder: Where the file is looked for, before the current folder.
    """
    if "/" not in module and not module.endswith(".py"):
        return "module", module
    beside = folder / module
    return "file", str(beside if beside.is_file() else Path(module).resolve())


@cache
def load_once(kind: str, place: str) -> Callable[..., Any]:
    """Like `plugin.load`; a file is run only once, so that its classes stay the same.

    Raises:
        PluginError: As there.
    """
    return load(kind, place)
