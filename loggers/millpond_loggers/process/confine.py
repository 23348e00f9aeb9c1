"""What a logger process may not do to others: it dies with its daemon, and has its limits.

All of this is done before anything of the user's is imported.  What the kernel refuses is told in
one line on standard error, and the logger goes on: a limit that cannot be set is no loss of data.
"""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import sys
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, Final

# Once the daemon is dead: to finish what is in the pipe, and to end.
LAST_S: Final = 1.0
# Tells the death of the daemon.  A real-time signal: no shell, no library and no service manager
# sends one, and code that handles SIGTERM, SIGHUP or SIGUSR1 in its own way is left alone.
DAEMON_DIED: Final = signal.SIGRTMIN + 7

OOM_SCORE_ADJ: Final = 500
OOM_PATH: Final = Path("/proc/self/oom_score_adj")

# Source: linux/prctl.h.
_PR_SET_PDEATHSIG: Final = 1
_PR_SET_NO_NEW_PRIVS: Final = 38

_LIMITS: Final[Mapping[str, int]] = {
    "open_files": resource.RLIMIT_NOFILE,
    "memory_bytes": resource.RLIMIT_AS,
    "file_size_bytes": resource.RLIMIT_FSIZE,
    "processes": resource.RLIMIT_NPROC,
}


def confine(limits: Mapping[str, Any], daemon_pid: int | None) -> None:
    """Bind this process to its daemon, and limit it.

    Args:
        limits: Any of ``open_files``, ``memory_bytes`` (of address space), ``file_size_bytes``,
            ``processes`` (of the user, in all); missing or None leaves it.  And
            ``oom_score_adj``, from 0 to 1000, or else `OOM_SCORE_ADJ`.
        daemon_pid: Whose death ends this process within `LAST_S`; None: nobody's.
    """
    # No program that it starts gets more rights than it has.
    _try("no new privileges", lambda: _prctl(_PR_SET_NO_NEW_PRIVS, 1))
    if daemon_pid is not None:
        die_with(daemon_pid)
    _try("no core files", lambda: resource.setrlimit(resource.RLIMIT_CORE, (0, 0)))
    for name, number in _LIMITS.items():
        value = limits.get(name)
        if value is not None:
            _try(f"limit {name}={value}", partial(_limit, number, value))
    wanted = limits.get("oom_score_adj")
    _raise_oom_score(OOM_SCORE_ADJ if wanted is None else wanted)


def die_with(daemon_pid: int) -> None:
    """Have the kernel tell this process when the daemon dies, and see whether it has already.

    The parent in the eyes of the kernel is the thread that started this process.
    """
    signal.signal(DAEMON_DIED, _daemon_died)
    _try("end with the daemon", lambda: _prctl(_PR_SET_PDEATHSIG, DAEMON_DIED))
    if os.getppid() != daemon_pid:
        _daemon_died(DAEMON_DIED, None)


def keep_private(descriptors: Iterable[int]) -> None:
    """Let no program that the logger starts inherit these descriptors."""
    for descriptor in descriptors:
        os.set_inheritable(descriptor, False)


def _daemon_died(_number: int, _frame: object) -> None:
    """Let the runner finish what is in the pipe, whose end it will see; but not for long.

    It is the kernel that ends this process, whatever the logger does by then.
    """
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGALRM})
    signal.setitimer(signal.ITIMER_REAL, LAST_S)
    # Nobody reads what is printed, and no `log` shall fail over that.
    with suppress(OSError):
        nowhere = os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC)
        os.dup2(nowhere, 1)
        os.dup2(nowhere, 2)
        os.close(nowhere)


def _limit(number: int, value: int) -> None:
    _, hard = resource.getrlimit(number)
    if hard != resource.RLIM_INFINITY:
        value = min(value, hard)
    resource.setrlimit(number, (value, value))


def _raise_oom_score(wanted: int) -> None:
    """Let the kernel choose this process sooner than others; never later than it would."""

    def write() -> None:
        if int(OOM_PATH.read_text()) < wanted:
            OOM_PATH.write_text(str(wanted))

    _try(f"oom_score_adj={wanted}", write)


def _prctl(option: int, value: int) -> None:
    call = ctypes.CDLL(None, use_errno=True).prctl
    call.argtypes = [ctypes.c_int, *[ctypes.c_ulong] * 4]
    if call(option, value, 0, 0, 0):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def _try(what: str, do: Callable[[], object]) -> None:
    try:
        do()
    except (OSError, ValueError, OverflowError) as problem:
        sys.stderr.write(f"{what} cannot be set: {problem}\n")
