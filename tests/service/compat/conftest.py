"""Daemons for the tests of what stands in their place elsewhere."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from millpond.compat.cyclic_buffer import CyclicBuffer
from millpond.compat.own_daemon import OwnDaemon, Plan
from millpond.containment import become_subreaper
from millpond.core.layout import Channel

CHANNELS = (
    Channel("rgb", (3, 4, 4), "float32"),
    Channel("is_correct", (), "bool"),
    Channel("loss", (), "float32"),
)


@pytest.fixture(autouse=True)
def _alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """No daemon is joined by accident, and no orphans of a daemon become ours."""
    monkeypatch.delenv("MILLPOND_SOCKET", raising=False)
    become_subreaper(is_one=False)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The socket of a daemon with four slots, which stays as long as somebody is connected."""
    folder = tmp_path_factory.mktemp("served")
    daemon = OwnDaemon(Plan(folder, ["csv"], slots=4), CHANNELS)
    keeps_it = daemon.connect({c.name: (c.shape, c.dtype) for c in CHANNELS})
    yield daemon.socket
    keeps_it.close()
    with contextlib.suppress(Exception):
        daemon.wait(30)
    daemon.kill()


def rows(served: Path) -> str:
    """What the logger has recorded so far."""
    table = served.parent / "details.csv"
    return table.read_text() if table.exists() else ""


def wait_until(condition: Callable[[], object], within_s: float = 20.0) -> None:
    """Look again and again until it holds."""
    end_s = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < end_s, "it never came to hold"
        time.sleep(0.01)


class _HeldValues(dict[str, Any]):
    """A result that can be copied when it may."""

    def __init__(self, values: dict[str, Any]) -> None:
        super().__init__(values)
        self.is_wanted = threading.Event()
        self.is_free = threading.Event()

    def __getitem__(self, name: str) -> Any:
        self.is_wanted.set()
        assert self.is_free.wait(60), "nobody let it go on"
        return super().__getitem__(name)


@contextlib.contextmanager
def allocating(buffer: CyclicBuffer, values: dict[str, Any]) -> Iterator[None]:
    """Another thread is in the middle of `allocate`, and stays there."""
    held = _HeldValues(values)
    thread = threading.Thread(target=buffer.allocate, args=(held,))
    thread.start()
    try:
        assert held.is_wanted.wait(60), "it was never copied"
        yield
    finally:
        held.is_free.set()
        thread.join()


def has_ended(pid: int) -> bool:
    """Whether there is no such process, or only what it left to its parent."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return True
    return stat.rpartition(")")[2].split()[0] in "ZX"
