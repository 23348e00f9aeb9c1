"""Opens a storage on a run folder that has everything, killed at every call that changes the disk.

``python storage_crashes.py RUN`` prints JSON: how many steps there are, and what went wrong.  Each
attempt is a fork of this process, for imports take long.  After each second one the next start is
killed too.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import structlog
from service.spill_cases import OTHER_LAYOUT, payload
from service.storage_cases import Opened, Past, config_for, letters_of, results

from millpond.core.ranges import ResultRanges
from millpond.dead_letters import dead_of, read_dead, retract

# What is killed before one of these is as if killed after whatever lies between it and the last.
CHANGING = {
    "write", "writev", "pwrite", "pwritev", "rename", "replace", "unlink", "remove", "mkdir",
    "rmdir", "truncate", "ftruncate", "posix_fallocate", "fdatasync",
}  # fmt: skip
KILLED = 99
# By logger: what waits at last, and what is dead; all else was delivered before.
WAITING = {"a": {(1, 1), (2, 5), (2, 6), (2, 8)}, "b": set(), "gone": {(2, 9)}}
DEAD = {
    ("a", 1, 2): "exception",
    ("a", 2, 7): "spill_corrupt",
    ("a", 2, 9): "exception",
    ("a", 2, 10): "unaccounted",
    ("b", 2, 3): "spill_corrupt",
    ("gone", 2, 10): "unaccounted",
}


def build(run: Path) -> None:
    """Two starts of a daemon: the second was killed with results in every state."""
    first = Past(run, ["a", "b"], published=2)
    first.delivered("b", 1, 2)
    first.dead("a", 2, 2)
    first.end()
    second = Past(run, ["a", "b", "gone"], renderer=2, pending={"a": ResultRanges()})
    second.delivered("a", 1, 4)
    second.spilled("a", second.these(4, 7))  # The first of them is settled.
    second.taken_back("a", 8, 8)
    old = letters_of(results(1, 1, 1), with_arrays=True)
    assert second.letters.bury("a", old, reason="exception", problem="no")
    retract(run, [("a", 1, 1)])
    second.dead("a", 9, 9)
    for sequences in ((1, 2), (4, 10)):
        second.delivered("b", *sequences)
    second.spilled("b", second.these(3, 3), layout=OTHER_LAYOUT)
    second.delivered("gone", 1, 8)
    second.spilled("gone", second.these(9, 9))
    second.end(is_killed=True)
    [path] = (run / "spill" / "a").glob("*.seg")
    raw = path.read_bytes()
    at = raw.index(payload(2, 7))
    path.write_bytes(raw[:at] + bytes([raw[at] ^ 1]) + raw[at + 1 :])


def open_until(run: Path, step: int) -> None:
    """Open a storage, and die instead of the call of this number."""
    calls = 0

    def profile(_: Any, event: str, function: Any) -> None:
        nonlocal calls
        is_posix = event == "c_call" and getattr(function, "__module__", "") == "posix"
        if is_posix and function.__name__ in CHANGING:
            calls += 1
            if calls == step:
                os._exit(KILLED)

    async def attempt() -> None:
        now = Opened(config_for(run))
        sys.setprofile(profile)
        now.open()
        sys.setprofile(None)

    asyncio.run(attempt())


async def outcome(run: Path) -> list[str]:
    """What is wrong when the storage is opened at last."""
    wrong = []
    now = Opened(config_for(run, ["a", "b"])).open()
    came = [one.key for index in (0, 1) for one in await now.replay(index)]
    if any(store.records for store in now.storage._stores):
        wrong.append("more waits than was said")
    if now.renderer_last != 2:
        wrong.append(f"the last renderer is {now.renderer_last}")
    now.close(is_end=False)
    gone = Opened(config_for(run, ["a", "b", "gone"])).open()
    left = [one.key for one in await gone.replay(2)]
    gone.close()
    if Counter(came) != Counter(WAITING["a"]) or Counter(left) != Counter(WAITING["gone"]):
        wrong.append(f"came: {sorted(came)} and {left}")
    dead = {key: line.reason for key, line in dead_of(run).items()}
    # Killed after a file was moved aside or copied away, and before the line.
    reasons = {key: {why, "unaccounted"} for key, why in DEAD.items()}
    if dead.keys() != DEAD.keys() or any(why not in reasons[key] for key, why in dead.items()):
        wrong.append(f"dead: {dead}")
    times = Counter(line.key for line in read_dead(run))
    twice = [key for key, count in times.items() if count > 1 and key != ("a", 1, 1)]
    if twice:
        wrong.append(f"listed twice: {twice}")
    return wrong


def forked(work: Any, *arguments: Any) -> int:
    """Do it in a fork, and give its exit code."""
    sys.stdout.flush()
    pid = os.fork()
    if not pid:
        code = 1
        try:
            code = work(*arguments) or 0
        except BaseException:  # noqa: BLE001  It must not go on as its parent.
            sys.excepthook(*sys.exc_info())
        finally:
            sys.stderr.flush()
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def silent(*_: Any) -> Any:
    """The log is of no interest here."""
    raise structlog.DropEvent


def check(run: Path, where: str, wrongs: Path) -> None:
    wrong = asyncio.run(outcome(run))
    with wrongs.open("a") as file:
        file.writelines(json.dumps(f"{where}: {text}") + "\n" for text in wrong)


def main() -> None:
    base = Path(sys.argv[1])
    structlog.configure(processors=[silent])
    original, wrongs = base / "original", base / "wrong"
    wrongs.touch()
    run = base / "try" / "run"
    run.parent.mkdir()
    build(original)
    step, code = 0, KILLED
    while code == KILLED:
        step += 1
        again = 0 if step % 2 else 1 + step * 7 % 20
        shutil.rmtree(run, ignore_errors=True)
        shutil.copytree(original, run)
        code = forked(open_until, run, step)
        if again and code == KILLED:
            forked(open_until, run, again)
        if forked(check, run, f"step {step}, then {again}", wrongs):
            raise SystemExit(f"step {step}, then {again}: it cannot be opened")
    wrong = [json.loads(line) for line in wrongs.read_text().splitlines()]
    sys.stdout.write(json.dumps({"steps": step, "last": code, "wrong": wrong}))


main()
