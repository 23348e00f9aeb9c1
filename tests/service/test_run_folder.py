"""One daemon to a folder, however the last one died; and every lost result on a line."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from millpond.core.deliveries import Result
from millpond.run_folder import DEAD_NAME, LOCK_NAME, AlreadyRunning, RunFolder, refuse_live_socket

HOLD = """
import sys
from pathlib import Path
from millpond.run_folder import AlreadyRunning, RunFolder
try:
    folder = RunFolder(Path(sys.argv[1]))
except AlreadyRunning as error:
    print("refused:", error, flush=True)
    sys.exit()
print("held", flush=True)
sys.stdin.read()
"""


def start_holder(folder) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", HOLD, str(folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def end(process: subprocess.Popen[str]) -> None:
    process.communicate(timeout=60)


@pytest.fixture
def run(tmp_path):
    folder = RunFolder(tmp_path / "run")
    yield folder
    folder.close()


def open_descriptors() -> list[str]:
    return sorted(entry.name for entry in Path("/proc/self/fd").iterdir())


def result(number: int, id: str = "") -> Result:
    return Result(0, 1, 3, number, id or f"{number:06}", b"")


def dead_lines(folder) -> list[dict]:
    return [json.loads(line) for line in (folder / DEAD_NAME).read_text().splitlines()]


# The lock.


def test_the_folder_is_made_with_its_parents(tmp_path) -> None:
    folder = RunFolder(tmp_path / "a" / "b")
    assert (tmp_path / "a" / "b" / LOCK_NAME).read_text() == f"{os.getpid()}\n"
    folder.close()


def test_a_second_process_is_refused_with_the_first_ones_pid(tmp_path) -> None:
    holder = start_holder(tmp_path)
    assert holder.stdout.readline() == "held\n"
    with pytest.raises(AlreadyRunning, match=rf"\(pid {holder.pid}\) is running in {tmp_path}"):
        RunFolder(tmp_path)
    end(holder)
    RunFolder(tmp_path).close()


def test_of_many_processes_at_once_exactly_one_gets_it(tmp_path) -> None:
    holders = [start_holder(tmp_path) for _ in range(8)]
    answers = [holder.stdout.readline() for holder in holders]
    assert answers.count("held\n") == 1
    refused = [answer for answer in answers if answer.startswith("refused: a daemon (pid ")]
    assert len(refused) == 7
    for holder in holders:
        end(holder)


def test_the_lock_is_free_when_its_holder_was_killed(tmp_path) -> None:
    holder = start_holder(tmp_path)
    assert holder.stdout.readline() == "held\n"
    holder.send_signal(signal.SIGKILL)
    end(holder)
    RunFolder(tmp_path).close()


def test_a_refused_process_leaves_the_first_ones_pid_and_no_descriptor(run) -> None:
    before = open_descriptors()
    for _ in range(2):
        with pytest.raises(AlreadyRunning, match=f"pid {os.getpid()}"):
            RunFolder(run.folder)
    assert open_descriptors() == before


def test_a_child_of_the_holder_does_not_keep_the_lock(tmp_path) -> None:
    folder = RunFolder(tmp_path)
    child = subprocess.Popen(["cat"], stdin=subprocess.PIPE, close_fds=False)
    folder.close()
    RunFolder(tmp_path).close()
    child.communicate(timeout=60)


def test_a_lock_that_is_a_link_is_not_followed(tmp_path) -> None:
    precious = tmp_path / "precious"
    precious.write_text("keep")
    (tmp_path / LOCK_NAME).symlink_to(precious)
    with pytest.raises(OSError, match="symbolic link"):
        RunFolder(tmp_path)
    assert precious.read_text() == "keep"


# The list of the dead.


def test_every_lost_result_gets_its_line(run) -> None:
    run.list_dead("csv", [result(1), result(2)], "crash(SIGSEGV)", "it crashed")
    run.list_dead("image", [result(1)], "exception", "no\nspace")
    rows = dead_lines(run.folder)
    stamps = {row.pop("at") for row in rows}
    assert all(time.strptime(stamp, "%Y-%m-%dT%H:%M:%S%z") for stamp in stamps)
    common = {"logger": "csv", "reason": "crash(SIGSEGV)", "problem": "it crashed", "renderer": 3}
    assert rows == [
        {"id": "000001", "sequence": 1, **common},
        {"id": "000002", "sequence": 2, **common},
        {
            "id": "000001",
            "sequence": 1,
            **common,
            "logger": "image",
            "reason": "exception",
            "problem": "no\nspace",
        },
    ]


def test_the_list_is_not_made_before_something_is_lost(run) -> None:
    assert not (run.folder / DEAD_NAME).exists()


def test_a_later_run_adds_to_the_list(tmp_path) -> None:
    for number in (1, 2):
        folder = RunFolder(tmp_path)
        folder.list_dead("csv", [result(number)], "shutdown", "")
        folder.close()
    assert [row["sequence"] for row in dead_lines(tmp_path)] == [1, 2]


def test_no_id_can_forge_a_line(run) -> None:
    ids = ['"}\n{"id": "forged"}', "\u2028", "\x1b[2J", "é👍", "a" * 1024]
    run.list_dead("csv", [result(n, id) for n, id in enumerate(ids)], "drop", "\n{}\n")
    text = (run.folder / DEAD_NAME).read_bytes()
    assert text.count(b"\n") == len(ids)
    assert [json.loads(line)["id"] for line in text.split(b"\n")[:-1]] == ids


def test_a_list_that_is_a_link_is_not_followed(run) -> None:
    precious = run.folder / "precious"
    precious.write_text("keep")
    (run.folder / DEAD_NAME).symlink_to(precious)
    with pytest.raises(OSError, match="symbolic link"):
        run.list_dead("csv", [result(1)], "drop", "")
    assert precious.read_text() == "keep"


def test_a_full_disk_leaves_no_half_of_a_line(tmp_path) -> None:
    """The kernel takes what still fits and refuses the rest, as a disk does."""
    child = subprocess.run(
        [sys.executable, "-c", FULL_DISK, str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert child.stderr == ""
    assert child.stdout == "File too large\n"
    assert [row["id"] for row in dead_lines(tmp_path)] == ["before", "after"]


FULL_DISK = """
import resource, sys
from pathlib import Path
from millpond.core.deliveries import Result
from millpond.run_folder import RunFolder

folder = RunFolder(Path(sys.argv[1]))
before, lost, after = (Result(0, 1, 1, 1, id, b"") for id in ("before", "lost", "after"))
folder.list_dead("csv", [before], "drop", "")
size = (Path(sys.argv[1]) / "dead.jsonl").stat().st_size
_, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
resource.setrlimit(resource.RLIMIT_FSIZE, (size * 3 // 2, hard))
try:
    folder.list_dead("csv", [lost] * 3, "drop", "")
except OSError as error:
    print(error.strerror)
resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
folder.list_dead("csv", [after], "drop", "")
"""


# The sockets.


def listen(path, kind=socket.SOCK_STREAM) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX, kind)
    listener.bind(str(path))
    if kind != socket.SOCK_DGRAM:
        listener.listen(0)
    return listener


def test_where_nothing_lies_a_socket_may_be_made(tmp_path) -> None:
    refuse_live_socket(tmp_path / "a.sock")


def test_a_socket_that_is_served_is_refused(tmp_path) -> None:
    path = tmp_path / "a.sock"
    with listen(path), pytest.raises(AlreadyRunning, match="another program serves"):
        refuse_live_socket(path)


def test_a_socket_whose_server_does_not_accept_is_refused(tmp_path) -> None:
    path = tmp_path / "a.sock"
    with listen(path), socket.socket(socket.AF_UNIX) as first:
        first.connect(str(path))
        with pytest.raises(AlreadyRunning, match="another program serves"):
            refuse_live_socket(path)


@pytest.mark.parametrize("kind", [socket.SOCK_DGRAM, socket.SOCK_SEQPACKET])
def test_a_socket_of_another_type_is_not_stolen(tmp_path, kind) -> None:
    path = tmp_path / "a.sock"
    with listen(path, kind), pytest.raises(AlreadyRunning, match="another program serves"):
        refuse_live_socket(path)


@pytest.mark.parametrize("kind", [socket.SOCK_STREAM, socket.SOCK_DGRAM, socket.SOCK_SEQPACKET])
def test_what_a_killed_daemon_left_may_be_replaced(tmp_path, kind) -> None:
    path = tmp_path / "a.sock"
    listen(path, kind).close()
    assert path.is_socket()
    refuse_live_socket(path)


def test_a_file_or_folder_is_never_replaced(tmp_path) -> None:
    file = tmp_path / "a.sock"
    file.write_text("keep")
    for path in (file, tmp_path):
        with pytest.raises(AlreadyRunning, match="exists and is no socket"):
            refuse_live_socket(path)
    assert file.read_text() == "keep"


def test_a_link_counts_as_what_it_leads_to(tmp_path) -> None:
    live, stale, file = (tmp_path / name for name in ("live", "stale", "file"))
    listen(stale).close()
    file.write_text("")
    with listen(live):
        for target, words in [(live, "serves"), (file, "no socket"), (tmp_path / "-", "no socket")]:
            link = tmp_path / f"to-{target.name}"
            link.symlink_to(target)
            with pytest.raises(AlreadyRunning, match=words):
                refuse_live_socket(link)
    link = tmp_path / "to-stale"
    link.symlink_to(stale)
    refuse_live_socket(link)
