"""A logger that writes tables: ``parquet/part-000001.parquet`` and so on, a row for each result.

The columns of a part are ``id``, ``environment``, ``model`` and whatever else the renderer sent
along, the channels, and the render arguments as ``render_args.<name>``.  `columns` says what kinds
of values they have.  Scalar channels keep their type, NaN and the infinities; small arrays are
lists of their shape; complex numbers are lists of real and imaginary part; larger arrays are left
out, but for those that the option ``images`` names: they are the bytes of a PNG.

A part has the columns that its results have, so later parts may have more of them.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, BinaryIO, ClassVar, Final, Literal

from pydantic import Field

from millpond_loggers.audit import Channels
from millpond_loggers.base import BaseLogger, ResultBuffer
from millpond_loggers.files.columns import channel_column
from millpond_loggers.files.item_json import item_json, plain_text
from millpond_loggers.files.journal import Record
from millpond_loggers.files.names import write_all
from millpond_loggers.files.parquet_table import kinds_of, make_table
from millpond_loggers.files.part_folder import last_part
from millpond_loggers.files.part_options import PartOptions, count_recorded, names_of, open_parts
from millpond_loggers.images.channel_png import plan_images
from millpond_loggers.options import FileName

# A bound against renderers that put data into the names of their arguments.
COLUMN_COUNT_MAX: Final = 4096


class ParquetOptions(PartOptions):
    """The options of the Parquet logger."""

    folder: FileName = Field("parquet", description="The folder of the parts in the output folder.")
    file: FileName = Field("part.parquet", description="What a part is called, without its number.")
    images: list[str] = Field([], description="Channels to put in as the bytes of a PNG.")
    array_elements_max: int = Field(
        64, ge=1, description="Arrays with more numbers than this are left out."
    )
    compression: Literal["zstd", "snappy", "none"] = Field(
        "zstd", description="How the columns are compressed."
    )


class ParquetLogger(BaseLogger):
    """Writes the parts."""

    Options = ParquetOptions
    extra: ClassVar[str | None] = "parquet"
    libraries: ClassVar[tuple[str, ...]] = ("pyarrow",)

    def __init__(
        self, root_dir: str, result_buffer: ResultBuffer, config: Mapping[str, Any]
    ) -> None:
        """Open the folder, and make a part of what a dead process left.

        Raises:
            ConfigError: The option ``images`` names what has no PNG.
            OSError: A file cannot be written.
        """
        super().__init__(root_dir, result_buffer, config)
        self._encoders = plan_images(
            self.buffer.channels, self.options.images, key=f"{self.name}.options.images"
        )
        channels = self._plan_channels()
        self._recorded = list(channels)
        self._kinds = self._kinds_of_last_part()
        self._names = set(self._kinds)
        about = {"channels": list(channels.values())}
        self._parts = open_parts(self, about=about, write=self._write)
        self.regid = self.buffer.register()

    def log(self, item: dict[str, Any] | None) -> None:
        """Take the row of one result; it is safe after `flush`.

        Raises:
            ValueError: There are more columns than `COLUMN_COUNT_MAX`, or an image has a value
                that its PNG cannot hold.
        """
        if item is None:
            self.end()
            return
        key = self.buffer.key_of(item["result_ix"])
        if key in self._parts.known:
            return
        self._check_names(item)
        arrays = self.buffer[item["result_ix"]]
        pieces: list[Any] = [item_json(item)]
        for name in self._recorded:
            encode = self._encoders.get(name)
            pieces.append(arrays[name] if encode is None else encode(arrays[name]))
        self._parts.append(key, pieces)

    def flush(self) -> None:
        """Make the rows of this batch safe, and write a part if there is enough for it.

        Raises:
            OSError: They cannot be written; no result since the last flush is recorded.
        """
        self._parts.flush()

    def end(self) -> None:
        """Write what waits as the last part.  The second time does nothing."""
        self._parts.close()

    def _plan_channels(self) -> dict[str, dict[str, Any]]:
        """What is said in a journal of each channel that is recorded."""
        return {
            name: {
                "column": channel_column(name),
                "shape": shape,
                "dtype": dtype,
                "png": name in self._encoders,
            }
            for name, (shape, dtype) in self.buffer.channels.items()
            if name in self._encoders or math.prod(shape) <= self.options.array_elements_max
        }

    def _check_names(self, item: Mapping[str, Any]) -> None:
        """Remember the names of arguments and fields, of which there may not be too many."""
        names = {*item, *(f"render_args.{name}" for name in item["render_args"])}
        if names <= self._names:
            return
        count = len(self._names | names)
        if count > COLUMN_COUNT_MAX:
            new = sorted(names - self._names)[:5]
            raise ValueError(
                f"{count} columns, at most {COLUMN_COUNT_MAX} are possible; the new ones are {new}"
            )
        self._names |= names

    def _kinds_of_last_part(self) -> dict[str, str]:
        """What columns an earlier process has written, and of what kinds."""
        from pyarrow import parquet  # noqa: PLC0415

        path = last_part(self.root_dir, names_of(self))
        if path is None:
            return {}
        try:
            return kinds_of(parquet.read_schema(path))
        except (OSError, ValueError) as problem:
            self.logger.warning("part cannot be read part=%s error=%s", path.name, problem)
            return {}

    def _write(self, descriptor: int, about: Any, records: Sequence[Record]) -> None:
        import pyarrow  # noqa: PLC0415
        from pyarrow import parquet  # noqa: PLC0415

        table, self._kinds = make_table(about["channels"], records, self._kinds)
        file = pyarrow.BufferOutputStream()
        parquet.write_table(table, file, compression=self.options.compression)
        write_all(descriptor, file.getvalue())

    @staticmethod
    def recorded(root_dir: str, options: ParquetOptions, channels: Channels) -> Counter[str]:  # noqa: ARG004
        """How often each id is recorded, as it is written; nothing is changed.

        Raises:
            OSError: A file cannot be read.
        """
        return count_recorded(root_dir, options, _ids)

    @staticmethod
    def written_id(id: str, options: ParquetOptions) -> str:  # noqa: ARG004
        """An id as it is in the file."""
        return plain_text(id)


Logger = ParquetLogger


def _ids(file: BinaryIO) -> Iterator[str]:
    from pyarrow import parquet  # noqa: PLC0415

    # Not `read_table`: of the processes that end soon after it has started its threads, some abort.
    part = parquet.ParquetFile(file, pre_buffer=False)
    for batch in part.iter_batches(columns=["id"], use_threads=False):
        yield from batch.column(0).to_pylist()
