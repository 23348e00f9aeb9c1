"""What 3DB declares, allocates and logs, in our words."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from millpond.compat.threedb_values import channels_of_3db, job_of, shaped
from millpond.core.layout import Channel
from millpond.errors import InvalidResult


def item(**changes: Any) -> dict[str, Any]:
    return {"id": "a", "render_args": {("Camera", "zoom"): 1.5}, "result_ix": 3, **changes}


def test_channels_are_read_as_they_come_out_of_json() -> None:
    declared = json.loads('{"rgb": [[3, 8, 8], "float32"], "is_correct": [[], "bool"]}')
    assert channels_of_3db(declared) == (
        Channel("rgb", (3, 8, 8), "float32"),
        Channel("is_correct", (), "bool"),
    )


@pytest.mark.parametrize(
    ("torch_name", "expected"),
    [
        ("float", "float32"),
        ("torch.float", "float32"),
        ("double", "float64"),
        ("half", "float16"),
        ("int", "int32"),
        ("long", "int64"),
        ("short", "int16"),
        ("uint8", "uint8"),
        ("torch.int64", "int64"),
        ("cfloat", "complex64"),
    ],
)
def test_dtypes_have_the_names_of_torch(torch_name: str, expected: str) -> None:
    assert channels_of_3db({"x": ([2], torch_name)}) == (Channel("x", (2,), expected),)


@pytest.mark.parametrize(
    ("declared", "problem"),
    [
        (None, "must map names"),
        ({"x": "float32"}, r"output 'x' must be declared as \[shape, dtype\]"),
        ({"x": 3}, r"output 'x' must be declared as \[shape, dtype\]"),
        ({"x": ([2], "bfloat16")}, "x"),
        ({"x": ([0], "float32")}, "dimension 0"),
        ({}, None),
    ],
)
def test_what_is_no_channel_is_named(declared: Any, problem: str | None) -> None:
    if problem is None:
        assert channels_of_3db(declared) == ()
        return
    with pytest.raises(InvalidResult, match=problem):
        channels_of_3db(declared)


@pytest.mark.parametrize(
    ("shape", "channel", "expected"),
    [
        ((1,), (), ()),
        ((), (), ()),
        ((8, 8), (1, 8, 8), (1, 8, 8)),
        ((1, 8, 8), (8, 8), (8, 8)),
        ((3, 8, 8), (3, 8, 8), (3, 8, 8)),
        ((8, 3, 8), (3, 8, 8), (8, 3, 8)),  # Not ours to turn round: it is refused later.
        ((2,), (), (2,)),
    ],
)
def test_axes_of_length_one_come_and_go(shape: Any, channel: Any, expected: Any) -> None:
    given = np.arange(np.prod(shape, dtype=int)).reshape(shape)
    got = shaped(given, Channel("x", channel, "int64"))
    assert got.shape == expected
    assert got.ravel().tolist() == given.ravel().tolist()


def test_what_has_no_shape_stays_as_it_is() -> None:
    assert shaped(0.5, Channel("x", (), "float32")) == 0.5


def test_an_item_becomes_a_job_with_names_for_keys() -> None:
    slot, id, body = job_of(
        item(order=2, model="mug", control_order=[("controls.camera", "Camera")])
    )
    assert (slot, id) == (3, "a")
    assert json.loads(body) == {
        "id": "a",
        "render_args": {"Camera.zoom": 1.5},
        "order": 2,
        "model": "mug",
        "control_order": [["controls.camera", "Camera"]],
    }


def test_values_of_numpy_are_plain_numbers_and_what_is_no_number_is_null() -> None:
    args = {
        ("A", "a"): np.float64(0.25),
        ("A", "b"): np.int64(7),
        ("A", "c"): np.bool_(True),
        ("A", "d"): float("nan"),
        ("A", "e"): np.float32("inf"),
        ("A", "f"): np.array([1.0, np.nan]),
        ("A", "g"): (1, (2.0, -float("inf"))),
        "plain": {"deep": np.nan, ("x", "y"): 1},
    }
    assert json.loads(job_of(item(render_args=args))[2])["render_args"] == {
        "A.a": 0.25,
        "A.b": 7,
        "A.c": True,
        "A.d": None,
        "A.e": None,
        "A.f": [1.0, None],
        "A.g": [1, [2.0, None]],
        "plain": {"deep": None, "x.y": 1},
    }


@pytest.mark.parametrize(
    ("wrong", "problem"),
    [
        ({}, "must have id, render_args and result_ix"),
        ({"id": "a", "render_args": {}}, "result_ix"),
        (item(result_ix="3"), "a whole number"),
        (item(result_ix=None), "a whole number"),
        (item(render_args=[1]), r"render_args must map names to values, not be \[1\]"),
        (item(id=7), "id must be text"),
        (item(id=""), "id must be text"),
        (item(mood=object()), r"fields\.mood is a object"),
        (item(render_args={3: 1}), "key 3 is no text"),
        (7, "must have id"),
    ],
)
def test_an_item_that_cannot_be_sent_is_refused_with_its_reason(wrong: Any, problem: str) -> None:
    with pytest.raises(InvalidResult, match=problem):
        job_of(wrong)
