"""Read a spill folder that an earlier daemon left, however it ended.

Nothing that is in a file can make this raise.  What is damaged is copied to ``corrupt/``, counted
and named; what belongs to other channels is moved to ``set-aside/``; what was not finished is cut
off; what is no segment of ours is left alone.
"""

from __future__ import annotations

import os
import stat
import zlib
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, NamedTuple

import orjson

from millpond.spill_index import Place
from millpond.spill_record import (
    PIECE_BYTES,
    Corrupt,
    Head,
    HeadState,
    Torn,
    Whole,
    read_head,
    scan,
)
from millpond.spill_segment import Segment, open_for_reading, segment_number

CORRUPT_NAME: Final = "corrupt"
SET_ASIDE_NAME: Final = "set-aside"
PROBE_NAME: Final = ".probe"  # Of `SpillStore.probe`.
# Enough to look at what happened; the rest is only counted.
CORRUPT_KEPT_BYTES_MAX: Final = 64 * 1024 * 1024


class RecoveredResult(NamedTuple):
    """A result that was found on the disk; `id` is "" when it cannot be read."""

    renderer: int
    sequence: int
    id: str


@dataclass(slots=True)
class Recovery:
    """What was found in a spill folder.

    Args:
        results: Those that can be replayed, by renderer and sequence.
        corrupt: Those whose record is damaged, and of which no other copy is good.
        corrupt_count: Damaged places, named or not.
        corrupt_bytes: Bytes in them.
        set_aside: Those that were written for other channels.
        problems: What an operator should know, in sentences.
        is_complete: Every file could be read; what it holds may be damaged all the same.
    """

    results: list[RecoveredResult] = field(default_factory=list)
    corrupt: list[RecoveredResult] = field(default_factory=list)
    corrupt_count: int = 0
    corrupt_bytes: int = 0
    set_aside: list[RecoveredResult] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    is_complete: bool = True


class FolderReader:
    """Goes through a spill folder once.

    Args:
        folder: The folder; it may be missing.
        channels: The channels of this run, as `spill_record.channels_json` gives them.
    """

    def __init__(self, folder: Path, channels: bytes) -> None:
        self.recovery = Recovery()
        self.segments: dict[int, Segment] = {}
        self.places: list[Place] = []  # One for each of `recovery.results`.
        self.number_last = 0  # The highest number that any file here has.
        self._folder = folder
        self._channels = channels
        self._kept_bytes = 0

    def read(self) -> None:
        """Fill the attributes above."""
        for name in self._names():
            number = segment_number(name)
            if number is None:
                self._tell(f"{name} is no segment of a spill: left alone")
                continue
            try:
                file_fd = open_for_reading(self._folder / name)
            except OSError as error:
                self.recovery.is_complete = False
                self._tell(f"{name} cannot be read ({error.strerror}): left alone")
                continue
            try:
                self._read_segment(number, name, file_fd)
            except OSError as error:
                self.recovery.is_complete = False
                self._tell(f"{name}: {error.strerror}")
            finally:
                os.close(file_fd)
        self._put_in_order()

    def _names(self) -> list[str]:
        try:
            names = sorted(os.listdir(self._folder))  # noqa: PTH208 - names are wanted.
        except FileNotFoundError:
            return []
        except OSError as error:
            self.recovery.is_complete = False
            self._tell(f"the folder cannot be read ({error.strerror})")
            return []
        if PROBE_NAME in names:
            names.remove(PROBE_NAME)
            with suppress(OSError):
                (self._folder / PROBE_NAME).unlink()
        for inner in (CORRUPT_NAME, SET_ASIDE_NAME):
            if inner in names:
                names.remove(inner)
                self._look_into(self._folder / inner)
        numbers = [segment_number(name) or 0 for name in names]
        self.number_last = max([self.number_last, *numbers])
        return names

    def _look_into(self, folder: Path) -> None:
        """See which numbers are taken, and how much of the corrupt is kept."""
        try:
            for path in folder.iterdir():
                number = segment_number(path.name)
                self.number_last = max(self.number_last, number or 0)
                if folder.name == CORRUPT_NAME:
                    self._kept_bytes += path.lstat().st_size
        except OSError as error:
            self._tell(f"{folder.name}/ cannot be read ({error.strerror})")

    def _read_segment(self, number: int, name: str, file_fd: int) -> None:
        status = os.fstat(file_fd)
        if not stat.S_ISREG(status.st_mode):
            self._tell(f"{name} is no regular file: left alone")
            return
        segment = Segment(self._folder, number, status.st_size)
        head = read_head(file_fd, number, segment.end)
        if head.state is HeadState.NEWER:
            self._tell(f"{name} is of a later millpond: left alone")
            return
        if head.state is HeadState.TORN:
            self._tell(f"{name} was not finished and has no record: removed")
            self._remove(segment)
            return
        found = list(scan(file_fd, number, head.end, segment.end))
        if head.state is HeadState.DAMAGED and not any(map(_header_crc, found)):
            self._tell(f"{name} is no segment of a spill, or nothing of it is left: left alone")
            return
        if self._is_of_other_channels(head, found):
            self._set_aside(segment, found)
            return
        self._take(segment, found, file_fd)
        if segment.live:
            self.segments[number] = segment
        else:
            self._remove(segment)

    def _is_of_other_channels(self, head: Head, found: list[Whole | Corrupt | Torn]) -> bool:
        if head.state is HeadState.GOOD:
            return head.channels != self._channels
        # Each record says for which channels it was written, as a checksum.
        return zlib.crc32(self._channels) not in map(_header_crc, found)

    def _take(self, segment: Segment, found: list[Whole | Corrupt | Torn], file_fd: int) -> None:
        recovery = self.recovery
        for item in found:
            match item:
                case Whole(header, id):
                    segment.live += 1
                    place = Place(segment.number, header.offset, header.renderer, header.sequence)
                    self.places.append(place)
                    recovery.results.append(RecoveredResult(*place.key, id))
                case Corrupt(offset, end, header, id):
                    recovery.corrupt_count += 1
                    recovery.corrupt_bytes += end - offset
                    if header is not None:
                        key = (header.renderer, header.sequence)
                        recovery.corrupt.append(RecoveredResult(*key, id))
                    self._keep_corrupt(segment, item, file_fd)
                case Torn(offset):
                    self._tell(
                        f"{segment.path.name}: the last {segment.end - offset} bytes were not "
                        "finished: cut off"
                    )
                    self._cut(segment, offset)

    def _cut(self, segment: Segment, end: int) -> None:
        try:
            os.truncate(segment.path, end)
        except OSError as error:
            self._tell(f"{segment.path.name} cannot be cut ({error.strerror})")
        else:
            segment.end = end

    def _keep_corrupt(self, segment: Segment, bad: Corrupt, file_fd: int) -> None:
        length = bad.end - bad.offset
        name = f"{segment.path.stem}-{bad.offset}.bin"
        path = self._folder / CORRUPT_NAME / name
        text = f"{segment.path.name}: {length} bytes at {bad.offset} are corrupt"
        if path.exists():  # From an earlier start, while the segment is still needed.
            self._tell(f"{text}; kept as {CORRUPT_NAME}/{name}")
            return
        if self._kept_bytes + length > CORRUPT_KEPT_BYTES_MAX:
            self._tell(f"{text}; not kept, {CORRUPT_NAME}/ is full")
            return
        try:
            path.parent.mkdir(exist_ok=True)
            with path.open("xb") as copy:
                for offset in range(bad.offset, bad.end, PIECE_BYTES):
                    copy.write(os.pread(file_fd, min(PIECE_BYTES, bad.end - offset), offset))
        except OSError as error:
            self._tell(f"{text}; not kept ({error.strerror})")
            return
        self._kept_bytes += length
        self._tell(f"{text}; kept as {CORRUPT_NAME}/{name}")

    def _set_aside(self, segment: Segment, found: list[Whole | Corrupt | Torn]) -> None:
        for item in found:
            if not isinstance(item, Torn) and item.header is not None:
                header = item.header
                result = RecoveredResult(header.renderer, header.sequence, item.id)
                self.recovery.set_aside.append(result)
        target = self._folder / SET_ASIDE_NAME / segment.path.name
        target.parent.mkdir(exist_ok=True)
        if target.exists():
            target = target.with_name(f"{segment.path.stem}-{os.urandom(4).hex()}.seg")
        segment.path.rename(target)
        self._tell(
            f"{segment.path.name} was written for other channels: moved to {SET_ASIDE_NAME}/"
        )

    def _remove(self, segment: Segment) -> None:
        if not segment.unlink():
            self._tell(f"{segment.path.name} cannot be removed")

    def _put_in_order(self) -> None:
        """Sort by renderer and sequence; of several records of one result the last counts."""
        results = self.recovery.results
        last = {result[:2]: at for at, result in enumerate(results)}
        for at, place in enumerate(self.places):
            if last[place.key] != at:
                segment = self.segments[place.segment]
                segment.live -= 1
                if not segment.live:
                    del self.segments[place.segment]
                    self._remove(segment)
        order = [last[key] for key in sorted(last)]
        self.recovery.results = [results[at] for at in order]
        self.places = [self.places[at] for at in order]
        bad = {result[:2]: result for result in self.recovery.corrupt if result[:2] not in last}
        self.recovery.corrupt = [bad[key] for key in sorted(bad)]

    def _tell(self, problem: str) -> None:
        self.recovery.problems.append(problem)


def list_spilled(folder: Path) -> Iterator[RecoveredResult]:
    """The results whose good record is in a spill folder; nothing is changed there.

    Some of them may have their outcome already: a file is removed when all of its results have.
    A folder that is missing or cannot be read has none.
    """
    try:
        names = sorted(os.listdir(folder))  # noqa: PTH208 - names are wanted.
    except OSError:
        return
    for name in names:
        number = segment_number(name)
        if number is None:
            continue
        try:
            file_fd = open_for_reading(folder / name)
        except OSError:
            continue
        try:
            size_bytes = os.fstat(file_fd).st_size
            head = read_head(file_fd, number, size_bytes)
            if head.state in {HeadState.GOOD, HeadState.DAMAGED}:
                for item in scan(file_fd, number, head.end, size_bytes):
                    if isinstance(item, Whole):
                        header = item.header
                        yield RecoveredResult(header.renderer, header.sequence, item.id)
        finally:
            os.close(file_fd)


def spilled_channels(folder: Path) -> Any:
    """The channels of the newest file in a spill folder, as JSON has them; None if none tells.

    The form is that of `core.layout.channels_to_json`.
    """
    for path in sorted(folder.glob("*.seg"), reverse=True):
        with suppress(OSError, ValueError):
            file_fd = open_for_reading(path)
            try:
                head = read_head(file_fd, segment_number(path.name) or 0, path.stat().st_size)
            finally:
                os.close(file_fd)
            if head.state is HeadState.GOOD:
                return orjson.loads(head.channels)
    return None


def _header_crc(found: Whole | Corrupt | Torn) -> int | None:
    """Of which channels a record is; None when nobody can say."""
    if isinstance(found, Torn) or found.header is None:
        return None
    return found.header.channels_crc
