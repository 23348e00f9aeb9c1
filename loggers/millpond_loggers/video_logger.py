"""A logger that writes the results of each group as the frames of a video.

``videos/<group>-0001.mp4`` holds the results of one group, in order; ``group_by`` says what makes
a group, and without it the run is one group, called by its channel.  ``videos/frames.jsonl`` says
which result is which frame of which file.  A video that is still growing is ``<group>-0001.ts``: it
can be played, and becomes the MP4 when it is full, at the end of the run, or at the next start.

What was flushed survives a kill: first the frames are written, then their lines.  At the next
start each grown file is cut to the frames that have a line, the results without one come again, and
new files are begun.
"""

from __future__ import annotations

import os
import re
from collections import Counter, OrderedDict
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import cache
from itertools import count
from pathlib import Path
from typing import Any, ClassVar, Final

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from millpond.errors import ConfigError
from millpond_loggers.audit import Channels
from millpond_loggers.base import BaseLogger, Options, ResultBuffer
from millpond_loggers.files.item_json import plain_text
from millpond_loggers.files.known_keys import Key, remember
from millpond_loggers.files.locked_file import has_name, lock
from millpond_loggers.files.names import file_name, open_beneath, open_folder, remove_leftovers
from millpond_loggers.files.parts import instance_name
from millpond_loggers.files.row_file import RowFile
from millpond_loggers.images.pixels import Array, image_layout, to_bytes
from millpond_loggers.images.video_frames import (
    Frame,
    files_of_all_instances,
    group_name,
    names_in,
    read_frames,
)
from millpond_loggers.images.video_part import (
    CRF_MAX,
    RAW_SUFFIX,
    SUFFIX,
    Codec,
    VideoPart,
    VideoSettings,
    finish,
    frames_in,
    raw_name,
)
from millpond_loggers.options import FileName

# As many keys as `RowFile` can know, and more: what it would drop must not become a frame.
KEYS_KEPT: Final = 16_384
GROWN: Final = re.compile(rf".*-\d{{4,}}{re.escape(RAW_SUFFIX)}", re.DOTALL)


class VideoOptions(Options):
    """The options of the video logger."""

    channel: str | None = Field(
        None, description="The channel to show; by default the first image of colours."
    )
    group_by: list[str] = Field(
        [],
        description="Fields or render arguments; results that agree in them share a video, such "
        "as environment and model.",
    )
    fps: float = Field(24, ge=0.1, le=240, description="Frames per second.")
    codec: Codec = Field(
        "auto", description="h264, mpeg4, or auto: h264 where its encoder is installed."
    )
    crf: int = Field(
        20, ge=0, le=CRF_MAX, description="How much is lost: 0 least, 18 hardly visible, 51 most."
    )
    frames_max: int = Field(
        10_000, ge=1, description="A video with so many frames is done, and the next one begins."
    )
    open_max: int = Field(
        64,
        ge=1,
        le=512,
        description="So many videos grow at once; for another one the one untouched longest ends.",
    )
    folder: FileName = Field("videos", description="The folder for the videos.")
    file: FileName = Field("frames.jsonl", description="The list of frames in that folder.")


class VideoLogger(BaseLogger):
    """Writes the videos and the list of their frames."""

    Options = VideoOptions
    extra: ClassVar[str | None] = "video"
    libraries: ClassVar[tuple[str, ...]] = ("av",)

    def __init__(
        self, root_dir: str, result_buffer: ResultBuffer, config: Mapping[str, Any]
    ) -> None:
        """Open the list, and finish the videos of processes that died.

        Raises:
            ConfigError: The channel is none, or cannot be shown.
            OSError: A file cannot be opened.
            ValueError: The list is no such list.
        """
        super().__init__(root_dir, result_buffer, config)
        options = self.options
        self._channel, self._to_planes = self._choose_channel(options.channel)
        self._settings = VideoSettings(options.fps, options.codec, options.crf)
        self._folder = open_folder(root_dir, name=options.folder)
        remove_leftovers(self._folder)
        file = instance_name(options.file, self.instance, self.instances)
        self._rows = RowFile(str(Path(root_dir, options.folder)), file, starts_with=b"{")
        self._growing: OrderedDict[str, VideoPart] = OrderedDict()  # The last used last.
        self._ending: list[VideoPart] = []
        self._waiting: dict[Key, Frame] = {}
        self._known: dict[Key, None] = {}
        self._last_numbers: dict[str, int] = {}
        self._listed: Counter[str] = Counter()  # Lines of each file when this process began.
        self._take_over(file)
        self.regid = self.buffer.register()

    def log(self, item: dict[str, Any] | None) -> None:
        """Encode the frame of one result; it is written by `flush`.

        Raises:
            OSError: No video can be begun; the result must be logged again.
        """
        if item is None:
            self.end()
            return
        key = self.buffer.key_of(item["result_ix"])
        if key in self._known or key in self._waiting:
            return
        group = group_name(item, self.options.group_by) if self.options.group_by else self._channel
        picture = _to_rgb(self._to_planes(self.buffer[item["result_ix"]][self._channel]))
        part = self._part_of(group)
        try:
            number = part.add(picture)
        except BaseException:
            self._retire(group)  # The encoder may be in any state.
            raise
        self._waiting[key] = Frame(item["id"], part.name, number, group, key)
        if part.frames == self.options.frames_max:
            self._retire(group)

    def flush(self) -> None:
        """Write the frames of this batch, and then their lines.

        Raises:
            OSError: They cannot be written; no result since the last flush is recorded.
        """
        parts = [*self._ending, *self._growing.values()]
        try:
            for part in parts:
                part.write()
            for key, frame in self._waiting.items():
                self._rows.append(frame.to_line(), key)
            self._rows.flush()
        except BaseException:
            self._undo()
            self._finish_ending()
            raise
        for part in parts:
            part.settle()
        remember(self._known, self._waiting, kept=KEYS_KEPT)
        self._waiting.clear()
        self._finish_ending()

    def end(self) -> None:
        """Write what waits, and finish the videos.  The second time does nothing."""
        if self._folder < 0:
            return
        try:
            self.flush()
            for group in list(self._growing):
                self._retire(group)
            self._finish_ending()
        finally:
            self._rows.close()
            os.close(self._folder)
            self._folder = -1

    def _part_of(self, group: str) -> VideoPart:
        """The growing video of a group; a new one, if there is none."""
        part = self._growing.get(group)
        if part is None:
            while len(self._growing) >= self.options.open_max:
                self._retire(next(iter(self._growing)))
            part = self._growing[group] = self._begin(group)
        self._growing.move_to_end(group)
        return part

    def _begin(self, group: str) -> VideoPart:
        of_instance = f"-{self.instance}" if self.instances > 1 else ""
        for number in count(self._last_numbers.get(group, 0) + 1):
            name = file_name(group, f"{of_instance}-{number:04d}{SUFFIX}")
            if name in self._listed:
                continue
            with suppress(FileExistsError):
                part = VideoPart(self._folder, name, self._settings)
                self._last_numbers[group] = number
                return part
        raise AssertionError("numbers never end")

    def _retire(self, group: str) -> None:
        """Add nothing more to the video of a group; it ends after the next flush."""
        self._ending.append(self._growing.pop(group))

    def _undo(self) -> None:
        """Take back all since the last flush; later frames would refer to what is taken away."""
        self._waiting.clear()
        for group, part in list(self._growing.items()):
            if part.frames > part.written:
                self._retire(group)
        for part in self._ending:
            part.undo()

    def _finish_ending(self) -> None:
        for part in self._ending:
            # Locked until it is an MP4: an instance that starts must not take it for a dead one's.
            self._finish(part.name, part.written)
            part.close()
        self._ending.clear()

    def _finish(self, name: str, frames: int) -> None:
        """Make the MP4.  If that fails, nothing is lost: it is tried again at the next start."""
        try:
            found = finish(self._folder, name, frames, self._settings)
        except FileNotFoundError:
            return  # Another process of this logger was faster.
        except (OSError, ValueError) as problem:
            self.logger.warning("%s stays as it is for now: %s", raw_name(name), problem)
            return
        if found < frames:
            self.logger.warning("%s has %d frames, %d are lost", name, found, frames - found)

    def _take_over(self, file: str) -> None:
        """Read which results are recorded, and finish the videos of processes that died."""
        # First the locks: who has let go of a video adds no more lines for it.
        left = self._lock_left()
        try:
            for other in files_of_all_instances(self._folder, self.options.file):
                for frame in read_frames(self._folder, other):
                    self._listed[frame.file] += 1
                    if other == file:
                        remember(self._known, [frame.key], kept=KEYS_KEPT)
            for raw in left:
                name = raw.removesuffix(RAW_SUFFIX) + SUFFIX
                self._finish(name, self._listed[name])
        finally:
            for descriptor in left.values():
                os.close(descriptor)

    def _lock_left(self) -> dict[str, int]:
        """The videos of processes that died, each with the descriptor that holds its lock."""
        left: dict[str, int] = {}
        for raw in names_in(self._folder):
            if GROWN.fullmatch(raw):
                with suppress(FileNotFoundError):  # Another instance has just finished it.
                    descriptor = open_beneath(self._folder, raw, os.O_RDWR)
                    if lock(descriptor, raw) and has_name(self._folder, raw, descriptor):
                        left[raw] = descriptor
                    else:
                        os.close(descriptor)
        return left

    def _choose_channel(self, wanted: str | None) -> tuple[str, Callable[[Array], Array]]:
        shown = _shown_channels(self.buffer.channels)
        if wanted is None:
            wanted = next(iter(shown), None)
        if wanted is None or wanted not in shown:
            problem = "no channel can be shown" if wanted is None else f"'{wanted}' cannot be shown"
            raise ConfigError(
                f"{problem}: a video needs colours of bool, uint8 or floats, or one plane of bool "
                f"or uint8; there are: {', '.join(shown) or 'none'}",
                key=f"{self.name}.options.channel",
            )
        return wanted, shown[wanted]

    @staticmethod
    def recorded(root_dir: str, options: VideoOptions, channels: Channels) -> Counter[str]:  # noqa: ARG004
        """How often each id is a frame that is there; nothing is changed.

        Raises:
            OSError: The list or a video cannot be read.
            ValueError: It is no such list.
        """
        place = Path(root_dir, options.folder)
        if not place.is_dir():
            return Counter()
        folder = open_folder(str(place))
        try:
            counted = cache(lambda name: frames_in(folder, name))
            return Counter(
                frame.id
                for frame in read_frames(folder, options.file)
                if frame.frame < counted(frame.file)
            )
        finally:
            os.close(folder)

    @staticmethod
    def written_id(id: str, options: VideoOptions) -> str:  # noqa: ARG004
        """An id as it is in the list."""
        return plain_text(id)


Logger = VideoLogger


def _shown_channels(channels: Channels) -> dict[str, Callable[[Array], Array]]:
    """How to see each channel that can be a video as an image; those of colours first."""
    shown: dict[bool, dict[str, Callable[[Array], Array]]] = {True: {}, False: {}}
    for name, (shape, dtype) in channels.items():
        layout = image_layout(shape)
        if layout is not None:
            is_colour = layout(np.empty(shape, dtype)).ndim == 3
            if dtype in {"bool", "uint8"} or (is_colour and dtype.startswith("float")):
                shown[is_colour][name] = layout
    return shown[True] | shown[False]


def _to_rgb(planes: Array) -> NDArray[np.uint8]:
    """One plane three times; of four the fourth, which is alpha, is left out."""
    made = to_bytes(planes if planes.ndim == 2 else planes[:, :, :3])
    return made if made.ndim == 3 else np.repeat(made[:, :, np.newaxis], 3, axis=2)
