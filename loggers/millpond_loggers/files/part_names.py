"""The names of numbered files that a logger makes, and of the journal beside them."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import PurePath

from millpond_loggers.files.parts import instance_name


@dataclass(frozen=True, slots=True)
class PartNames:
    """What the files of one process of a logger are called.

    Args:
        folder: The folder in the output folder.
        file: What a part would be called without its number, such as ``part.parquet``.
        instance: Which process of the logger it is, from 1.
        instances: How many there are; with several, the names have its number too.
    """

    folder: str
    file: str
    instance: int = 1
    instances: int = 1

    def part(self, number: int) -> str:
        """``part-000001.parquet``; of the second of several processes ``part-2-000001.parquet``."""
        own = PurePath(self._own)
        return f"{own.stem}-{number:06}{own.suffix}"

    @property
    def journal(self) -> str:
        """The hidden file for what is in no part yet: ``.part.parquet.journal``."""
        return f".{self._own}.journal"

    def number(self, name: str) -> int:
        """The number in the name of a part of this process; 0 for any other file."""
        digits = PurePath(name).stem.rpartition("-")[2]
        is_number = digits.isascii() and digits.isdecimal()
        return int(digits) if is_number and self.part(int(digits)) == name else 0

    def is_abandoned(self, name: str) -> bool:
        """Whether a file is the journal of a process that this logger had, and has no longer.

        One that had several processes has them in place of the only one, or fewer of them.
        """
        plain = PurePath(self.file)
        stem, suffix = re.escape(plain.stem), re.escape(plain.suffix)
        if not re.fullmatch(rf"\.{stem}(-[1-9]\d*)?{suffix}\.journal", name, re.ASCII):
            return False
        return all(
            name != replace(self, instance=instance + 1).journal
            for instance in range(self.instances)
        )

    @property
    def _own(self) -> str:
        return instance_name(self.file, self.instance, self.instances)
