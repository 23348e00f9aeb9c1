"""Fixtures of the system tests."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from system.harness import SMALL, Daemon

from millpond.containment import become_subreaper


@pytest.fixture(autouse=True)
def _no_orphans_for_us() -> None:
    """A daemon in this process took them; we would never reap those of the daemons here."""
    become_subreaper(is_one=False)


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Daemon]]:
    """Start daemons with small channels; what is left of them ends with the test."""
    daemons: list[Daemon] = []

    def begin(loggers: list[Any], *arguments: str, folder: str = "d", **sections: Any) -> Daemon:
        config = {
            "buffer": {"slots": 16, "channels": SMALL},
            "logging": {"logger_modules": loggers},
            **sections,
        }
        daemon = Daemon(tmp_path / folder, config, *arguments)
        daemons.append(daemon)
        daemon.wait_serving()
        return daemon

    yield begin
    for daemon in daemons:
        daemon.end()
