"""Fixtures of the system tests."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from system.harness import SMALL, Daemon


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
