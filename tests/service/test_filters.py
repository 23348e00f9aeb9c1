"""What each logger wants of the results."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from structlog.testing import capture_logs

from millpond.config.model import Config
from millpond.core.deliveries import Result
from millpond.core.layout import Channel, plan
from millpond.core.wire import Kind, pack
from millpond.errors import ConfigError
from millpond.filters import TOLD_MAX, check_channels, make_filters

CHANNELS = (
    Channel("rgb", (3, 4, 4), "float32"),
    Channel("loss", (), "float32"),
    Channel("label", (1, 1), "int32"),
    Channel("is_correct", (), "bool"),
)
LAYOUT = plan(CHANNELS, 2)


class Slots:
    def __init__(self) -> None:
        self.bytes = [bytearray(LAYOUT.payload_bytes) for _ in range(2)]
        self.count = 0

    def memory(self, slot: int) -> memoryview:
        return memoryview(self.bytes[slot])

    def put(self, render_args: dict[str, Any] | None = None, **values: Any) -> Result:
        self.count += 1
        slot = self.count % 2
        for channel, offset in zip(CHANNELS, LAYOUT.offsets, strict=True):
            if channel.name in values:
                content = np.asarray(values[channel.name], channel.dtype).tobytes()
                self.bytes[slot][offset : offset + len(content)] = content
        item = {"id": f"{self.count}", "render_args": render_args or {}}
        frame = pack(Kind.PUBLISH, json.dumps(item).encode(), slot=slot, sequence=self.count)
        return Result(slot, 1, 1, self.count, item["id"], frame)


def config(*loggers: dict[str, Any]) -> Config:
    modules = [{"name": f"l{n}", "module": "csv", **logger} for n, logger in enumerate(loggers)]
    return Config(name="t", output_dir=Path("runs/t"), logging={"logger_modules": modules})


def test_a_logger_without_conditions_has_no_filter() -> None:
    slots = Slots()
    made = config({}, {"when": "loss > 1"}, {"sample": "1/3"})
    assert set(make_filters(made, LAYOUT, slots.memory)) == {1, 2}


def test_conditions_read_the_slot_and_the_arguments() -> None:
    slots = Slots()
    made = config(
        {"when": "not is_correct or loss > 2"},
        {"when": "label in [3, 5]"},
        {"when": "render_args.zoom > 1"},
    )
    filters = make_filters(made, LAYOUT, slots.memory)
    results = (
        slots.put({"zoom": 2}, loss=1.0, is_correct=True, label=3),
        slots.put({"zoom": 0}, loss=2.5, is_correct=True, label=4),
    )
    wanted = [[wants(result) for wants in filters.values()] for result in results]
    assert wanted == [[False, True, True], [True, False, False]]
    last = slots.put({"zoom": 3}, loss=0.0, is_correct=False, label=5)
    assert [wants(last) for wants in filters.values()] == [True, True, True]


def test_a_sample_is_the_first_of_every_so_many_that_pass() -> None:
    slots = Slots()
    filters = make_filters(config({"when": "loss > 0", "sample": "1/3"}), LAYOUT, slots.memory)
    wanted = [filters[0](slots.put(loss=n % 2)) for n in range(1, 13)]
    assert [n for n, is_wanted in enumerate(wanted, 1) if is_wanted] == [1, 7]


def test_what_cannot_be_answered_is_wanted_and_told_once() -> None:
    slots = Slots()
    filters = make_filters(config({"when": "render_args.zoom > 1"}), LAYOUT, slots.memory)
    with capture_logs() as lines:
        assert [filters[0](slots.put()) for _ in range(3)] == [True, True, True]
    [line] = lines
    assert (line["logger"], line["result"]) == ("l0", "1")
    assert line["problem"] == "there is no render_args['zoom']"


def test_a_flood_of_different_reasons_is_cut() -> None:
    slots = Slots()
    filters = make_filters(config({"when": "render_args.zoom * 2"}), LAYOUT, slots.memory)
    with capture_logs() as lines:
        for number in range(3 * TOLD_MAX):
            assert filters[0](slots.put({"zoom": f"text {number}"}))
    assert len(lines) == TOLD_MAX


@pytest.mark.parametrize(
    ("when", "words"),
    [
        ("los > 1", "no channel 'los'; did you mean 'loss'.*render_args.los"),
        ("rgb > 1", "'rgb' is an array"),
        ("zoom > 1", "loss, label, is_correct"),
    ],
)
def test_a_name_that_is_no_number_is_refused_with_the_key(when: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words) as caught:
        check_channels(config({}, {"when": when}), CHANNELS)
    assert "logger_modules[1].when" in str(caught.value)


def test_channels_of_a_logger_must_be_there() -> None:
    check_channels(config({"channels": ["rgb", "loss"]}, {}), CHANNELS)
    with pytest.raises(ConfigError, match="no channel 'rbg'; did you mean 'rgb'") as caught:
        check_channels(config({"channels": ["rbg"]}), CHANNELS)
    assert "logger_modules[0].channels" in str(caught.value)
