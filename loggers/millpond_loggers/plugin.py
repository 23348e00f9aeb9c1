"""Finding and importing a logger's module, so that each mistake has its own message."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any, Final

import orjson

from millpond.errors import ConfigError
from millpond_loggers.extras import require_all
from millpond_loggers.options import check_options
from millpond_loggers.process.problem import describe

EXIT_MODULE: Final = 1
EXIT_OPTIONS: Final = 2


class PluginError(Exception):
    """A module that cannot serve as a logger; the message says why and what to do."""


def load(kind: str, place: str) -> Callable[..., Any]:
    """Import a module and return its ``Logger``.

    Args:
        kind: ``module`` or ``file``.
        place: The dotted name of the module, or the path of the file.

    Raises:
        PluginError: Not found, fails inside, has no ``Logger``, or that is not a logger, or one
            whose libraries are not installed.
    """
    logger = find_logger(kind, place)
    try:
        require_all(logger, what=f"{_spoken_name(kind, place)} logger")
    except ConfigError as error:
        raise PluginError(error.problem) from error
    made: Callable[..., Any] = logger
    return made


def find_logger(kind: str, place: str) -> type:
    """Like `load`, but the libraries that the logger needs may be missing."""
    module = _import_file(Path(place)) if kind == "file" else _import_module(place)
    if not hasattr(module, "Logger"):
        raise PluginError(f"{place} has no `Logger`{_suggestion(module)}")
    logger = module.Logger
    if not isinstance(logger, type):
        raise PluginError(
            f"`Logger` in {place} is a {type(logger).__name__}, not a class: "
            "write `Logger = MyLogger`"
        )
    if not callable(getattr(logger, "log", None)):
        raise PluginError(f"`Logger` in {place} has no method log(self, item)")
    return logger


def _spoken_name(kind: str, place: str) -> str:
    """``parquet`` for ``millpond_loggers.parquet_logger`` and for ``mine/parquet_logger.py``."""
    name = Path(place).stem if kind == "file" else place.rpartition(".")[2]
    return name.removesuffix("_logger") or name


def _import_module(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is not None and (name == error.name or name.startswith(f"{error.name}.")):
            raise PluginError(
                f"no module named '{error.name}' (wanted: '{name}'); is its package installed "
                f"for {sys.executable}, or its folder on PYTHONPATH?"
            ) from None
        raise PluginError(_inside(name, error)) from error
    except (Exception, SystemExit) as error:  # Whatever a user's module raises when imported.
        raise PluginError(_inside(name, error)) from error


def _import_file(path: Path) -> ModuleType:
    if not path.is_file():
        raise PluginError(f"no file {path}")
    name = _module_name(path)
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise PluginError(f"{path} is no Python file: its name must end in .py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    sys.path.append(str(path.parent))  # It may import its neighbours.
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:  # Whatever a user's file raises when imported.
        raise PluginError(_inside(str(path), error)) from error
    return module


def _module_name(path: Path) -> str:
    """The name of the file; but `json.py` must not take the place of the library's, ever."""
    name = path.stem
    is_taken = name in sys.modules
    if not is_taken and name.isidentifier():
        spec = importlib.util.find_spec(name)
        is_taken = spec is not None and spec.origin != str(path)
    return f"millpond_plugin_{name}" if is_taken else name


def _inside(place: str, error: BaseException) -> str:
    return f"importing {place} failed inside it:\n{describe(error)}"


def _suggestion(module: ModuleType) -> str:
    classes = [
        name
        for name, value in vars(module).items()
        if isinstance(value, type) and value.__module__ == module.__name__ and hasattr(value, "log")
    ]
    return f": write `Logger = {classes[-1]}` at its end" if classes else ": export the class as it"


def main(arguments: list[str]) -> int:
    """Try to load one: ``python -m millpond_loggers.plugin KIND PLACE FOLDER...``.

    Its options come as JSON on the standard input; nothing there is no options.  The logger is not
    made, so nothing is written.

    Returns:
        0, or which of the two is wrong: `EXIT_MODULE` or `EXIT_OPTIONS`.
    """
    kind, place, *folders = arguments
    options = orjson.loads(sys.stdin.buffer.read() or b"{}")
    sys.path.extend(folders)
    try:
        # A class without `Options` takes what it likes.
        model: Any = getattr(load(kind, place), "Options", None)
        if hasattr(model, "model_validate"):
            check_options(model, options)
    except PluginError as error:
        sys.stderr.write(f"{error}\n")
        return EXIT_MODULE
    except ConfigError as error:
        sys.stderr.write(f"{error}\n")
        return EXIT_OPTIONS
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
