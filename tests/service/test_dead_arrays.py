"""What is kept of a dead result is what the renderer wrote, in a file that is whole."""

import os
import re
import stat

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from millpond.core.layout import DTYPE_BYTES, Channel, plan
from millpond.dead_arrays import NAME_BYTES_MAX, ArraysFull, DeadArrays, load_letter, safe_name

LAYOUT = plan([Channel("rgb", (3, 4), "float32"), Channel("label", (), "int64")], 2)
BODY = b'{"id": "a", "render_args": {"x": 1}}'
BIG = 1 << 40


def payload(layout=LAYOUT) -> bytes:
    return os.urandom(layout.slot_bytes)


def save(arrays: DeadArrays, id: str = "a", logger: str = "csv", key=(3, 7)) -> str:
    return arrays.save(logger, id, key, payload(), BODY)


def test_arrays_are_read_as_they_were_written(tmp_path):
    channels = [Channel(dtype, (2, 3), dtype) for dtype in DTYPE_BYTES]
    names = ("job", "file", "allow_pickle", "x", "x.npy", "a.b-c")
    channels += [Channel(name, (), "uint8") for name in names]
    layout = plan(channels, 1)
    content = payload(layout)
    path = DeadArrays(tmp_path, layout, bytes_max=BIG).save("csv", "a", (1, 2), content, BODY)
    assert path == "dead/csv/a.npz"
    job, arrays = load_letter(tmp_path / path)
    assert job == BODY
    assert list(arrays) == [channel.name for channel in channels]
    for channel, offset in zip(layout.channels, layout.offsets, strict=True):
        array = arrays[channel.name]
        assert (array.shape, array.dtype) == (channel.shape, channel.dtype)
        assert array.tobytes() == content[offset : offset + channel.size_bytes]


def test_numpy_reads_them_alone(tmp_path):
    path = save(DeadArrays(tmp_path, LAYOUT, bytes_max=BIG))
    with np.load(tmp_path / path, allow_pickle=False) as entries:
        assert entries.files == ["job", "rgb", "label"]
        assert entries["rgb"].shape == (3, 4)
        assert entries["job"].tobytes() == BODY


def test_an_id_that_is_dead_twice_has_two_files(tmp_path):
    arrays = DeadArrays(tmp_path, LAYOUT, bytes_max=BIG)
    assert save(arrays) == "dead/csv/a.npz"
    assert save(arrays, key=(3, 8)) == "dead/csv/a-3-8.npz"
    assert save(arrays, logger="json") == "dead/json/a.npz"
    used = arrays.bytes_used
    assert save(arrays, key=(3, 8)) == "dead/csv/a-3-8.npz"  # The same result: replaced.
    assert arrays.bytes_used == used
    files = list(tmp_path.glob("dead/*/*"))
    assert sum(path.stat().st_size for path in files) == used
    assert len(files) == 3


def test_the_limit_counts_what_earlier_daemons_kept(tmp_path):
    arrays = DeadArrays(tmp_path, LAYOUT, bytes_max=BIG)
    save(arrays)
    one = arrays.bytes_used
    assert (tmp_path / "dead/csv/a.npz").stat().st_size == one
    part = tmp_path / "dead/csv/.b.npz.part"
    part.write_bytes(b"not finished")
    exact = DeadArrays(tmp_path, LAYOUT, bytes_max=2 * one)
    assert exact.bytes_used == one
    assert not part.exists()
    save(exact, "b")
    with pytest.raises(ArraysFull, match=f"dead/ is full: {2 * one} of {2 * one} bytes"):
        save(exact, "c")
    for bytes_max in (3 * one - 1, 2 * one + 1, 0):
        tight = DeadArrays(tmp_path, LAYOUT, bytes_max=bytes_max)
        with pytest.raises(ArraysFull):
            save(tight, "c")
        assert tight.bytes_used == 2 * one
    assert len(list(tmp_path.glob("dead/*/*"))) == 2
    save(DeadArrays(tmp_path, LAYOUT, bytes_max=3 * one), "c")


def test_a_payload_that_is_too_short_is_refused(tmp_path):
    arrays = DeadArrays(tmp_path, LAYOUT, bytes_max=BIG)
    with pytest.raises(ValueError, match="too few"):
        arrays.save("csv", "a", (1, 1), payload()[: LAYOUT.payload_bytes - 1], BODY)
    arrays.save("csv", "a", (1, 1), memoryview(payload())[: LAYOUT.payload_bytes], BODY)


@pytest.mark.parametrize("name", ["dead", "dead/csv"])
def test_no_symlink_is_followed(tmp_path, name):
    (tmp_path / "run").mkdir()
    (tmp_path / "elsewhere").mkdir()
    link = tmp_path / "run" / name
    link.parent.mkdir(exist_ok=True)
    link.symlink_to(tmp_path / "elsewhere")
    arrays = DeadArrays(tmp_path / "run", LAYOUT, bytes_max=BIG)
    with pytest.raises(OSError, match=r"Not a directory|symbolic"):
        save(arrays)
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_a_symlink_in_place_of_a_file_is_not_written_through(tmp_path):
    arrays = DeadArrays(tmp_path, LAYOUT, bytes_max=BIG)
    (tmp_path / "dead/csv").mkdir(parents=True)
    (tmp_path / "elsewhere").write_text("mine")
    for name in ("a.npz", ".a.npz.part", ".a-3-7.npz.part"):
        (tmp_path / "dead/csv" / name).symlink_to(tmp_path / "elsewhere")
    assert save(arrays) == "dead/csv/a-3-7.npz"
    assert (tmp_path / "elsewhere").read_text() == "mine"


@pytest.mark.parametrize(
    "id", ["", ".", "..", "../../etc/x", "/abs", "a\0b", "-rf", ".hidden", "é☃😀", "a\ud800", "n\n"]
)
def test_nasty_ids_stay_in_their_folder(tmp_path, id):
    path = save(DeadArrays(tmp_path, LAYOUT, bytes_max=BIG), id, logger=id)
    _, logger, name = path.split("/")
    assert re.fullmatch(r"[A-Za-z0-9_%][A-Za-z0-9._%-]*", name)
    assert stat.S_ISREG((tmp_path / "dead" / logger / name).lstat().st_mode)


@given(st.text(alphabet=st.characters(codec=None), max_size=100), st.text(max_size=100))
def test_two_ids_have_two_names(first, second):
    assert re.fullmatch(r"[A-Za-z0-9_%][A-Za-z0-9._%-]{0,179}", safe_name(first))
    assert (safe_name(first) == safe_name(second)) == (first == second)


def test_names_are_cut_with_a_hash():
    assert safe_name("a" * NAME_BYTES_MAX) == "a" * NAME_BYTES_MAX
    cut = [safe_name("a" * length) for length in (181, 182, 70_000)]
    assert all(re.fullmatch(r"a{171}-[0-9a-f]{8}", name) for name in cut)
    assert len(set(cut)) == 3


def test_what_is_no_such_file_is_refused(tmp_path):
    path = tmp_path / "x.npz"
    path.write_bytes(b"text")
    with pytest.raises(ValueError, match="no arrays of a dead result"):
        load_letter(path)
    np.savez(path, rgb=np.zeros(3))
    with pytest.raises(ValueError, match="there is no job"):
        load_letter(path)
    np.savez(path, job=np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(ValueError, match="allow_pickle=False"):
        load_letter(path)
    whole = tmp_path / save(DeadArrays(tmp_path, LAYOUT, bytes_max=BIG))
    content = bytearray(whole.read_bytes())
    at = content.index(BODY)
    content[at] ^= 1
    whole.write_bytes(content)
    with pytest.raises(ValueError, match="no arrays of a dead result"):
        load_letter(whole)
    with pytest.raises(FileNotFoundError):
        load_letter(tmp_path / "missing")
