"""A logger that writes tar files for training: ``shards/shard-000001.tar`` and so on.

A result is a sample: members of the same name but for what follows the first dot, side by side, as
WebDataset and others read them.  ``<key>.json`` has the id, the render arguments, whatever else the
renderer sent along, the scalar channels and small arrays; NaN and the infinities are null there.
Other channels have a member each: ``<key>.<channel>.png`` if it is an image whose values a PNG
holds, else ``<key>.<channel>.npy``.

The key is the id, if that has no dot and is safe as the name of a file.  Another one is encoded and
ends with its hash; a second result of an id in a shard has ``~2`` at its end.
"""

from __future__ import annotations

import itertools
import math
import tarfile
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, BinaryIO, Final

import orjson
from pydantic import Field

from millpond.config.section import ByteCount
from millpond_loggers.audit import Channels
from millpond_loggers.base import BaseLogger, ResultBuffer
from millpond_loggers.files.item_json import item_json, plain_text
from millpond_loggers.files.journal import Record
from millpond_loggers.files.names import file_name, write_all
from millpond_loggers.files.part_options import (
    PART_BYTES_MAX,
    PartOptions,
    count_recorded,
    open_parts,
)
from millpond_loggers.images.channel_png import plan_images
from millpond_loggers.images.encoders import encode_npy
from millpond_loggers.options import FileName

# Tar files are made of such blocks, and end with two that are empty.
BLOCK_BYTES: Final = 512


class WebDatasetOptions(PartOptions):
    """The options of the WebDataset logger."""

    folder: FileName = Field("shards", description="The folder of the shards in the output folder.")
    file: FileName = Field("shard.tar", description="What a shard is called, without its number.")
    part_bytes: ByteCount = Field(
        256 * 2**20,
        ge=1,
        le=PART_BYTES_MAX,
        description="A shard is written when so many bytes wait for it, such as 64MiB.",
    )
    images: list[str] | None = Field(
        None,
        description="Channels that become PNG; null: bool, uint8, uint16 and float colours.",
    )
    array_elements_max: int = Field(
        64, ge=1, description="Arrays with more numbers than this have a member of their own."
    )


class WebDatasetLogger(BaseLogger):
    """Writes the shards."""

    Options = WebDatasetOptions

    def __init__(
        self, root_dir: str, result_buffer: ResultBuffer, config: Mapping[str, Any]
    ) -> None:
        """Open the folder, and make a shard of what a dead process left.

        Raises:
            ConfigError: The option ``images`` names what has no PNG.
            OSError: A file cannot be written.
        """
        super().__init__(root_dir, result_buffer, config)
        channels = self.buffer.channels
        images = plan_images(channels, self.options.images, key=f"{self.name}.options.images")
        self._members: dict[str, tuple[str, Callable[[Any], bytes]]] = {}
        self._in_json: dict[str, bool] = {}  # Channel to whether it is a scalar.
        for name, (shape, _) in channels.items():
            if name in images:
                self._members[name] = f"{name}.png", images[name]
            elif math.prod(shape) > self.options.array_elements_max:
                self._members[name] = f"{name}.npy", encode_npy
            else:
                self._in_json[name] = shape == ()
        about = ["json", *(extension for extension, _ in self._members.values())]
        self._parts = open_parts(self, about=about, write=_write_shard)
        self.regid = self.buffer.register()

    def log(self, item: dict[str, Any] | None) -> None:
        """Take one sample; it is safe after `flush`.

        Raises:
            ValueError: An image has a value that its PNG cannot hold.
        """
        if item is None:
            self.end()
            return
        key = self.buffer.key_of(item["result_ix"])
        if key in self._parts.known:
            return
        arrays = self.buffer[item["result_ix"]]
        small = {
            name: arrays[name][()] if is_scalar else arrays[name]
            for name, is_scalar in self._in_json.items()
        }
        members = [encode(arrays[name]) for name, (_, encode) in self._members.items()]
        self._parts.append(key, [item_json(item, small), *members])

    def flush(self) -> None:
        """Make the samples of this batch safe, and write a shard if there is enough for it.

        Raises:
            OSError: They cannot be written; no result since the last flush is recorded.
        """
        self._parts.flush()

    def end(self) -> None:
        """Write what waits as the last shard.  The second time does nothing."""
        self._parts.close()

    @staticmethod
    def recorded(root_dir: str, options: WebDatasetOptions, channels: Channels) -> Counter[str]:  # noqa: ARG004
        """How often each id is recorded, as it is written; nothing is changed.

        Raises:
            OSError: A file cannot be read.
        """
        return count_recorded(root_dir, options, _ids)

    @staticmethod
    def written_id(id: str, options: WebDatasetOptions) -> str:  # noqa: ARG004
        """An id as it is in the file."""
        return plain_text(id)


Logger = WebDatasetLogger


def sample_key(id: str) -> str:
    """The key of the samples of an id: no dot, no slash, never empty; no two ids share one."""
    name = file_name(id, "", hashed_ends=(id,) if "." in id else ())
    return name.replace(".", "_")


def _write_shard(descriptor: int, about: Any, records: Sequence[Record]) -> None:
    now_s = int(time.time())
    used: set[str] = set()
    for record in records:
        base = key = sample_key(orjson.loads(record.pieces[0])["id"])
        for count in itertools.count(2):
            if key not in used:
                break
            key = f"{base}~{count}"  # No other key has a "~".
        used.add(key)
        write_all(descriptor, b"".join(_members(key, about, record.pieces, now_s)))
    write_all(descriptor, bytes(2 * BLOCK_BYTES))


def _members(
    key: str, extensions: Sequence[str], pieces: Sequence[memoryview], now_s: int
) -> Iterator[bytes | memoryview]:
    for extension, piece in zip(extensions, pieces, strict=True):
        member = tarfile.TarInfo(f"{key}.{extension}")
        member.size, member.mtime = len(piece), now_s
        yield member.tobuf(tarfile.GNU_FORMAT)
        yield piece
        yield bytes(-len(piece) % BLOCK_BYTES)


def _ids(file: BinaryIO) -> Iterable[str]:
    with tarfile.open(fileobj=file) as shard:
        for member in shard:
            content = shard.extractfile(member) if member.name.partition(".")[2] == "json" else None
            if content is not None:
                yield orjson.loads(content.read())["id"]
