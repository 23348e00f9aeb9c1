"""A video that is being made, and what becomes of it: MPEG-TS while it grows, MP4 when it is done.

An MP4 file is nothing without the table at its end, so a crash would lose all of it.  MPEG-TS can
be cut anywhere: what is in the file can be played, and it can be made an MP4 later without being
encoded again.  The encoder looks at no later frames, so each frame is in the file when `VideoPart.
write` returns.

Widths and heights are even in these formats: the last column or row is repeated if need be.
"""

from __future__ import annotations

import errno
import os
from contextlib import suppress
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from millpond_loggers.extras import require
from millpond_loggers.files.locked_file import has_name, lock
from millpond_loggers.files.names import open_beneath, replace_atomically, write_all

RAW_SUFFIX: Final = ".ts"
SUFFIX: Final = ".mp4"
Codec = Literal["auto", "h264", "mpeg4"]
X264: Final = "libx264"
# A player that jumps goes to a frame that needs no other; there is one as often as this.
KEY_FRAMES_S: Final = 2
CRF_MAX: Final = 51
# MPEG-4 Part 2 has its own scale, 1 to 31.
QSCALE_MAX: Final = 31
# How ffmpeg numbers the colours that players assume: ITU-R BT.709, which H.264 can say it has, and
# BT.601 of MPEG-4 Part 2, which cannot say anything; and both not the full range.
BT709: Final = 1
BT601: Final = 5
STUDIO_RANGE: Final = 1


@dataclass(frozen=True, slots=True)
class VideoSettings:
    """How videos are encoded: frames per second, codec, constant rate factor (0 best to 51)."""

    fps: float
    codec: Codec
    crf: int

    @property
    def rate(self) -> Fraction:
        """Frames per second, as the fraction that the formats can write down."""
        return Fraction(self.fps).limit_denominator(1001)


class VideoPart:
    """One file that grows.

    Args:
        folder: The descriptor of the folder; it stays the caller's, and open.
        name: The name that the video will have, which ends with `SUFFIX`.
        settings: How it is encoded.

    Attributes:
        name: The name that it will have.
        frames: How many frames it was given.
        written: How many of them are in the file.

    Raises:
        FileExistsError: There is such a video, or one that grows.
        OSError: It cannot be made.
    """

    def __init__(self, folder: int, name: str, settings: VideoSettings) -> None:
        self.name = name
        self.frames = 0
        self.written = 0
        self._settings = settings
        self._folder = folder
        self._waiting = _Bytes()
        self._size = 0
        self._container: Any = None
        self._stream: Any = None
        with suppress(FileNotFoundError):
            os.stat(name, dir_fd=folder, follow_symlinks=False)
            raise FileExistsError(errno.EEXIST, "there is such a video already", name)
        self._file = open_beneath(folder, raw_name(name), os.O_RDWR | os.O_CREAT | os.O_EXCL)
        # So that no other process takes it for a dead one's; one may have, before it was locked.
        if not (lock(self._file, raw_name(name)) and has_name(folder, raw_name(name), self._file)):
            os.close(self._file)
            raise FileExistsError(errno.EEXIST, "another process removes it", raw_name(name))

    def add(self, picture: NDArray[np.uint8]) -> int:
        """Encode a frame, which `write` will put into the file.

        Args:
            picture: (height, width, 3), uint8; of the same size every time.

        Returns:
            Which frame of the video it is, from 0.
        """
        library: Any = _library()
        picture = _even(picture)
        if self._container is None:
            self._open(library, picture.shape[1], picture.shape[0])
        frame = library.VideoFrame.from_ndarray(picture, format="rgb24")
        frame = frame.reformat(
            format="yuv420p",
            dst_colorspace=self._stream.codec_context.colorspace,
            dst_color_range=STUDIO_RANGE,
        )
        frame.pts = self.frames
        frame.time_base = 1 / self._settings.rate
        packets = self._stream.encode(frame)
        assert len(packets) == 1, "the encoder keeps frames back"
        self._container.mux(packets)
        self.frames += 1
        return self.frames - 1

    def write(self) -> None:
        """Put the frames that were added into the file.

        Raises:
            OSError: They could not be written; call `undo` with what should stay.
        """
        content = bytes(self._waiting.content)
        write_all(self._file, content)
        self._waiting.content.clear()

    def settle(self) -> None:
        """Take note that the frames which are written stay."""
        self.written = self.frames
        self._size = os.fstat(self._file).st_size

    def undo(self) -> None:
        """Take away what was written since `settle`; nothing can be added any more.

        Later frames would refer to those that were taken away.
        """
        self._waiting.content.clear()
        self.frames = self.written
        with suppress(OSError):  # Then the frames are there, and `finish` leaves them out.
            os.ftruncate(self._file, self._size)

    def close(self) -> None:
        """Let go of the file and the encoder; the second time does nothing."""
        if self._file < 0:
            return
        if self._container is not None:
            self._container.close()  # What it has to say at the end goes nowhere.
        os.close(self._file)
        self._file = -1

    def _open(self, library: Any, width: int, height: int) -> None:
        settings = self._settings
        # Every packet at once, not when some are together.
        self._container = library.open(
            self._waiting, "w", format="mpegts", options={"flush_packets": "1"}
        )
        is_h264 = settings.codec == "h264" or (
            settings.codec == "auto" and X264 in library.codecs_available
        )
        name = X264 if is_h264 else "mpeg4"
        self._stream = self._container.add_stream(name, rate=settings.rate)
        self._stream.width, self._stream.height = width, height
        self._stream.pix_fmt = "yuv420p"
        context = self._stream.codec_context
        context.gop_size = max(1, round(KEY_FRAMES_S * settings.fps))
        context.max_b_frames = 0
        context.thread_count = 1
        context.color_range = STUDIO_RANGE
        if is_h264:
            context.colorspace = context.color_primaries = context.color_trc = BT709
            crf = str(settings.crf)
            context.options = {"preset": "veryfast", "tune": "zerolatency", "crf": crf}
        else:
            context.colorspace = BT601
            scale = str(_qscale(settings.crf))
            context.options = {"qmin": scale, "qmax": scale}


def finish(folder: int, name: str, frames: int, settings: VideoSettings) -> int:
    """Make an MP4 of a file that has grown, and remove that.

    Args:
        folder: The descriptor of the folder.
        name: What the video is to be called.
        frames: How many frames it shall have; what is behind them was never said to be recorded.
        settings: What it was encoded with.

    Returns:
        How many frames it has: fewer if there are no more, as after a power cut.  With none there
        is no video.

    Raises:
        OSError: It cannot be read or written.  The grown file stays, and can be played.
        ValueError: It is no file of this kind.
    """
    if not frames:
        os.unlink(raw_name(name), dir_fd=folder)
        return 0
    found = 0

    def fill(target: int) -> None:
        nonlocal found
        library: Any = _library()
        with os.fdopen(open_beneath(folder, raw_name(name), os.O_RDONLY), "rb") as raw:
            if not os.fstat(raw.fileno()).st_size:
                raise ValueError("it cannot be read: it is empty")
            try:
                found = _copy(library, raw, target, frames, settings.rate)
            except (library.FFmpegError, IndexError) as problem:  # Or it has no video in it.
                raise ValueError(f"it cannot be read: {problem}") from problem

    replace_atomically(folder, name, fill)
    os.unlink(raw_name(name), dir_fd=folder)
    return found


def frames_in(folder: int, name: str) -> int:
    """How many frames a video has, done or growing; none if it is not there or cannot be read.

    Raises:
        OSError: It cannot be opened.
        millpond.errors.ConfigError: PyAV is not installed.
    """
    library: Any = _library()
    for place, kind in ((name, "mp4"), (raw_name(name), "mpegts")):
        with (
            suppress(FileNotFoundError),
            os.fdopen(open_beneath(folder, place, os.O_RDONLY), "rb") as file,
        ):
            return _count(library, file, kind)
    return 0


def raw_name(name: str) -> str:
    """What a video is called while it grows."""
    return name.removesuffix(SUFFIX) + RAW_SUFFIX


def _copy(library: Any, raw: Any, target: int, frames: int, rate: Fraction) -> int:
    count = 0
    with (
        os.fdopen(os.dup(target), "wb") as file,
        library.open(raw, "r", format="mpegts") as source,
        library.open(file, "w", format="mp4") as made,
    ):
        origin = source.streams.video[0]
        stream = made.add_stream_from_template(origin)
        for packet in source.demux(origin):
            if not packet.size or count == frames:  # The last one is empty: the end.
                break
            packet.stream = stream
            packet.time_base = 1 / rate
            packet.pts = packet.dts = count
            packet.duration = 1
            made.mux(packet)
            count += 1
    return count


def _count(library: Any, file: Any, kind: str) -> int:
    if os.fstat(file.fileno()).st_size:
        with (
            suppress(library.FFmpegError, IndexError),
            library.open(file, "r", format=kind) as video,
        ):
            stream = video.streams.video[0]
            if stream.frames:  # As MP4 says itself.
                return int(stream.frames)
            return sum(1 for packet in video.demux(stream) if packet.size)
    return 0


def _qscale(crf: int) -> int:
    """The quality of MPEG-4 Part 2 that loses about as much as this factor does in H.264.

    H.264's steps are 1 wide at 4, and twice as wide 6 further on; those of the other are 2, 4, 6...
    """
    return min(max(1, round(2 ** ((crf - 4) / 6) / 2)), QSCALE_MAX)


def _even(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
    height, width = picture.shape[:2]
    if height % 2 or width % 2:
        picture = np.pad(picture, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
    return picture


def _library() -> Any:
    return require("av", extra="video", what="video logger")


class _Bytes:
    """Where the muxer writes: keeps what the file does not have yet."""

    def __init__(self) -> None:
        self.content = bytearray()

    def write(self, content: bytes) -> int:
        self.content += content
        return len(content)
