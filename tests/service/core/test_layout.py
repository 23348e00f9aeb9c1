"""Every channel has its place, and what has none is refused with a reason."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from millpond.core.layout import (
    CHANNEL_ALIGN_BYTES,
    CHANNEL_COUNT_MAX,
    DIMENSION_MAX,
    DTYPE_BYTES,
    PAGE_BYTES,
    SLOT_COUNT_MAX,
    Channel,
    channels_from_json,
    channels_or_none,
    channels_to_json,
    plan,
)

RGB = Channel("rgb", (3, 256, 256), "float32")
LOSS = Channel("loss", (), "float64")

CHANNELS = st.lists(
    st.builds(
        Channel,
        st.from_regex(r"[A-Za-z_][A-Za-z0-9_.-]{0,63}", fullmatch=True),
        st.lists(st.integers(1, 40), max_size=3).map(tuple),
        st.sampled_from(sorted(DTYPE_BYTES)),
    ),
    min_size=1,
    max_size=12,
    unique_by=lambda channel: channel.name,
)


@given(channels=CHANNELS, slot_count=st.integers(1, SLOT_COUNT_MAX))
def test_channels_lie_aligned_apart_and_inside_the_slot(channels, slot_count) -> None:
    layout = plan(channels, slot_count)
    end = 0
    for channel, offset in zip(layout.channels, layout.offsets, strict=True):
        assert offset % CHANNEL_ALIGN_BYTES == 0
        assert offset >= end
        end = offset + channel.size_bytes
    assert end <= layout.slot_bytes
    assert layout.slot_bytes % PAGE_BYTES == 0
    assert layout.segment_bytes == layout.slot_bytes * slot_count


@given(channels=CHANNELS)
def test_another_process_computes_the_same_layout(channels) -> None:
    layout = plan(channels, 3)
    told = json.loads(json.dumps(layout.to_json()))
    assert plan(channels_from_json(told["channels"]), told["slots"]) == layout


def test_the_example_lies_where_the_documentation_says() -> None:
    layout = plan([LOSS, RGB], 256)
    assert layout.offsets == (0, 64)
    assert layout.slot_bytes == 193 * PAGE_BYTES
    assert layout.segment_bytes == 256 * 193 * PAGE_BYTES


def test_the_acks_of_a_logger_have_a_word_for_each_slot_and_one_for_what_it_started() -> None:
    assert plan([LOSS], 9).acks_bytes == (9 + 1) * 8


def test_the_payload_ends_with_the_last_channel() -> None:
    layout = plan([LOSS, Channel("mask", (3,), "uint8")], 2)
    assert layout.payload_bytes == CHANNEL_ALIGN_BYTES + 3


def test_a_channel_reads_as_people_write_it() -> None:
    assert str(RGB) == "rgb (3, 256, 256) float32"
    assert channels_to_json([RGB, LOSS]) == {
        "rgb": [[3, 256, 256], "float32"],
        "loss": [[], "float64"],
    }


@pytest.mark.parametrize(
    ("name", "shape", "dtype", "problem"),
    [
        ("", (), "bool", "channel name ''"),
        ("1st", (), "bool", "use a letter"),
        ("a b", (), "bool", "channel name 'a b'"),
        ("../x", (), "bool", "channel name"),
        ("rgb\n", (), "bool", "channel name"),
        ("a" * 65, (), "bool", "at most 64"),
        ("rgb", (), "object", "dtype 'object' is none of bool, int8"),
        ("rgb", (), ">f4", "dtype '>f4'"),
        ("rgb", (1,) * 9, "bool", "9 dimensions, at most 8"),
        ("rgb", (0,), "bool", r"dimension 0 in shape \[0\]"),
        ("rgb", (-1, 4), "bool", "dimension -1"),
        ("rgb", (True,), "bool", "dimension True"),
        ("rgb", (3.0,), "bool", "dimension 3.0"),
        ("rgb", ("3",), "bool", "dimension '3'"),
        ("rgb", (None,), "bool", "dimension None"),
        ("rgb", (2**31,), "bool", "not a whole number from 1 to 2147483647"),
    ],
)
def test_an_impossible_channel_says_what_is_possible(name, shape, dtype, problem) -> None:
    with pytest.raises(ValueError, match=problem):
        Channel(name, shape, dtype)


def test_a_product_that_overflows_is_not_small() -> None:
    """In 64 bits these eight lengths multiply to something tiny."""
    with pytest.raises(ValueError, match="more than 1 TiB"):
        plan([Channel("rgb", (2**30,) * 8, "uint8")], 1)
    assert Channel("rgb", (DIMENSION_MAX,) * 8, "bool").size_bytes == DIMENSION_MAX**8


@pytest.mark.parametrize(
    ("channels", "slot_count", "problem"),
    [
        ([], 1, "no channel is declared"),
        ([RGB, LOSS, RGB], 1, "two channels have the same name"),
        ([RGB], 0, "0 slots, from 1 to 65536"),
        ([RGB], SLOT_COUNT_MAX + 1, "65537 slots"),
        ([Channel("x", (2**25,), "uint8")], SLOT_COUNT_MAX, "more than 1 TiB"),
    ],
)
def test_an_impossible_pond_says_what_is_wrong(channels, slot_count, problem) -> None:
    with pytest.raises(ValueError, match=problem):
        plan(channels, slot_count)


def test_channels_are_counted() -> None:
    channels = [Channel(f"c{n}", (), "bool") for n in range(CHANNEL_COUNT_MAX + 1)]
    assert plan(channels[:-1], 1).slot_bytes == PAGE_BYTES
    with pytest.raises(ValueError, match="65 channels, at most 64"):
        plan(channels, 1)


@pytest.mark.parametrize(
    "declared",
    [None, [], "rgb", {"rgb": None}, {"rgb": ["xyz", "bool"]}, {"rgb": [[1], 4]}, {"": []}],
)
def test_what_a_stranger_declares_wrongly_is_refused(declared) -> None:
    with pytest.raises(ValueError, match="channel"):
        channels_from_json(declared)


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9),
    lambda values: st.lists(values, max_size=3) | st.dictionaries(st.text(max_size=5), values),
    max_leaves=8,
)


@given(
    declared=JSON_VALUES | st.dictionaries(st.text(max_size=5), st.tuples(JSON_VALUES, st.text()))
)
def test_any_declaration_is_taken_or_refused_and_never_fails_otherwise(declared) -> None:
    try:
        channels = channels_from_json(declared)
    except ValueError:
        return
    assert channels_from_json(channels_to_json(channels)) == channels


def test_what_is_missing_or_damaged_has_no_channels() -> None:
    assert channels_or_none(None) is None
    assert channels_or_none({"rgb": [[3], "object"]}) is None
    assert channels_or_none({"rgb": [[3], "uint8"]}) == (Channel("rgb", (3,), "uint8"),)
