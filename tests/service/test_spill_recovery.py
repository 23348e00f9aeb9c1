"""Whatever is in the folder of a spill, a daemon starts, and says what it found."""

import os
import struct
import zlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from service.spill_cases import (
    BIG,
    LAYOUT,
    OTHER_LAYOUT,
    keys,
    make_store,
    never,
    payload,
    read,
    result,
    segments,
    write,
)

from millpond import spill_recovery
from millpond.spill import RecoveredResult, SpillStore, list_spilled
from millpond.spill_record import SEGMENT_MAGIC, channels_json, pack_head

HEAD_BYTES = len(pack_head(channels_json(LAYOUT.channels)))
RECORD_BYTES = 256


@pytest.fixture
def folder(tmp_path):
    """A spill with one segment of three records: renderer 7, sequences 1 to 3."""
    store = make_store(tmp_path / "spill")
    write(store, 1, [result(7, sequence) for sequence in (1, 2, 3)])
    store.close()
    assert (tmp_path / "spill" / "00000001.seg").stat().st_size == HEAD_BYTES + 3 * RECORD_BYTES
    return tmp_path / "spill"


def recover(folder):
    store = make_store(folder)
    return store, store.recover()


def test_a_folder_that_is_missing_has_nothing(tmp_path):
    store, found = recover(tmp_path / "missing")
    assert found == type(found)()
    assert (store.records, store.bytes_used) == (0, 0)
    assert not (tmp_path / "missing").exists()
    assert list(list_spilled(tmp_path / "missing")) == []


def test_results_come_back_by_renderer_and_sequence(tmp_path):
    store = make_store(tmp_path, segment_bytes=HEAD_BYTES + 2 * RECORD_BYTES)
    written = [(2, 9), (1, 5), (2, 8), (1, 6), (10, 1)]
    write(store, 4, [result(*key) for key in written])
    store.close()
    assert sorted(keys(list_spilled(tmp_path))) == sorted(written)
    store, found = recover(tmp_path)
    assert found.results == [RecoveredResult(*key, f"{key[0]}/{key[1]}") for key in sorted(written)]
    assert (found.corrupt, found.set_aside, found.problems) == ([], [], [])
    assert store.records == 5
    assert read(store, 0) == sorted(written)


def test_every_flipped_byte_leaves_the_others_and_is_counted(folder):
    path = folder / "00000001.seg"
    content = path.read_bytes()
    everything = [(7, 1), (7, 2), (7, 3)]
    for offset in range(len(content)):
        flipped = bytearray(content)
        flipped[offset] ^= 0x10
        path.write_bytes(flipped)
        store, found = recover(folder)
        hit = (offset - HEAD_BYTES) // RECORD_BYTES
        if offset < HEAD_BYTES:
            assert keys(found.results) == everything
        elif found.corrupt_count:
            assert keys(found.results) == everything[:hit] + everything[hit + 1 :]
            assert found.corrupt_bytes == RECORD_BYTES
            saved = folder / "corrupt" / f"00000001-{HEAD_BYTES + hit * RECORD_BYTES}.bin"
            assert len(saved.read_bytes()) == RECORD_BYTES
            if (offset - HEAD_BYTES) % RECORD_BYTES >= 64:
                assert keys(found.corrupt) == [everything[hit]]
        else:  # Padding.
            assert keys(found.results) == everything
        assert read(store, 0) == keys(found.results)
        assert len(found.problems) == found.corrupt_count
        assert path.read_bytes() == flipped
        for saved in folder.glob("corrupt/*"):
            saved.unlink()


def test_every_length_gives_the_records_before(folder):
    path = folder / "00000001.seg"
    content = path.read_bytes()
    for length in range(len(content)):
        path.write_bytes(content[:length])
        store, found = recover(folder)
        count = max(0, (length - HEAD_BYTES) // RECORD_BYTES)
        assert keys(found.results)[:count] == [(7, 1), (7, 2), (7, 3)][:count]
        assert found.corrupt_count == 0
        assert read(store, 0) == keys(found.results)
        if not found.results:
            assert segments(folder) == []
        elif len(found.results) == count:
            assert path.stat().st_size == HEAD_BYTES + count * RECORD_BYTES


def test_what_is_corrupt_is_told_again_until_its_file_goes(folder):
    path = folder / "00000001.seg"
    with path.open("r+b") as file:
        os.pwrite(file.fileno(), b"???", HEAD_BYTES + RECORD_BYTES + 200)
    for _ in range(2):
        store, found = recover(folder)
        assert found.corrupt == [RecoveredResult(7, 2, "7/2")]
        assert "kept as corrupt/00000001-" in found.problems[0]
        store.close()
    store.settle([(7, 1), (7, 3)])
    assert segments(folder) == []
    assert recover(folder)[1].corrupt_count == 0


def test_what_is_corrupt_is_kept_up_to_a_limit(folder, monkeypatch):
    monkeypatch.setattr(spill_recovery, "CORRUPT_KEPT_BYTES_MAX", RECORD_BYTES)
    with (folder / "00000001.seg").open("r+b") as file:
        for number in (0, 2):
            os.pwrite(file.fileno(), b"???", HEAD_BYTES + number * RECORD_BYTES + 200)
    _, found = recover(folder)
    assert (found.corrupt_count, found.corrupt_bytes) == (2, 2 * RECORD_BYTES)
    assert "kept as" in found.problems[0]
    assert "corrupt/ is full" in found.problems[1]
    assert len(list((folder / "corrupt").iterdir())) == 1
    assert "corrupt/ is full" in recover(folder)[1].problems[1]


def test_of_two_records_of_a_result_the_last_good_one_counts(tmp_path):
    for number in (1, 2):
        store = make_store(tmp_path / "spill")
        store._writer.number_last = number - 1
        write(store, 1, [result(7, 1, id=f"copy {number}"), result(number, 4)])
        store.close()
    _, found = recover(tmp_path / "spill")
    assert found.results == [(1, 4, "1/4"), (2, 4, "2/4"), (7, 1, "copy 2")]
    with (tmp_path / "spill" / "00000002.seg").open("r+b") as file:
        os.pwrite(file.fileno(), b"?", HEAD_BYTES + 200)
    store, found = recover(tmp_path / "spill")
    assert found.results == [(1, 4, "1/4"), (2, 4, "2/4"), (7, 1, "copy 1")]
    assert (found.corrupt, found.corrupt_count) == ([], 1)
    store.settle(keys(found.results))
    assert segments(tmp_path / "spill") == []


def test_a_file_with_only_older_copies_is_removed(tmp_path):
    for number in (1, 2):
        store = make_store(tmp_path)
        store._writer.number_last = number - 1
        write(store, 1, [result(7, 1)])
        store.close()
    store, found = recover(tmp_path)
    assert keys(found.results) == [(7, 1)]
    assert segments(tmp_path) == ["00000002.seg"]
    assert read(store, 0) == [(7, 1)]


def test_other_channels_are_set_aside(folder):
    store = SpillStore(folder, OTHER_LAYOUT, size_max_bytes=BIG)
    found = store.recover()
    assert keys(found.set_aside) == [(7, 1), (7, 2), (7, 3)]
    assert [one.id for one in found.set_aside] == ["7/1", "7/2", "7/3"]
    assert found.results == []
    assert segments(folder / "set-aside") == ["00000001.seg"]
    assert (store.bytes_used, store.records) == (0, 0)

    def other_payload_of(one):
        return memoryview(payload(one.renderer, one.sequence, OTHER_LAYOUT))

    store.write(1, [result(8, 1)], other_payload_of, never)
    assert segments(folder) == ["00000002.seg"]  # No number is used twice.
    store.close()
    store, found = recover(folder)
    assert keys(found.set_aside) == [(8, 1)]
    assert segments(folder / "set-aside") == ["00000001.seg", "00000002.seg"]
    store.close()
    assert recover(folder)[1].set_aside == []


def test_other_channels_are_known_by_the_records_when_the_head_is_damaged(folder):
    with (folder / "00000001.seg").open("r+b") as file:
        file.write(b"?")
    found = SpillStore(folder, OTHER_LAYOUT, size_max_bytes=BIG).recover()
    assert keys(found.set_aside) == [(7, 1), (7, 2), (7, 3)]


def test_setting_aside_replaces_nothing(folder):
    aside = folder / "set-aside" / "00000001.seg"
    aside.parent.mkdir()
    aside.write_text("older")
    SpillStore(folder, OTHER_LAYOUT, size_max_bytes=BIG).recover()
    assert aside.read_text() == "older"
    assert len(list(aside.parent.iterdir())) == 2


def test_what_is_not_ours_is_left_alone(folder):
    newer = struct.pack("<8sII", SEGMENT_MAGIC, 2, 2)
    newer += struct.pack("<I", zlib.crc32(b"{}", zlib.crc32(newer))) + b"{}"
    strangers = {
        "00000002.seg": b"something else entirely, and longer than a head",
        "00000003.seg": newer + bytes(500),
        "notes.txt": b"notes",
        "00000004.SEG": b"",
    }
    for name, content in strangers.items():
        (folder / name).write_bytes(content)
    (folder / "00000005.seg").symlink_to(folder / "00000001.seg")
    (folder / "00000006.seg").mkdir()
    os.mkfifo(folder / "00000007.seg")
    store, found = recover(folder)
    assert keys(found.results) == [(7, 1), (7, 2), (7, 3)]
    assert len(found.problems) == 7
    assert all("left alone" in problem for problem in found.problems)
    assert len(list(list_spilled(folder))) == 3
    write(store, 1, [result(9, 1)])
    assert "00000008.seg" in segments(folder)
    store.settle([(7, 1), (7, 2), (7, 3), (9, 1)])
    store.close()
    for name, content in strangers.items():
        assert (folder / name).read_bytes() == content


@pytest.mark.parametrize("name", ["spill", "spill/corrupt", "spill/set-aside"])
def test_a_file_in_place_of_a_folder_is_told(tmp_path, name):
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text("a file")
    _, found = recover(tmp_path / "spill")
    assert "cannot be read (Not a directory)" in found.problems[0]
    assert list(list_spilled(tmp_path / "spill")) == []


def test_set_aside_that_cannot_be_made_stops_nothing(folder):
    (folder / "set-aside").write_text("a file")
    found = SpillStore(folder, OTHER_LAYOUT, size_max_bytes=BIG).recover()
    assert keys(found.set_aside) == [(7, 1), (7, 2), (7, 3)]
    assert "00000001.seg: File exists" in found.problems


def test_corrupt_that_cannot_be_kept_stops_nothing(folder):
    (folder / "corrupt").write_text("a file")
    with (folder / "00000001.seg").open("r+b") as file:
        os.pwrite(file.fileno(), b"?", HEAD_BYTES + 200)
    _, found = recover(folder)
    assert keys(found.results) == [(7, 2), (7, 3)]
    assert "not kept (" in found.problems[-1]


def test_the_file_of_a_probe_is_removed(folder):
    (folder / ".probe").write_bytes(b"left")
    _, found = recover(folder)
    assert found.problems == []
    assert not (folder / ".probe").exists()


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_any_damage_leaves_a_daemon_that_starts(tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("spill")
    store = make_store(folder, segment_bytes=HEAD_BYTES + 2 * RECORD_BYTES)
    write(store, 1, [result(7, sequence) for sequence in range(1, 6)])
    for name in segments(folder):
        path = folder / name
        content = bytearray(path.read_bytes())
        for _ in range(data.draw(st.integers(0, 3))):
            at = data.draw(st.integers(0, len(content)))
            content[at : at + data.draw(st.integers(0, 300))] = data.draw(st.binary(max_size=300))
        path.write_bytes(content)
    store, found = recover(folder)
    assert set(keys(found.results)) <= {(7, sequence) for sequence in range(1, 6)}
    assert read(store, 0) == keys(found.results)
    store.settle(keys(found.results))
    store.close()
    assert recover(folder)[1].results == []
