"""Every dead result is listed once the disk allows it, and its arrays are kept if they can be."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from millpond import dead_letters
from millpond.core.layout import Channel, plan
from millpond.dead_letters import DeadLetters, Letter, dead_of, load_letter, read_dead, retract

LAYOUT = plan([Channel("rgb", (3, 4), "float32")], 2)
PAYLOAD = os.urandom(LAYOUT.payload_bytes)
BODY = b'{"id": "a"}'
BIG = 1 << 40
WATCHDOG_S = 60
TESTS = Path(__file__).parents[1]


def letter(sequence: int, id: str = "a", payload: bytes | None = None) -> Letter:
    return Letter(3, sequence, id, 2, payload, BODY)


@pytest.fixture
def letters(tmp_path):
    made = DeadLetters(tmp_path, LAYOUT, arrays_bytes_max=BIG)
    yield made
    made.close()


def listed(folder) -> list[int]:
    return [line.sequence for line in read_dead(folder)]


def block(folder) -> None:
    """Nothing can be appended: a folder is in the place of the list."""
    (folder / "dead.jsonl").mkdir()


def test_a_line_says_everything(letters, tmp_path):
    assert letters.bury("csv", [letter(7)], reason="crashed", problem="exit status 3")
    (raw,) = (tmp_path / "dead.jsonl").read_text().splitlines()
    line = json.loads(raw)
    assert set(line) == {
        "id", "logger", "reason", "problem", "renderer", "sequence", "attempts", "at", "arrays",
    }  # fmt: skip
    (dead,) = dead_of(tmp_path).values()
    assert dead[:7] == ("a", "csv", "crashed", "exit status 3", 3, 7, 2)
    assert dead.arrays is None


def test_arrays_are_kept_when_there_are_some(letters, tmp_path):
    assert letters.bury(
        "csv", [letter(1, payload=PAYLOAD), letter(2), letter(3, payload=PAYLOAD)],
        reason="crashed", problem="",
    )  # fmt: skip
    lines = list(read_dead(tmp_path))
    assert [line.arrays for line in lines] == ["dead/csv/a.npz", None, "dead/csv/a-3-3.npz"]
    for line in (lines[0], lines[2]):
        job, arrays = load_letter(tmp_path / line.arrays)
        assert job == BODY
        assert arrays["rgb"].tobytes() == PAYLOAD
    assert letters.arrays_bytes == 2 * (tmp_path / "dead/csv/a.npz").stat().st_size
    assert {line.problem for line in lines} == {""}


def test_why_arrays_are_not_kept_is_told(tmp_path):
    letters = DeadLetters(tmp_path, LAYOUT, arrays_bytes_max=0)
    (tmp_path / "dead").mkdir()
    letters.bury("csv", [letter(1, payload=PAYLOAD)], reason="crashed", problem="signal 9")
    letters.bury("csv", [letter(2, payload=b"short")], reason="crashed", problem="")
    first, second = read_dead(tmp_path)
    assert first.arrays is None
    assert first.problem.startswith("signal 9; its arrays are not kept: dead/ is full: 0 of 0")
    assert second.problem.startswith("its arrays are not kept: 5 bytes are too few")
    letters.close()
    big = DeadLetters(tmp_path, LAYOUT, arrays_bytes_max=BIG)
    (tmp_path / "dead").mkdir()
    (tmp_path / "dead" / "csv").write_text("in the way")
    big.bury("csv", [letter(3, payload=PAYLOAD)], reason="crashed", problem="")
    assert list(read_dead(tmp_path))[2].problem == "its arrays are not kept: Not a directory"
    big.close()


def test_without_channels_no_arrays_are_kept(tmp_path):
    letters = DeadLetters(tmp_path, None, arrays_bytes_max=BIG)
    assert letters.bury("csv", [letter(1, payload=PAYLOAD)], reason="crashed", problem="")
    assert (letters.arrays_bytes, listed(tmp_path)) == (0, [1])
    letters.close()
    assert not (tmp_path / "dead").exists()


def test_lines_that_the_disk_does_not_take_wait(letters, tmp_path):
    block(tmp_path)
    assert not letters.bury("csv", [letter(1), letter(2)], reason="crashed", problem="")
    assert (letters.waiting, letters.unlisted) == (2, 0)
    assert letters.problem == "dead.jsonl cannot be written: Is a directory"
    assert not letters.retry()
    (tmp_path / "dead.jsonl").rmdir()
    assert letters.bury("json", [letter(3)], reason="crashed", problem="")
    assert listed(tmp_path) == [1, 2, 3]
    assert (letters.waiting, letters.problem) == (0, "")
    assert letters.retry()
    assert listed(tmp_path) == [1, 2, 3]


def test_the_last_try_is_at_the_end(letters, tmp_path):
    block(tmp_path)
    letters.bury("csv", [letter(1)], reason="crashed", problem="")
    (tmp_path / "dead.jsonl").rmdir()
    letters.close()
    assert listed(tmp_path) == [1]


@pytest.mark.parametrize("limit", [("WAITING_MAX", 2), ("WAITING_BYTES_MAX", 400)])
def test_only_so_many_lines_wait(letters, tmp_path, monkeypatch, limit):
    monkeypatch.setattr(dead_letters, *limit)
    many = [letter(sequence) for sequence in range(1, 6)]
    letters.bury("csv", many, reason="crashed", problem="")
    assert listed(tmp_path) == [1, 2, 3, 4, 5]  # A healthy disk takes them in parts.
    (tmp_path / "dead.jsonl").unlink()
    block(tmp_path)
    letters.bury("csv", many, reason="crashed", problem="")
    assert (letters.waiting, letters.unlisted) == (2, 3)
    (tmp_path / "dead.jsonl").rmdir()
    assert letters.retry()
    assert listed(tmp_path) == [1, 2]
    assert letters.unlisted == 3


def test_a_long_problem_is_cut_to_its_end(letters, tmp_path):
    letters.bury("csv", [letter(1)], reason="crashed", problem="x" * 100_000 + "the cause")
    (line,) = read_dead(tmp_path)
    assert line.problem.endswith("the cause")
    assert len(line.problem) == dead_letters.PROBLEM_CHARS_MAX


def test_a_result_that_was_taken_back_can_die_again(letters, tmp_path):
    letters.bury("csv", [letter(1, payload=PAYLOAD)], reason="crashed", problem="")
    retract(tmp_path, [("csv", 3, 1)])
    assert dead_of(tmp_path) == {}
    letters.bury("csv", [letter(1, payload=PAYLOAD)], reason="hung", problem="")
    assert dead_of(tmp_path)["csv", 3, 1].reason == "hung"


def test_the_reserve_is_there_while_it_is_needed(letters, tmp_path):
    reserve = tmp_path / "dead" / ".reserve"
    assert not reserve.exists()
    letters.bury("csv", [letter(1)], reason="crashed", problem="")
    assert reserve.stat().st_blocks * 512 >= dead_letters.RESERVE_BYTES
    reserve.unlink()
    letters.retry()
    assert reserve.exists()
    letters.close()
    assert not reserve.parent.exists()


FULL_DISK = """
import json, sys
from pathlib import Path
from service.test_dead_letters import LAYOUT, BIG, PAYLOAD, letter, listed
from millpond.dead_letters import DeadLetters, read_dead
folder = Path(sys.argv[1])
reserve = folder / "dead" / ".reserve"
letters = DeadLetters(folder, LAYOUT, arrays_bytes_max=BIG)
letters.bury("csv", [letter(1)], reason="crashed", problem="")
big = (folder / "big").open("wb", buffering=0)
try:
    while True:
        big.write(bytes(4096))
except OSError:
    big.close()
many = [letter(sequence, payload=PAYLOAD) for sequence in range(2, 40)]
said = [letters.bury("csv", many, reason="crashed", problem=""), reserve.exists()]
said += [listed(folder), list(read_dead(folder))[-1].problem]
(folder / "big").unlink()
said += [letters.retry(), reserve.exists()]
letters.close()
print(json.dumps(said))
"""
# A file system of 2 MiB that nobody else sees, and that goes with the process.
IN_A_SMALL_DISK = 'mount -t tmpfs -o size=2m tmpfs "$1" && exec "$2" -c "$3" "$1"'


def test_a_full_disk_takes_the_lines_into_the_reserve(tmp_path):
    unshare = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-ec"]
    try:
        probe = subprocess.run(
            [*unshare, 'mount -t tmpfs tmpfs "$1"', "sh", tmp_path],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
    except FileNotFoundError:
        pytest.skip("unshare is not installed")
    if probe.returncode:
        pytest.skip(f"nothing can be mounted here: {probe.stderr.strip()}")
    child = subprocess.run(
        [*unshare, IN_A_SMALL_DISK, "sh", tmp_path, sys.executable, FULL_DISK],
        env={**os.environ, "PYTHONPATH": str(TESTS)},
        capture_output=True,
        text=True,
        timeout=WATCHDOG_S,
        check=True,
    )
    loss = "its arrays are not kept: No space left on device"
    assert json.loads(child.stdout) == [True, False, list(range(1, 40)), loss, True, True]


SMALL_FILES = """
import json, resource, sys
from pathlib import Path
from service.test_dead_letters import LAYOUT, BIG, PAYLOAD, letter
from millpond.dead_letters import DeadLetters
folder = Path(sys.argv[1])
letters = DeadLetters(folder, LAYOUT, arrays_bytes_max=BIG)
letters.bury("csv", [letter(1)], reason="crashed", problem="")
size = (folder / "dead.jsonl").stat().st_size
hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
resource.setrlimit(resource.RLIMIT_FSIZE, (size + 300, hard))
said = []
for first in (10, 20):
    some = [letter(first + at, payload=PAYLOAD) for at in range(3)]
    said.append(letters.bury("csv", some, reason="crashed", problem=""))
    said.append((folder / "dead.jsonl").stat().st_size == size)
said.append(letters.problem)
resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
said.append(letters.retry())
letters.close()
print(json.dumps(said))
"""


def test_a_refused_append_leaves_nothing_and_is_made_up_for(tmp_path):
    child = subprocess.run(
        [sys.executable, "-c", SMALL_FILES, str(tmp_path)],
        env={**os.environ, "PYTHONPATH": str(TESTS)},
        capture_output=True,
        text=True,
        timeout=WATCHDOG_S,
        check=True,
    )
    problem = "dead.jsonl cannot be written: File too large"
    assert json.loads(child.stdout) == [False, True, False, True, problem, True]
    assert listed(tmp_path) == [1, 10, 11, 12, 20, 21, 22]
    lines = list(read_dead(tmp_path))
    assert {line.problem for line in lines[1:]} == {"its arrays are not kept: File too large"}
    assert list(tmp_path.glob("dead/**/*.np*")) == []


def test_a_list_that_is_gone_is_begun_again(letters, tmp_path):
    letters.bury("csv", [letter(1)], reason="crashed", problem="")
    (tmp_path / "dead.jsonl").unlink()
    assert letters.bury("csv", [letter(2)], reason="crashed", problem="")
    assert listed(tmp_path) == [2]
