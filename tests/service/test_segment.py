"""Shared memory that no peer can take away, resize or write without leave."""

import fcntl
import mmap
import os
import stat
import subprocess
import sys

import pytest

from millpond.core.layout import PAGE_BYTES, Channel, plan
from millpond.segment import Segment

SLOTS = 4
LOGGERS = 3
LAYOUT = plan([Channel("rgb", (3, 8, 8), "float32"), Channel("loss", (), "float64")], SLOTS)
F_SEAL_EXEC = 0x20


@pytest.fixture
def segment():
    made = Segment(LAYOUT, LOGGERS)
    yield made
    made.close()


def all_fds(segment: Segment) -> dict[str, int]:
    return {
        "segment": segment.fd,
        "segment, read-only": segment.fd_read_only,
        "control, read-only": segment.control_fd_read_only,
        **{f"acks {logger}": fd for logger, fd in enumerate(segment.acks_fds)},
    }


def read_only_fds(segment: Segment) -> list[int]:
    return [segment.fd_read_only, segment.control_fd_read_only]


def run_child(code: str, *fds: int, **options) -> subprocess.CompletedProcess[str]:
    """Run Python code in a process of its own; its arguments are the descriptors."""
    return subprocess.run(
        [sys.executable, "-c", code, *map(str, fds)],
        pass_fds=fds,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        **options,
    )


def test_no_descriptor_can_change_a_size(segment) -> None:
    for name, fd in all_fds(segment).items():
        size = os.fstat(fd).st_size
        for wanted in (0, size - PAGE_BYTES, size + PAGE_BYTES):
            # A descriptor for reading is refused before the seal is asked.
            with pytest.raises(OSError, match=r"Operation not permitted|Invalid argument"):
                os.ftruncate(fd, max(0, wanted))
        assert os.fstat(fd).st_size == size, name


def test_a_process_that_opens_the_memory_anew_cannot_change_its_size(segment) -> None:
    child = run_child(
        """
import os, sys
for number in sys.argv[1:]:
    fd = os.open(f"/proc/self/fd/{number}", os.O_RDWR)
    try:
        os.ftruncate(fd, 0)
    except PermissionError:
        print("EPERM")
    try:
        os.posix_fallocate(fd, os.fstat(fd).st_size, 4096)
    except PermissionError:
        print("EPERM")
""",
        *all_fds(segment).values(),
    )
    assert child.stderr == ""
    assert child.stdout.split() == ["EPERM"] * 2 * len(all_fds(segment))


def test_every_file_is_sealed_for_good_and_private(segment) -> None:
    wanted = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL
    for name, fd in all_fds(segment).items():
        seals = fcntl.fcntl(fd, fcntl.F_GET_SEALS)
        assert seals & wanted == wanted, name
        assert stat.S_IMODE(os.fstat(fd).st_mode) == 0o600, name
        with pytest.raises(PermissionError):
            fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_WRITE)


def test_nothing_in_it_can_be_made_executable(segment) -> None:
    for fd in all_fds(segment).values():
        if not fcntl.fcntl(fd, fcntl.F_GET_SEALS) & F_SEAL_EXEC:
            pytest.skip("this kernel (before 6.3) has no seal against execution")
        with pytest.raises(PermissionError):
            os.fchmod(fd, 0o700)


def test_no_descriptor_is_inherited_unasked(segment) -> None:
    assert not any(os.get_inheritable(fd) for fd in all_fds(segment).values())


def test_the_read_only_descriptors_cannot_write(segment) -> None:
    for fd in read_only_fds(segment):
        with pytest.raises(PermissionError):
            mmap.mmap(fd, PAGE_BYTES // 512, mmap.MAP_SHARED, mmap.PROT_READ | mmap.PROT_WRITE)
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.pwrite(fd, b"x", 0)
        with mmap.mmap(fd, 8, mmap.MAP_SHARED, mmap.PROT_READ) as memory, pytest.raises(TypeError):
            memory[0] = 1


@pytest.mark.skipif(os.geteuid() != 0, reason="becoming another user needs root")
def test_another_user_cannot_open_a_descriptor_anew(segment) -> None:
    """A file that everybody may write, beside them, shows that the way itself is open."""
    open_to_all = os.memfd_create("open to all")
    os.fchmod(open_to_all, 0o666)
    child = run_child(
        """
import ctypes, mmap, os, sys
os.setgroups([])
os.setresgid(65534, 65534, 65534)
os.setresuid(65534, 65534, 65534)
PR_SET_DUMPABLE = 4  # Else /proc/self is closed to us since we changed the user.
ctypes.CDLL(None).prctl(PR_SET_DUMPABLE, 1, 0, 0, 0)
open_to_all, *fds = map(int, sys.argv[1:])
os.open(f"/proc/self/fd/{open_to_all}", os.O_RDWR)
for fd in fds:
    mmap.mmap(fd, 8, mmap.MAP_SHARED, mmap.PROT_READ)
    try:
        os.open(f"/proc/self/fd/{fd}", os.O_RDWR)
    except PermissionError:
        print("EACCES")
    try:
        os.fchmod(fd, 0o666)
    except PermissionError:
        print("EPERM")
""",
        open_to_all,
        *read_only_fds(segment),
    )
    os.close(open_to_all)
    assert child.stderr == ""
    assert child.stdout.split() == ["EACCES", "EPERM"] * 2


def test_two_processes_see_each_others_bytes(segment) -> None:
    with mmap.mmap(segment.fd, LAYOUT.segment_bytes) as ours:
        ours[:5] = b"hello"
        child = run_child(
            """
import mmap, sys
segment, read_only, acks, control = map(int, sys.argv[1:])
with mmap.mmap(segment, 0) as theirs:
    theirs[5:10] = b"world"
with mmap.mmap(read_only, 0, mmap.MAP_SHARED, mmap.PROT_READ) as seen:
    print(seen[:10].decode())
words = memoryview(mmap.mmap(acks, 0)).cast("Q")
words[2] = 77
wants = memoryview(mmap.mmap(control, 0, mmap.MAP_SHARED, mmap.PROT_READ)).cast("Q")
print(list(wants))
""",
            segment.fd,
            segment.fd_read_only,
            segment.acks_fds[1],
            segment.control_fd_read_only,
        )
        assert child.stderr == ""
        assert child.stdout.splitlines() == ["helloworld", str([0] * SLOTS * LOGGERS)]
        assert ours[:10] == b"helloworld"
    assert [list(acks) for acks in segment.acks] == [[0] * 5, [0, 0, 77, 0, 0], [0] * 5]


def test_a_slot_is_its_bytes_from_the_first_channel_to_the_end_of_the_last(segment) -> None:
    """The keeper reads and writes them here, as renderers and loggers see them."""
    with mmap.mmap(segment.fd, LAYOUT.segment_bytes) as seen:
        for slot in range(SLOTS):
            memory = segment.slot(slot)
            assert len(memory) == LAYOUT.payload_bytes
            memory[:] = bytes([slot + 1]) * len(memory)
        for slot in range(SLOTS):
            start = slot * LAYOUT.slot_bytes
            end = start + LAYOUT.payload_bytes
            assert seen[start:end] == bytes([slot + 1]) * LAYOUT.payload_bytes
            assert not any(seen[end : start + LAYOUT.slot_bytes])


def test_each_logger_has_its_own_row_of_words(segment) -> None:
    for logger in range(LOGGERS):
        assert len(segment.want[logger]) == SLOTS
        # And one word for what it began with last.
        assert len(segment.acks[logger]) == SLOTS + 1
        for slot in range(SLOTS):
            segment.want[logger][slot] = 100 * logger + slot
    control = os.pread(segment.control_fd_read_only, 8 * SLOTS * LOGGERS, 0)
    expected = [100 * logger + slot for logger in range(LOGGERS) for slot in range(SLOTS)]
    assert list(memoryview(control).cast("Q")) == expected
    assert all(len(os.pread(fd, 4096, 0)) == LAYOUT.acks_bytes for fd in segment.acks_fds)
    assert LAYOUT.acks_bytes == (SLOTS + 1) * 8


def test_the_daemon_only_reads_what_loggers_write(segment) -> None:
    with pytest.raises(TypeError, match="read-only"):
        segment.acks[0][0] = 1


def test_all_memory_is_there_from_the_start(segment) -> None:
    for fd in all_fds(segment).values():
        state = os.fstat(fd)
        assert state.st_blocks * 512 >= state.st_size


def test_the_memory_outlives_the_descriptors() -> None:
    segment = Segment(LAYOUT, 1)
    memory = mmap.mmap(segment.fd, LAYOUT.segment_bytes)
    fds = list(all_fds(segment).values())
    segment.close()
    segment.close()
    for fd in fds:
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(fd)
    memory[:3] = b"abc"
    segment.want[0][1] = 5
    assert memory[:3] == b"abc"
    assert segment.want[0][1] == 5
    memory.close()


LIMITED = """
import os, resource
from millpond.core.layout import Channel, plan
from millpond.errors import SegmentError
from millpond.segment import Segment

def is_open(fd):
    try:
        os.fstat(fd)
    except OSError:
        return False
    return True

before = [fd for fd in range(5000) if is_open(fd)]
resource.setrlimit(resource.{limit}, ({value}, {value}))
try:
    Segment(plan([Channel("rgb", ({length},), "uint8")], {slots}), {loggers})
except (SegmentError, OSError) as error:
    print(type(error).__name__, error)
print([fd for fd in range(5000) if is_open(fd)] == before)
"""


@pytest.mark.parametrize(
    ("length", "slots", "loggers", "message"),
    # Half a terabyte; and a segment that fits, followed by a control file that does not.
    [
        (2**30, 512, 3, "524288 MiB of shared memory for the segment cannot be had"),
        (1, 64, 1200, "1 MiB of shared memory for the control cannot be had"),
    ],
)
def test_too_much_memory_is_an_error_with_advice_and_leaves_nothing(
    length, slots, loggers, message
) -> None:
    """The limit makes the kernel refuse at once, as it would when memory has run out."""
    child = run_child(
        LIMITED.format(
            limit="RLIMIT_FSIZE", value=2**19, length=length, slots=slots, loggers=loggers
        )
    )
    assert child.stderr == ""
    error, is_clean = child.stdout.splitlines()
    assert error.startswith("SegmentError ")
    assert message in error
    assert error.endswith(": File too large; take fewer buffer.slots or smaller channels")
    assert is_clean == "True"


@pytest.mark.parametrize("descriptors", range(4, 9))
def test_too_few_descriptors_leave_none_behind(descriptors) -> None:
    child = run_child(
        LIMITED.format(limit="RLIMIT_NOFILE", value=descriptors, length=1, slots=4, loggers=3)
    )
    assert child.stderr == ""
    error, is_clean = child.stdout.splitlines()
    assert "Too many open files" in error
    assert is_clean == "True"
