"""What went wrong in a logger, told so that its author finds the place: what, and where.

A text is the traceback, and its last line says it all, for that line is what people see first::

    KeyError: 'losss' (my_logger.py:17, in log)
"""

from __future__ import annotations

import inspect
import os
import sysconfig
from collections.abc import Callable, Iterable
from pathlib import Path
from traceback import FrameSummary, TracebackException
from typing import Any, Final

import millpond

# Of the text of an error, in the last line of those that have several.
ERROR_CHARACTERS_MAX: Final = 500
# What numpy says of an array that may not be written to, and what to do about it.
_READ_ONLY: Final = ("assignment destination is read-only", "output array is read-only")
_COPY_FIRST: Final = ": it is shared memory, so change a copy of it, array.copy()"
# What Linux calls an error has a number below this; anything else in an errno is a user's own.
ERRNO_MAX: Final = 4096

_OURS: Final = Path(__file__).parents[1]
_CALLERS: Final = tuple(str(_OURS / name) for name in ("__main__.py", "process/runner.py"))
# Not an author's own code: ours, that of the standard library, and what has no file.
_OTHERS: Final = (
    *(f"{folder}{os.sep}" for folder in (_OURS, Path(millpond.__file__).parent)),
    *(f"{sysconfig.get_path(name)}{os.sep}" for name in ("stdlib", "platstdlib")),
    "<",
)
_INSTALLED: Final = tuple(f"{os.sep}{name}{os.sep}" for name in ("site-packages", "dist-packages"))


class OwnError(Exception):
    """What we find wrong with an author's code when none of it is running: it has no traceback.

    Attributes:
        place: What to look at, such as ``mine.py:17, in log``; nothing when it is not known.
    """

    place: str = ""


def describe(error: BaseException) -> str:
    """The traceback of an error; its last line says what it is and where it comes from."""
    if isinstance(error, OwnError):
        return _with_place(_in_one_line(error), error.place)
    told = TracebackException.from_exception(error)
    text = "".join(told.format()).rstrip("\n")
    own_lines = "".join(told.format_exception_only()).rstrip("\n")
    # Some have more lines: those with notes, groups, and errors whose text has several.
    if "\n" in own_lines or not text.endswith(own_lines):
        text += f"\n{_in_one_line(error)}"
    if text.endswith(_READ_ONLY):
        text += _COPY_FIRST
    return _with_place(text, _place(told.stack))


def place_of(method: Callable[..., Any]) -> str:
    """Where a method begins, as `describe` tells it; nothing when it is ours, or has no Python."""
    code = getattr(inspect.unwrap(method), "__code__", None)
    if code is None or code.co_filename.startswith(f"{_OURS}{os.sep}"):
        return ""
    return f"{Path(code.co_filename).name}:{code.co_firstlineno}, in {code.co_name}"


def errno_of(error: BaseException) -> int:
    """The number of an error of the system, such as ENOSPC; 0 for any other one."""
    number = error.errno if isinstance(error, OSError) else None
    return number if type(number) is int and 0 < number < ERRNO_MAX else 0


def _with_place(text: str, place: str) -> str:
    return f"{text} ({place})\n" if place else f"{text}\n"


def _place(frames: Iterable[FrameSummary]) -> str:
    """The innermost line of the author's own code, else the line in the method that was called."""
    called = [frame for frame in frames if frame.filename not in _CALLERS]
    own = [frame for frame in called if _is_own(frame.filename)]
    if not called:
        return ""
    frame = own[-1] if own else called[0]
    return f"{Path(frame.filename).name}:{frame.lineno}, in {frame.name}"


def _is_own(path: str) -> bool:
    return not path.startswith(_OTHERS) and not any(part in path for part in _INSTALLED)


def _in_one_line(error: BaseException) -> str:
    text = " ".join(str(error).split())
    if len(text) > ERROR_CHARACTERS_MAX:
        text = f"{text[:ERROR_CHARACTERS_MAX]} ..."
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
