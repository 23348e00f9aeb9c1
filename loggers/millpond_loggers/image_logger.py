"""A logger that writes each image of a result to ``images/<id>_<channel>.<extension>``.

A channel is an image by its shape, height and width being at least 2: ``(H, W)``, ``(1, H, W)``,
``(3 or 4, H, W)``, ``(H, W, 1)``, ``(H, W, 3 or 4)``; what could be two of them is the first.
Complex numbers are no image.  With the encoding ``auto``, which is the default:

=================  =====================================  =======================================
values             one plane                              colour: three or four planes
=================  =====================================  =======================================
bool               PNG, 0 and 255                         PNG, 0 and 255
uint8              PNG                                    PNG
other integers     PNG of 8 or 16 bits, TIFF of int32     PNG if all are 0 to 255, else NPY
                   or NPY: the first that holds them all
float              TIFF of float32, or NPY if some        PNG: 0 to 1 becomes 0 to 255; what is
                   float64 would not be the same          beyond is clipped, NaN becomes 0
=================  =====================================  =======================================

So one plane (depth, segmentation) is always lossless.  NPY holds ``(H, W)`` or ``(H, W, C)``.
A file is whole under its name or not there; a result that comes again writes the same file again.
The other encodings are in ``docs/loggers/image.md``.
"""

from __future__ import annotations

import traceback
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from itertools import product
from pathlib import Path
from typing import Annotated, Any, ClassVar, Final

from numpy.typing import NDArray
from pydantic import BeforeValidator, Field, model_validator

from millpond.errors import ConfigError
from millpond_loggers.audit import Channels
from millpond_loggers.base import BaseLogger, Options, ResultBuffer
from millpond_loggers.files.id_folder import DIGITS_MAX, IdFolder, subfolder
from millpond_loggers.files.names import file_name
from millpond_loggers.images.encoders import COMPRESS_LEVEL, QUALITY
from millpond_loggers.images.image_encoding import (
    EXTENSIONS,
    Encode,
    Encoding,
    Settings,
    is_image,
    plan_encoding,
)
from millpond_loggers.options import FileName

FOLDER_NAME: Final = "images"
OTHERS: Final = "*"
THREADS_MAX: Final = 64
# Encoded files that wait for their turn to be written are so many for each thread.
AHEAD_PER_THREAD: Final = 2


def _for_each_channel(encoding: object) -> object:
    return {OTHERS: encoding} if isinstance(encoding, str) else encoding


class ImageOptions(Options):
    """The options of the image logger."""

    channels: list[str] | None = Field(
        None, description="The channels to write; by default every one that is an image."
    )
    encoding: Annotated[dict[str, Encoding], BeforeValidator(_for_each_channel)] = Field(
        {OTHERS: "auto"},
        description="How images are written: one word for all, or a mapping of channels to words, "
        "where `*` stands for all others (else auto).",
    )
    quality: int = Field(
        QUALITY, ge=1, le=100, description="The quality of jpeg and webp, 1 to 100 (best)."
    )
    compress_level: int = Field(
        COMPRESS_LEVEL,
        ge=0,
        le=9,
        description="How hard png and tiff are compressed: 0 not at all, 1 fast, 9 smallest.",
    )
    threads: int = Field(
        1, ge=1, le=THREADS_MAX, description="How many images are encoded at the same time."
    )
    folder: FileName = Field(
        FOLDER_NAME,
        description="Where the files lie; two loggers that write the same channels need two.",
    )
    subfolders: int = Field(
        0,
        ge=0,
        le=DIGITS_MAX,
        description="Spread the files over 16, 256 or 4096 subfolders (1, 2 or 3) by the id's "
        "hash; 0: one folder.",
    )

    @model_validator(mode="before")
    @classmethod
    def _check_old_names(cls, options: Any) -> Any:
        if isinstance(options, dict) and "format" in options:
            raise ValueError(
                f"there is no option 'format': write `encoding: {options['format']}`, or a "
                "mapping of channels to encodings"
            )
        return options


class ImageLogger(BaseLogger):
    """Writes the images; nothing is kept, each file is complete when `log` returns.

    Attributes:
        log_many: `log` for several results at once, of which several are encoded at the same time.
            Only if there are threads: without them each result is better off alone, since it is
            given back, tried again or blamed for a crash alone.
    """

    Options = ImageOptions
    extra: ClassVar[str | None] = "image"

    def __init__(
        self, root_dir: str, result_buffer: ResultBuffer, config: Mapping[str, Any]
    ) -> None:
        """Make the folder, and clear it of what a dead process left half written.

        Raises:
            ConfigError: The options name a channel that is none, or no image, or that cannot be
                encoded so; or the library of an encoding is not installed.
            OSError: There can be no such folder, or it is a symlink.
        """
        super().__init__(root_dir, result_buffer, config)
        images = _images(self.buffer.channels)
        self._plans = self._make_plans(images)
        self._hashed_ends = _ambiguous_ends(images)
        self._folder = IdFolder(root_dir, self.options.folder, digits=self.options.subfolders)
        threads = self.options.threads
        self._ahead_max = AHEAD_PER_THREAD * threads
        self._pool = ThreadPoolExecutor(threads, "encoder") if threads > 1 else None
        self.log_many = self._log_at_once if self._pool is not None else None
        self.regid = self.buffer.register()
        if not images:
            self.logger.warning("no channel is an image, so none is written")

    def log(self, item: dict[str, Any] | None) -> None:
        """Write the images of one result.

        Raises:
            OSError: A file cannot be written; the result must be logged again.
        """
        if item is None:
            self.end()
        elif self.log_many is not None:
            self.log_many([item])
        else:
            # All are encoded before one is written, so that no error of the disk, whose
            # traceback holds the frames it passed, can hold an array.
            for channel, extension, content in self._encoded(item["result_ix"]):
                self._write(item["id"], channel, extension, content)

    def _log_at_once(self, items: Sequence[dict[str, Any]]) -> None:
        assert self._pool is not None
        waiting: deque[tuple[str, str, Future[tuple[str, bytes]]]] = deque()
        try:
            for item in items:
                waiting.extend(self._submitted(item, self._pool))
                while len(waiting) > self._ahead_max:
                    self._write_next(waiting)
            while waiting:
                self._write_next(waiting)
        finally:
            # What is not to be written any more must not be read any more either.
            wait([future for _, _, future in waiting])

    def flush(self) -> None:
        """Do nothing: every file is complete already."""

    def end(self) -> None:
        """Close the folder.  The second time does nothing."""
        if self._pool is not None:
            self._pool.shutdown()
        self._folder.close()

    def _encoded(self, result_ix: int) -> list[tuple[str, str, bytes]]:
        """The channel, the extension and the content of each file."""
        arrays = self.buffer[result_ix]
        return [(channel, *encode(arrays[channel])) for channel, encode in self._plans.items()]

    def _submitted(
        self, item: dict[str, Any], pool: ThreadPoolExecutor
    ) -> list[tuple[str, str, Future[tuple[str, bytes]]]]:
        """The id, the channel, and the extension and content to come, of each file."""
        arrays = self.buffer[item["result_ix"]]
        return [
            # In a list that is emptied: a thread keeps its arguments for a while after the result
            # is there, and no array may be kept.
            (item["id"], channel, pool.submit(_encode_one, encode, [arrays[channel]]))
            for channel, encode in self._plans.items()
        ]

    def _write_next(self, waiting: deque[tuple[str, str, Future[tuple[str, bytes]]]]) -> None:
        id, channel, future = waiting.popleft()
        self._write(id, channel, *future.result())

    def _write(self, id: str, channel: str, extension: str, content: bytes) -> None:
        name = file_name(id, f"_{channel}.{extension}", hashed_ends=self._hashed_ends)
        self._folder.write(id, name, content)

    def _make_plans(self, images: Mapping[str, tuple[tuple[int, ...], str]]) -> dict[str, Encode]:
        options = self.options
        wanted = images if options.channels is None else options.channels
        self._check_names("channels", wanted, images)
        self._check_names("encoding", set(options.encoding) - {OTHERS}, images)
        settings = Settings(options.quality, options.compress_level)
        others = options.encoding.get(OTHERS, "auto")
        try:
            return {
                name: plan_encoding(
                    name, *images[name], options.encoding.get(name, others), settings
                )
                for name in wanted
            }
        except ValueError as problem:
            raise ConfigError(str(problem), key=f"{self.name}.options.encoding") from None

    def _check_names(
        self, option: str, names: Sequence[str] | set[str] | Mapping[str, Any], images: Channels
    ) -> None:
        for name in names:
            if name not in images:
                is_known = name in self.buffer.channels
                raise ConfigError(
                    f"'{name}' is {'not an image' if is_known else 'no channel'}; "
                    f"the images are: {', '.join(images) or 'none'}",
                    key=f"{self.name}.options.{option}",
                )

    @staticmethod
    def is_recorded(
        root_dir: str, options: ImageOptions, channels: Channels
    ) -> Callable[[str], bool]:
        """What says of an id whether each of its images is there; nothing is changed.

        An image counts in whatever encoding and subfolder it is, for these options may have been
        others when it was written.
        """
        images = _images(channels)
        ends = _ambiguous_ends(images)
        wanted = images if options.channels is None else options.channels
        folder = Path(root_dir, options.folder)
        digits = sorted(range(DIGITS_MAX + 1), key=lambda count: count != options.subfolders)

        def is_there(id: str, channel: str) -> bool:
            return any(
                (
                    folder
                    / subfolder(id, count)
                    / file_name(id, f"_{channel}.{extension}", hashed_ends=ends)
                ).is_file()
                for count, extension in product(digits, EXTENSIONS)
            )

        return lambda id: all(is_there(id, channel) for channel in wanted)


Logger = ImageLogger


def _images(channels: Channels) -> dict[str, tuple[tuple[int, ...], str]]:
    return {
        name: (shape, dtype) for name, (shape, dtype) in channels.items() if is_image(shape, dtype)
    }


def _encode_one(encode: Encode, box: list[NDArray[Any]]) -> tuple[str, bytes]:
    try:
        return encode(box.pop())
    except BaseException as problem:
        traceback.clear_frames(problem.__traceback__)  # They hold the array.
        raise


def _ambiguous_ends(names: Mapping[str, Any]) -> tuple[str, ...]:
    """The ends of ids that could belong to a channel's name: ``_left`` of ``left_rgb``."""
    return tuple(
        "_" + longer.removesuffix("_" + shorter)
        for longer in names
        for shorter in names
        if longer.endswith("_" + shorter)
    )
