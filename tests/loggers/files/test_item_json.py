"""What a renderer sent along, as JSON."""

import math

import numpy as np
import orjson
import pytest

from millpond_loggers.files.item_json import free_name, item_json, plain_text

ITEM = {"id": "a", "model": "cup", "loss": "mine", "render_args": {"zoom": 1.5}, "result_ix": 3}


def test_an_item_is_written_as_it_came_without_its_slot() -> None:
    expected = {key: value for key, value in ITEM.items() if key != "result_ix"}
    assert orjson.loads(item_json(ITEM)) == expected


def test_the_id_comes_first() -> None:
    assert item_json({"model": "m", "id": "a", "render_args": {}}).startswith(b'{"id":"a","model"')


def test_channels_stand_behind_it_and_clash_with_nothing() -> None:
    channels = {
        "loss": np.float32(0.1),
        "id": np.int64(7),
        "render_args": np.zeros(2, np.uint8),
        "box": np.arange(4, dtype=np.float16).reshape(2, 2),
        "is_correct": np.bool_(True),
    }
    assert orjson.loads(item_json(ITEM, channels)) == {
        "id": "a",
        "model": "cup",
        "item.loss": "mine",
        "render_args": {"zoom": 1.5},
        "loss": 0.1,
        "channels.id": 7,
        "channels.render_args": [0, 0],
        "box": [[0, 1], [2, 3]],
        "is_correct": True,
    }


def test_numbers_that_json_has_not_are_null() -> None:
    channels = {"loss": np.float32(math.nan), "box": np.array([1, math.inf], np.float32)}
    found = orjson.loads(item_json({"id": "a", "render_args": {}, "result_ix": 0}, channels))
    assert (found["loss"], found["box"]) == (None, [1, None])


def test_half_a_character_is_written_out() -> None:
    """It stays text that every reader of JSON takes."""
    item = {"id": "a\udc80", "render_args": {"k\ud800": ["\udfff", {"x": 1}]}, "result_ix": 0}
    assert orjson.loads(item_json(item)) == {
        "id": "a\\udc80",
        "render_args": {"k\\ud800": ["\\udfff", {"x": 1}]},
    }
    assert plain_text("a\udc80") == "a\\udc80"
    assert plain_text("é👍") == "é👍"


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("zoom", "zoom"),
        ("loss", "item.loss"),
        ("", "item."),
        ("item.loss", "item.item.loss"),
        ("channels.loss", "item.channels.loss"),
        ("render_args", "item.render_args"),
        ("render_args.zoom", "item.render_args.zoom"),
        ("itemised", "itemised"),
    ],
)
def test_no_two_values_share_a_name(name: str, expected: str) -> None:
    assert free_name(name, "item", {"loss"}) == expected
