"""Faults at a chosen operation, each in a process of its own, for they cannot be taken back."""

import errno
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from millpond_loggers.testing.faults import HOW

CODE = """
import os, sys
from millpond_loggers.testing.faults import Fault
at, how = int(sys.argv[1]), sys.argv[2]
fault = Fault(at, how)
os.mkdir("before")  # Not counted.
fault.install()
try:
    with open("a", "w") as file:                            # 1
        file.write("python's own")
    with open("a") as file: file.read()                     # To read: not counted.
    descriptor = os.open("b", os.O_WRONLY | os.O_CREAT)     # 2
    os.write(descriptor, b"12345678")                       # 3
    os.pwrite(descriptor, b"abcd", 4)                       # 4
    os.fsync(descriptor)                                    # 5
    os.close(descriptor)
    os.replace("a", "c")                                    # 6
    os.mkdir("d")                                           # 7
    os.unlink("c")                                          # 8
    os.truncate("b", 2)                                     # 9
    with open(os.devnull, "w") as file: file.write("x")     # No file.
    sys.stdout.write("said\\n")
except OSError as error:
    print("errno", error.errno)
print("count", fault.count)
"""


def run(folder: Path, at: int = 0, how: str = HOW[0]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", CODE, str(at), how],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )


def files(folder: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in folder.iterdir() if path.is_file()}


def test_without_one_they_are_only_counted(tmp_path: Path) -> None:
    done = run(tmp_path)
    assert (done.returncode, done.stdout) == (0, "said\ncount 9\n")
    assert files(tmp_path) == {"b": "12"}


LEFT = [
    {},
    {"a": "python's own"},
    {"a": "python's own", "b": ""},
    {"a": "python's own", "b": "12345678"},
    {"a": "python's own", "b": "1234abcd"},
    {"a": "python's own", "b": "1234abcd"},
    {"c": "python's own", "b": "1234abcd"},
    {"c": "python's own", "b": "1234abcd"},
    {"b": "1234abcd"},
]


@pytest.mark.parametrize("at", range(1, 10))
def test_a_process_that_is_killed_has_not_done_it(tmp_path: Path, at: int) -> None:
    assert run(tmp_path, at, "killed before").returncode == -signal.SIGKILL
    assert files(tmp_path) == LEFT[at - 1]


@pytest.mark.parametrize(("at", "left"), [(3, "1234"), (4, "1234ab78")])
def test_half_of_a_write_may_be_done(tmp_path: Path, at: int, left: str) -> None:
    assert run(tmp_path, at, "killed midway").returncode == -signal.SIGKILL
    assert files(tmp_path)["b"] == left


@pytest.mark.parametrize("at", range(1, 10))
def test_a_full_disk_is_told_as_the_system_tells_it(tmp_path: Path, at: int) -> None:
    done = run(tmp_path, at, "failing")
    assert (done.returncode, done.stdout) == (0, f"errno {errno.ENOSPC}\ncount {at}\n")
