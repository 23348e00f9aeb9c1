"""Append results to the segments of a spill: all of a call is on the disk, or nothing is kept."""

from __future__ import annotations

import os
import zlib
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

from millpond.core.deliveries import Result
from millpond.core.layout import Layout
from millpond.core.wire import BODY_BYTES_MAX, HEADER_BYTES
from millpond.errors import MillpondError
from millpond.spill_index import Place
from millpond.spill_record import (
    Header,
    Kind,
    channels_json,
    pack_head,
    pack_header,
    pack_trailer,
    record_bytes,
)
from millpond.spill_recovery import PROBE_NAME
from millpond.spill_segment import Segment, sync_folder

# What is copied out of the slots before it is asked whether they are still ours.
PIECE_BYTES: Final = 8 * 1024 * 1024


class SpillError(MillpondError):
    """The system's: the disk did not take the results.  Nothing of the call is kept."""


class SpillFull(SpillError):
    """They are more than may be spilled.  Nothing of the call is kept."""


class Cancelled(SpillError):
    """The caller no longer wanted it.  Nothing of the call is kept."""


class SpillWriter:
    """The segments of one spill, and the one that is appended to.

    Args:
        folder: Where the segments are; made with the first.
        layout: Where the channels lie in a slot.
        size_max_bytes: At most so many bytes are in all segments.
        segment_bytes: A segment has at most so many bytes, or one record.
    """

    def __init__(
        self, folder: Path, layout: Layout, *, size_max_bytes: int, segment_bytes: int
    ) -> None:
        channels = channels_json(layout.channels)
        self.problem = ""  # Why the disk did not take the last write.
        self.segments: dict[int, Segment] = {}
        self.number_last = 0  # No new segment gets a number up to this.
        self._folder = folder
        self._payload_bytes = layout.payload_bytes
        self._channels_crc = zlib.crc32(channels)
        self._head = pack_head(channels)
        self._size_max_bytes = size_max_bytes
        self._segment_bytes = segment_bytes
        self._current: Segment | None = None
        self._empty: set[int] = set()  # Segments that may be removed.
        self._buffer = bytearray()

    @property
    def bytes_used(self) -> int:
        """Bytes of all segments."""
        return sum(segment.end for segment in list(self.segments.values()))

    def append(
        self,
        results: Sequence[Result],
        payload_of: Callable[[Result], memoryview],
        is_cancelled: Callable[[], bool],
    ) -> dict[tuple[int, int], Place]:
        """Put results on the disk; see `SpillStore.write`.

        Returns:
            Where each of them is, by (renderer, sequence).

        Raises:
            SpillError: Nothing of the call is kept.
        """
        self._make_room(results)
        batch = _Batch(self._current)
        try:
            places = self._put_all(results, payload_of, is_cancelled, batch)
        except OSError as error:
            self._roll_back(batch)
            self.problem = f"{error.strerror or error}: {self._folder}"
            raise SpillError(self.problem) from error
        except BaseException:
            self._roll_back(batch)
            raise
        for segment in batch.filled:
            segment.seal()
            self._empty.add(segment.number)
        for place in places.values():
            self.segments[place.segment].live += 1
        self.problem = ""
        self.sweep()
        return places

    def release(self, places: Iterable[Place]) -> None:
        """These records no longer count; segments that have no other are removed."""
        for place in places:
            segment = self.segments[place.segment]
            segment.live -= 1
            if not segment.live:
                self._empty.add(segment.number)
        self.sweep()

    def sweep(self) -> None:
        """Remove the segments that nobody needs; one that cannot be removed is tried again."""
        for number in sorted(self._empty):
            segment = self.segments[number]
            if segment.live:
                self._empty.discard(number)
            elif segment is not self._current or segment.end > self._segment_bytes // 2:
                self._remove(segment)

    def probe(self) -> bool:
        """Whether the disk takes results; after a `problem`, by trying with the size of one."""
        if not self.problem:
            return True
        try:
            self._make_folder()
            self._try_to_write(self._folder / PROBE_NAME)
        except OSError as error:
            self.problem = f"{error.strerror or error}: {self._folder}"
            return False
        self.problem = ""
        return True

    def close(self) -> None:
        """Close the files, remove those that nobody needs, and the folder if it is empty."""
        self._retire_current()
        self.sweep()
        self._buffer = bytearray()
        with suppress(OSError):  # Something is in it, or it was never made.
            self._folder.rmdir()

    # Room.

    def _bytes_of(self, frame_bytes: int) -> int:
        return record_bytes(frame_bytes=frame_bytes, payload_bytes=self._payload_bytes)

    def _make_room(self, results: Sequence[Result]) -> None:
        needed = self._bytes_needed(results)
        if self.bytes_used + needed > self._size_max_bytes:
            if self._current is not None and not self._current.live:
                self._retire_current()
            self.sweep()
            needed = self._bytes_needed(results)
        if self.bytes_used + needed > self._size_max_bytes:
            raise SpillFull(
                f"spill is full: {_size(self.bytes_used)} of {_size(self._size_max_bytes)} are "
                f"used, {_size(needed)} more are wanted"
            )

    def _bytes_needed(self, results: Sequence[Result]) -> int:
        needed = 0
        end = None if self._current is None else self._current.end
        for result in results:
            size_bytes = self._bytes_of(len(result.frame))
            if end is None or self._is_over(end, size_bytes):
                end = len(self._head)
                needed += end
            end += size_bytes
            needed += size_bytes
        return needed

    def _is_over(self, end: int, size_bytes: int) -> bool:
        """Whether a record would make a segment too large; alone in it, it never does."""
        return end > len(self._head) and end + size_bytes > self._segment_bytes

    # Writing.

    def _put_all(
        self,
        results: Sequence[Result],
        payload_of: Callable[[Result], memoryview],
        is_cancelled: Callable[[], bool],
        batch: _Batch,
    ) -> dict[tuple[int, int], Place]:
        if not self._buffer:
            self._buffer = bytearray(PIECE_BYTES)
        pieces = _Pieces(self._buffer, is_cancelled)
        places = {}
        for result in results:
            segment = self._current
            size_bytes = self._bytes_of(len(result.frame))
            if segment is None or self._is_over(segment.end + pieces.filled, size_bytes):
                if segment is not None:
                    pieces.flush(segment)
                    segment.sync()
                segment = self._begin_segment(batch)
            offset = segment.end + pieces.filled
            place = Place(segment.number, offset, result.renderer, result.sequence)
            payload = payload_of(result)[: self._payload_bytes]
            assert len(payload) == self._payload_bytes
            self._put(pieces, segment, place, result.frame, payload)
            places[place.key] = place
        assert self._current is not None
        pieces.flush(self._current)
        self._current.sync()
        if is_cancelled():
            raise Cancelled("cancelled while the disk wrote")
        return places

    def _put(
        self, pieces: _Pieces, segment: Segment, place: Place, frame: bytes, payload: memoryview
    ) -> None:
        crc = zlib.crc32(frame)
        sizes = (len(payload), len(frame))
        header = Header(Kind.RESULT, *place, *sizes, self._channels_crc, crc)
        pieces.add(segment, memoryview(pack_header(header)))
        pieces.add(segment, memoryview(frame))
        crc = pieces.add(segment, payload, crc)
        trailer = pack_trailer(crc)
        padding = header.end - header.content_end
        pieces.add(segment, memoryview(trailer + bytes(padding)))

    def _begin_segment(self, batch: _Batch) -> Segment:
        self._make_folder()
        while True:
            self.number_last += 1
            segment = Segment(self._folder, self.number_last)
            try:
                segment.create(self._head)
            except FileExistsError:
                continue  # Somebody else's file: it is not ours to touch.
            except OSError:
                segment.unlink()
                raise
            self.segments[segment.number] = segment
            self._current = segment
            batch.made.append(segment)
            return segment

    def _make_folder(self) -> None:
        if self._folder.is_dir():
            return
        self._folder.mkdir(parents=True, exist_ok=True)
        for folder in self._folder.parents[:2]:
            sync_folder(folder)

    def _try_to_write(self, path: Path) -> None:
        path.unlink(missing_ok=True)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        descriptor = os.open(path, flags, 0o644)
        try:
            os.posix_fallocate(descriptor, 0, self._bytes_of(HEADER_BYTES + BODY_BYTES_MAX))
            os.pwrite(descriptor, self._head, 0)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
            path.unlink()

    # Taking back.

    def _roll_back(self, batch: _Batch) -> None:
        for segment in reversed(batch.made):
            # Should it not be possible to remove it, its head says that it is ours.
            segment.cut(len(self._head))
            self._remove(segment)
        first = self._current = batch.first
        if first is not None:
            first.cut(batch.first_end)
            if first.is_poisoned or not first.is_open:
                self._retire_current()
                self.sweep()

    def _retire_current(self) -> None:
        if self._current is not None:
            self._current.seal()
            self._empty.add(self._current.number)
            self._current = None

    def _remove(self, segment: Segment) -> None:
        if segment is self._current:
            self._current = None
        if segment.unlink():
            del self.segments[segment.number]
            self._empty.discard(segment.number)
        else:
            self._empty.add(segment.number)


class _Batch:
    """What one call has touched, so that it can be undone."""

    def __init__(self, first: Segment | None) -> None:
        self.first = first
        self.first_end = 0 if first is None else first.end
        self.made: list[Segment] = []

    @property
    def filled(self) -> list[Segment]:
        """The segments behind which another one was begun."""
        before = [] if self.first is None or not self.made else [self.first]
        return before + self.made[:-1]


class _Pieces:
    """Copies what is to be written, and asks before each write whether the copy is good."""

    def __init__(self, buffer: bytearray, is_cancelled: Callable[[], bool]) -> None:
        self.filled = 0
        self._memory = memoryview(buffer)
        self._is_cancelled = is_cancelled

    def add(self, segment: Segment, content: memoryview, crc: int = 0) -> int:
        """Copy, write what fills the buffer, and return the CRC of the copy going on from `crc`."""
        while content:
            room = self._memory[self.filled : self.filled + len(content)]
            count = len(room)
            room[:] = content[:count]
            crc = zlib.crc32(room, crc)
            self.filled += count
            content = content[count:]
            if self.filled == len(self._memory):
                self.flush(segment)
        return crc

    def flush(self, segment: Segment) -> None:
        """Write what is copied.

        Raises:
            Cancelled: It may no longer be what it was.
            OSError: As `Segment.write`.
        """
        if self._is_cancelled():
            raise Cancelled("cancelled before the disk wrote")
        segment.write(self._memory[: self.filled])
        self.filled = 0


def _size(size_bytes: int) -> str:
    """A number of bytes as people read it: ``4 GiB``, ``1.5 MiB``, ``12 B``."""
    size: float = size_bytes
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size < 1024:
            return f"{size:.4g} {unit}"
        size /= 1024
    return f"{size:.4g} TiB"
