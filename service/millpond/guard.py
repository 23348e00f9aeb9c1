"""The guard: ends what a daemon's loggers leave when the daemon itself is killed.

A logger that works sees the end of its pipe, and goes.  One that is stopped, or hangs in C, sees
nothing, and nobody ends what loggers have started.  The next start of a daemon would; but there may
be none, and memory and files would be held for ever.  So each daemon has this small process beside
it, which waits for its end: a pipe whose other end only the daemon has.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from typing import Final

from millpond.containment import open_strays, wait_for_ends

# Loggers that work finish what is in their pipes: see `LAST_S` of the loggers.
GRACE_S: Final = 0.8
# What is forked in the moment of the end is seen by a second look.  No logger of a next daemon is
# there by then: that has to import its libraries first.
SECOND_LOOK_S: Final = 0.1
CLOSE_S: Final = 2.0


class Guard:
    """The guard of this daemon, in a process of its own.

    Args:
        run_mark: What the environment of its loggers says; see `containment.run_mark`.
    """

    def __init__(self, run_mark: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "millpond.guard", run_mark],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            start_new_session=True,  # No signal of the terminal, or of a group, ends it.
        )

    @property
    def pid(self) -> int:
        """Its number."""
        return self._process.pid

    def close(self) -> None:
        """End it in order, when no logger is left."""
        assert self._process.stdin is not None
        if self._process.stdin.closed:
            return
        with suppress(OSError):
            self._process.stdin.write(b"end\n")
        with suppress(OSError):
            self._process.stdin.close()
        try:
            self._process.wait(CLOSE_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def watch(run_mark: str) -> None:
    """Wait for the end of the daemon, then end what bears the mark; return at once if told."""
    if sys.stdin.buffer.read():  # The daemon has ended in order.
        return
    end_s = time.monotonic()
    pidfds = open_strays(run_mark)
    time.sleep(SECOND_LOOK_S)
    pidfds += open_strays(run_mark)
    for pidfd in wait_for_ends(pidfds, end_s + GRACE_S):
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(pidfd, signal.SIGKILL)
    for pidfd in pidfds:
        os.close(pidfd)


if __name__ == "__main__":
    watch(sys.argv[1])
