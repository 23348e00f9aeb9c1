"""The points come in their order, and what is watched is what the runner calls."""

from typing import Any

import pytest

from millpond_loggers.testing.points import POINTS, REPEATED, WatchedWords, watch_logger


class Logger:
    def __init__(self) -> None:
        self.calls: list[Any] = []

    def log(self, item: Any) -> None:
        self.calls.append(item)


class Batching(Logger):
    keeps_slots = True

    def log_many(self, items: Any) -> None:
        self.calls.append(items)

    def flush(self) -> None:
        self.calls.append("flush")

    def end(self) -> None:
        raise OSError("full")


def test_each_method_has_a_point_before_and_after_it() -> None:
    logger, seen = Batching(), []
    watched = watch_logger(logger, seen.append)
    watched.log(1)
    watched.log_many([2])
    watched.flush()
    assert logger.calls == [1, [2], "flush"]
    log = ["before_log", "after_log"]
    assert seen == [*log, *log, "before_flush", "after_flush"]
    assert watched.keeps_slots is True


def test_a_method_that_raises_has_no_point_after_it() -> None:
    seen: list[str] = []
    with pytest.raises(OSError, match="full"):
        watch_logger(Batching(), seen.append).end()
    assert seen == ["before_end"]


def test_a_logger_seems_to_have_no_more_than_it_has() -> None:
    watched = watch_logger(Logger(), lambda _: None)
    assert not hasattr(watched, "flush")
    assert not hasattr(watched, "log_many")
    assert watched.keeps_slots is False


def test_the_releases_of_a_batch_have_points_between_them() -> None:
    words = memoryview(bytearray(8 * 5)).cast("Q")
    seen: list[Any] = []
    watched = WatchedWords(words, seen.append, seen.append)
    assert len(watched) == 5
    for place, word in ((4, 9), (2, 7), (0, 8), (4, 10), (1, 11)):
        watched[place] = word
    assert list(words) == [8, 11, 7, 0, 10]
    assert seen == ["before_release", 2, "during_release", 0, "before_release", 1]


def test_those_that_come_again_are_some_of_all() -> None:
    assert set(REPEATED) < set(POINTS)
    assert set(POINTS) - set(REPEATED) == {"after_ready", "before_end", "after_end"}
