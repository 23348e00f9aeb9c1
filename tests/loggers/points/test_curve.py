"""A curve: each result at a step of its own, once, whatever fails and whenever it starts again."""

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from loggers.memory_buffer import MemoryBuffer

from millpond_loggers.base import BaseLogger
from millpond_loggers.points.curve import Curve, Place, Row, Standing
from millpond_loggers.points.live_points import LiveOptions

CHANNELS = {"loss": ((), "float32"), "is_correct": ((), "bool")}


class Died(Exception):
    """Ends a test's process, as it were."""


class ListTarget:
    """Keeps points in a list that outlives its owner; fails where it is told to."""

    batch_point_max = 3

    def __init__(self, drawn: list[Row]):
        self.drawn = drawn
        self.fail_after: int | None = None  # So many points of a batch are drawn, then it fails.
        self.fail_asked = False
        self.asked: list[Standing] = []

    def recorded(self, standing: Standing) -> int:
        if self.fail_asked:
            raise ConnectionError("away")
        self.asked.append(standing)
        assert standing.place.get("count", 0) == standing.step
        return len(self.drawn) - standing.step

    def prepare(self, rows: list[Row], place: Place) -> Place:
        return {"count": place.get("count", 0) + len(rows)}

    def write(self, rows: list[Row]) -> None:
        assert len(rows) <= self.batch_point_max
        self.drawn += rows[: self.fail_after]
        if self.fail_after is not None:
            raise Died


class Board(BaseLogger):
    Options = LiveOptions


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[int]:
    folder = os.open(tmp_path, os.O_RDONLY)
    yield folder
    os.close(folder)


@pytest.fixture
def buffer() -> MemoryBuffer:
    return MemoryBuffer(CHANNELS)


def start(folder: int, buffer: MemoryBuffer, target: ListTarget, **options) -> Curve:
    config = {"logger": {"name": "board", "options": options}}
    return Curve(Board("", buffer, config), folder, "board", target)


def put(curve: Curve, buffer: MemoryBuffer, numbers: range | list[int]) -> None:
    for number in numbers:
        curve.log(buffer.put(f"{number}", key=(1, number), loss=number, is_correct=number % 2))


def drawn(target: ListTarget) -> list[tuple[int, float]]:
    return [(row.point.step, row.values["loss"]) for row in target.drawn]


def test_steps_count_the_results_from_0(folder: int, buffer: MemoryBuffer) -> None:
    target = ListTarget([])
    curve = start(folder, buffer, target)
    put(curve, buffer, range(1, 5))
    assert target.drawn == []
    curve.flush()
    put(curve, buffer, [5])
    curve.flush()
    curve.close()
    assert drawn(target) == [(0, 1), (1, 2), (2, 3), (3, 4), (4, 5)]
    assert [row.values["accuracy/is_correct"] for row in target.drawn] == [
        1,
        1 / 2,
        2 / 3,
        1 / 2,
        3 / 5,
    ]


def test_after_a_restart_steps_and_accuracies_go_on(folder: int, buffer: MemoryBuffer) -> None:
    target = ListTarget([])
    for numbers in ([1, 2], [3], [], [4]):
        curve = start(folder, buffer, target)
        put(curve, buffer, numbers)
        curve.flush()
        curve.close()
    assert drawn(target) == [(0, 1), (1, 2), (2, 3), (3, 4)]
    assert target.drawn[-1].values["accuracy/is_correct"] == 1 / 2


@pytest.mark.parametrize("count", [0, 1, 2, 3])
@pytest.mark.parametrize("is_same_process", [True, False])
def test_what_is_there_when_a_write_fails_is_not_drawn_again(
    folder: int, buffer: MemoryBuffer, count: int, is_same_process: bool
) -> None:
    target = ListTarget([])
    curve = start(folder, buffer, target)
    put(curve, buffer, [1])
    curve.flush()
    put(curve, buffer, [2, 3, 4])
    target.fail_after = count
    with pytest.raises(Died):
        curve.flush()
    if not is_same_process:
        curve.close()
        target = ListTarget(target.drawn)
        curve = start(folder, buffer, target)
    target.fail_after = None
    put(curve, buffer, [1, 2, 3, 4, 5])
    curve.flush()
    curve.close()
    assert drawn(target) == [(0, 1), (1, 2), (2, 3), (3, 4), (4, 5)]
    assert target.drawn[-1].values["accuracy/is_correct"] == 3 / 5


def test_a_death_after_a_write_and_before_the_release_draws_nothing_twice(
    folder: int, buffer: MemoryBuffer
) -> None:
    target = ListTarget([])
    curve = start(folder, buffer, target)
    put(curve, buffer, range(1, 8))
    curve.flush()
    curve.close()
    curve = start(folder, buffer, target)
    put(curve, buffer, range(1, 9))
    curve.flush()
    curve.close()
    assert drawn(target) == [(number - 1, number) for number in range(1, 9)]


def test_a_full_disk_leaves_the_curve_as_it_was(
    folder: int, buffer: MemoryBuffer, tmp_path: Path
) -> None:
    target = ListTarget([])
    curve = start(folder, buffer, target)
    put(curve, buffer, [1])
    curve.flush()
    # Where its record would be made first, something is in the way.
    blocker = tmp_path / f"..board.curve.tmp-{os.getpid()}"
    blocker.mkdir()
    put(curve, buffer, [2])
    with pytest.raises(OSError, match="exists"):
        curve.flush()
    blocker.rmdir()
    put(curve, buffer, [2, 3])
    curve.flush()
    curve.close()
    assert drawn(target) == [(0, 1), (1, 2), (2, 3)]


def test_a_target_that_cannot_be_asked_refuses_results_until_it_can(
    folder: int, buffer: MemoryBuffer
) -> None:
    target = ListTarget([])
    curve = start(folder, buffer, target)
    put(curve, buffer, [1])
    target.fail_after, target.fail_asked = 1, True
    with pytest.raises(Died):
        curve.flush()
    with pytest.raises(ConnectionError):
        put(curve, buffer, [1])
    curve.flush()
    target.fail_after, target.fail_asked = None, False
    put(curve, buffer, [1, 2])
    curve.flush()
    curve.close()
    assert drawn(target) == [(0, 1), (1, 2)]


def test_the_same_result_twice_in_a_batch_is_one_point(folder: int, buffer: MemoryBuffer) -> None:
    target = ListTarget([])
    curve = start(folder, buffer, target)
    put(curve, buffer, [1, 1])
    curve.flush()
    curve.close()
    assert drawn(target) == [(0, 1)]


def test_a_damaged_record_is_told(folder: int, buffer: MemoryBuffer, tmp_path: Path) -> None:
    (tmp_path / ".board.curve").write_bytes(b"{")
    with pytest.raises(ValueError, match=r"\.board\.curve is damaged .* move its folder away"):
        start(folder, buffer, ListTarget([]))
    (tmp_path / ".board.curve").unlink()
    start(folder, buffer, ListTarget([])).close()


def test_what_is_known_of_a_batch_survives_as_it_was(folder: int, buffer: MemoryBuffer) -> None:
    target = ListTarget([])
    curve = start(folder, buffer, target)
    item = buffer.put("a", key=(1, 1), model="тест", is_correct=True)
    curve.log(item)
    curve.flush()
    curve.close()
    start(folder, buffer, target).close()
    (standing,) = target.asked[1:]
    assert standing == replace(
        Standing(), added=[[{"is_correct": True}, {"model": "тест"}]], place_after={"count": 1}
    )
