"""The life of a logger process: make the logger, feed it, release what it has recorded.

Many jobs are read at once; each is given to ``log``; then one ``flush``, then the releases, then
one ring of the doorbell.  The runner releases, so no logger can forget to.

Before each ``log`` and each ``flush`` the runner writes down which one it is, in one word behind
the releases: should the process die or hang in it, the daemon knows which result was to blame.
"""

from __future__ import annotations

import os
import sys
import time
import traceback
from collections.abc import Callable
from typing import Any, Final

import orjson

from millpond.core.progress import SLOT_BITS, flush_word, log_word
from millpond.core.wire import Frame, FrameReader, Kind, pack
from millpond_loggers.shared_results import KeptArrayError, SharedResults

READ_BYTES: Final = 64 * 1024
# A batch that lasts longer than this is flushed and released before it is whole: the slots of a
# slow logger come back one by one, and those of a quick one many at a time.
BATCH_S: Final = 0.01
PROBLEM_CHARACTERS_MAX: Final = 16_000
# What Linux calls an error has a number below this; anything else in an errno is a user's own.
ERRNO_MAX: Final = 4096


class Runner:
    """Feeds one logger.

    Args:
        logger: What was made of the user's class.
        results: Its buffer.
        want: The daemon's words for this logger: the generation wanted in each slot.
        acks: This logger's words: the generation that it has released of each slot; behind
            them the word that says what it has started.
        status_fd: The pipe to the daemon.
        doorbell_fd: An eventfd.
    """

    def __init__(
        self,
        logger: Any,
        results: SharedResults,
        *,
        want: memoryview[int],
        acks: memoryview[int],
        status_fd: int,
        doorbell_fd: int,
    ) -> None:
        self._log: Callable[[Any], Any] = logger.log
        flush = getattr(logger, "flush", None)
        self._flush: Callable[[], Any] | None = flush if callable(flush) else None
        self._logger = logger
        self._results = results
        self._want = want
        self._acks = acks
        self._status_fd = status_fd
        self._doorbell_fd = doorbell_fd
        self._started = len(acks) - 1  # The place of the word behind those of the slots.
        self._logged: list[tuple[int, int]] = []  # (slot, generation), not yet released.
        self._flush_count = 0

    def run(self, jobs_fd: int, reader: FrameReader, first: list[Frame]) -> None:
        """Feed the logger until the daemon closes the pipe; then end it.

        Args:
            jobs_fd: The pipe from the daemon.
            reader: What has read the set-up from it.
            first: Jobs that came together with the set-up.
        """
        self._run_batch(first)
        while data := os.read(jobs_fd, READ_BYTES):
            self._run_batch(reader.feed(data))
        self._end()

    def _run_batch(self, frames: list[Frame]) -> None:
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
            self._results.forget(slot)
            self._raised(slot, generation, traceback.format_exc(), _errno(error))
            return
        try:
            self._results.close(slot)
        except KeptArrayError as error:
            self._raised(slot, generation, str(error))
        else:
            self._logged.append((slot, generation))

    def _release(self) -> None:
        """Flush, then release what was logged since the last time, then ring."""
        if not self._logged:
            return
        self._say_flush()
        try:
            if self._flush is not None:
                self._flush()
        except Exception as error:  # noqa: BLE001  A failed flush is reported for every result in it.
            problem, number = traceback.format_exc(), _errno(error)
            for slot, generation in self._logged:
                self._raised(slot, generation, problem, number)
        else:
            for slot, generation in self._logged:
                self._acks[slot] = generation
            os.eventfd_write(self._doorbell_fd, 1)
        self._logged.clear()

    def _say_flush(self) -> None:
        """Write down that a flush begins; that of a single result is its own affair."""
        if len(self._logged) == 1:
            # Others may have been started after it, and raised.
            self._acks[self._started] = log_word(*self._logged[0])
        else:
            self._flush_count += 1
            self._acks[self._started] = flush_word(self._flush_count)

    def _raised(self, slot: int, generation: int, problem: str, number: int = 0) -> None:
        """Tell the daemon that a result is not recorded, and the errno if the system said no."""
        send_status(
            self._status_fd,
            Kind.RAISED,
            problem,
            slot=slot,
            generation=generation,
            sequence=number,
        )

    def _end(self) -> None:
        """Let the logger finish: `end`, or `log(None)` when it has none."""
        end = getattr(self._logger, "end", None)
        if callable(end):
            end()
        else:
            self._log_none()

    def _log_none(self) -> None:
        try:
            self._log(None)
        except (TypeError, AttributeError, NotImplementedError) as error:
            # Most likely it knows neither `end` nor None, and has nothing to finish.
            if "None" not in str(error):
                raise
            sys.stderr.write(
                f"log(None) at the end raised {type(error).__name__}: {error}; "
                "define end() if something is to be finished there\n"
            )


def _errno(error: Exception) -> int:
    """The number of an error of the system, such as ENOSPC; 0 for any other one."""
    number = error.errno if isinstance(error, OSError) else None
    return number if type(number) is int and 0 < number < ERRNO_MAX else 0


def send_status(
    status_fd: int,
    kind: Kind,
    problem: str = "",
    *,
    slot: int = 0,
    generation: int = 0,
    sequence: int = 0,
) -> None:
    """Write one frame to the daemon; long texts keep their end, where the cause stands."""
    if len(problem) > PROBLEM_CHARACTERS_MAX:
        problem = "..." + problem[-PROBLEM_CHARACTERS_MAX:]
    body = problem.encode(errors="replace")
    frame = memoryview(pack(kind, body, slot=slot, generation=generation, sequence=sequence))
    try:
        while frame:
            frame = frame[os.write(status_fd, frame) :]
    except BrokenPipeError:
        return  # The daemon is gone; the logger still finishes what it was sent.
