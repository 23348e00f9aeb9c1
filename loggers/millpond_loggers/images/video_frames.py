"""Which result is which frame of which video: the lines of ``frames.jsonl``.

A line is ``{"id", "file", "frame", "group", "renderer", "sequence"}``: the last two are the key of
the result, see `ResultBuffer.key_of`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import PurePath
from typing import Any, NamedTuple

import orjson

from millpond_loggers.files.item_json import plain_text
from millpond_loggers.files.names import open_beneath


class Frame(NamedTuple):
    """One line: a frame, from 0, of a file, and the result that it shows."""

    id: str
    file: str
    frame: int
    group: str
    key: tuple[int, int]

    def to_line(self) -> bytes:
        """As it is in the file.  Half a surrogate pair in a text becomes ``\\udc80``, spelt out."""
        renderer, sequence = self.key
        line = {
            "id": plain_text(self.id),
            "file": self.file,
            "frame": self.frame,
            "group": plain_text(self.group),
            "renderer": renderer,
            "sequence": sequence,
        }
        return orjson.dumps(line) + b"\n"


def read_frames(folder: int, name: str) -> Iterator[Frame]:
    """The lines of a file, from the first; none if there is no file.

    A last one that a crash has torn is no line.

    Raises:
        OSError: It cannot be read, or is a symlink.
        ValueError: It is not a file of such lines; says which one.
    """
    try:
        descriptor = open_beneath(folder, name, os.O_RDONLY)
    except FileNotFoundError:
        return
    with os.fdopen(descriptor, "rb") as file:
        for number, line in enumerate(file, 1):
            if not line.endswith(b"\n"):
                return
            try:
                read = orjson.loads(line)
                key = (int(read["renderer"]), int(read["sequence"]))
                yield Frame(read["id"], read["file"], int(read["frame"]), read["group"], key)
            except (ValueError, LookupError, TypeError):
                raise ValueError(
                    f"{name}: line {number} says of no frame which result it shows; move the file "
                    "away, with the videos, or choose another `options: {folder: ...}`"
                ) from None


def names_in(folder: int) -> list[str]:
    """What is in a folder, sorted."""
    return sorted(os.listdir(folder))


def files_of_all_instances(folder: int, name: str) -> list[str]:
    """The files of this name, and those of the other processes of a logger that had several."""
    place = PurePath(name)
    stem = re.sub(r"-\d+\Z", "", place.stem)
    pattern = re.compile(rf"{re.escape(stem)}(-\d+)?{re.escape(place.suffix)}")
    return [found for found in names_in(folder) if pattern.fullmatch(found)]


def group_name(item: Mapping[str, Any], names: Sequence[str]) -> str:
    """What the group of a result is called.

    Args:
        item: As `log` gets it.
        names: Of its fields, or else of its render arguments; what it has not is ``none``.

    Returns:
        The values, joined by ``_``; if that could be another group's too, a JSON list of them.
    """
    arguments = item.get("render_args") or {}
    values = [str(item.get(name, arguments.get(name, "none"))) for name in names]
    if len(values) > 1 and any("_" in value for value in values):
        return orjson.dumps([plain_text(value) for value in values]).decode()
    return "_".join(values)
