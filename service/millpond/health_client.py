"""Asking a running daemon for its status."""

from __future__ import annotations

import http.client
import json
import os
import socket
from pathlib import Path
from typing import Any, Final

HEALTH_NAME: Final = "health.sock"
ANSWER_S: Final = 5.0


class _UnixConnection(http.client.HTTPConnection):
    """HTTP over a Unix socket."""

    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=ANSWER_S)
        self._path = path

    def connect(self) -> None:
        """Connect to the socket instead of to a host."""
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(ANSWER_S)
        self.sock.connect(os.fspath(self._path))


def health_socket_of(where: Path) -> Path:
    """The health socket of a run folder, of a configuration, or the socket itself.

    Raises:
        ConfigError: It is a configuration, and wrong.
    """
    if where.is_dir():
        return where / HEALTH_NAME
    if where.suffix in (".yaml", ".yml"):
        from millpond.config.load import load  # noqa: PLC0415

        return load(where).health_socket_path
    return where


def fetch_status(health_socket: Path) -> dict[str, Any]:
    """Ask for ``/status``.

    Raises:
        OSError: Nobody answers there.
    """
    connection = _UnixConnection(health_socket)
    try:
        connection.request("GET", "/status")
        status = json.loads(connection.getresponse().read())
    except (http.client.HTTPException, ValueError) as error:
        raise OSError(f"that is no millpond daemon ({error!r})") from None
    finally:
        connection.close()
    if not isinstance(status, dict):
        raise OSError("that is no millpond daemon (its status is no object)")
    return status
