"""Each channel of each slot has its own place in the shared memory."""

import os
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from millpond.core.layout import CHANNEL_ALIGN_BYTES, DTYPE_BYTES, PAGE_BYTES, Channel, plan
from millpond.mapped_arrays import map_arrays
from millpond.segment import Segment

LAYOUTS = st.builds(
    plan,
    st.lists(
        st.builds(
            Channel,
            st.from_regex(r"[a-z]{1,8}", fullmatch=True),
            st.lists(st.integers(1, 9), max_size=4).map(tuple),
            st.sampled_from(sorted(DTYPE_BYTES)),
        ),
        min_size=1,
        max_size=6,
        unique_by=lambda channel: channel.name,
    ),
    st.integers(1, 5),
)
SMALL = plan(
    [
        Channel("rgb", (3, 5, 7), "float32"),
        Channel("loss", (), "float64"),
        Channel("ok", (), "bool"),
        Channel("one", (1,), "uint8"),
    ],
    3,
)


@pytest.fixture
def segment():
    made = Segment(SMALL, 1)
    yield made
    made.close()


def place_of(array: np.ndarray) -> int:
    return array.__array_interface__["data"][0]


@settings(max_examples=40, deadline=None)
@given(layout=LAYOUTS)
def test_every_array_lies_where_the_layout_says_and_nowhere_else(layout) -> None:
    fd = os.memfd_create("layout")
    os.truncate(fd, layout.segment_bytes)
    arrays = map_arrays(layout, fd, writable=True)
    fill = np.random.default_rng(0)
    expected = bytearray(layout.segment_bytes)
    for slot in range(layout.slot_count):
        for channel, offset in zip(layout.channels, layout.offsets, strict=True):
            content = fill.integers(0, 2, channel.size_bytes, dtype=np.uint8).tobytes()
            value = np.frombuffer(content, channel.dtype).reshape(channel.shape)
            arrays[channel.name][slot] = value
            start = slot * layout.slot_bytes + offset
            assert not any(expected[start : start + channel.size_bytes])
            expected[start : start + channel.size_bytes] = content
    assert os.pread(fd, layout.segment_bytes, 0) == expected
    os.close(fd)


@settings(max_examples=40, deadline=None)
@given(layout=LAYOUTS)
def test_arrays_are_aligned_apart_and_contiguous_within_a_slot(layout) -> None:
    fd = os.memfd_create("layout")
    os.truncate(fd, layout.segment_bytes)
    arrays = map_arrays(layout, fd, writable=True)
    os.close(fd)
    assert list(arrays) == [channel.name for channel in layout.channels]
    base = place_of(arrays[layout.channels[0].name])
    assert base % PAGE_BYTES == 0
    regions = []
    for channel in layout.channels:
        array = arrays[channel.name]
        assert array.shape == (layout.slot_count, *channel.shape)
        assert array.dtype.name == channel.dtype
        for slot in range(layout.slot_count):
            view = array[slot : slot + 1].reshape(channel.shape)
            assert view.flags.c_contiguous
            assert np.shares_memory(view, array)
            start = place_of(view) - base
            assert start % CHANNEL_ALIGN_BYTES == 0
            assert start // layout.slot_bytes == slot
            regions.append((start, start + channel.size_bytes))
    regions.sort()
    assert all(end <= start for (_, end), (start, _) in pairwise(regions))
    assert regions[-1][1] <= layout.segment_bytes


def test_what_a_renderer_writes_a_logger_reads_in_place(segment) -> None:
    ours = map_arrays(SMALL, segment.fd, writable=True)
    theirs = map_arrays(SMALL, segment.fd_read_only, writable=False)
    ours["rgb"][1] = np.arange(105, dtype=np.float32).reshape(3, 5, 7)
    ours["loss"][1] = 0.25
    ours["ok"][1] = True
    ours["one"][1] = 9
    assert np.array_equal(theirs["rgb"][1], ours["rgb"][1])
    assert theirs["loss"].tolist() == [0, 0.25, 0]
    assert theirs["ok"].tolist() == [False, True, False]
    assert theirs["one"].tolist() == [[0], [9], [0]]


def test_scalar_channels_are_one_number_for_each_slot(segment) -> None:
    arrays = map_arrays(SMALL, segment.fd, writable=True)
    assert arrays["loss"].shape == (3,)
    lone = arrays["loss"][2, ...]
    assert lone.shape == ()
    lone[...] = 1.5
    assert arrays["loss"].tolist() == [0, 0, 1.5]


def test_a_read_only_map_cannot_be_written_or_made_writable(segment) -> None:
    for fd in (segment.fd, segment.fd_read_only):
        for array in map_arrays(SMALL, fd, writable=False).values():
            assert not array.flags.writeable
            with pytest.raises(ValueError, match="read-only"):
                array[0] = 1
            with pytest.raises(ValueError, match="cannot set WRITEABLE"):
                array.flags.writeable = True
            with pytest.raises(ValueError, match="cannot set WRITEABLE"):
                array[0:1].flags.writeable = True


def test_a_read_only_descriptor_cannot_be_mapped_writable(segment) -> None:
    with pytest.raises(PermissionError):
        map_arrays(SMALL, segment.fd_read_only, writable=True)


def test_the_arrays_stay_when_the_descriptor_is_closed() -> None:
    segment = Segment(SMALL, 1)
    arrays = map_arrays(SMALL, segment.fd, writable=True)
    segment.close()
    arrays["one"][0] = 3
    assert arrays["one"][0] == 3


def test_a_segment_that_is_too_small_is_refused() -> None:
    fd = os.memfd_create("small")
    os.truncate(fd, SMALL.segment_bytes - 1)
    with pytest.raises(ValueError, match="greater than file size"):
        map_arrays(SMALL, fd, writable=True)
    os.close(fd)
