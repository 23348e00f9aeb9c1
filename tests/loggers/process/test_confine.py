"""The limits of a logger process, and how it dies with its daemon: in real processes."""

import errno
import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from millpond_loggers.process.confine import DAEMON_DIED, OOM_SCORE_ADJ

WATCHDOG_S = 60.0
LAST_S = 0.5  # Half of what it is, for quick tests.

TELL = """
import errno, json, os, resource, signal, sys, time
from millpond_loggers.process.confine import confine
limits = json.loads(sys.argv[1])
{before}
confine(limits, os.getppid())
status = dict(line.split(":\\t", 1) for line in open("/proc/self/status").read().splitlines())
def tried(do):
    try:
        do()
    except (OSError, MemoryError) as error:
        return getattr(error, "errno", None) or type(error).__name__
print(json.dumps({after}))
"""


def tell(after: str, before: str = "", **limits: Any) -> tuple[Any, str]:
    """What a confined process says of itself, and what is on its standard error."""
    done = subprocess.run(
        [sys.executable, "-c", TELL.format(before=before, after=after), json.dumps(limits)],
        capture_output=True,
        text=True,
        check=True,
    )
    return json.loads(done.stdout), done.stderr


LIMITS = "[resource.getrlimit(getattr(resource, 'RLIMIT_' + name)) for name in {names}]"


def test_nothing_is_limited_but_what_hurts_others() -> None:
    names = ["NOFILE", "AS", "FSIZE", "NPROC"]
    before, _ = tell(LIMITS.format(names=names))
    told, errors = tell(
        f"[{LIMITS.format(names=names)}, resource.getrlimit(resource.RLIMIT_CORE),"
        " status['NoNewPrivs'], int(open('/proc/self/oom_score_adj').read())]",
        open_files=None,
        memory_bytes=None,
        oom_score_adj=None,
    )
    assert told == [before, [0, 0], "1", OOM_SCORE_ADJ]
    assert errors == ""


def test_every_limit_is_set_for_good() -> None:
    names = ["NOFILE", "AS", "FSIZE", "NPROC"]
    told, errors = tell(
        f"[{LIMITS.format(names=names)}, open('/proc/self/oom_score_adj').read()]",
        open_files=77,
        memory_bytes=2**40,
        file_size_bytes=12_345,
        processes=4000,
        oom_score_adj=700,
    )
    assert told == [[[77, 77], [2**40, 2**40], [12_345, 12_345], [4000, 4000]], "700\n"]
    assert errors == ""


def test_what_is_too_much_is_an_error_of_the_system_and_no_end(tmp_path: Path) -> None:
    told, _ = tell(
        f"[tried(lambda: open({str(tmp_path / 'x')!r}, 'ab', buffering=0).write(bytes(1001)) and"
        f" open({str(tmp_path / 'x')!r}, 'ab', buffering=0).write(bytes(1))),"
        f" tried(lambda: [os.dup(0) for _ in range(50)]),"
        f" tried(lambda: bytes(2**40))]",
        open_files=40,
        file_size_bytes=1000,
        memory_bytes=2**36,
    )
    assert told == [errno.EFBIG, errno.EMFILE, "MemoryError"]


def test_a_limit_is_never_above_what_the_administrator_allows() -> None:
    told, errors = tell(
        LIMITS.format(names=["NOFILE"]),
        "resource.setrlimit(resource.RLIMIT_NOFILE, (30, 50))",
        open_files=5000,
    )
    assert told == [[50, 50]]
    assert errors == ""


def test_a_limit_that_cannot_be_set_is_told_and_the_rest_is_set() -> None:
    told, errors = tell(LIMITS.format(names=["NPROC"]), file_size_bytes=2**80, processes=5000)
    assert told == [[5000, 5000]]
    assert errors.startswith(f"limit file_size_bytes={2**80} cannot be set: ")
    assert errors.count("\n") == 1


def test_the_kernel_never_chooses_it_later_than_before() -> None:
    told, _ = tell(
        "open('/proc/self/oom_score_adj').read()",
        "open('/proc/self/oom_score_adj', 'w').write('900')",
        oom_score_adj=100,
    )
    assert told == "900\n"


# The death of the daemon.

DAEMON = """
import os, subprocess, sys
reader, writer = os.pipe()
logger = subprocess.Popen([sys.executable, "-c", sys.argv[1], *sys.argv[2:]], stdin=reader,
                          start_new_session=True)
os.close(reader)
logger.wait()
"""

LOGGER = """
import os, signal, sys, threading, time
from millpond_loggers.process import confine as module
from millpond_loggers.process.confine import confine
module.LAST_S = {last_s}
daemon_pid = os.getppid()
{before}
confine({{}}, daemon_pid)
with open(sys.argv[1] + "/pid", "w") as file:
    file.write(f"{{os.getpid()}}\\n")
{after}
with open(sys.argv[1] + "/finished", "w") as file:
    file.write("yes")
"""


class Family:
    """A daemon and its logger, of which the daemon is killed."""

    def __init__(self, folder: Path, before: str, after: str) -> None:
        self.folder = folder
        code = LOGGER.format(before=before, after=after, last_s=LAST_S)
        self.daemon = subprocess.Popen([sys.executable, "-c", DAEMON, code, str(folder)])
        end_s = time.monotonic() + WATCHDOG_S
        while not self._has_begun():
            assert time.monotonic() < end_s
            time.sleep(0.002)
        self._pidfd = os.pidfd_open(int((folder / "pid").read_text()))

    def _has_begun(self) -> bool:
        path = self.folder / "pid"
        return path.exists() and path.read_text().endswith("\n")

    def kill_daemon(self) -> float:
        """Kill the daemon; how many seconds its logger lives on."""
        begun_s = time.monotonic()
        self.daemon.kill()
        self.daemon.wait()
        poll = select.poll()
        poll.register(self._pidfd, select.POLLIN)
        assert poll.poll(WATCHDOG_S * 1000), "the logger lives on"
        return time.monotonic() - begun_s

    @property
    def has_finished(self) -> bool:
        return (self.folder / "finished").exists()

    def close(self) -> None:
        self.daemon.kill()
        self.daemon.wait()
        os.close(self._pidfd)


@pytest.fixture
def family(tmp_path: Path) -> Iterator[Callable[..., Family]]:
    made: list[Family] = []

    def make(after: str, before: str = "") -> Family:
        made.append(Family(tmp_path, before, after))
        return made[-1]

    yield make
    for one in made:
        one.close()


def test_a_logger_that_sees_the_end_of_its_pipe_finishes_in_peace(
    family: Callable[..., Family],
) -> None:
    """Neither a sleep nor a read is cut short, and nothing that it prints is an error."""
    after = (
        "begun_s = time.monotonic()\n"
        "time.sleep(0.2)\n"
        "assert time.monotonic() - begun_s >= 0.2\n"
        "assert os.read(0, 100) == b''\n"
        "print('nobody reads this' * 10_000, flush=True)\n"
        "print('nor this', file=sys.stderr, flush=True)"
    )
    one = family(after)
    one.kill_daemon()
    assert one.has_finished


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("", "while True: time.sleep(1000)"),
        ("", "while True: pass"),
        ("signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGALRM])", "time.sleep(1000)"),
        ("signal.signal(signal.SIGALRM, lambda *_: None)", "time.sleep(1000)"),
        ("for n in (1, 13, 15): signal.signal(n, signal.SIG_IGN)", "time.sleep(1000)"),
        ("", "threading.Thread(target=time.sleep, args=[1000]).start()\nsys.exit()"),
    ],
)
def test_a_logger_that_goes_on_is_ended(
    family: Callable[..., Family], before: str, after: str
) -> None:
    one = family(after, before)
    lived_s = one.kill_daemon()
    assert LAST_S * 0.9 < lived_s < WATCHDOG_S / 2
    assert not one.has_finished


def test_a_logger_whose_daemon_is_dead_already_is_ended(tmp_path: Path) -> None:
    code = LOGGER.format(before="daemon_pid = 1", after="time.sleep(1000)", last_s=LAST_S)
    begun_s = time.monotonic()
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=False)
    assert done.returncode == -signal.SIGALRM
    assert time.monotonic() - begun_s >= LAST_S


def test_what_a_logger_starts_is_not_told(family: Callable[..., Family]) -> None:
    """Its children have no handler: the signal would end them in the middle of a word."""
    code = "import time; time.sleep(0.2)"
    after = (
        f"import subprocess\nchild = subprocess.Popen([sys.executable, '-c', {code!r}])\n"
        "os.read(0, 1)\nassert child.wait() == 0"
    )
    one = family(after)
    one.kill_daemon()
    assert one.has_finished


def test_the_signal_is_none_that_others_send() -> None:
    assert signal.SIGRTMIN < DAEMON_DIED < signal.SIGRTMAX
