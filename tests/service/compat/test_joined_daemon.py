"""A joined daemon is asked what it has recorded, before the run as well as at its end."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from service.compat.test_delivery import DONE, answering
from service.scripted_daemon import CHANNELS, PID, Peer, serve
from status_example import logger_row, status_example

from millpond.compat.delivery import ResultsMissing
from millpond.compat.joined_daemon import JoinedDaemon, sockets_of
from millpond.errors import ConfigError, DaemonUnreachable

DECLARED = {channel.name: (channel.shape, channel.dtype) for channel in CHANNELS}


def status(pid: int = PID, **dead: int) -> dict[str, Any]:
    rows = {name: logger_row(dead=count, **DONE) for name, count in dead.items()}
    return status_example(pid=pid, loggers=rows, output_dir="/runs/mine")


def welcome(peer: Peer) -> None:
    peer.welcome()


@contextlib.contextmanager
def joined(folder: Path, *statuses: dict[str, Any]) -> Iterator[JoinedDaemon]:
    """One whose health tells these one after the other; the first when it is joined."""
    with (
        answering(folder / "health.sock", *statuses),
        serve(folder / "millpond.sock", welcome),
    ):
        daemon = JoinedDaemon(folder)
        pond = daemon.connect(DECLARED)
        assert pond.daemon_pid == PID
        yield daemon
        pond.close()


def test_when_nothing_waits_and_nothing_was_given_up_all_is_well(tmp_path: Path) -> None:
    with joined(tmp_path, status(csv=4, image=0)) as daemon:  # The 4 were before our time.
        daemon.wait(20)


def test_what_was_given_up_since_it_was_joined_is_missing(tmp_path: Path) -> None:
    told = r"given up, .*: 3 for logger 'csv', 1 for logger 'npz'; see: millpond verify /runs/mine"
    with (
        joined(tmp_path, status(csv=2, image=0, npz=0), status(csv=5, image=0, npz=1)) as daemon,
        pytest.raises(ResultsMissing, match=told),
    ):
        daemon.wait(20)


def test_one_that_was_started_anew_meanwhile_cannot_vouch_for_the_results(tmp_path: Path) -> None:
    told = r"not the one that was joined \(it has pid 99, and had 4711\): .* /runs/mine"
    with (
        joined(tmp_path, status(csv=2), status(99, csv=0)) as daemon,
        pytest.raises(DaemonUnreachable, match=told),
    ):
        daemon.wait(20)


def test_one_that_cannot_be_asked_is_not_joined(tmp_path: Path) -> None:
    told = r"cannot be asked .*health\.sock: No such file.* join it by its configuration"
    with (
        serve(tmp_path / "millpond.sock", welcome),
        pytest.raises(DaemonUnreachable, match=told),
    ):
        JoinedDaemon(tmp_path).connect(DECLARED, health_s=0.3)


def test_the_health_of_another_daemon_is_not_taken_for_it(tmp_path: Path) -> None:
    with (
        answering(tmp_path / "health.sock", status(17)),
        serve(tmp_path / "millpond.sock", welcome),
        pytest.raises(DaemonUnreachable, match=r"that of another daemon \(pid 17\)"),
    ):
        JoinedDaemon(tmp_path / "millpond.sock").connect(DECLARED, health_s=0.3)


def test_health_that_comes_a_moment_later_is_waited_for(tmp_path: Path) -> None:
    with joined(tmp_path, status(17), status(17), status(csv=0)) as daemon:
        daemon.wait(20)


def test_a_place_is_a_folder_a_socket_or_a_configuration(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    both = (tmp_path / "millpond.sock", tmp_path / "health.sock")
    assert sockets_of(tmp_path) == both
    assert sockets_of(tmp_path / "millpond.sock") == both
    later = tmp_path / "not" / "yet"
    assert sockets_of(later) == (later / "millpond.sock", later / "health.sock")
    config = tmp_path / "mine.yaml"
    service = {"health_socket": str(tmp_path / "elsewhere" / "h.sock")}
    config.write_text(
        json.dumps({"service": service, "logging": {"logger_modules": ["csv"]}, "output_dir": "o"})
    )
    monkeypatch.setenv("MILLPOND_SOCKET", str(config))
    socket, health = sockets_of(config)
    assert socket.parts[-2:] == ("o", "millpond.sock")
    assert health == tmp_path / "elsewhere" / "h.sock"


def test_a_wrong_configuration_is_told(tmp_path: Path) -> None:
    config = tmp_path / "wrong.yaml"
    config.write_text("loging: {}")
    with pytest.raises(ConfigError, match="loging"):
        JoinedDaemon(config)
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(DaemonUnreachable, match="is no socket"):
        JoinedDaemon(tmp_path / "notes.txt")
