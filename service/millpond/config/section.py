"""What the models of the configuration share: the kinds of values, and how one is refused."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Annotated, Final

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Strict
from pydantic_core import PydanticCustomError

_NAME: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}")
_SIZE: Final = re.compile(r"([0-9]{1,15}(?:\.[0-9]{1,15})?) *([A-Za-z]*)")
_UNIT_BYTES: Final = {
    "": 1,
    "B": 1,
    "kB": 10**3,
    "KB": 10**3,
    "MB": 10**6,
    "GB": 10**9,
    "TB": 10**12,
    "KiB": 2**10,
    "MiB": 2**20,
    "GiB": 2**30,
    "TiB": 2**40,
}


def problem_at(problem: str, *at: str | int) -> PydanticCustomError:
    """An error of a validator at a key beneath the value that it checks."""
    return PydanticCustomError("problem_at", "{problem}", {"problem": problem, "at": at})


def _check_name(name: str) -> str:
    if not _NAME.fullmatch(name):
        raise ValueError(
            "a name has letters, digits, '_', '.' and '-', at most 64, "
            "and begins with a letter, a digit or '_'"
        )
    return name


def _absolute(path: Path) -> Path:
    """The path with ``~`` expanded, from the current folder, if the system can take it."""
    try:
        if b"\0" in os.fsencode(path):
            raise ValueError("a path cannot contain a NUL")
        return Path.cwd() / path.expanduser()
    except RuntimeError as error:
        raise ValueError(str(error)) from None


def _refuse_empty(path: object) -> object:
    if path == "":
        raise ValueError("write a path")
    return path


def _size_bytes(size: object) -> object:
    """``"512MiB"`` as a number of bytes."""
    if not isinstance(size, str):
        return size
    match = _SIZE.fullmatch(size)
    if not match or match[2] not in _UNIT_BYTES:
        raise ValueError("write a size such as 512MiB, 2GiB or a number of bytes")
    return int(float(match[1]) * _UNIT_BYTES[match[2]])


def empty_if_none(section: object) -> object:
    """A section whose keys are all commented out says nothing."""
    return {} if section is None else section


Count = Annotated[int, Strict()]
Number = Annotated[float, Strict()]
Name = Annotated[str, AfterValidator(_check_name)]
FilePath = Annotated[Path, BeforeValidator(_refuse_empty), AfterValidator(_absolute)]
ByteCount = Annotated[Count, BeforeValidator(_size_bytes)]


class Section(BaseModel):
    """A mapping in the file.  Unknown keys are refused, values never change."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)
