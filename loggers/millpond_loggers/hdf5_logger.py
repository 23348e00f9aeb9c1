"""A logger that writes HDF5: ``hdf5/part-000001.h5`` and so on, every array as it is.

In a part each channel is a dataset of the channel's type; its first axis is the result.  ``id`` is
text, ``render_args`` and ``fields`` (``environment``, ``model`` and whatever else the renderer sent
along) are JSON, one for each result too.  A channel that is called like one of these three is
``channels.<name>``.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, BinaryIO, ClassVar, Final, Literal

import numpy as np
import orjson
from pydantic import Field

from millpond.config.section import ByteCount
from millpond_loggers.audit import Channels
from millpond_loggers.base import BaseLogger, ResultBuffer
from millpond_loggers.files.item_json import ARGUMENTS, item_json, plain_text
from millpond_loggers.files.journal import Record
from millpond_loggers.files.names import write_all
from millpond_loggers.files.part_options import (
    PART_BYTES_MAX,
    PartOptions,
    count_recorded,
    open_parts,
)
from millpond_loggers.options import FileName

TEXTS: Final = ("id", ARGUMENTS, "fields")
# Datasets are stored in blocks of whole rows, which are compressed and read as one: about so many
# bytes, for no more fit into the cache that HDF5 has for a dataset.
BLOCK_BYTES: Final = 2**18


class HDF5Options(PartOptions):
    """The options of the HDF5 logger."""

    folder: FileName = Field("hdf5", description="The folder of the parts in the output folder.")
    file: FileName = Field("part.h5", description="What a part is called, without its number.")
    part_rows: int = Field(
        1000, ge=1, le=1_000_000, description="A part is written when it has so many results."
    )
    part_bytes: ByteCount = Field(
        128 * 2**20,
        ge=1,
        le=PART_BYTES_MAX,
        description="A part is written when so many bytes wait for it, such as 64MiB.",
    )
    compression: Literal["none", "lzf", "gzip"] = Field(
        "none", description="How arrays are compressed: lzf is fast, gzip is known everywhere."
    )
    gzip_level: int = Field(1, ge=0, le=9, description="From 0, none, to 9, slow and smallest.")


class HDF5Logger(BaseLogger):
    """Writes the parts."""

    Options = HDF5Options
    extra: ClassVar[str | None] = "hdf5"
    libraries: ClassVar[tuple[str, ...]] = ("h5py",)

    def __init__(
        self, root_dir: str, result_buffer: ResultBuffer, config: Mapping[str, Any]
    ) -> None:
        """Open the folder, and make a part of what a dead process left.

        Raises:
            OSError: A file cannot be written.
        """
        super().__init__(root_dir, result_buffer, config)
        channels = self.buffer.channels
        about = [[_dataset(name), shape, dtype] for name, (shape, dtype) in channels.items()]
        self._parts = open_parts(self, about=about, write=self._write)
        self.regid = self.buffer.register()

    def log(self, item: dict[str, Any] | None) -> None:
        """Take one result; it is safe after `flush`."""
        if item is None:
            self.end()
            return
        result_ix = item["result_ix"]
        arrays = self.buffer[result_ix]
        self._parts.append(self.buffer.key_of(result_ix), [item_json(item), *arrays.values()])

    def flush(self) -> None:
        """Make the results of this batch safe, and write a part if there is enough for it.

        Raises:
            OSError: They cannot be written; no result since the last flush is recorded.
        """
        self._parts.flush()

    def end(self) -> None:
        """Write what waits as the last part.  The second time does nothing."""
        self._parts.close()

    def _write(self, descriptor: int, about: Any, records: Sequence[Record]) -> None:
        import h5py  # noqa: PLC0415

        # In memory: when HDF5 itself writes to a disk that is full, it can take the process along.
        with h5py.File("part", "w", driver="core", backing_store=False, track_order=True) as file:
            items = [orjson.loads(record.pieces[0]) for record in records]
            for name, texts in _texts(items).items():
                file.create_dataset(name, data=texts, dtype=h5py.string_dtype())
            for place, (name, shape, dtype) in enumerate(about, 1):
                pieces = [record.pieces[place] for record in records]
                self._add_channel(file, name, tuple(shape), np.dtype(dtype), pieces)
            file.flush()
            content = file.id.get_file_image()
        write_all(descriptor, content)

    def _add_channel(
        self,
        file: Any,
        name: str,
        shape: tuple[int, ...],
        dtype: np.dtype[Any],
        pieces: Sequence[memoryview],
    ) -> None:
        row_bytes = math.prod(shape) * dtype.itemsize
        rows = min(len(pieces), max(1, BLOCK_BYTES // row_bytes))
        dataset = file.create_dataset(
            name, (len(pieces), *shape), dtype, chunks=(rows, *shape), **self._compression()
        )
        for start in range(0, len(pieces), rows):
            block = np.frombuffer(b"".join(pieces[start : start + rows]), dtype)
            dataset[start : start + rows] = block.reshape(-1, *shape)

    def _compression(self) -> dict[str, Any]:
        match self.options.compression:
            case "gzip":
                level = self.options.gzip_level
                return {"compression": "gzip", "compression_opts": level, "shuffle": True}
            case "lzf":
                return {"compression": "lzf", "shuffle": True}
        return {}

    @staticmethod
    def recorded(root_dir: str, options: HDF5Options, channels: Channels) -> Counter[str]:  # noqa: ARG004
        """How often each id is recorded, as it is written; nothing is changed.

        Raises:
            OSError: A file cannot be read.
        """
        return count_recorded(root_dir, options, _ids)

    @staticmethod
    def written_id(id: str, options: HDF5Options) -> str:  # noqa: ARG004
        """An id as it is in the file."""
        return plain_text(id)


Logger = HDF5Logger


def _dataset(channel: str) -> str:
    is_taken = channel in TEXTS or channel.startswith("channels.")
    return f"channels.{channel}" if is_taken else channel


def _texts(items: Sequence[Mapping[str, Any]]) -> dict[str, list[str]]:
    """The datasets of text, from the items of all results."""
    known = {"id", ARGUMENTS}
    fields = [{name: item[name] for name in item if name not in known} for item in items]
    return {
        "id": [item["id"] for item in items],
        ARGUMENTS: [orjson.dumps(item[ARGUMENTS]).decode() for item in items],
        "fields": [orjson.dumps(some).decode() for some in fields],
    }


def _ids(file: BinaryIO) -> list[str]:
    import h5py  # noqa: PLC0415

    with h5py.File(file, "r") as part:
        return list(part["id"].asstr()[:])
