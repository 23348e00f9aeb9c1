"""Finding the module of each logger without importing anything of it.

A plugin is a user's code: it runs in its logger process only, where it can end nothing else.  Here
its file is looked for, so that a misspelled one is an error at start.  What was found is what the
logger process imports.
"""

from __future__ import annotations

import pkgutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.machinery import ModuleSpec, PathFinder
from importlib.metadata import EntryPoint, distributions
from pathlib import Path
from typing import Final, Literal

from millpond.config.errors import nearest
from millpond.config.loggers import is_file
from millpond.config.model import Config
from millpond.errors import ConfigError

ENTRY_POINT_GROUP: Final = "millpond.loggers"


@dataclass(frozen=True, slots=True)
class FoundModule:
    """What a logger process imports: a dotted name, or the absolute path of a file."""

    kind: Literal["module", "file"]
    value: str


def check_modules(
    config: Config, *, search_path: Sequence[str] | None = None
) -> dict[str, FoundModule]:
    """The module of each logger, by the logger's name.

    Args:
        config: Which loggers there are.
        search_path: The folders that modules are found in; None: this process's own.

    Raises:
        ConfigError: One is not found; with the place of its ``module`` in the file.
    """
    folders = sys.path if search_path is None else search_path
    found = {}
    for index, logger in enumerate(config.loggers):
        try:
            found[logger.name] = find_module(logger.module, folders, config.source.parent)
        except ConfigError as error:
            path = ("logging", "logger_modules", index, "module")
            raise config.error(error.problem, *path) from None
    return found


def logger_search_path(config: Path) -> list[str]:
    """Where a logger process will find modules: here, what is installed, beside the config."""
    return [str(Path.cwd()), *(folder for folder in sys.path if folder), str(config.parent)]


def find_module(module: str, search_path: Sequence[str], base_dir: Path) -> FoundModule:
    """What a logger's ``module:`` stands for.

    Args:
        module: A file, when it has a slash or ends with ``.py``; a dotted path; or a word, which
            is a short name if there is one, else a top-level module.
        search_path: The folders that modules are found in, as in ``sys.path``.
        base_dir: The folder of the configuration, where files are looked for first.

    Raises:
        ConfigError: There is no such module or file; says which part is missing.
    """
    if is_file(module):
        return _find_file(module, base_dir)
    names = short_names(search_path)
    if module in names:
        target = names[module].module
        _find_dotted(target, search_path, names)
        return FoundModule("module", target)
    _find_dotted(module, search_path, names)
    return FoundModule("module", module)


def _find_file(module: str, base_dir: Path) -> FoundModule:
    try:
        given = Path(module).expanduser()
        candidates = list(dict.fromkeys(folder / given for folder in (base_dir, Path.cwd())))
        for candidate in candidates:
            if candidate.is_file():
                return FoundModule("file", str(candidate.resolve()))
        for candidate in candidates:
            if candidate.exists():
                raise ConfigError(f"{candidate} is no file")
    except (OSError, RuntimeError, ValueError) as error:  # No home folder, or a NUL.
        raise ConfigError(f"{module!r} cannot be found: {error}") from None
    raise ConfigError(f"there is no file {' nor '.join(repr(str(path)) for path in candidates)}")


def short_names(search_path: Sequence[str]) -> Mapping[str, EntryPoint]:
    """The loggers that installed packages offer; the first on the path wins, as for imports."""
    names: dict[str, EntryPoint] = {}
    for distribution in distributions(path=list(search_path)):
        for entry_point in distribution.entry_points.select(group=ENTRY_POINT_GROUP):
            names.setdefault(entry_point.name, entry_point)
    return names


def _find_dotted(
    module: str, search_path: Sequence[str], short_names: Mapping[str, EntryPoint]
) -> None:
    """Walk from package to package; raise if a part is missing."""
    PathFinder.invalidate_caches()
    parts = module.split(".")
    if not all(part.isidentifier() for part in parts):
        raise ConfigError(
            f"{module!r} is no short name, dotted path or file{nearest(module, short_names) or ';'}"
            f" short names: {', '.join(sorted(short_names))}"
        )
    folders: Sequence[str] | None = search_path
    spec: ModuleSpec | None = None
    for depth in range(1, len(parts) + 1):
        name, parent = ".".join(parts[:depth]), ".".join(parts[: depth - 1])
        if folders is None:
            raise ConfigError(f"'{parent}' is a module, not a package: it has no '{name}'")
        # Finders look at the last part only; given the whole name of a folder without
        # __init__.py, they would ask for the parent among the imported modules.
        spec = PathFinder.find_spec(parts[depth - 1], list(folders))
        if spec is None and depth == 1:
            spec = _find_by_hooks(name)
        if spec is None:
            raise ConfigError(_not_found(module, name, parent, folders, short_names))
        locations = spec.submodule_search_locations
        folders = None if locations is None else list(locations)
    if spec is not None and spec.origin is None and spec.loader is None:
        raise ConfigError(f"'{module}' is a folder without __init__.py, not a module")


def _find_by_hooks(name: str) -> ModuleSpec | None:
    """Ask the other finders of this process, such as those of editable installations."""
    for finder in sys.meta_path:
        if finder is not PathFinder:
            spec = finder.find_spec(name, None)
            if spec is not None:
                return spec
    return None


def _not_found(
    module: str,
    name: str,
    parent: str,
    folders: Sequence[str],
    short_names: Mapping[str, EntryPoint],
) -> str:
    """Which part is missing, and what may have been meant."""
    last = module.rpartition(".")[2].removesuffix("_logger")
    if not parent:
        problem = f"there is no short name or module '{name}'"
        if name != module:
            problem = f"there is no package '{name}', looking for '{module}'"
        hint = nearest(module, short_names)
    else:
        problem = f"package '{parent}' has no module '{name}'"
        siblings = {entry.name for entry in pkgutil.iter_modules(list(folders))}
        hint = nearest(name.rpartition(".")[2], siblings)
    if not hint and last in short_names:
        hint = f"; did you mean the short name '{last}'?"
    known = f" Short names: {', '.join(sorted(short_names))}" if not parent and short_names else ""
    return f"{problem}{hint or '.'}{known}"
