"""All of a call is on the disk, or nothing of it, whatever the disk does."""

import json
import os
import select
import shutil
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
from service.spill_cases import (
    LAYOUT,
    keys,
    make_store,
    never,
    payload_of,
    read,
    result,
    segments,
)

from millpond import spill_writer
from millpond.spill import Cancelled, SpillFull
from millpond.spill_record import channels_json, pack_head
from millpond.spill_writer import SpillWriter

TESTS = Path(__file__).parents[1]
HEAD_BYTES = len(pack_head(channels_json(LAYOUT.channels)))
RECORD_BYTES = 256
WATCHDOG_S = 60


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "spill"


def make_writer(folder, **limits) -> SpillWriter:
    usual = {"size_max_bytes": 1 << 40, "segment_bytes": HEAD_BYTES + 2 * RECORD_BYTES}
    return SpillWriter(folder, LAYOUT, **{**usual, **limits})


def results(first: int, count: int) -> list:
    return [result(1, first + at) for at in range(count)]


def sizes(folder) -> dict[str, int]:
    return {path.name: path.stat().st_size for path in sorted(folder.iterdir())}


def test_places_say_where_the_records_are(folder):
    writer = make_writer(folder)
    places = writer.append(results(1, 3), payload_of, never)
    assert [place[:2] for place in places.values()] == [
        (1, HEAD_BYTES),
        (1, HEAD_BYTES + RECORD_BYTES),
        (2, HEAD_BYTES),
    ]
    assert list(places) == [(1, 1), (1, 2), (1, 3)]
    assert writer.bytes_used == 2 * HEAD_BYTES + 3 * RECORD_BYTES == sum(sizes(folder).values())
    writer.release(places.values())
    writer.close()
    assert not folder.exists()


# Cancelling.


@pytest.mark.parametrize("piece_bytes", [64, 200, 256, 1 << 20])
def test_cancelling_at_any_moment_takes_everything_back(folder, monkeypatch, piece_bytes):
    monkeypatch.setattr(spill_writer, "PIECE_BYTES", piece_bytes)
    writer = make_writer(folder)
    writer.append(results(1, 1), payload_of, never)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    asked = 0
    while True:
        answers = iter([False] * asked + [True])
        try:
            writer.append(results(10, 4), payload_of, partial(next, answers, False))
        except Cancelled:
            pass
        else:
            break
        asked += 1
        assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
        assert writer.bytes_used == sum(map(len, before.values()))
        assert writer.problem == ""
    assert asked >= 4
    writer.close()
    store = make_store(folder)
    store.recover()
    assert read(store, 0) == keys(results(1, 1) + results(10, 4))
    store.close()


def test_what_changes_after_the_copy_is_not_written(folder):
    """The slot is given to somebody else between the question and the write."""
    writer = make_writer(folder)
    slot = bytearray(payload_of(result(1, 1)))

    def is_cancelled() -> bool:
        slot[:] = bytes(len(slot))
        return False

    writer.append(results(1, 1), lambda _: memoryview(slot), is_cancelled)
    writer.close()
    store = make_store(folder)
    store.recover()
    assert read(store, 0) == [(1, 1)]
    store.close()


def test_a_fault_of_the_caller_takes_everything_back(folder):
    writer = make_writer(folder)
    calls = iter([False, True])

    def is_cancelled() -> bool:
        if next(calls):
            raise KeyError("ours")
        return False

    with pytest.raises(KeyError):
        writer.append(results(1, 4), payload_of, is_cancelled)
    assert sizes(folder) == {}
    writer.close()


# The limit.


def test_the_limit_counts_every_byte(folder):
    whole = 2 * HEAD_BYTES + 3 * RECORD_BYTES
    assert whole == 1024
    writer = make_writer(folder, size_max_bytes=whole - 1)
    text = rf"spill is full: 0 B of {whole - 1} B are used, 1 KiB more are wanted"
    with pytest.raises(SpillFull, match=text):
        writer.append(results(1, 3), payload_of, never)
    assert not folder.exists()
    writer = make_writer(folder, size_max_bytes=whole)
    places = writer.append(results(1, 3), payload_of, never)
    with pytest.raises(SpillFull):
        writer.append(results(4, 1), payload_of, never)
    assert writer.problem == ""  # The disk is well.
    writer.release([places[1, 1]])
    with pytest.raises(SpillFull):
        writer.append(results(4, 1), payload_of, never)
    writer.release([places[1, 2]])
    writer.append(results(4, 1), payload_of, never)
    assert segments(folder) == ["00000002.seg"]
    writer.close()


def test_a_segment_that_nobody_needs_makes_room(folder):
    room = HEAD_BYTES + RECORD_BYTES
    writer = make_writer(folder, size_max_bytes=room, segment_bytes=10_000)
    for number in range(1, 4):
        places = writer.append(results(number, 1), payload_of, never)
        writer.release(places.values())
        assert segments(folder) == [f"{number:08}.seg"]
    writer.close()


def test_sizes_are_told_in_units(folder):
    writer = make_writer(folder, size_max_bytes=1536)
    with pytest.raises(SpillFull, match=r"0 B of 1\.5 KiB"):
        writer.append(results(1, 9), payload_of, never)
    assert spill_writer._size(4 * 2**30) == "4 GiB"
    assert spill_writer._size(3 * 2**40) == "3 TiB"


def test_a_number_that_is_taken_is_passed_over(folder):
    folder.mkdir()
    for number in (1, 2):
        (folder / f"0000000{number}.seg").write_text("somebody's")
    writer = make_writer(folder)
    writer.append(results(1, 1), payload_of, never)
    assert segments(folder)[-1] == "00000003.seg"
    assert (folder / "00000002.seg").read_text() == "somebody's"
    writer.close()


def test_a_segment_that_cannot_be_removed_is_tried_again(folder):
    writer = make_writer(folder)
    places = writer.append(results(1, 3), payload_of, never)
    path = folder / "00000001.seg"
    path.unlink()
    path.mkdir()
    writer.release([places[1, 1], places[1, 2]])
    assert 1 in writer.segments
    path.rmdir()
    writer.release([])
    assert 1 not in writer.segments
    writer.close()


# A disk that fails.

SCRIPT = """
import json, os, sys
from pathlib import Path
from service.spill_cases import keys, make_store, read, result, write
from millpond.spill import SpillError

def play(folder):
    "Write, read, settle; say which writes returned, and in which state it ends."
    store = make_store(folder, segment_bytes=700)
    written, refused, settled = [], [], []
    def put(token, first, count):
        some = [result(1, first + at) for at in range(count)]
        try:
            write(store, token, some)
        except SpillError:
            refused.extend(keys(some))
            assert store.problem
        else:
            written.extend(keys(some))
            assert store.problem == ""
    def take(token):
        came = read(store, token)
        assert set(came) <= set(written)
        return came
    put(1, 1, 1)
    put(2, 10, 4)
    put(3, 20, 2)
    settled += take(2)
    store.settle(settled)
    put(4, 30, 3)
    settled += take(1)
    store.settle(settled)
    store.probe()
    put(5, 40, 2)
    put(6, 50, 2)
    take(6)
    return [written, refused, settled]

for line in sys.stdin:
    child = os.fork()
    if child == 0:
        os.write(1, b"%d\\n" % os.getpid())
        os.read(int(sys.argv[1]), 1)
        os.write(1, json.dumps(play(Path(line.strip()))).encode() + b"\\n")
        os._exit(0)
    os.waitpid(child, 0)
    os.write(1, b"end\\n")
"""

FAULTS = [
    (call, error, n)
    for call, error, times in (
        ("pwrite64", "ENOSPC", 9),
        ("pwrite64", "EIO", 3),
        ("fsync", "EIO", 8),
        ("fdatasync", "EIO", 8),
        ("openat", "ENOSPC", 9),
        ("openat", "EMFILE", 3),
        ("unlink", "EROFS", 2),
        ("mkdir", "EROFS", 1),
    )
    for n in range(1, times + 1)
]


def line_of(descriptor: int) -> str:
    assert select.select([descriptor], [], [], WATCHDOG_S)[0]
    text = b""
    while not text.endswith(b"\n"):
        more = os.read(descriptor, 1)
        assert more, text
        text += more
    return text.decode()


@pytest.fixture
def player(tmp_path):
    """Play the script in a child whose system calls fail as strace is told."""
    strace = shutil.which("strace")
    if strace is None:
        pytest.skip("strace is not installed")
    go_read, go_write = os.pipe()
    child = subprocess.Popen(
        [sys.executable, "-c", SCRIPT, str(go_read)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        pass_fds=[go_read],
        env={**os.environ, "PYTHONPATH": str(TESTS)},
    )

    def play(folder: Path, *faults: str) -> list:
        child.stdin.write(f"{folder}\n".encode())
        child.stdin.flush()
        pid = line_of(child.stdout.fileno())
        arguments = [item for fault in faults for item in ("-e", f"inject={fault}")]
        log = tmp_path / "strace"
        tracer = subprocess.Popen(
            [strace, "-o", log, *arguments, "-p", pid.strip()],
            stderr=subprocess.PIPE,
        )
        said = line_of(tracer.stderr.fileno())
        os.write(go_write, b"!")
        if "attached" not in said:
            line_of(child.stdout.fileno())
            tracer.communicate()
            pytest.skip(f"no process may be traced here: {said.strip()}")
        answer = line_of(child.stdout.fileno())
        assert line_of(child.stdout.fileno()) == "end\n"
        tracer.communicate(timeout=WATCHDOG_S)
        play.was_injected = b"INJECTED" in log.read_bytes()
        return json.loads(answer)

    yield play
    child.stdin.close()
    assert child.wait(WATCHDOG_S) == 0
    child.stdout.close()
    os.close(go_read)
    os.close(go_write)


def check(folder: Path, answer: list, *, may_keep: bool = False) -> None:
    written, refused, settled = ({tuple(key) for key in part} for part in answer)
    store = make_store(folder)
    found = store.recover()
    came = set(keys(found.results))
    assert found.corrupt_count == 0
    assert written - settled <= came
    if not may_keep:
        assert not came & refused
    assert read(store, 0) == sorted(came)
    store.settle(came)
    store.close()
    assert not folder.exists()


def test_each_system_call_may_fail(player, tmp_path):
    answer = player(tmp_path / "well")
    assert answer[1] == []
    check(tmp_path / "well", answer)
    for call, error, n in FAULTS:
        folder = tmp_path / f"{call}-{error}-{n}"
        answer = player(folder, f"{call}:error={error}:when={n}")
        assert player.was_injected, folder.name
        if call != "unlink":
            assert len(answer[1]) <= 4, folder.name
        check(folder, answer)


@pytest.mark.parametrize("call", ["pwrite64", "fdatasync"])
def test_what_cannot_be_cut_off_does_not_come_back(player, tmp_path, call):
    """The tail is marked: nothing of a refused call is replayed later."""
    for n in range(1, 7):
        folder = tmp_path / f"{call}-{n}"
        # A write that is refused at once leaves no tail; so it is the second one of the call.
        answer = player(
            folder, f"{call}:error=EIO:when={n}", "ftruncate:error=EIO:when=1+", "unlink:error=EIO"
        )
        assert player.was_injected
        assert answer[1]
        check(folder, answer)


def test_a_disk_that_takes_nothing_any_more_loses_nothing_that_was_written(player, tmp_path):
    for n in (4, 7):
        folder = tmp_path / str(n)
        refuse = [f"{call}:error=EIO:when={n}+" for call in ("pwrite64", "fdatasync")]
        answer = player(folder, *refuse, "ftruncate:error=EROFS")
        assert answer[0]
        assert answer[1]
        check(folder, answer, may_keep=True)
