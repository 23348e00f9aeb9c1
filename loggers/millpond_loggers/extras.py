"""The libraries that a logger needs besides millpond's own: are they here, and how to get them.

A logger's class names them: ``libraries`` are what it imports, ``extra`` is what brings them all
with one ``pip install``.  Its module imports them where they are used, never at its top, so that
its options can be told without them.
"""

from __future__ import annotations

import importlib
import importlib.util
from types import ModuleType
from typing import Final

from millpond.errors import ConfigError

# Ours are not looked up: an editable installation does not say which packages it has.
OWN_PACKAGE: Final = "millpond_loggers"
OWN_DISTRIBUTION: Final = "millpond"


def require(library: str, *, extra: str | None, what: str) -> ModuleType:
    """Import a library that is not always installed.

    Args:
        library: Its import name, such as ``pyarrow.parquet``.
        extra: The extra of millpond's that brings it; None when there is none.
        what: Who needs it, such as ``parquet logger`` or ``encoding exr``.

    Raises:
        ConfigError: It is not installed, or it is and its import fails; says what to do.
    """
    return _require(library, _install_command(OWN_DISTRIBUTION, extra, library), what)


def require_all(logger: type, what: str) -> None:
    """Import every library that a logger's class names.

    Args:
        logger: What a module exports as ``Logger``.
        what: Who needs them, as in `require`.

    Raises:
        ConfigError: One is missing or cannot be imported, or ``libraries`` is no row of names.
    """
    for library in libraries_of(logger):
        _require(library, install_command(logger), what)


def libraries_of(logger: type) -> tuple[str, ...]:
    """The import names of what a logger needs.

    Raises:
        ConfigError: ``libraries`` is something else.
    """
    names = getattr(logger, "libraries", ())
    if not isinstance(names, tuple | list) or not all(isinstance(name, str) for name in names):
        raise ConfigError(
            f"{logger.__name__}.libraries is {names!r}, not a tuple of import names: "
            'write libraries = ("pyarrow",)'
        )
    return tuple(names)


def is_installed(library: str) -> bool:
    """Whether a library can be found; it is not imported, only the packages around it."""
    try:
        return importlib.util.find_spec(library) is not None
    except (ImportError, ValueError):  # A package around it is missing, or half made.
        return False


def install_command(logger: type) -> str:
    """What installs the libraries of a logger's class.

    An extra is of the distribution whose class names it: one that derives from a logger of ours
    has our extra, unless it has its own.
    """
    owner = next((base for base in logger.__mro__ if "extra" in vars(base)), logger)
    distribution = _distribution_of(owner.__module__.partition(".")[0])
    extra = getattr(logger, "extra", None) if distribution else None
    return _install_command(distribution, extra, *libraries_of(logger))


def _require(library: str, command: str, what: str) -> ModuleType:
    try:
        return importlib.import_module(library)
    except ModuleNotFoundError as error:
        missing = error.name or library
        if library == missing or library.startswith(f"{missing}."):
            problem = f"{what} needs {missing}, which is not installed: {command}"
            raise ConfigError(problem) from None
        problem = f"{what} needs {library}, which needs {missing}, which is not installed"
        raise ConfigError(f"{problem}: {command}") from None
    except Exception as error:  # Whatever a library raises that is half installed.
        problem = f"{what} needs {library}, which is installed and cannot be imported"
        raise ConfigError(f"{problem}: {type(error).__name__}: {error}") from error


def _install_command(distribution: str, extra: str | None, *libraries: str) -> str:
    if extra is not None:
        return f'pip install "{distribution}[{extra}]"'
    tops = dict.fromkeys(library.partition(".")[0] for library in libraries)
    return f"pip install {' '.join(tops)}"


def _distribution_of(package: str) -> str:
    """The distribution that a top-level package came with; nothing for a file of the user's."""
    if package == OWN_PACKAGE:
        return OWN_DISTRIBUTION
    # Not needed by a logger that finds its libraries, and slow to import.
    from importlib.metadata import packages_distributions  # noqa: PLC0415

    return next(iter(packages_distributions().get(package, ())), "")
