"""What loggers leave behind, and how the daemon finds and ends it.

A process group holds what a logger starts, unless that makes a session of its own.  So each
logger process has two marks in its environment, which whatever it starts inherits: which run it
belongs to, and which process of a logger it came from.  The daemon adopts what has lost its parent
(`become_subreaper`), and ends what has the mark of a logger that died.  Only a process that bears
a mark is ever killed, and only through a descriptor of it, so that no other one is hit whose
number is the same.
"""

from __future__ import annotations

import ctypes
import os
import select
import signal
import time
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Final, NamedTuple

RUN_VARIABLE: Final = "MILLPOND_RUN"
LOGGER_VARIABLE: Final = "MILLPOND_LOGGER"

# What a logger gets of the daemon's environment: who and where it is, its language, how Python and
# libraries for arrays find their files and count their threads, how coverage is measured.  Tokens
# and passwords, which people keep there too, are none of its business.
ENVIRONMENT_ALLOWED: Final[tuple[str, ...]] = (
    *("PATH", "HOME", "USER", "LOGNAME", "SHELL", "TERM", "TMPDIR", "XDG_*"),
    *("LANG", "LANGUAGE", "LC_*", "TZ"),
    *("PYTHON*", "VIRTUAL_ENV", "CONDA_*", "LD_LIBRARY_PATH", "COVERAGE_*"),
    *("OMP_*", "OPENBLAS_*", "MKL_*", "NUMEXPR_*", "CUDA_*", "NVIDIA_*", "MPL*"),
)

# For one call that the event loop makes: what takes longer is tried again later.
ADOPTED_S: Final = 0.05
# Until the kernel has ended a process that was killed; one that hangs in a driver takes longer.
KILLED_S: Final = 1.0
# A process that becomes another program has no environment for a moment: it is looked at again.
LOOK_S: Final = 0.002
# Processes that fork while they are ended come back so often at most.
ROUNDS_MAX: Final = 1000

# Source: linux/prctl.h, linux/sched.h.
_PR_SET_CHILD_SUBREAPER: Final = 36
_PF_EXITING: Final = 0x4


class _Status(NamedTuple):
    """Of a process, as /proc/<pid>/stat has it."""

    state: str
    parent: int
    session: int
    is_ending: bool  # Its memory may be gone, and its environment with it.


def logger_environment(marks: Mapping[str, str], allow: Sequence[str]) -> dict[str, str]:
    """The environment of a logger process: what is allowed of the daemon's, and the marks.

    Args:
        marks: `RUN_VARIABLE` and `LOGGER_VARIABLE` with their values.
        allow: Names of further variables; ``*`` matches any characters.
    """
    patterns = (*ENVIRONMENT_ALLOWED, *allow)
    passed = {
        name: value
        for name, value in os.environ.items()
        if any(fnmatchcase(name, pattern) for pattern in patterns)
    }
    return {**passed, **marks}


def run_mark(folder: Path) -> str:
    """What tells one run folder from every other one on this machine, whatever its path is.

    Raises:
        OSError: There is no such folder.
    """
    found = folder.stat()
    return f"{found.st_dev}:{found.st_ino}"


def become_subreaper(*, is_one: bool = True) -> None:
    """Let orphans among the descendants of this process become its children.

    Raises:
        OSError: The kernel refuses.
    """
    call = ctypes.CDLL(None, use_errno=True).prctl
    call.argtypes = [ctypes.c_int, *[ctypes.c_ulong] * 4]
    if call(_PR_SET_CHILD_SUBREAPER, int(is_one), 0, 0, 0):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def adopted(mark: str) -> list[int]:
    """The children of this process that a dead logger has left: those alive that bear its mark."""
    return [pid for pid, _ in _children() if _bears(pid, LOGGER_VARIABLE, mark)]


def is_anything_left(mark: str, known_pids: Collection[int]) -> bool:
    """Whether `end_adopted` has more to do: one alive, or one that is to be reaped."""
    own_session = os.getsid(0)
    return any(
        (status.is_ending and status.session != own_session) or _bears(pid, LOGGER_VARIABLE, mark)
        for pid, status in _children()
        if pid not in known_pids
    )


def end_adopted(mark: str, known_pids: Collection[int], *, within_s: float = ADOPTED_S) -> int:
    """End and reap what a dead logger has left among the children of this process.

    Children that have ended bear no mark any more.  Those of another session are reaped, but for
    the known ones: only loggers and their descendants have sessions of their own.

    Args:
        mark: The `LOGGER_VARIABLE` of the dead logger.
        known_pids: Processes of living loggers, and of those whose end is not dealt with yet.
        within_s: Return after so long at the latest, also when some are left: see `adopted`.

    Returns:
        How many had to be killed.
    """
    due_s = time.monotonic() + within_s
    own_session = os.getsid(0)
    killed = 0
    for _ in range(ROUNDS_MAX):
        pidfds, is_sure = [], True
        for pid, status in _children():
            if pid in known_pids:
                continue
            if (pidfd := _open(pid)) is None:
                continue
            if status.is_ending and status.session != own_session:
                pidfds.append(pidfd)
            elif bears := _bears(pid, LOGGER_VARIABLE, mark):
                _kill(pidfd)
                pidfds.append(pidfd)
                killed += 1
            else:
                is_sure = is_sure and bears is False
                os.close(pidfd)
        wait_for_ends(pidfds, due_s)
        for pidfd in pidfds:
            with suppress(ChildProcessError):
                os.waitid(os.P_PIDFD, pidfd, os.WEXITED | os.WNOHANG)
            os.close(pidfd)
        if time.monotonic() > due_s or (not pidfds and is_sure):
            break
        if not pidfds:
            time.sleep(LOOK_S)
    return killed


def strays(run_mark: str) -> list[tuple[int, int]]:
    """The processes that an earlier daemon of this run has left anywhere.

    Those of other users are not seen; this process, its ancestors and its descendants are not
    counted.

    Returns:
        The pid and a new pidfd of each; the caller closes them.
    """
    parents = {pid: status.parent for pid, status in _statuses()}
    own = {0, os.getpid(), *_ancestors(os.getpid(), parents)}
    found = []
    for pid in parents:
        if pid in own or os.getpid() in _ancestors(pid, parents):
            continue
        if not _bears(pid, RUN_VARIABLE, run_mark) or (pidfd := _open(pid)) is None:
            continue
        # Once more, now that the number cannot become another's.
        if _bears(pid, RUN_VARIABLE, run_mark):
            found.append((pid, pidfd))
        else:
            os.close(pidfd)
    return found


def open_strays(run_mark: str) -> list[int]:
    """A pidfd of each process of a logger of this run; the caller closes them."""
    return [pidfd for _, pidfd in strays(run_mark)]


def end_strays(run_mark: str, grace_s: float = 1.0) -> int:
    """Wait for what an earlier daemon of this run has left to end, and kill the rest.

    Args:
        run_mark: What `run_mark` says of the run folder.
        grace_s: Seconds for them to end by themselves: loggers finish what they were sent.

    Returns:
        How many had to be killed.
    """
    killed = 0
    due_s = time.monotonic() + grace_s
    was_found = True  # So that two looks in a row have to find none.
    for _ in range(ROUNDS_MAX):
        pidfds = [pidfd for _, pidfd in strays(run_mark)]
        left = wait_for_ends(pidfds, due_s)
        for pidfd in left:
            _kill(pidfd)
        killed += len(left)
        still = wait_for_ends(left, time.monotonic() + KILLED_S)
        for pidfd in pidfds:
            os.close(pidfd)
        if still or not (pidfds or was_found):
            break
        if not pidfds:
            time.sleep(LOOK_S)
        was_found = bool(pidfds)
    return killed


def _children() -> Iterator[tuple[int, _Status]]:
    return ((pid, status) for pid, status in _statuses() if status.parent == os.getpid())


def _statuses() -> Iterator[tuple[int, _Status]]:
    """Every process that there is, one after the other: they come and go meanwhile."""
    for path in Path("/proc").iterdir():
        if path.name.isdigit() and (status := _status(int(path.name))) is not None:
            yield int(path.name), status


def _status(pid: int) -> _Status | None:
    text = _read(pid, "stat")
    # The name of the program stands in parentheses, and may hold any.
    fields = text[text.rfind(b")") + 1 :].split()
    if len(fields) < 7:
        return None
    state = fields[0].decode()
    is_ending = state in "ZX" or bool(int(fields[6]) & _PF_EXITING)
    return _Status(state, int(fields[1]), int(fields[3]), is_ending)


def is_stopped(pid: int) -> bool:
    """Whether a process was stopped by a signal or a debugger, so that no handler of its runs."""
    status = _status(pid)
    return status is not None and status.state in "Tt"


def _bears(pid: int, variable: str, value: str) -> bool | None:
    """Whether a process was started with this in its environment; None if it has none now.

    The value may go on behind a slash.
    """
    environment = _read(pid, "environ")
    if not environment:
        return None
    wanted = f"{variable}={value}".encode()
    entries = environment.split(b"\0")
    return wanted in entries or any(entry.startswith(wanted + b"/") for entry in entries)


def _read(pid: int, name: str) -> bytes:
    """Nothing when the process is gone, or is another user's."""
    try:
        return Path(f"/proc/{pid}/{name}").read_bytes()
    except OSError:
        return b""


def _ancestors(pid: int, parents: Mapping[int, int]) -> set[int]:
    found: set[int] = set()
    while (pid := parents.get(pid, 0)) and pid not in found:
        found.add(pid)
    return found


def _open(pid: int) -> int | None:
    try:
        return os.pidfd_open(pid)
    except OSError:  # Gone; or there are no more descriptors, and it is for a later look.
        return None


def _kill(pidfd: int) -> None:
    with suppress(ProcessLookupError):
        signal.pidfd_send_signal(pidfd, signal.SIGKILL)


def wait_for_ends(pidfds: Iterable[int], due_s: float) -> list[int]:
    """Wait until all of these have ended, but not for longer; give those that have not."""
    left = set(pidfds)
    poll = select.poll()
    for pidfd in left:
        poll.register(pidfd, select.POLLIN)
    while left:
        rest_ms = (due_s - time.monotonic()) * 1000
        for pidfd, _ in poll.poll(max(0, rest_ms)):
            poll.unregister(pidfd)
            left.discard(pidfd)
        if rest_ms <= 0:
            break
    return sorted(left)
