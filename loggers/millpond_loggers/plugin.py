"""Finding and importing a logger's module, so that each mistake has its own message."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import os
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any, Final

import orjson
from pydantic import BaseModel

from millpond.errors import ConfigError
from millpond_loggers.base import BaseLogger
from millpond_loggers.extras import OWN_PACKAGE, require_all
from millpond_loggers.options import check_options
from millpond_loggers.process.problem import describe
from millpond_loggers.process.threedb_loggers import is_threedb

EXIT_MODULE: Final = 1
EXIT_OPTIONS: Final = 2
# Options by which loggers say where they write.
PLACES: Final = ("folder", "file")


class PluginError(Exception):
    """A module that cannot serve as a logger; the message says why and what to do."""


def load(kind: str, place: str) -> Callable[..., Any]:
    """Import a module and return its ``Logger``.

    Args:
        kind: ``module`` or ``file``.
        place: The dotted name of the module, or the path of the file.

    Raises:
        PluginError: Not found, fails inside, has no ``Logger``, or that is not a logger, or one
            that cannot be made as loggers are, or whose libraries are not installed.
    """
    logger = find_logger(kind, place)
    try:
        require_all(logger, what=f"{_spoken_name(kind, place)} logger")
    except ConfigError as error:
        raise PluginError(error.problem) from error
    _check_arguments(logger, place)
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
    is_inherited = getattr(logger, "log", None) is BaseLogger.log
    if is_inherited and not callable(getattr(logger, "log_many", None)):
        raise PluginError(
            f"`Logger` in {place} has neither log(self, item) nor log_many(self, items) of its "
            "own: define one of them"
        )
    return logger


def flush_note(logger: object) -> str:
    """What a logger's author should know who has not defined ``flush``; nothing if all is well.

    Args:
        logger: A logger or its class.
    """
    kind = logger if isinstance(logger, type) else type(logger)
    if kind.__module__.partition(".")[0] == OWN_PACKAGE or is_threedb(kind):
        return ""
    if callable(getattr(logger, "flush", None)) or getattr(logger, "keeps_slots", False):
        return ""
    return (
        f"{kind.__name__} has no flush(): what it keeps in memory is lost if it dies, though it "
        "counts as delivered: define flush()"
    )


def _check_arguments(logger: type, place: str) -> None:
    """See whether it takes what loggers are made with."""
    try:
        signature = inspect.signature(logger)
    except (TypeError, ValueError):
        return  # It is written in C, or has a metaclass that does not say.
    try:
        signature.bind("root_dir", "result_buffer", "config")
    except TypeError as error:
        raise PluginError(
            f"`Logger` in {place} cannot be made with (root_dir, result_buffer, config): {error}; "
            "write def __init__(self, root_dir, result_buffer, config)"
        ) from None


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
    made, so nothing is written.  If all is well, a line of JSON goes to the standard output::

        {"writes": {"file": "details.csv"}, "note": ""}

    what its options say about where it writes, and what its author should know.

    Returns:
        0, or which of the two is wrong: `EXIT_MODULE` or `EXIT_OPTIONS`.
    """
    kind, place, *folders = arguments
    options = orjson.loads(sys.stdin.buffer.read() or b"{}")
    sys.path.extend(folders)
    # What a module prints when it is imported is no part of the answer, whichever way it does.
    answer_fd = os.dup(1)
    os.dup2(2, 1)
    try:
        logger = load(kind, place)
        # A class without `Options` takes what it likes.
        model: Any = getattr(logger, "Options", None)
        if hasattr(model, "model_validate"):
            options = check_options(model, options)
    except PluginError as error:
        sys.stderr.write(f"{error}\n")
        return EXIT_MODULE
    except ConfigError as error:
        sys.stderr.write(f"{error}\n")
        return EXIT_OPTIONS
    answer = {"writes": _writes(options), "note": flush_note(logger)}
    with os.fdopen(answer_fd, "wb") as file:
        file.write(orjson.dumps(answer, option=orjson.OPT_APPEND_NEWLINE))
    return 0


def _writes(options: Any) -> dict[str, str]:
    """Where a logger with these options writes, as far as they say so."""
    given = dict(options) if isinstance(options, (BaseModel, dict)) else {}
    return {key: given[key] for key in PLACES if isinstance(given.get(key), str)}


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
