"""Making a logger from the first frame: what it is given, and what is refused."""

from collections.abc import Iterator
from typing import Any

import pytest

from millpond.core.layout import Channel, plan
from millpond.errors import ConfigError
from millpond.segment import Segment
from millpond_loggers.plugin import PluginError
from millpond_loggers.process.logger_setup import make_logger

LAYOUT = plan((Channel("image", (4, 4), "float32"), Channel("loss", (), "float64")), 2)
SETUP: dict[str, Any] = {
    "index": 3,
    "name": "mine",
    "place": "my_logger",
    "options": {"format": "png"},
    "root_dir": "runs/demo",
    "experiment": {"policy": {"n": 1}, "logger": "theirs"},
}


class Logger:
    def __init__(self, *given: Any) -> None:
        self.given = given

    def log(self, item: Any) -> None: ...


@pytest.fixture
def segment() -> Iterator[Segment]:
    made = Segment(LAYOUT, 1)
    yield made
    made.close()


def test_a_logger_is_given_the_folder_the_results_and_the_experiment(segment: Segment) -> None:
    logger, results = make_logger(Logger, SETUP, LAYOUT, segment.fd_read_only)
    root_dir, buffer, config = logger.given
    assert root_dir == "runs/demo"
    assert buffer is results
    assert results.register() == 4
    assert list(results.channels) == ["image", "loss"]
    assert config == {
        "policy": {"n": 1},
        "logger": {
            "name": "mine",
            "module": "my_logger",
            "options": {"format": "png"},
            "instance": 1,
            "instances": 1,
        },
    }


def test_the_frame_says_which_process_it_is_and_which_channels_it_gets(segment: Segment) -> None:
    setup = SETUP | {"instance": 2, "instances": 5, "wanted": ["loss"], "arrays": "numpy"}
    logger, results = make_logger(Logger, setup, LAYOUT, segment.fd_read_only)
    own = logger.given[2]["logger"]
    assert (own["instance"], own["instances"]) == (2, 5)
    assert list(results.channels) == ["loss"]


def test_a_channel_that_is_not_there_is_told_before_the_logger_is_made(segment: Segment) -> None:
    made: list[Any] = []
    with pytest.raises(ConfigError, match=r"no channel 'los'; did you mean 'loss'\?"):
        make_logger(
            lambda *given: made.append(given),
            SETUP | {"wanted": ["los"]},
            LAYOUT,
            segment.fd_read_only,
        )
    assert made == []


@pytest.mark.parametrize("name", ["log", "log_many", "flush", "end"])
def test_a_method_that_would_never_be_run_is_refused(segment: Segment, name: str) -> None:
    async def method(self: Any, *_: Any) -> None: ...

    mistaken = type("Mistaken", (Logger,), {name: method})
    with pytest.raises(PluginError, match=f"`async def {name}` in my_logger would never be run"):
        make_logger(mistaken, SETUP, LAYOUT, segment.fd_read_only)
