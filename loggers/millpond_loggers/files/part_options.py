"""The options that all loggers share that write numbered parts, and what follows from them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any, BinaryIO, Final

from pydantic import Field

from millpond.config.section import ByteCount
from millpond_loggers.base import BaseLogger, Options
from millpond_loggers.files.part_folder import Bounds, PartFolder, Write, recorded_ids
from millpond_loggers.files.part_names import PartNames
from millpond_loggers.options import FileName

# The memory that a part takes while it is written is some times its size.
PART_BYTES_MAX: Final = 2**30


class PartOptions(Options):
    """The options of a logger that writes parts; the two names have other defaults in each."""

    folder: FileName = Field("parts", description="The folder of the parts in the output folder.")
    file: FileName = Field("part", description="What a part is called, without its number.")
    part_rows: int = Field(
        10_000, ge=1, le=1_000_000, description="A part is written when it has so many results."
    )
    part_bytes: ByteCount = Field(
        64 * 2**20,
        ge=1,
        le=PART_BYTES_MAX,
        description="A part is written when so many bytes wait for it, such as 64MiB.",
    )
    part_s: float = Field(
        300,
        gt=0,
        allow_inf_nan=False,
        description="A part is written when a result comes that is so many seconds younger than "
        "the first one in it.",
    )


def names_of(logger: BaseLogger) -> PartNames:
    """What the files of a logger are called that has these options."""
    options = logger.options
    return PartNames(options.folder, options.file, logger.instance, logger.instances)


def open_parts(logger: BaseLogger, *, about: Any, write: Write) -> PartFolder:
    """Open the folder of a logger that has these options.

    Args:
        logger: It.
        about: What `write` must know of all records, as plain values.
        write: Fills the file of a part.

    Raises:
        OSError: See `PartFolder`.
    """
    options = logger.options
    bounds = Bounds(rows=options.part_rows, size=options.part_bytes, age_s=options.part_s)
    return PartFolder(logger.root_dir, names_of(logger), bounds, about=about, write=write)


def count_recorded(
    root_dir: str, options: Any, ids_of: Callable[[BinaryIO], Iterable[str]]
) -> Counter[str]:
    """How often each id is recorded, as `millpond_loggers.audit` asks for it.

    Args:
        root_dir: The output folder.
        options: A `PartOptions`, whose ``file`` is that of one process.
        ids_of: The ids in the file of a part.

    Raises:
        OSError: Something cannot be read.
    """
    return recorded_ids(root_dir, PartNames(options.folder, options.file), ids_of)
