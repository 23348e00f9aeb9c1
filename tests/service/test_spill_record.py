"""Every damaged byte is found, and costs no other record."""

import os
import struct
import zlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from service.spill_cases import LAYOUT, SLOT_BYTES, make_store, payload, result, write

from millpond.core.layout import Channel
from millpond.spill_record import (
    ALIGN_BYTES,
    RECORD_MAGIC,
    SEGMENT_MAGIC,
    SEGMENT_VERSION,
    Corrupt,
    Header,
    HeadState,
    Kind,
    Torn,
    Whole,
    align,
    channels_json,
    id_of,
    is_zero,
    pack_head,
    pack_header,
    read_head,
    read_record,
    record_bytes,
    scan,
    unpack_header,
)

U64 = st.integers(0, 2**64 - 1)
U32 = st.integers(0, 2**32 - 1)
HEAD_BYTES = len(pack_head(channels_json(LAYOUT.channels)))


@pytest.fixture
def segment(tmp_path):
    """The path of a segment with three records, renderer 7, sequences 1 to 3."""
    store = make_store(tmp_path / "s")
    write(store, 1, [result(7, sequence) for sequence in (1, 2, 3)])
    return tmp_path / "s" / "00000001.seg"


def look(path):
    """What a scan of the file says, after its head."""
    with path.open("rb") as file:
        size_bytes = path.stat().st_size
        head = read_head(file.fileno(), 1, size_bytes)
        return head, list(scan(file.fileno(), 1, HEAD_BYTES, size_bytes))


def change(path, offset: int, content: bytes) -> None:
    with path.open("r+b") as file:
        os.pwrite(file.fileno(), content, offset)


@given(st.lists(U64, min_size=5, max_size=5), st.lists(U32, min_size=3, max_size=3))
def test_a_header_is_read_as_it_was_written(long, short):
    header = Header(Kind.RESULT, *long, *short)
    seg, at = header.segment, header.offset
    raw = pack_header(header)
    assert len(raw) == ALIGN_BYTES
    assert unpack_header(raw, seg, at) == header
    assert unpack_header(raw, seg, at + 64) is None
    assert unpack_header(raw, seg + 1, at) is None
    assert unpack_header(raw[:-1], seg, at) is None
    assert 0 <= header.end - header.content_end < ALIGN_BYTES


@given(st.binary(min_size=64, max_size=64))
def test_a_header_of_noise_is_none(noise):
    assert unpack_header(noise, 1, 0) is None
    assert unpack_header(RECORD_MAGIC + noise[4:], 1, 0) is None


def test_a_header_of_an_unknown_kind_is_none():
    raw = pack_header(Header(9, 1, 0, 1, 1, 0, 0, 0, 0))
    assert unpack_header(raw, 1, 0) is None


def test_sizes_are_whole_lines():
    assert [align(size) for size in (0, 1, 64, 65)] == [0, 64, 64, 128]
    assert record_bytes(frame_bytes=30, payload_bytes=26) == 128
    assert record_bytes(frame_bytes=30, payload_bytes=27) == 192


@pytest.mark.parametrize(
    "body", [b"", b"{", b"[]", b"{}", b'{"id": 3}', b"3", b'"id"', b"\xff"], ids=repr
)
def test_an_id_that_is_none_is_empty(body):
    assert id_of(bytes(32) + body) == ""
    assert id_of(b"") == ""


def test_an_id_is_read_from_the_frame():
    assert id_of(result(1, 1, "é ☃").frame) == "é ☃"


def test_a_segment_is_its_records(segment):
    head, found = look(segment)
    assert head == (HeadState.GOOD, HEAD_BYTES, channels_json(LAYOUT.channels))
    assert [type(item) for item in found] == [Whole] * 3
    assert [item.id for item in found] == ["7/1", "7/2", "7/3"]
    assert [item.header.sequence for item in found] == [1, 2, 3]
    assert found[-1].header.end == segment.stat().st_size


def test_every_flipped_byte_costs_its_own_record_only(segment):
    content = segment.read_bytes()
    _, good = look(segment)
    for offset in range(HEAD_BYTES, len(content)):
        hit = next(item.header for item in good if item.header.end > offset)
        change(segment, offset, bytes([content[offset] ^ 0x41]))
        _, found = look(segment)
        if offset >= hit.content_end:
            assert found == good  # It is padding.
        else:
            whole = [item for item in found if isinstance(item, Whole)]
            assert whole == [item for item in good if item.header is not hit]
            (bad,) = (item for item in found if isinstance(item, Corrupt))
            assert (bad.offset, bad.end) == (hit.offset, hit.end)
            if offset >= hit.offset + 64:
                assert bad.header == hit
            if offset >= hit.payload_offset:
                assert bad.id == f"7/{hit.sequence}"
        change(segment, offset, content[offset : offset + 1])


def test_every_length_has_the_records_that_fit(segment):
    content = segment.read_bytes()
    _, good = look(segment)
    for length in range(len(content) - 1, HEAD_BYTES - 1, -1):
        os.truncate(segment, length)
        _, found = look(segment)
        whole = [item for item in good if item.header.content_end <= length]
        assert found[: len(whole)] == whole
        if length > (whole[-1].header.end if whole else HEAD_BYTES):
            (torn,) = found[len(whole) :]
            assert torn == Torn(whole[-1].header.end if whole else HEAD_BYTES)
        else:
            assert len(found) == len(whole)


def test_a_tail_of_zeros_was_not_finished(segment):
    _, good = look(segment)
    second = good[1].header
    for offset in (second.offset, second.payload_offset, second.content_end - 8):
        os.truncate(segment, offset)
        os.truncate(segment, second.end + 4096)
        _, found = look(segment)
        assert found == [good[0], Torn(second.offset)]


def test_void_bytes_are_passed_over(segment):
    _, good = look(segment)
    second = good[1].header
    void = Header(Kind.VOID, 1, second.offset, 0, 0, second.end - second.offset - 64, 0, 0, 0)
    change(segment, second.offset, pack_header(void))
    _, found = look(segment)
    assert found == [good[0], good[2]]


def test_a_record_inside_an_array_is_no_record(segment):
    """The header before it is damaged, so its arrays are searched."""
    content = segment.read_bytes()
    _, good = look(segment)
    second, third = good[1].header, good[2].header
    copied = content[third.offset : third.offset + 64]
    at = align(second.offset + 64)
    assert at + 64 <= second.end
    change(segment, at, copied)
    change(segment, second.offset, bytes(64))
    _, found = look(segment)
    assert [item for item in found if isinstance(item, Whole)] == [good[0], good[2]]


def test_a_file_of_noise_ends(tmp_path):
    path = tmp_path / "noise"
    path.write_bytes((RECORD_MAGIC + b"noise") * 300_000)
    head, found = look(path)
    assert head.state is HeadState.DAMAGED
    assert [type(item) for item in found] == [Corrupt]


def test_a_head_that_is_cut_was_not_finished(segment):
    for length in reversed(range(len(channels_json(LAYOUT.channels)) + 20)):
        os.truncate(segment, length)
        assert look(segment)[0].state is HeadState.TORN


def test_a_head_says_what_the_file_is(tmp_path):
    path = tmp_path / "1"

    def state(content: bytes) -> HeadState:
        path.write_bytes(content)
        return look(path)[0].state

    head = pack_head(b"{}")
    assert state(head) is HeadState.GOOD
    assert state(b"") is HeadState.TORN
    assert state(bytes(70_000)) is HeadState.TORN
    assert state(b"text") is HeadState.DAMAGED
    assert state(b"text" * 20) is HeadState.DAMAGED
    for at in range(22):
        flipped = bytearray(head)
        flipped[at] ^= 1
        assert state(bytes(flipped)) in {HeadState.DAMAGED, HeadState.TORN}, at
    begin = struct.pack("<8sII", SEGMENT_MAGIC, SEGMENT_VERSION + 1, 2)
    crc = zlib.crc32(b"{}", zlib.crc32(begin))
    assert state(begin + struct.pack("<I", crc) + b"{}") is HeadState.NEWER


def test_a_head_takes_the_channels_of_any_layout():
    channels = [Channel(f"{'n' * 60}{number}", (2,) * 8, "float32") for number in range(64)]
    assert pack_head(channels_json(channels)).startswith(SEGMENT_MAGIC)


def test_what_cannot_be_read_is_not_zero(tmp_path):
    descriptor = os.open(tmp_path, os.O_RDONLY)
    assert not is_zero(descriptor, 0, 64)
    assert list(scan(descriptor, 1, 0, 64)) == [Corrupt(0, 64, None, "")]
    os.close(descriptor)


def test_a_record_is_read_into_its_place(segment):
    place = memoryview(bytearray(SLOT_BYTES))
    with segment.open("rb") as file:
        header, frame = read_record(file.fileno(), 1, HEAD_BYTES, place)
    assert (header.renderer, header.sequence) == (7, 1)
    assert frame == result(7, 1).frame
    assert place == payload(7, 1)


@settings(max_examples=20)
@given(extra=st.sampled_from([3000, 3900, 4000, 4096, 5000, 60_000]))
def test_a_long_frame_is_read_whole(tmp_path_factory, extra):
    folder = tmp_path_factory.mktemp("long")
    long = result(1, 1, extra=extra)
    write(make_store(folder), 1, [long])
    with (folder / "00000001.seg").open("rb") as file:
        place = memoryview(bytearray(SLOT_BYTES))
        assert read_record(file.fileno(), 1, HEAD_BYTES, place)[1] == long.frame
    assert place == payload(1, 1)


def test_a_damaged_record_is_not_given_out(segment):
    place = memoryview(bytearray(SLOT_BYTES))
    content = segment.read_bytes()
    with segment.open("rb") as file:
        with pytest.raises(ValueError, match="a slot 3"):
            read_record(file.fileno(), 1, HEAD_BYTES, place[:3])
        with pytest.raises(ValueError, match="header is damaged"):
            read_record(file.fileno(), 1, HEAD_BYTES + 64, place)
        change(segment, HEAD_BYTES + 70, b"\xff")
        with pytest.raises(ValueError, match="checksum"):
            read_record(file.fileno(), 1, HEAD_BYTES, place)
        segment.write_bytes(content[: HEAD_BYTES + 64 + len(result(7, 1).frame) + 5])
        with pytest.raises(ValueError, match="end is missing"):
            read_record(file.fileno(), 1, HEAD_BYTES, place)
