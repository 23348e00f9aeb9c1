"""A pond in memory gives results as the daemon does, and raises what the logger raised."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from millpond.errors import ConfigError, InvalidResult
from millpond_loggers.base import BaseLogger, Options
from millpond_loggers.csv_logger import CSVLogger
from millpond_loggers.process.shared_results import KeptArrayError
from millpond_loggers.testing import MemoryPond
from millpond_loggers.testing.points import POINTS

CHANNELS = {"rgb": ((3, 2, 2), "float32"), "loss": ((), "float64"), "ok": ((1,), "bool")}
MASKED = CHANNELS | {"mask": ((2, 2), "uint8")}


class NoteOptions(Options):
    word: str = "seen"


class Note(BaseLogger):
    """Writes down all that is done with it."""

    Options = NoteOptions

    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        self.calls: list[Any] = []
        self.regid = self.buffer.register()

    def log(self, item: dict[str, Any] | None) -> None:
        assert item is not None
        self.calls.append(item["id"])
        if item["id"] == "bad":
            raise ValueError("bad one")

    def flush(self) -> None:
        self.calls.append("flush")

    def end(self) -> None:
        self.calls.append("end")


class Look(Note):
    def log(self, item: dict[str, Any] | None) -> None:
        assert item is not None
        arrays = {name: array.tolist() for name, array in self.buffer[item["result_ix"]].items()}
        self.calls.append(item | arrays)


class Keep(Note):
    keeps_slots = True
    count = 3

    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        self.kept: list[Any] = []

    def log(self, item: dict[str, Any] | None) -> None:
        assert item is not None
        self.kept.append((item["result_ix"], self.buffer[item["result_ix"]]))
        if len(self.kept) == self.count:
            for result_ix, _ in self.kept:
                self.buffer.free(result_ix, self.regid)
            self.kept.clear()


def ids(results: list[Any]) -> list[str]:
    return [result.id for result in results]


@pytest.fixture
def pond(tmp_path: Path) -> MemoryPond:
    return MemoryPond(tmp_path / "root", CHANNELS, slots=4)


def test_a_result_is_logged_flushed_and_released(pond: MemoryPond) -> None:
    logger = pond.start(Note)
    assert logger is pond.logger
    result = pond.log("1")
    assert logger.calls == ["1", "flush"]
    assert pond.released == [result]
    assert pond.waiting == []


def test_an_item_has_what_the_renderer_sent_and_its_arrays(pond: MemoryPond) -> None:
    logger = pond.start(Look)
    rgb = np.arange(12, dtype="float32").reshape(3, 2, 2)
    pond.log("1", {"zoom": (1, 2)}, fields={"model": "cup"}, rgb=rgb, loss=1, ok=True)
    pond.log("2", rgb=0.5)
    first, _, second, _ = logger.calls
    assert first == {
        "id": "1",
        "render_args": {"zoom": [1, 2]},
        "model": "cup",
        "result_ix": 0,
        "rgb": rgb.tolist(),
        "loss": 1.0,
        "ok": [True],
    }
    # What is not given is 0, whatever the slot held before.
    assert (second["loss"], second["ok"]) == (0.0, [False])
    assert second["rgb"] == np.full((3, 2, 2), 0.5).tolist()


def test_a_batch_has_one_flush(pond: MemoryPond) -> None:
    logger = pond.start(Note)
    pond.log_batch([{"id": "1"}, {"id": "2", "loss": 3, "render_args": {"zoom": 1}}])
    assert logger.calls == ["1", "2", "flush"]


def test_a_batch_may_be_logged_at_once(pond: MemoryPond) -> None:
    class Many(Note):
        def log_many(self, items: list[dict[str, Any]]) -> None:
            self.calls.append([item["id"] for item in items])

    logger = pond.start(Many)
    pond.log_batch([{"id": "1"}, {"id": "2"}])
    assert logger.calls == [["1", "2"], "flush"]


def test_the_logger_is_made_as_in_its_process(tmp_path: Path) -> None:
    pond = MemoryPond(
        tmp_path / "new" / "root",
        CHANNELS,
        options={"word": "x"},
        name="notes",
        config={"policy": {"n": 1}},
        instance=2,
        instances=3,
        wanted=["loss"],
    )
    logger = pond.start(Note)
    assert logger.root_dir == str(tmp_path / "new" / "root")
    assert Path(logger.root_dir).is_dir()
    assert (logger.name, logger.instance, logger.instances) == ("notes", 2, 3)
    assert logger.options.word == "x"
    assert logger.config["policy"] == {"n": 1}
    assert list(logger.buffer.channels) == ["loss"]


def test_wrong_options_and_channels_are_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="option 'wrod' is unknown"):
        MemoryPond(tmp_path, CHANNELS, options={"wrod": 1}).start(Note)
    with pytest.raises(ConfigError, match="no channel 'los'"):
        MemoryPond(tmp_path, CHANNELS, wanted=["los"]).start(Note)
    with pytest.raises(InvalidResult, match="channel 'x'"):
        MemoryPond(tmp_path, {"x": ((0,), "bool")})


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({"id": ""}, "id must be text"),
        ({"id": "1", "los": 3}, "no channel 'los'"),
        ({"id": "1", "rgb": np.zeros(3, "float32")}, "channel 'rgb': expected shape"),
        ({"id": "1", "ok": 3}, "channel 'ok'"),
        ({"id": "1", "mask": 0.5}, "channel 'mask'"),
        ({"id": "1", "render_args": {"x": object()}}, "render_args.x is a object"),
    ],
)
def test_what_no_renderer_could_publish_is_refused(
    tmp_path: Path, arguments: dict[str, Any], told: str
) -> None:
    pond = MemoryPond(tmp_path, MASKED)
    logger = pond.start(Note)
    with pytest.raises(InvalidResult, match=told):
        pond.log(**arguments)
    for number in range(9):  # No slot is lost.
        pond.log(str(number))
    assert logger.calls[::2] == list("012345678")


def test_what_the_logger_raises_is_raised_here_and_the_others_are_released(
    pond: MemoryPond,
) -> None:
    logger = pond.start(Note)
    with pytest.raises(ValueError, match="bad one") as caught:
        pond.log_batch([{"id": "1"}, {"id": "bad"}, {"id": "2"}])
    assert caught.traceback[-1].name == "log"
    assert ids(pond.released) == ["1", "2"]
    assert ids(pond.waiting) == ["bad"]
    with pytest.raises(ValueError, match="bad one"):
        pond.redeliver()
    assert logger.calls == ["1", "bad", "2", "flush", "bad"]


def test_a_failing_flush_releases_nothing(pond: MemoryPond) -> None:
    class Full(Note):
        def flush(self) -> None:
            if self.calls != ["1", "2", "1", "2"]:
                raise OSError(28, "full")

    pond.start(Full)
    with pytest.raises(OSError, match="full"):
        pond.log_batch([{"id": "1"}, {"id": "2"}])
    assert pond.released == []
    with pytest.raises(OSError, match="full"):
        pond.redeliver()
    pond.deliver(pond.waiting[1:])
    assert ids(pond.released) == ["2"]


def test_a_kept_array_is_told(pond: MemoryPond) -> None:
    class Keeping(Note):
        def log(self, item: dict[str, Any] | None) -> None:
            assert item is not None
            self.mine = self.buffer[item["result_ix"]]["rgb"][0]

    pond.start(Keeping)
    with pytest.raises(KeptArrayError, match="keep a copy"):
        pond.log("1")


def test_what_a_logger_keeps_is_neither_released_nor_waiting(pond: MemoryPond) -> None:
    pond.start(Keep)
    first = [pond.log("1"), pond.log("2")]
    assert (pond.released, pond.waiting) == ([], [])
    third = pond.log("3")
    assert pond.released == [*first, third]
    fourth = pond.log("4")
    pond.end()
    assert pond.released == [*first, third, fourth]


def test_a_logger_that_keeps_too_much_is_told(pond: MemoryPond) -> None:
    class Hoarder(Keep):
        count = 100

    pond.start(Hoarder)
    for number in range(4):
        pond.log(str(number))
    with pytest.raises(RuntimeError, match="all 4 slots are in use"):
        pond.log("5")


def test_a_result_that_comes_again_has_the_same_key_and_no_other_has_it(
    pond: MemoryPond, tmp_path: Path
) -> None:
    keys = []

    class Keyed(Note):
        def log(self, item: dict[str, Any] | None) -> None:
            assert item is not None
            keys.append(self.buffer.key_of(item["result_ix"]))

    pond.start(Keyed)
    first = pond.log("1")
    pond.log("1")
    pond.deliver([first])
    other = MemoryPond(tmp_path, CHANNELS)
    other.start(Keyed)
    other.log("1")
    assert keys[2] == keys[0] == first.key
    assert len(set(keys)) == 3


def test_the_end_is_the_loggers_end_and_another_one_may_start(pond: MemoryPond) -> None:
    logger = pond.start(Note)
    pond.end()
    assert logger.calls == ["end"]
    assert pond.logger is None
    assert pond.start(Note) is not logger


def test_a_restart_is_a_death_without_an_end(pond: MemoryPond) -> None:
    class Lazy(Note):
        def __init__(self, *given: Any) -> None:
            super().__init__(*given)
            self.file = (pond.root_dir / "lazy").open("a")

        def log(self, item: dict[str, Any] | None) -> None:
            assert item is not None
            self.file.write(item["id"])

        def end(self) -> None:
            self.file.close()

    old = pond.start(Lazy)
    pond.log("1")
    pond.restart(Lazy)
    old.end()
    pond.log("2")
    pond.end()
    assert (pond.root_dir / "lazy").read_text() == "2"


def test_a_restart_frees_the_files_of_the_old_one(pond: MemoryPond) -> None:
    """Which it has locked."""
    pond.start(CSVLogger)
    pond.log("1")
    pond.restart(CSVLogger)
    pond.log("2")
    pond.end()
    lines = (pond.root_dir / "details.csv").read_text().splitlines()
    assert lines == ["id,loss,ok", "1,0.0,False", "2,0.0,False"]


def test_what_was_kept_at_a_restart_is_waiting(pond: MemoryPond) -> None:
    pond.start(Keep)
    pond.log_batch([{"id": "1"}, {"id": "2"}])
    pond.restart(Note)
    assert ids(pond.waiting) == ["1", "2"]
    pond.redeliver()
    assert ids(pond.released) == ["1", "2"]


@pytest.mark.parametrize("call", [lambda pond: pond.log("1"), lambda pond: pond.end()])
def test_without_a_logger_nothing_is_done(
    pond: MemoryPond, call: Callable[[MemoryPond], Any]
) -> None:
    with pytest.raises(RuntimeError, match="no logger runs: start"):
        call(pond)


def test_two_loggers_are_too_many(pond: MemoryPond) -> None:
    pond.start(Note)
    with pytest.raises(RuntimeError, match="runs already"):
        pond.start(Note)


def test_every_point_is_reached_in_its_order(pond: MemoryPond) -> None:
    seen: list[str] = []
    pond.start(Note, watch=seen.append)
    pond.log_batch([{"id": "1"}, {"id": "2"}])
    pond.end()
    log = ["before_log", "after_log"]
    assert seen[1:5] == [*log, *log]
    assert list(dict.fromkeys(seen)) == list(POINTS)
    assert sorted(seen[5:]) == sorted(set(POINTS) - {"after_ready", *log})


def test_tensors_may_be_wanted(tmp_path: Path) -> None:
    pytest.importorskip("torch", reason="torch is not installed")
    pond = MemoryPond(tmp_path, CHANNELS, arrays="torch")
    logger = pond.start(Look)
    pond.log("1", loss=2)
    assert logger.calls[0]["loss"] == 2.0
