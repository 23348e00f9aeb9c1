"""The life of a logger process: feed the logger, release what it has recorded.

Many jobs are read at once; each is given to ``log``, or all of them to ``log_many``; then one
``flush``, then the releases, then one ring of the doorbell.  The runner releases, so no logger can
forget to; only one that says ``keeps_slots`` decides itself what is released.

Before each of these calls the runner writes down which one it is, in one word behind the releases:
should the process die or hang in it, the daemon knows which result was to blame.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Sequence
from typing import Any, Final, Protocol

import orjson

from millpond.core.progress import IDLE, SLOT_BITS, flush_word, log_word, returned_word
from millpond.core.wire import Frame, FrameReader
from millpond_loggers.plugin import flush_note
from millpond_loggers.process.problem import place_of
from millpond_loggers.process.shared_results import KeptArrayError, SharedResults
from millpond_loggers.process.status import Reports

READ_BYTES: Final = 64 * 1024
# A batch that lasts longer than this is flushed and released before it is whole: the slots of a
# slow logger come back one by one, and those of a quick one many at a time.
BATCH_S: Final = 0.01

log = logging.getLogger(__name__)

Use = tuple[int, int]
"""A slot and the generation of its use."""


class Words(Protocol):
    """The words of a logger in shared memory."""

    def __len__(self) -> int:
        """How many there are."""

    def __setitem__(self, place: int, word: int, /) -> None:
        """Write one, whole."""


class Runner:
    """Feeds one logger.

    Args:
        logger: What was made of the user's class.
        results: Its buffer.
        want: The daemon's words for this logger: the generation wanted in each slot.
        acks: This logger's words: the generation that it has released of each slot; behind
            them the word that says what it has started.
        status: Is told which results are not recorded.
        doorbell_fd: An eventfd.
    """

    def __init__(
        self,
        logger: Any,
        results: SharedResults,
        *,
        want: Sequence[int],
        acks: Words,
        status: Reports,
        doorbell_fd: int,
    ) -> None:
        self._log: Callable[[Any], Any] = logger.log
        self._log_many = _method(logger, "log_many")
        self._place = place_of(self._log_many or self._log)
        self._flush = _method(logger, "flush")
        self._finish = _method(logger, "end")
        self._keeps = results.keeps = bool(getattr(logger, "keeps_slots", False))
        self._results = results
        self._want = want
        self._acks = acks
        self._status = status
        self._doorbell_fd = doorbell_fd
        self._started = len(acks) - 1  # The place of the word behind those of the slots.
        # An earlier process of this run has left its word, and has told the note.
        is_first = not isinstance(acks, memoryview) or acks[self._started] == IDLE
        is_told = is_first and getattr(logger, "instance", 1) == 1
        self._note = flush_note(logger) if is_told else ""
        acks[self._started] = IDLE  # What stands there was an earlier process's.
        self._logged: list[Use] = []  # Not yet flushed.
        self._kept: dict[int, int] = {}  # The same of what the logger has not freed.
        self._flush_count = 0

    def run(self, jobs_fd: int, reader: FrameReader, first: list[Frame]) -> None:
        """Feed the logger until the daemon closes the pipe; then end it.

        Args:
            jobs_fd: The pipe from the daemon.
            reader: What has read the set-up from it.
            first: Jobs that came together with the set-up.
        """
        if self._note:
            log.info(self._note)
        self.run_batch(first)
        while data := os.read(jobs_fd, READ_BYTES):
            self.run_batch(reader.feed(data))
        self.end()

    def run_batch(self, frames: list[Frame]) -> None:
        """Give the logger the results of these jobs, and release what it is done with."""
        if self._log_many is not None:
            self._run_many(frames)
            self._release()
            return
        due_s = time.monotonic() + BATCH_S
        for frame in frames:
            # What was revoked since it was sent may be another result by now.
            if self._want[frame.slot] == frame.generation:
                self._run_one(frame)
                if time.monotonic() > due_s:
                    self._release()
                    due_s = time.monotonic() + BATCH_S
        self._release()

    def _run_one(self, frame: Frame) -> None:
        _, slot, renderer, generation, sequence, _ = frame
        # What `log_word` gives, here without its call: this is done for every result.
        self._acks[self._started] = generation << SLOT_BITS | slot + 1
        self._results.open(slot, (renderer, sequence))
        try:
            item = orjson.loads(frame.body)
            item["result_ix"] = slot
            self._log(item)
        except Exception as error:  # noqa: BLE001  Whatever a user's `log` raises is reported, and it goes on.
            self._refuse([(slot, generation)], error)
            return
        if self._keeps:
            self._logged.append((slot, generation))
        else:
            self._close(slot, generation)

    def _run_many(self, frames: list[Frame]) -> None:
        """Give the whole batch to `log_many`; if it raises, nothing of the batch is recorded."""
        items, uses = [], []
        for frame in frames:
            if self._want[frame.slot] == frame.generation:
                self._results.open(frame.slot, (frame.renderer, frame.sequence))
                item = orjson.loads(frame.body)
                item["result_ix"] = frame.slot
                items.append(item)
                uses.append((frame.slot, frame.generation))
        if not uses:
            return
        assert self._log_many is not None
        self._say(uses)
        try:
            self._log_many(items)
        except Exception as error:  # noqa: BLE001  As above; the daemon sends them again one by one.
            self._refuse(uses, error)
            return
        if self._keeps:
            self._logged += uses
        else:
            for slot, generation in uses:
                self._close(slot, generation)

    def _close(self, slot: int, generation: int) -> None:
        """Hide a slot that the logger is done with."""
        try:
            self._results.close(slot)
        except KeptArrayError as error:
            error.place = self._place
            self._status.raised(slot, generation, error)
        else:
            self._logged.append((slot, generation))

    def _release(self) -> None:
        """Flush, then release what was logged since the last time, then ring."""
        is_news = bool(self._logged) and self._flush_logged()
        if self._kept:
            # It may wait for more as long as it likes: it is in no `log` and no `flush`.
            self._acks[self._started] = returned_word(*next(reversed(self._kept.items())))
            is_news = True
        if is_news:
            os.eventfd_write(self._doorbell_fd, 1)

    def _flush_logged(self) -> bool:
        """Flush and release; or, if the flush fails, tell that nothing of it is recorded."""
        self._say([*self._kept.items(), *self._logged] if self._kept else self._logged)
        try:
            if self._flush is not None:
                self._flush()
        except Exception as error:  # noqa: BLE001  A failed flush is reported for every result in it.
            freed = {slot: self._kept.pop(slot, 0) for slot in self._results.take_freed()}
            self._refuse(list((freed | dict(self._logged)).items()), error)
            self._logged.clear()
            return False
        if self._keeps:
            self._release_freed()
        for slot, generation in self._logged:
            self._acks[slot] = generation
        self._logged.clear()
        return True

    def _release_freed(self) -> None:
        """Put what the logger has freed in the place of what it was given."""
        self._kept.update(self._logged)
        self._logged.clear()
        for slot in self._results.take_freed():
            self._close(slot, self._kept.pop(slot))

    def _refuse(self, uses: list[Use], error: Exception) -> None:
        """Tell the daemon that these are not recorded; it sends them again."""
        for slot, _ in uses:
            self._results.forget(slot)
        for slot, generation in uses:
            self._status.raised(slot, generation, error)

    def _say(self, uses: list[Use]) -> None:
        """Write down that a call begins which is for these; for a single one it is its own."""
        if len(uses) == 1:
            # Others may have been started after it, and raised.
            self._acks[self._started] = log_word(*uses[0])
        else:
            self._flush_count += 1
            self._acks[self._started] = flush_word(self._flush_count)

    def end(self) -> None:
        """Let the logger finish: `end`, or `log(None)` when it has none; release what it kept."""
        if self._finish is not None:
            self._finish()
        else:
            self._log_none()
        for slot, generation in self._kept.items():
            self._acks[slot] = generation
        if self._kept:
            self._kept.clear()
            os.eventfd_write(self._doorbell_fd, 1)

    def _log_none(self) -> None:
        try:
            self._log(None)
        except (TypeError, AttributeError, NotImplementedError) as error:
            # Most likely it knows neither `end` nor None, and has nothing to finish.
            if "None" not in str(error):
                raise
            log.warning(
                "log(None) at the end raised %s: %s; "
                "define end() if something is to be finished there",
                type(error).__name__,
                error,
            )


def _method(logger: object, name: str) -> Callable[..., Any] | None:
    method = getattr(logger, name, None)
    return method if callable(method) else None
