"""The guard ends what is left when its daemon was killed, and nothing when that ended in order."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from millpond.containment import RUN_VARIABLE, run_mark

DAEMON = """
import sys
from millpond.guard import Guard
guard = Guard(sys.argv[1])
print("go", flush=True)
sys.stdin.read()
guard.close()
"""


def stopped_logger(mark: str) -> subprocess.Popen[bytes]:
    logger = subprocess.Popen(["sleep", "60"], env={**os.environ, RUN_VARIABLE: mark})
    logger.send_signal(signal.SIGSTOP)
    return logger


def daemon(mark: str) -> subprocess.Popen[bytes]:
    made = subprocess.Popen(
        [sys.executable, "-c", DAEMON, mark], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert made.stdout is not None
    assert made.stdout.readline() == b"go\n"
    return made


def test_a_stopped_logger_ends_with_a_daemon_that_is_killed(tmp_path: Path) -> None:
    mark = run_mark(tmp_path)
    logger, other = stopped_logger(mark), stopped_logger("0:0")
    with daemon(mark) as killed:
        killed.kill()
    assert logger.wait(20) == -signal.SIGKILL
    assert other.poll() is None
    other.kill()
    other.wait()


def test_an_orderly_end_ends_nobody(tmp_path: Path) -> None:
    mark = run_mark(tmp_path)
    logger = stopped_logger(mark)
    with daemon(mark) as ended:
        start_s = time.monotonic()
        ended.communicate(timeout=20)
    assert time.monotonic() - start_s < 10
    assert ended.returncode == 0
    assert logger.poll() is None
    logger.kill()
    logger.wait()
