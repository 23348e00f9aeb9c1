"""The files that TensorBoard reads: ``events.out.tfevents.<number>``, one for each start.

They are made here without the writers of tensorboardX, whose thread would let a full disk pass
unseen and ``flush`` return before the bytes are in the file.
"""

from __future__ import annotations

import os
import re
import struct
from collections.abc import Iterator
from typing import Any, Final

from millpond_loggers.extras import require
from millpond_loggers.files.names import open_beneath, write_all
from millpond_loggers.images.encoders import encode_png
from millpond_loggers.points.curve import Place, Row, Standing

# TensorBoard reads the files of a folder in the order of their names, and never goes back to one:
# so it is a counted number that tells them apart, where others have the time of day.
PREFIX: Final = "events.out.tfevents."
NUMBER_DIGITS: Final = 10
_NAME: Final = re.compile(re.escape(PREFIX) + rf"([0-9]{{{NUMBER_DIGITS}}})", re.ASCII)
VERSION: Final = "brain.Event:2"
BATCH_POINT_MAX: Final = 4096
GREY: Final = 1  # The number of planes is the colour space.  Source: TensorBoard, summary.proto.


class EventFiles:
    """Where points become events.

    Args:
        folder: The descriptor of the run's folder; it stays the caller's, and open.
    """

    batch_point_max = BATCH_POINT_MAX

    def __init__(self, folder: int) -> None:
        self._event = _tensorboardx("proto.event_pb2").Event
        self._summary = _tensorboardx("proto.summary_pb2").Summary
        self._checksum = _tensorboardx("record_writer").masked_crc32c
        self._folder = folder
        self._file = -1
        self._content = b""
        self._number = 0

    def recorded(self, standing: Standing) -> int:
        """How many points of the last batch are in the files: all or none.

        What lies behind is torn, and cut off; the next batch begins a file of its own.

        Raises:
            OSError: The files cannot be read or cut.
            ValueError: There are event files, and nothing is known of any.
        """
        self.close()
        files = dict(self._files())
        if files and not standing.place_after:
            raise ValueError(
                f"{files.popitem()[1]} is not a file of this logger, or its record is gone; "
                "move it away or give the logger another name"
            )
        after = standing.place_after
        name = files.get(after.get("file", 0))
        is_there = name is not None and self._size(name) >= after["bytes"]
        self._cut(after if is_there else standing.place, files)
        return len(standing.added) if is_there else 0

    def prepare(self, rows: list[Row], place: Place) -> Place:
        """Encode the batch; say how long which file will be."""
        records = [self._record(row) for row in rows]
        number, size = place.get("file", 0), place.get("bytes", 0)
        if self._file < 0:
            number, size = number + 1, 0
            records.insert(0, self._framed(self._event(file_version=VERSION)))
        self._number, self._content = number, b"".join(records)
        return {"file": number, "bytes": size + len(self._content)}

    def write(self, rows: list[Row]) -> None:  # noqa: ARG002  They are encoded.
        """Append what was made ready, in one piece.

        Raises:
            OSError: It cannot be written; a part of it may be.
        """
        if self._file < 0:
            name = f"{PREFIX}{self._number:0{NUMBER_DIGITS}}"
            flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND
            self._file = open_beneath(self._folder, name, flags)
        write_all(self._file, self._content)
        self._content = b""

    def close(self) -> None:
        """Close the file.  The second time does nothing."""
        if self._file >= 0:
            os.close(self._file)
        self._file = -1

    def _record(self, row: Row) -> bytes:
        value = self._summary.Value
        values = [value(tag=tag, simple_value=number) for tag, number in row.values.items()]
        for channel, picture in row.point.pictures.items():
            height, width, *planes = picture.shape
            image = self._summary.Image(
                height=height,
                width=width,
                colorspace=planes[0] if planes else GREY,
                encoded_image_string=encode_png(picture),
            )
            values.append(value(tag=channel, image=image))
        event = self._event(
            wall_time=row.point.time_s, step=row.point.step, summary=self._summary(value=values)
        )
        return self._framed(event)

    def _framed(self, event: Any) -> bytes:
        """An event as it lies in the file: length, checksum, event, checksum.

        Source: TensorFlow, TFRecord.
        """
        body: bytes = event.SerializeToString()
        length = struct.pack("<Q", len(body))
        checksums = [struct.pack("<I", self._checksum(part)) for part in (length, body)]
        return b"".join((length, checksums[0], body, checksums[1]))

    def _files(self) -> Iterator[tuple[int, str]]:
        with os.scandir(self._folder) as entries:
            for entry in entries:
                if match := _NAME.fullmatch(entry.name):
                    yield int(match[1]), entry.name
                elif "tfevents" in entry.name:
                    yield 0, entry.name

    def _size(self, name: str) -> int:
        return os.stat(name, dir_fd=self._folder, follow_symlinks=False).st_size

    def _cut(self, place: Place, files: dict[int, str]) -> None:
        for number, name in files.items():
            if number > place.get("file", 0):
                os.unlink(name, dir_fd=self._folder)
            elif number == place.get("file", 0) and self._size(name) > place["bytes"]:
                file = open_beneath(self._folder, name, os.O_WRONLY)
                try:
                    os.ftruncate(file, place["bytes"])
                finally:
                    os.close(file)


def _tensorboardx(name: str) -> Any:
    return require(f"tensorboardX.{name}", extra="tensorboard", what="tensorboard logger")
