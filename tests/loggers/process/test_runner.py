"""The life of a logger, on real pipes, eventfds and shared memory: what is released, and when."""

import errno
import fcntl
import mmap
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest

from millpond.core.layout import Channel, plan
from millpond.core.progress import IDLE, Started, flush_word, log_word, read_word, returned_word
from millpond.core.wire import SETUP_BYTES_MAX, Frame, FrameReader, Kind, pack
from millpond.mapped_arrays import map_arrays
from millpond.segment import Segment
from millpond_loggers.process import runner
from millpond_loggers.process.runner import Runner
from millpond_loggers.process.shared_results import SharedResults
from millpond_loggers.process.status import Status

LAYOUT = plan((Channel("image", (4, 4), "float32"), Channel("loss", (), "float64")), 8)
PIPE_BYTES = 1024 * 1024  # As the daemon asks for.
ROW = 1  # The logger under test is the second of two: it must leave the words of the first alone.


class Daemon:
    """The daemon's end of one logger: sends jobs, reads what comes back."""

    def __init__(self) -> None:
        self._segment = Segment(LAYOUT, 2)
        self._arrays = map_arrays(LAYOUT, self._segment.fd, writable=True)
        self.results = SharedResults(LAYOUT, self._segment.fd_read_only, regid=ROW + 1)
        self.want = self._segment.want[ROW]
        # The daemon's view of them, read-only.
        self.acks = self._segment.acks[ROW][: LAYOUT.slot_count]
        self._words = memoryview(mmap.mmap(self._segment.acks_fds[ROW], LAYOUT.acks_bytes))
        self._jobs_read, self._jobs_write = os.pipe2(os.O_CLOEXEC)
        self._status_read, self._status_write = os.pipe2(os.O_CLOEXEC)
        fcntl.fcntl(self._jobs_write, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
        self._doorbell = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._open = {self._jobs_read, self._jobs_write, self._status_read, self._status_write}
        self._open.add(self._doorbell)

    @property
    def started(self) -> Started | None:
        """What the logger has started last; None: nothing, or the flush of a batch."""
        return read_word(self._segment.acks[ROW][LAYOUT.slot_count])

    @property
    def word(self) -> int:
        """What it says that it is doing."""
        return self._segment.acks[ROW][LAYOUT.slot_count]

    def job(
        self, slot: int, generation: int = 1, key: tuple[int, int] = (1, 1), **fields: Any
    ) -> bytes:
        """Write a result whose loss is its generation, want it, and make its frame."""
        self._arrays["image"][slot] = slot
        self._arrays["loss"][slot] = generation
        self.want[slot] = generation
        item = {"id": f"{slot}.{generation}", "render_args": {"zoom": slot}, **fields}
        return pack(
            Kind.PUBLISH,
            orjson.dumps(item),
            slot=slot,
            generation=generation,
            renderer=key[0],
            sequence=key[1],
        )

    def run(self, logger: Any, *jobs: bytes, first: tuple[bytes, ...] = ()) -> list[Frame]:
        """Let a runner feed a logger with these until the end; what it said."""
        self._write_and_close(b"".join(jobs))
        try:
            Runner(
                logger,
                self.results,
                want=self.want,
                acks=self._words.cast("Q"),
                status=Status(self._status_write),
                doorbell_fd=self._doorbell,
            ).run(
                self._jobs_read,
                FrameReader(SETUP_BYTES_MAX),
                FrameReader().feed(b"".join(first)),
            )
        finally:
            self._close(self._status_write)
        return FrameReader().feed(self._read_status())

    def rings(self) -> int:
        """How often the doorbell rang since the last time."""
        try:
            return os.eventfd_read(self._doorbell)
        except BlockingIOError:
            return 0

    def other_words(self) -> list[int]:
        """Every word that the logger must never change."""
        return [*self._segment.want[0], *self._segment.acks[0]]

    def close(self) -> None:
        for fd in list(self._open):
            self._close(fd)
        self._segment.close()

    def _write_and_close(self, data: bytes) -> None:
        assert os.write(self._jobs_write, data) == len(data)
        self._close(self._jobs_write)

    def _read_status(self) -> bytes:
        data = b""
        while more := os.read(self._status_read, 65536):
            data += more
        return data

    def _close(self, fd: int) -> None:
        if fd in self._open:
            self._open.discard(fd)
            os.close(fd)


@pytest.fixture
def daemon() -> Iterator[Daemon]:
    made = Daemon()
    yield made
    made.close()


@pytest.fixture(autouse=True)
def long_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    """However slow the machine is: a batch is what was read at once."""
    monkeypatch.setattr(runner, "BATCH_S", 3600.0)


class Recorder:
    """Writes down all that is done with it."""

    def __init__(self, daemon: Daemon) -> None:
        self.daemon = daemon
        self.calls: list[str] = []

    def log(self, item: dict[str, Any] | None) -> None:
        assert item is not None
        arrays = self.daemon.results[item["result_ix"]]
        assert (arrays["image"] == item["result_ix"]).all()
        self.calls.append(item["id"])

    def flush(self) -> None:
        self.calls.append("flush")

    def end(self) -> None:
        self.calls.append("end")


def test_results_are_logged_in_order_and_released(daemon: Daemon) -> None:
    logger = Recorder(daemon)
    said = daemon.run(logger, daemon.job(3), daemon.job(0), daemon.job(7, 5), daemon.job(1))
    assert logger.calls == ["3.1", "0.1", "7.5", "1.1", "flush", "end"]
    assert said == []
    assert list(daemon.acks) == [1, 1, 0, 1, 0, 0, 0, 5]
    assert daemon.rings() == 1


def test_an_item_is_what_the_renderer_sent_and_where_it_lies(daemon: Daemon) -> None:
    items = []

    class Logger:
        def log(self, item: dict[str, Any] | None) -> None:
            items.append(item)

    daemon.run(Logger(), daemon.job(2, 9, environment="sky", model="cup", seed=[1, None]))
    assert items == [
        {
            "id": "2.9",
            "render_args": {"zoom": 2},
            "environment": "sky",
            "model": "cup",
            "seed": [1, None],
            "result_ix": 2,
        },
        None,
    ]


def test_there_is_one_flush_for_each_batch_before_anything_of_it_is_released(
    daemon: Daemon,
) -> None:
    seen: list[tuple[list[int], int]] = []

    class Logger(Recorder):
        def flush(self) -> None:
            super().flush()
            seen.append((list(daemon.acks), daemon.rings()))

    logger = Logger(daemon)
    first = (daemon.job(0), daemon.job(1))
    daemon.run(logger, daemon.job(2), daemon.job(3), first=first)
    assert logger.calls == ["0.1", "1.1", "flush", "2.1", "3.1", "flush", "end"]
    nothing = [0] * 8
    assert seen == [(nothing, 0), ([1, 1, *nothing[2:]], 1)]  # One ring for the first batch,
    assert daemon.rings() == 1  # and one for the second.


def test_jobs_that_are_cut_where_a_read_ends_are_put_together(daemon: Daemon) -> None:
    logger = Recorder(daemon)
    note = "x" * (runner.READ_BYTES * 2 // 5)
    daemon.run(logger, *(daemon.job(slot, note=note) for slot in range(8)))
    assert [call for call in logger.calls if call != "flush"] == [
        *(f"{slot}.1" for slot in range(8)),
        "end",
    ]
    assert logger.calls.count("flush") > 2
    assert list(daemon.acks) == [1] * 8


def test_a_slow_logger_gives_slots_back_before_the_batch_is_whole(
    daemon: Daemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner, "BATCH_S", 0.01)
    seen = []

    class Slow(Recorder):
        def log(self, item: dict[str, Any] | None) -> None:
            super().log(item)
            seen.append((list(daemon.acks[:3]), daemon.rings()))
            over_s = time.monotonic() + runner.BATCH_S
            while time.monotonic() <= over_s:
                pass

    logger = Slow(daemon)
    daemon.run(logger, daemon.job(0), daemon.job(1), daemon.job(2))
    assert seen == [([0, 0, 0], 0), ([1, 0, 0], 1), ([1, 1, 0], 1)]
    assert logger.calls == ["0.1", "flush", "1.1", "flush", "2.1", "flush", "end"]
    assert daemon.rings() == 1


def test_a_result_that_was_revoked_is_skipped_without_a_trace(daemon: Daemon) -> None:
    logger = Recorder(daemon)
    jobs = [daemon.job(0, 4), daemon.job(1, 4), daemon.job(2, 4)]
    daemon.want[0] = 0  # Revoked.
    daemon.want[1] = 5  # Another result by now.
    said = daemon.run(logger, *jobs)
    assert logger.calls == ["2.4", "flush", "end"]
    assert said == []
    assert list(daemon.acks[:3]) == [0, 0, 4]


def test_a_batch_of_revoked_results_is_neither_flushed_nor_rung_for(daemon: Daemon) -> None:
    logger = Recorder(daemon)
    job = daemon.job(0)
    daemon.want[0] = 0
    daemon.run(logger, job)
    assert logger.calls == ["end"]
    assert daemon.rings() == 0


def test_a_slot_may_come_again_with_its_next_use(daemon: Daemon) -> None:
    losses = []

    class Logger(Recorder):
        def log(self, item: dict[str, Any] | None) -> None:
            super().log(item)
            losses.append(daemon.results[0]["loss"].item())
            if len(losses) == 1:
                assert daemon.acks[0] == 0

        def flush(self) -> None:
            super().flush()
            if len(losses) == 1:
                daemon.job(0, 2)  # As if it were released, granted and published at once.

    logger = Logger(daemon)
    second = daemon.job(0, 2)
    daemon.run(logger, second, first=(daemon.job(0, 1),))
    assert losses == [1, 2]
    assert logger.calls == ["0.1", "flush", "0.2", "flush", "end"]
    assert daemon.acks[0] == 2


def test_a_log_that_raises_is_told_with_its_traceback_and_others_go_on(daemon: Daemon) -> None:
    class Logger(Recorder):
        def log(self, item: dict[str, Any] | None) -> None:
            super().log(item)
            if item is not None and item["id"] == "1.6":
                raise RuntimeError("cannot record this one")

    logger = Logger(daemon)
    (said,) = daemon.run(logger, daemon.job(0, 5), daemon.job(1, 6), daemon.job(2, 7))
    assert logger.calls == ["0.5", "1.6", "2.7", "flush", "end"]
    assert (said.kind, said.slot, said.generation) == (Kind.RAISED, 1, 6)
    text = said.body.decode()
    assert text.startswith("Traceback ")
    assert 'raise RuntimeError("cannot record this one")' in text
    assert text.splitlines()[-1].startswith("RuntimeError: cannot record this one (test_runner.py")
    assert text.endswith(", in log)\n")
    assert list(daemon.acks[:3]) == [5, 0, 7]


def test_a_failing_flush_is_told_for_each_result_of_its_batch(daemon: Daemon) -> None:
    class Logger(Recorder):
        def flush(self) -> None:
            super().flush()
            if self.calls.count("flush") == 1:
                raise OSError(28, "No space left on device")

    logger = Logger(daemon)
    first = (daemon.job(0, 3), daemon.job(1, 4))
    said = daemon.run(logger, daemon.job(2, 5), first=first)
    assert [(frame.kind, frame.slot, frame.generation) for frame in said] == [
        (Kind.RAISED, 0, 3),
        (Kind.RAISED, 1, 4),
    ]
    for frame in said:
        last = frame.body.splitlines()[-1]
        assert last.startswith(b"OSError: [Errno 28] No space left on device (test_runner.py:")
        assert last.endswith(b", in flush)")
    assert list(daemon.acks[:3]) == [0, 0, 5]
    assert logger.calls == ["0.3", "1.4", "flush", "2.5", "flush", "end"]


class DiskFull(OSError):
    pass


@pytest.mark.parametrize(
    ("error", "number"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), errno.ENOSPC),
        (DiskFull(errno.EDQUOT, "Quota exceeded"), errno.EDQUOT),
        (PermissionError(errno.EACCES, "no", "/x"), errno.EACCES),
        (OSError("cannot write this image"), 0),
        (OSError(-7, "odd"), 0),
        (OSError(2**70, "odd"), 0),
        (OSError("28", "odd"), 0),
        (ValueError(28, "not of the system"), 0),
    ],
)
@pytest.mark.parametrize("where", ["log", "flush"])
def test_the_number_of_an_error_of_the_system_is_told(
    daemon: Daemon, error: Exception, number: int, where: str
) -> None:
    class Logger(Recorder):
        def log(self, item: dict[str, Any] | None) -> None:
            if where == "log":
                raise error

        def flush(self) -> None:
            raise error

    (said,) = daemon.run(Logger(daemon), daemon.job(0, 3))
    assert (said.kind, said.slot, said.generation) == (Kind.RAISED, 0, 3)
    assert said.sequence == number


# What the daemon sees of a logger that dies or hangs.


class Watched(Recorder):
    """Writes down what the daemon would blame at each call."""

    def __init__(self, daemon: Daemon, raises: str = "") -> None:
        super().__init__(daemon)
        self.raises = raises
        self.seen: list[tuple[str, Any]] = []

    def log(self, item: dict[str, Any] | None) -> None:
        super().log(item)
        assert item is not None
        self.seen.append((item["id"], self.daemon.started))
        if item["id"] in self.raises.split():
            raise ValueError(item["id"])

    def flush(self) -> None:
        self.seen.append(("flush", self.daemon.started))


def test_what_was_started_last_can_be_read_at_any_time(daemon: Daemon) -> None:
    assert daemon.started is None
    logger = Watched(daemon)
    first = (daemon.job(3, 9), daemon.job(0, 4))
    daemon.run(logger, daemon.job(7, 2**40), first=first)
    assert logger.seen == [
        ("3.9", (3, 9)),
        ("0.4", (0, 4)),
        ("flush", None),
        (f"7.{2**40}", (7, 2**40)),
        ("flush", (7, 2**40)),
    ]
    assert daemon.started == (7, 2**40)
    assert list(daemon.acks) == [4, 0, 0, 9, 0, 0, 0, 2**40]


def test_two_flushes_of_batches_are_told_apart(daemon: Daemon) -> None:
    words = []

    class Logger(Recorder):
        def flush(self) -> None:
            words.append(daemon._words.cast("Q")[LAYOUT.slot_count])

    first = (daemon.job(0), daemon.job(1))
    daemon.run(Logger(daemon), daemon.job(2), daemon.job(3), first=first)
    assert words == [flush_word(1), flush_word(2)]


def test_the_flush_of_one_result_names_it_whatever_was_started_after_it(daemon: Daemon) -> None:
    logger = Watched(daemon, raises="2.1 3.1")
    daemon.run(logger, daemon.job(1), daemon.job(2), daemon.job(3))
    assert logger.seen[-1] == ("flush", (1, 1))


def test_a_logger_can_tell_a_result_that_comes_again(daemon: Daemon) -> None:
    keys = []

    class Logger(Recorder):
        def log(self, item: dict[str, Any] | None) -> None:
            assert item is not None
            keys.append(daemon.results.key_of(item["result_ix"]))

    daemon.run(Logger(daemon), daemon.job(0, key=(5, 6)), daemon.job(1, key=(2**32 - 1, 2**64 - 1)))
    assert keys == [(5, 6), (2**32 - 1, 2**64 - 1)]


@pytest.mark.parametrize("cut", [lambda array: array, lambda array: array[1:]])
def test_a_kept_array_is_told_as_the_mistake_that_it_is(daemon: Daemon, cut: Any) -> None:
    class Logger(Recorder):
        kept: Any = None

        def log(self, item: dict[str, Any] | None) -> None:
            super().log(item)
            assert item is not None
            if item["result_ix"] == 1:
                self.kept = cut(daemon.results[1]["image"])

    said = daemon.run(Logger(daemon), daemon.job(0), daemon.job(1), daemon.job(2))
    assert [(frame.kind, frame.slot, frame.generation) for frame in said] == [(Kind.RAISED, 1, 1)]
    assert b"is still referred to after log() returned" in said[0].body
    assert b"array.copy()" in said[0].body
    line = Logger.log.__code__.co_firstlineno
    place = f"({Path(__file__).name}:{line}, in log)\n"
    assert said[0].body.decode().startswith("KeptArrayError: array 'image' of this result")
    assert said[0].body.decode().endswith(place)
    assert list(daemon.acks[:3]) == [1, 0, 1]


def test_a_logger_without_flush_is_told_of_by_the_first_process_that_has_it(
    daemon: Daemon, caplog: pytest.LogCaptureFixture
) -> None:
    class Hoard:
        def __init__(self, instance: int = 1) -> None:
            self.instance = instance

        def log(self, item: Any) -> None: ...
        def end(self) -> None: ...

    caplog.set_level("INFO")
    daemon.run(Hoard(), daemon.job(0))
    assert [record.message.partition(":")[0] for record in caplog.records] == [
        "Hoard has no flush()"
    ]
    assert caplog.records[0].levelname == "INFO"


def test_a_logger_that_was_started_again_is_not_told_of_again(
    daemon: Daemon, caplog: pytest.LogCaptureFixture
) -> None:
    class Hoard:
        def log(self, item: Any) -> None: ...
        def end(self) -> None: ...

    caplog.set_level("INFO")
    daemon._words.cast("Q")[-1] = log_word(1, 1)  # That of the one before it.
    daemon.run(Hoard(), daemon.job(0))
    assert caplog.records == []


def test_writing_into_a_result_is_told_and_does_no_damage(daemon: Daemon) -> None:
    class Logger:
        def log(self, item: dict[str, Any] | None) -> None:
            if item is not None:
                daemon.results[item["result_ix"]]["image"] *= 2

    (said,) = daemon.run(Logger(), daemon.job(3))
    assert said.slot == 3
    assert b"read-only" in said.body
    daemon.results.open(3, (1, 1))
    assert (daemon.results[3]["image"] == np.float32(3)).all()


def test_a_logger_that_never_frees_hangs_nothing(daemon: Daemon) -> None:
    class Logger:
        def log(self, item: dict[str, Any] | None) -> None:
            pass

    assert daemon.run(Logger(), daemon.job(0), daemon.job(1)) == []
    assert list(daemon.acks[:2]) == [1, 1]


def test_freeing_once_twice_late_or_what_is_not_there_is_harmless(daemon: Daemon) -> None:
    class Logger:
        regid = daemon.results.register()

        def log(self, item: dict[str, Any] | None) -> None:
            if item is not None:
                for slot in (0, 1, 1, 2, 7, 99, -1):
                    daemon.results.free(slot, self.regid)

    assert daemon.run(Logger(), daemon.job(0), daemon.job(1), daemon.job(2)) == []
    assert list(daemon.acks) == [1, 1, 1, 0, 0, 0, 0, 0]
    assert daemon.rings() == 1


def test_end_is_called_once_after_the_last_item_and_nothing_is_logged_after_it(
    daemon: Daemon,
) -> None:
    logger = Recorder(daemon)
    daemon.run(logger)
    assert logger.calls == ["end"]
    assert daemon.rings() == 0


@pytest.mark.parametrize("end", [None, "no function"])
def test_a_logger_without_end_gets_none_once(daemon: Daemon, end: Any) -> None:
    class Logger:
        def __init__(self) -> None:
            self.items: list[Any] = []

        def log(self, item: dict[str, Any] | None) -> None:
            self.items.append(item and item["id"])

    if end:
        Logger.end = end
    logger = Logger()
    daemon.run(logger, daemon.job(0))
    assert logger.items == ["0.1", None]


@pytest.mark.parametrize(
    "look",
    [lambda item: item["id"], lambda item: item.get("id"), lambda item: "id" in item, dict, len],
)
def test_a_logger_that_knows_neither_end_nor_none_ends_quietly(daemon: Daemon, look: Any) -> None:
    class Logger:
        def log(self, item: Any) -> None:
            look(item)

    assert daemon.run(Logger(), daemon.job(0)) == []
    assert daemon.acks[0] == 1


@pytest.mark.parametrize(
    "error", [OSError(28, "full"), RuntimeError("None"), TypeError("2 + 'a'"), KeyError("x")]
)
@pytest.mark.parametrize("has_end", [True, False])
def test_a_real_error_at_the_end_is_raised(daemon: Daemon, error: Exception, has_end: bool) -> None:
    class Logger:
        def log(self, item: dict[str, Any] | None) -> None:
            if item is None:
                raise error

    if has_end:

        def end(_: Logger) -> None:
            raise error

        Logger.end = end
    with pytest.raises(type(error)) as caught:
        daemon.run(Logger(), daemon.job(0))
    assert caught.value is error
    assert daemon.acks[0] == 1  # What was flushed before stays delivered.


def test_a_type_error_in_end_is_no_ignorance_of_none(daemon: Daemon) -> None:
    class Logger(Recorder):
        file: Any = None

        def end(self) -> None:
            self.file["x"]

    with pytest.raises(TypeError, match="NoneType"):
        daemon.run(Logger(daemon), daemon.job(0))


# Batches.


class Batches(Recorder):
    """Takes what came at once."""

    def __init__(self, daemon: Daemon) -> None:
        super().__init__(daemon)
        self.batches: list[list[str]] = []
        self.seen: list[Started | None] = []

    def log_many(self, items: list[dict[str, Any]]) -> None:
        self.seen.append(self.daemon.started)
        for item in items:
            assert (self.daemon.results[item["result_ix"]]["image"] == item["result_ix"]).all()
            assert self.daemon.results.key_of(item["result_ix"]) == (1, 1)
        self.batches.append([item["id"] for item in items])
        self.calls.append("log_many")


def test_log_many_is_given_what_came_at_once_instead_of_log(daemon: Daemon) -> None:
    logger = Batches(daemon)
    first = (daemon.job(0), daemon.job(1), daemon.job(2))
    said = daemon.run(logger, daemon.job(3), first=first)
    assert logger.batches == [["0.1", "1.1", "2.1"], ["3.1"]]
    assert logger.calls == ["log_many", "flush", "log_many", "flush", "end"]
    assert said == []
    assert list(daemon.acks) == [1, 1, 1, 1, 0, 0, 0, 0]
    assert daemon.rings() == 2


def test_only_a_batch_of_one_names_its_result(daemon: Daemon) -> None:
    """Of several, any may have ended the process: none is blamed, and they come one by one."""
    logger = Batches(daemon)
    daemon.run(logger, daemon.job(3), first=(daemon.job(0), daemon.job(1)))
    assert logger.seen == [None, (3, 1)]


def test_what_was_revoked_is_not_in_the_batch_and_an_empty_one_is_none(daemon: Daemon) -> None:
    logger = Batches(daemon)
    first = (daemon.job(0, 4), daemon.job(1, 4))
    alone = daemon.job(2, 4)
    daemon.want[0] = daemon.want[2] = 0
    daemon.run(logger, alone, first=first)
    assert logger.batches == [["1.4"]]
    assert logger.calls == ["log_many", "flush", "end"]


def test_a_log_many_that_raises_is_told_for_each_result_of_the_batch(daemon: Daemon) -> None:
    class Logger(Batches):
        def log_many(self, items: list[dict[str, Any]]) -> None:
            super().log_many(items)
            if len(items) == 2:
                raise OSError(errno.ENOSPC, "full")

    logger = Logger(daemon)
    said = daemon.run(logger, daemon.job(2), first=(daemon.job(0, 3), daemon.job(1, 4)))
    assert [(frame.kind, frame.slot, frame.generation, frame.sequence) for frame in said] == [
        (Kind.RAISED, 0, 3, errno.ENOSPC),
        (Kind.RAISED, 1, 4, errno.ENOSPC),
    ]
    assert {b", in log_many)" in frame.body for frame in said} == {True}
    assert list(daemon.acks[:3]) == [0, 0, 1]
    assert logger.calls == ["log_many", "log_many", "flush", "end"]


def test_of_a_batch_only_the_result_whose_array_is_kept_is_refused(daemon: Daemon) -> None:
    class Logger(Batches):
        kept: Any = None

        def log_many(self, items: list[dict[str, Any]]) -> None:
            super().log_many(items)
            self.kept = daemon.results[1]["loss"]

    (said,) = daemon.run(Logger(daemon), daemon.job(0), daemon.job(1), daemon.job(2))
    assert (said.slot, said.generation) == (1, 1)
    assert list(daemon.acks[:3]) == [1, 0, 1]


# Loggers that keep slots.


class Keeper(Recorder):
    """Keeps results until it has so many, then sums their losses and frees them."""

    keeps_slots = True

    def __init__(self, daemon: Daemon, count: int = 3) -> None:
        super().__init__(daemon)
        self.count = count
        self.kept: list[tuple[dict[str, Any], dict[str, Any]]] = []
        self.sums: list[float] = []
        self.words: list[int] = []

    def log(self, item: dict[str, Any] | None) -> None:
        super().log(item)
        assert item is not None
        self.words.append(self.daemon.word)
        self.kept.append((item, self.daemon.results[item["result_ix"]]))
        if len(self.kept) == self.count:
            self.free_all()

    def free_all(self) -> None:
        self.sums.append(sum(arrays["loss"].item() for _, arrays in self.kept))
        for item, _ in self.kept:
            self.daemon.results.free(item["result_ix"], ROW + 1)
        self.kept.clear()


def test_what_a_keeper_has_not_freed_is_not_released(daemon: Daemon) -> None:
    seen = []

    class Logger(Keeper):
        def flush(self) -> None:
            super().flush()
            seen.append((list(daemon.acks[:5]), daemon.rings()))

    logger = Logger(daemon)
    first = (daemon.job(0), daemon.job(1, 7))
    said = daemon.run(logger, daemon.job(2), daemon.job(3), first=first)
    assert said == []
    assert logger.sums == [1 + 7 + 1]
    nothing = [0, 0, 0, 0, 0]
    assert seen == [(nothing, 0), (nothing, 1)]
    assert logger.calls == ["0.1", "1.7", "flush", "2.1", "3.1", "flush", "end"]
    # At the end the fourth one is released too.
    assert list(daemon.acks[:5]) == [1, 7, 1, 1, 0]


def test_what_a_keeper_keeps_is_released_after_its_end_has_returned(daemon: Daemon) -> None:
    class Logger(Keeper):
        def end(self) -> None:
            super().end()
            self.seen = (list(daemon.acks[:2]), daemon.rings())

    logger = Logger(daemon)
    daemon.run(logger, daemon.job(0), daemon.job(1))
    assert logger.seen == ([0, 0], 1)
    assert list(daemon.acks[:2]) == [1, 1]
    assert daemon.rings() == 1


def test_what_a_keeper_keeps_is_not_released_when_its_end_raises(daemon: Daemon) -> None:
    class Logger(Keeper):
        def end(self) -> None:
            raise OSError(28, "full")

    with pytest.raises(OSError, match="full"):
        daemon.run(Logger(daemon), daemon.job(0), daemon.job(1))
    assert list(daemon.acks[:2]) == [0, 0]


def test_a_keeper_that_waits_for_more_says_which_result_it_keeps_last(daemon: Daemon) -> None:
    """So it is not taken to hang: it is in no `log`, whatever was started or raised last."""

    class Logger(Keeper):
        def log(self, item: dict[str, Any] | None) -> None:
            if item is not None and item["id"] == "5.1":
                raise ValueError
            super().log(item)

    logger = Logger(daemon, count=9)
    daemon.run(logger, daemon.job(5), first=(daemon.job(0), daemon.job(3, 2)))
    assert logger.words == [log_word(0, 1), log_word(3, 2)]
    assert daemon.word == returned_word(3, 2)
    assert daemon.rings() == 3


def test_the_word_of_an_earlier_process_is_not_its_own(daemon: Daemon) -> None:
    daemon.run(Keeper(daemon), daemon.job(0))
    assert daemon.word == returned_word(0, 1)
    Runner(
        Keeper(daemon),
        daemon.results,
        want=daemon.want,
        acks=daemon._words.cast("Q"),
        status=Status(-1),
        doorbell_fd=-1,
    )
    assert daemon.word == IDLE


def test_a_keeper_that_has_freed_all_waits_for_nothing(daemon: Daemon) -> None:
    daemon.run(Keeper(daemon, count=1), daemon.job(0))
    assert daemon.word == log_word(0, 1)


def test_freeing_the_last_one_leaves_the_one_before_it(daemon: Daemon) -> None:
    class Logger(Recorder):
        keeps_slots = True

        def log(self, item: dict[str, Any] | None) -> None:
            super().log(item)
            assert item is not None
            if item["result_ix"] == 2:
                daemon.results.free(2, ROW + 1)

        def end(self) -> None:
            self.word = daemon.word

    logger = Logger(daemon)
    daemon.run(logger, daemon.job(0), daemon.job(1), daemon.job(2))
    assert logger.word == returned_word(1, 1)


def test_an_array_that_is_kept_after_it_was_freed_is_told(daemon: Daemon) -> None:
    class Logger(Keeper):
        mine: Any = None

        def free_all(self) -> None:
            self.mine = self.kept[1][1]["loss"]
            super().free_all()

    (said,) = daemon.run(Logger(daemon), daemon.job(0), daemon.job(1), daemon.job(2))
    assert (said.slot, said.generation) == (1, 1)
    assert b"is still referred to after free()" in said.body
    assert list(daemon.acks[:3]) == [1, 0, 1]


def test_when_the_flush_of_a_keeper_fails_nothing_that_it_freed_is_released(
    daemon: Daemon,
) -> None:
    class Logger(Keeper):
        def flush(self) -> None:
            super().flush()
            if self.sums:
                raise OSError(28, "full")

    first = (daemon.job(0), daemon.job(1))
    said = daemon.run(Logger(daemon), daemon.job(2), first=first)
    assert [frame.slot for frame in said] == [0, 1, 2]
    assert list(daemon.acks[:3]) == [0, 0, 0]


def test_a_keeper_may_take_batches(daemon: Daemon) -> None:
    class Logger(Batches):
        keeps_slots = True

        def log_many(self, items: list[dict[str, Any]]) -> None:
            super().log_many(items)
            for item in items[1:]:
                daemon.results.free(item["result_ix"], ROW + 1)

        def end(self) -> None:
            self.acks = list(daemon.acks[:4])

    logger = Logger(daemon)
    daemon.run(logger, daemon.job(0), daemon.job(1), daemon.job(2))
    assert logger.acks == [0, 1, 1, 0]
    assert list(daemon.acks[:4]) == [1, 1, 1, 0]
