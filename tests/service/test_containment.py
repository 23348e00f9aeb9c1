"""Marks in the environment, and what becomes of processes that bear them: real ones, in a crowd."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from millpond.containment import (
    LOGGER_VARIABLE,
    RUN_VARIABLE,
    adopted,
    become_subreaper,
    end_adopted,
    end_strays,
    is_stopped,
    logger_environment,
    run_mark,
    strays,
)

WATCHDOG_S = 60.0
MARK = f"csv:{os.getpid()}"

# Starts a process in a session of its own, says its number, and ends: an orphan is left.
ORPHAN = """
import subprocess, sys
child = subprocess.Popen(sys.argv[1:], start_new_session=True, stdout=subprocess.DEVNULL)
print(child.pid)
"""

BOMB = """
import os, time
def bomb(charges):
    if os.fork() == 0:
        os.setsid()
        for _ in range(charges):
            bomb(charges - 1)
        time.sleep(1000)
        os._exit(0)
bomb(4)
"""


def until(condition: Callable[[], Any]) -> None:
    end_s = time.monotonic() + WATCHDOG_S
    while not condition():
        assert time.monotonic() < end_s
        time.sleep(0.002)


@pytest.fixture
def leave() -> Iterator[Callable[..., int]]:
    """Leaves orphans with an environment; none outlives the test."""
    left: list[int] = []

    def leave_one(*command: str, **marks: str) -> int:
        done = subprocess.run(
            [sys.executable, "-c", ORPHAN, *(command or ("sleep", "1000"))],
            stdout=subprocess.PIPE,
            check=True,
            env={"PATH": os.environ["PATH"], **marks},
        )
        left.append(int(done.stdout))
        return left[-1]

    yield leave_one
    for pid in left:
        if is_alive(pid):
            os.kill(pid, signal.SIGKILL)
            until(lambda pid=pid: not is_alive(pid))
    reap()


@pytest.fixture
def subreaper() -> Iterator[None]:
    become_subreaper()
    yield
    become_subreaper(is_one=False)


def reap() -> None:
    for child in psutil.Process().children():
        if child.status() == psutil.STATUS_ZOMBIE:
            os.waitpid(child.pid, 0)


def is_alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


# The environment.


def test_a_logger_gets_what_is_allowed_and_its_marks(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        monkeypatch.delenv(name)
    passed = {
        "PATH": "/bin",
        "HOME": "/h",
        "LC_ALL": "C",
        "PYTHONPATH": "a:b",
        "OMP_NUM_THREADS": "1",
        "LD_LIBRARY_PATH": "/lib",
        "XDG_CACHE_HOME": "/c",
        "COVERAGE_PROCESS_START": "x",
    }
    kept_back = {"API_TOKEN": "secret", "LD_PRELOAD": "x.so", "path": "/", "MILLPOND_RUN": "old"}
    own = {"WANDB_KEY": "1", "WANDB_DIR": "2", "EXACTLY": "3", "EXACTLYNOT": "4"}
    for name, value in {**passed, **kept_back, **own}.items():
        monkeypatch.setenv(name, value)
    marks = {RUN_VARIABLE: "1:2", LOGGER_VARIABLE: "csv:3"}
    assert logger_environment(marks, []) == {**passed, **marks}
    assert logger_environment(marks, ["WANDB_*", "EXACTLY"]) == {
        **passed,
        **marks,
        "WANDB_KEY": "1",
        "WANDB_DIR": "2",
        "EXACTLY": "3",
    }


def test_a_mark_is_not_to_be_had_by_a_pattern(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(RUN_VARIABLE, "of another run")
    assert logger_environment({RUN_VARIABLE: "own"}, ["*"])[RUN_VARIABLE] == "own"


def test_the_mark_of_a_run_is_the_same_by_every_path(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    (tmp_path / "link").symlink_to("a")
    assert run_mark(tmp_path / "a") == run_mark(tmp_path / "link")
    assert run_mark(tmp_path / "a") != run_mark(tmp_path / "b")
    with pytest.raises(FileNotFoundError):
        run_mark(tmp_path / "c")


# What a logger of this daemon leaves.


@pytest.mark.usefixtures("subreaper")
def test_what_bears_the_mark_is_adopted_ended_and_reaped(leave: Callable[..., int]) -> None:
    mine = {leave(**{LOGGER_VARIABLE: MARK}) for _ in range(3)}
    until(lambda: set(adopted(MARK)) == mine)
    assert end_adopted(MARK, []) == 3
    assert adopted(MARK) == []
    assert not any(map(psutil.pid_exists, mine))
    assert end_adopted(MARK, []) == 0


@pytest.mark.usefixtures("subreaper")
def test_one_that_is_becoming_another_program_is_waited_for(leave: Callable[..., int]) -> None:
    """For a moment such a process has no environment at all."""
    code = "import os, sys\nos.execve(sys.executable, [sys.executable, *sys.argv], os.environ)"
    leave(sys.executable, "-c", code, "-c", code, **{LOGGER_VARIABLE: MARK})
    assert end_adopted(MARK, []) == 1
    assert not psutil.Process().children()


@pytest.mark.usefixtures("subreaper")
def test_one_without_an_environment_is_left_alone(leave: Callable[..., int]) -> None:
    without = leave("env", "-i", "sleep", "1000")
    until(lambda: psutil.Process(without).environ() == {})
    assert end_adopted(MARK, []) == 0
    assert end_strays(MARK, grace_s=0.0) == 0
    assert is_alive(without)


@pytest.mark.usefixtures("subreaper")
def test_what_bears_another_mark_or_none_is_left_alone(leave: Callable[..., int]) -> None:
    others = [
        leave(),
        leave(**{LOGGER_VARIABLE: MARK + "0"}),
        leave(**{LOGGER_VARIABLE: MARK[:-1]}),
        leave(**{LOGGER_VARIABLE + "_X": MARK}),
        leave(X=f"{LOGGER_VARIABLE}={MARK}"),
        leave(sys.executable, "-c", "import time; time.sleep(1000)", f"{LOGGER_VARIABLE}={MARK}"),
    ]
    assert adopted(MARK) == []
    assert end_adopted(MARK, []) == 0
    assert all(map(is_alive, others))


@pytest.mark.usefixtures("subreaper")
def test_a_known_process_is_left_alone_also_when_it_has_ended(leave: Callable[..., int]) -> None:
    known = leave(**{LOGGER_VARIABLE: MARK})
    assert end_adopted(MARK, [known]) == 0
    assert is_alive(known)
    os.kill(known, signal.SIGKILL)
    until(lambda: not is_alive(known))
    assert end_adopted(MARK, [known]) == 0
    assert psutil.pid_exists(known), "its own end is not dealt with yet"
    assert end_adopted(MARK, []) == 0
    assert not psutil.pid_exists(known)


@pytest.mark.usefixtures("subreaper")
def test_a_child_of_the_daemon_itself_is_not_reaped_for_it() -> None:
    own = subprocess.Popen(["true"])
    until(lambda: not is_alive(own.pid))
    end_adopted(MARK, [])
    assert own.wait() == 0
    assert own.returncode == 0


@pytest.mark.usefixtures("subreaper")
def test_the_children_of_every_thread_are_found(leave: Callable[..., int]) -> None:
    pids: list[int] = []
    thread = threading.Thread(target=lambda: pids.append(leave(**{LOGGER_VARIABLE: MARK})))
    thread.start()
    thread.join()
    until(lambda: adopted(MARK) == pids)
    assert end_adopted(MARK, []) == 1


@pytest.mark.usefixtures("subreaper")
def test_a_fork_bomb_with_few_charges_ends(leave: Callable[..., int]) -> None:
    leave(sys.executable, "-c", BOMB, **{LOGGER_VARIABLE: MARK})
    until(lambda: len(psutil.Process().children(recursive=True)) > 4)
    end_s = time.monotonic() + WATCHDOG_S
    while adopted(MARK):
        end_adopted(MARK, [])
        assert time.monotonic() < end_s
    assert not psutil.Process().children(recursive=True)


@pytest.mark.usefixtures("subreaper")
def test_a_call_may_end_before_all_is_done(leave: Callable[..., int]) -> None:
    """The event loop calls it: what is left then is for the next call."""
    for _ in range(5):
        leave(**{LOGGER_VARIABLE: MARK})
    end_s = time.monotonic() + WATCHDOG_S
    while adopted(MARK):
        end_adopted(MARK, [], within_s=0.0)
        assert time.monotonic() < end_s


def test_a_stopped_process_is_told_from_one_that_runs() -> None:
    with subprocess.Popen(["sleep", "1000"]) as process:
        assert not is_stopped(process.pid)
        os.kill(process.pid, signal.SIGSTOP)
        until(lambda: is_stopped(process.pid))
        process.kill()
    assert not is_stopped(process.pid)


# What an earlier daemon leaves.


def close(found: list[tuple[int, int]]) -> list[int]:
    for _, pidfd in found:
        os.close(pidfd)
    return sorted(pid for pid, _ in found)


def test_the_strays_of_a_run_are_found_wherever_they_are(leave: Callable[..., int]) -> None:
    mine = [leave(**{RUN_VARIABLE: MARK}) for _ in range(2)]
    leave(**{RUN_VARIABLE: MARK + "1"})
    leave()
    until(lambda: close(strays(MARK)) == sorted(mine))


def test_strays_that_do_not_end_by_themselves_are_killed(leave: Callable[..., int]) -> None:
    stubborn = "import signal, time\nsignal.signal(15, signal.SIG_IGN)\ntime.sleep(1000)"
    mine = [
        leave(**{RUN_VARIABLE: MARK}),
        leave(sys.executable, "-c", stubborn, **{RUN_VARIABLE: MARK}),
    ]
    other = leave(**{RUN_VARIABLE: MARK + "1"})
    assert end_strays(MARK, grace_s=0.05) == 2
    assert not any(map(is_alive, mine))
    assert is_alive(other)
    assert end_strays(MARK, grace_s=WATCHDOG_S) == 0, "and none is waited for"


def test_strays_that_end_by_themselves_are_not_killed(leave: Callable[..., int]) -> None:
    code = "import sys, time\ntime.sleep(0.2)\nopen(sys.argv[1], 'w').close()"
    leave(sys.executable, "-c", code, "/dev/null", **{RUN_VARIABLE: MARK})
    assert end_strays(MARK, grace_s=WATCHDOG_S) == 0
    assert close(strays(MARK)) == []


def test_a_stray_fork_bomb_ends(leave: Callable[..., int]) -> None:
    leave(sys.executable, "-c", BOMB, **{RUN_VARIABLE: MARK})
    until(lambda: len(close(strays(MARK))) > 4)
    assert end_strays(MARK, grace_s=0.0) > 4
    assert close(strays(MARK)) == []


FAMILY = """
import os, subprocess, sys
from millpond.containment import end_strays, strays
child = subprocess.Popen(["sleep", "1000"], start_new_session=True)
print(end_strays(sys.argv[1], grace_s=0.0), child.poll())
child.kill()
child.wait()
"""


def test_the_caller_its_ancestors_and_its_children_are_no_strays() -> None:
    """Such as a daemon that is started for the folder of the logger which starts it."""
    inner = [sys.executable, "-c", FAMILY, MARK]
    code = f"import subprocess, sys; sys.exit(subprocess.call({inner!r}))"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, RUN_VARIABLE: MARK},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    assert done.stdout == "0 None\n"
