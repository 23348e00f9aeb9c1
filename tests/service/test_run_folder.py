"""One daemon to a folder, however the last one died."""

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from millpond.run_folder import LOCK_NAME, AlreadyRunning, RunFolder, refuse_live_socket

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
