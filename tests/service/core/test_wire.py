"""Frames come out as they went in, however the bytes were cut; anything else ends the peer."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from millpond.core.wire import (
    BODY_BYTES_MAX,
    GRANT,
    HEADER,
    HEADER_BYTES,
    MAGIC,
    PROTOCOL_VERSION,
    Frame,
    FrameReader,
    Kind,
    pack,
    pack_grants,
    unpack_grants,
)
from millpond.errors import PeerError

U32 = st.integers(0, 2**32 - 1)
U64 = st.integers(0, 2**64 - 1)
FRAMES = st.builds(
    pack,
    st.sampled_from(Kind),
    st.binary(max_size=80),
    slot=U32,
    renderer=U32,
    generation=U64,
    sequence=U64,
)


def cut(data: bytes, places: list[int]) -> list[bytes]:
    edges = [0, *sorted(place % (len(data) + 1) for place in places), len(data)]
    return [data[a:b] for a, b in pairwise(edges)]


def header(*, magic=MAGIC, version=PROTOCOL_VERSION, length=0) -> bytes:
    return HEADER.pack(magic, version, Kind.PUBLISH, length, 0, 0, 0, 0)


def test_a_frame_says_what_was_packed() -> None:
    raw = pack(Kind.PUBLISH, b'{"id":"1"}', slot=3, renderer=4, generation=5, sequence=6)
    (frame,) = FrameReader().feed(raw)
    assert frame == Frame(Kind.PUBLISH, 3, 4, 5, 6, raw)
    assert frame.body == b'{"id":"1"}'


def test_the_header_is_a_published_format() -> None:
    """Other languages will write it; a change needs a new version."""
    raw = pack(Kind.PUBLISH, b"{}", slot=1, renderer=2, generation=3, sequence=4)
    assert HEADER_BYTES == 32
    assert raw.hex(" ", -4) == (
        "6d700105 02000000 01000000 02000000 03000000 00000000 04000000 00000000 7b7d"
    )


@given(frames=st.lists(FRAMES, max_size=8), places=st.lists(st.integers(0, 10_000), max_size=12))
def test_any_cut_of_the_stream_gives_the_same_frames(frames, places) -> None:
    reader = FrameReader()
    found = [frame.raw for part in cut(b"".join(frames), places) for frame in reader.feed(part)]
    assert found == frames
    assert not reader.is_midway


@given(frame=FRAMES, length=st.integers(1, HEADER_BYTES + 79))
def test_half_a_frame_is_no_frame(frame, length) -> None:
    """A peer that dies in the middle of a frame has said nothing."""
    reader = FrameReader()
    assert reader.feed(frame[: min(length, len(frame) - 1)]) == []
    assert reader.is_midway


@given(parts=st.lists(st.binary(max_size=200) | FRAMES, max_size=20))
def test_garbage_gives_a_peer_error_and_takes_no_memory(parts) -> None:
    reader = FrameReader(body_bytes_max=64)
    for part in parts:
        try:
            reader.feed(part)
        except PeerError:
            break
        assert len(reader._rest) < HEADER_BYTES + 64


@pytest.mark.parametrize("length", [BODY_BYTES_MAX + 1, 2**31, 2**32 - 1])
def test_a_frame_that_is_too_long_is_refused_at_its_header(length) -> None:
    """Before a byte of it was stored."""
    reader = FrameReader()
    with pytest.raises(PeerError, match=f"frame of {length} bytes, at most {BODY_BYTES_MAX}"):
        reader.feed(header(length=length))
    assert not reader.is_midway


def test_the_longest_frame_is_taken() -> None:
    raw = pack(Kind.PUBLISH, bytes(BODY_BYTES_MAX))
    assert FrameReader().feed(raw)[0].raw == raw


def test_a_stranger_is_told_that_it_is_one() -> None:
    with pytest.raises(PeerError, match=r"begins with b'GE'.*not a millpond peer"):
        FrameReader().feed(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")


def test_another_version_is_told_what_to_do() -> None:
    with pytest.raises(PeerError, match=r"speaks version 2 .* install the same millpond"):
        FrameReader().feed(header(version=2))


@given(grants=st.lists(st.tuples(U32, U64)))
def test_grants_come_back_as_they_were(grants) -> None:
    assert unpack_grants(pack_grants(grants)) == grants


def test_half_a_grant_is_refused() -> None:
    body = pack_grants([(1, 2), (3, 4)])
    with pytest.raises(PeerError, match="grant of 23 bytes is cut short"):
        unpack_grants(body[:-1])
    assert len(body) == 2 * GRANT.size


def test_kinds_keep_their_numbers() -> None:
    assert {kind.name: kind.value for kind in Kind} == {
        "HELLO": 1,
        "WELCOME": 2,
        "REFUSED": 3,
        "GRANT": 4,
        "PUBLISH": 5,
        "RETURN": 6,
        "WANT": 7,
        "HOLDERS": 8,
        "SYNC": 9,
        "CLOSING": 10,
        "SETUP": 16,
        "READY": 17,
        "FAILED": 18,
        "RAISED": 19,
    }
