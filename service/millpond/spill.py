"""The spill: results of one logger that wait on the disk, because the logger is down or slow.

Segments are files that are only appended to; `spill_record` has their format.  What `write` has
returned for is on the disk, whatever happens next; of a `write` that raised nothing is kept.  A
record stays until `settle` says that the outcome of its result is recorded elsewhere; a segment
without such records is removed.

Nothing here knows loggers, slots or time.  One thread calls it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Final, NamedTuple

from millpond.core.deliveries import Result
from millpond.core.layout import Layout
from millpond.spill_index import Place, PlaceQueue
from millpond.spill_record import channels_json, id_of, read_record
from millpond.spill_recovery import FolderReader, RecoveredResult, Recovery, list_spilled
from millpond.spill_segment import open_for_reading, segment_name
from millpond.spill_writer import Cancelled, SpillError, SpillFull, SpillWriter

__all__ = [
    "RECORDS_MAX",
    "RECOVERED_TOKEN",
    "SEGMENT_BYTES",
    "Cancelled",
    "RecoveredResult",
    "Recovery",
    "Replayed",
    "SpillError",
    "SpillFull",
    "SpillStore",
    "list_spilled",
]

# Small enough that space comes back soon, large enough that files are few.
SEGMENT_BYTES: Final = 64 * 1024 * 1024
# 32 bytes of memory each.
RECORDS_MAX = 1_000_000
# What `recover` found.
RECOVERED_TOKEN: Final = 0


class Replayed(NamedTuple):
    """A result that was read back.

    Args:
        renderer: The number of its renderer.
        sequence: Which of that renderer's results it is.
        id: The renderer's name for it; "" when it cannot be read.
        frame: The PUBLISH frame, as the renderer sent it; empty when it cannot be read.
        problem: Why the record cannot be read, and the slot's content is undefined; else "".
    """

    renderer: int
    sequence: int
    id: str
    frame: bytes
    problem: str


class SpillStore:
    """The results of one logger that wait on disk: append-only segments, checksummed, bounded.

    A *token* is the caller's number for results that are spilled together, in order.

    Args:
        folder: Where its files are; made with the first result, removed with the last.
        layout: Where the channels lie in a slot.
        size_max_bytes: At most so many bytes are in all segments, those no longer needed included.
        segment_bytes: A segment has at most so many bytes, or one record.
    """

    def __init__(
        self,
        folder: Path,
        layout: Layout,
        *,
        size_max_bytes: int,
        segment_bytes: int = SEGMENT_BYTES,
    ) -> None:
        self._folder = folder
        self._layout = layout
        self._writer = SpillWriter(
            folder, layout, size_max_bytes=size_max_bytes, segment_bytes=segment_bytes
        )
        self._queues: dict[int, PlaceQueue] = {}
        self._read: dict[tuple[int, int], Place] = {}  # Read and not settled.
        self._records = 0

    @property
    def bytes_used(self) -> int:
        """Bytes of all segments; the limit counts the same."""
        return self._writer.bytes_used

    @property
    def records(self) -> int:
        """Results that wait: written or recovered, and not read."""
        return self._records

    @property
    def problem(self) -> str:
        """Why the disk did not take the last write; "" when nothing is known against it."""
        return self._writer.problem

    def recover(self) -> Recovery:
        """Take over what an earlier daemon left, as token 0.  Once, before anything else.

        Bad content never raises; it is told in the answer.
        """
        reader = FolderReader(self._folder, channels_json(self._layout.channels))
        reader.read()
        self._writer.segments = reader.segments
        self._writer.number_last = reader.number_last
        self._enqueue(RECOVERED_TOKEN, reader.places)
        return reader.recovery

    def write(
        self,
        token: int,
        results: Sequence[Result],
        payload_of: Callable[[Result], memoryview],
        is_cancelled: Callable[[], bool],
    ) -> None:
        """Put results on the disk, behind those that the token has.

        One that was read and is not settled is not written again: its record is still there.

        Args:
            token: Which queue they join.
            results: In the order in which they will be read; no result twice.
            payload_of: Gives the bytes of a result's slot, at least `payload_bytes` of the layout.
            is_cancelled: Asked after each copy out of the slots and at the end: whether the slots
                may have changed, or nobody waits for this any more.

        Raises:
            SpillFull: They would be too many, or too large.
            Cancelled: `is_cancelled` said so.
            SpillError: The disk refused; `problem` has the text.
        """
        self.write_many([(token, results)], payload_of, is_cancelled)

    def write_many(
        self,
        batches: Sequence[tuple[int, Sequence[Result]]],
        payload_of: Callable[[Result], memoryview],
        is_cancelled: Callable[[], bool],
    ) -> None:
        """As `write`, for several tokens: the disk is waited for once, and all or none is kept.

        Args:
            batches: Tokens and their results.
            payload_of: As for `write`.
            is_cancelled: As for `write`.

        Raises:
            SpillError: As `write`.
        """
        results = [result for _, some in batches for result in some]
        fresh = [r for r in results if (r.renderer, r.sequence) not in self._read]
        if self._records + len(self._read) + len(fresh) > RECORDS_MAX:
            raise SpillFull(f"spill is full: at most {RECORDS_MAX} results may wait in it")
        places = {}
        if fresh:
            places = self._writer.append(fresh, payload_of, is_cancelled)
        elif is_cancelled():
            raise Cancelled("cancelled before the disk wrote")
        for token, some in batches:
            keys = [(r.renderer, r.sequence) for r in some]
            self._enqueue(token, [places.get(key) or self._read.pop(key) for key in keys])

    def read(self, token: int, places: Sequence[memoryview]) -> list[Replayed]:
        """Take the next results of a token, in order, one for each place.

        Args:
            token: Which queue.
            places: Slots to copy the arrays into; each at least `payload_bytes` long.

        Returns:
            One for each result taken; fewer than `places` when the token has no more.
        """
        replayed = []
        with ExitStack() as opened:
            descriptors: dict[int, int] = {}
            for place, slot in zip(self._take(token, len(places)), places, strict=False):
                twin = self._read.get(place.key)
                self._read[place.key] = place
                if twin is not None:  # It was written twice, and this one is as good.
                    self._writer.release([twin])
                try:
                    if place.segment not in descriptors:
                        path = self._folder / segment_name(place.segment)
                        descriptors[place.segment] = open_for_reading(path)
                        opened.callback(os.close, descriptors[place.segment])
                    replayed.append(self._replay(place, descriptors[place.segment], slot))
                except (OSError, ValueError) as error:
                    problem = (
                        f"its record in the spill cannot be read: {segment_name(place.segment)} at "
                        f"{place.offset}: {error}"
                    )
                    replayed.append(Replayed(*place.key, "", b"", problem))
        return replayed

    def settle(self, keys: Iterable[tuple[int, int]]) -> None:
        """Forget results whose outcome is known and recorded.

        Keys that were not read are looked for among all that wait: give those in one call.

        Args:
            keys: (renderer, sequence) of each; unknown ones do not matter.
        """
        unread = set()
        released = []
        for key in keys:
            place = self._read.pop(key, None)
            if place is None:
                unread.add(key)
            else:
                released.append(place)
        if unread and self._records:
            for token, queue in list(self._queues.items()):
                removed = queue.remove(unread)
                released += removed
                self._records -= len(removed)
                if not queue:
                    del self._queues[token]
        self._writer.release(released)

    def drop(self, token: int) -> None:
        """Forget all that was not read of a token: it got an outcome otherwise."""
        self._writer.release(self._take(token, len(self._queues.get(token, ()))))

    def probe(self) -> bool:
        """Whether the disk takes results; after a `problem`, by trying with the size of one."""
        return self._writer.probe()

    def close(self) -> None:
        """Close all files, and remove those that nobody needs; the rest is for `recover`."""
        self._writer.close()

    def _enqueue(self, token: int, places: Sequence[Place]) -> None:
        if places:
            queue = self._queues.setdefault(token, PlaceQueue())
            for place in places:
                queue.append(place)
            self._records += len(places)

    def _take(self, token: int, count: int) -> list[Place]:
        queue = self._queues.get(token)
        if queue is None:
            return []
        taken = queue.take(count)
        self._records -= len(taken)
        if not queue:
            del self._queues[token]
        return taken

    def _replay(self, place: Place, file_fd: int, slot: memoryview) -> Replayed:
        payload = slot[: self._layout.payload_bytes]
        header, frame = read_record(file_fd, place.segment, place.offset, payload)
        if (header.renderer, header.sequence) != place.key:
            raise ValueError("it is of another result")
        return Replayed(*place.key, id_of(frame), frame, "")
