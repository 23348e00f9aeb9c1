"""A daemon that runs already: joined for one run, and not ended with it."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from millpond.client_connection import find_socket
from millpond.compat.delivery import ResultsMissing, wait_delivered
from millpond.compat.slot_pond import SlotPond
from millpond.errors import DaemonUnreachable
from millpond.health_client import HEALTH_NAME, fetch_status

SOCKET_VARIABLE: Final = "MILLPOND_SOCKET"
CONNECT_S: Final = 10.0
# One that has just been started serves renderers a moment before it tells its health.
HEALTH_S: Final = 5.0
LOOK_S: Final = 0.1


class JoinedDaemon:
    """A daemon that somebody else started.

    Args:
        place: Its socket, its run folder, or its configuration.

    Raises:
        ConfigError: It is a configuration, and wrong.
        DaemonUnreachable: It is none of these.
    """

    def __init__(self, place: str | os.PathLike[str]) -> None:
        self._socket, self._health_socket = sockets_of(Path(place))
        self._before: dict[str, Any] = {}

    def connect(self, channels: Mapping[str, Any], *, health_s: float = HEALTH_S) -> SlotPond:
        """Connect to it, and see that it can be asked what it has recorded.

        Args:
            channels: What will be written: name to (shape, dtype).
            health_s: Seconds to wait for its health socket.

        Raises:
            DaemonUnreachable: It does not answer, here or there.
            ChannelsRefused: The pond has other channels.
        """
        pond = SlotPond(self._socket, channels, connect_s=CONNECT_S)
        try:
            self._before = self._status_of(pond.daemon_pid, time.monotonic() + health_s)
        except BaseException:
            pond.close()
            raise
        return pond

    def wait(self, patience_s: float) -> None:
        """Wait until every logger has what was published.

        Raises:
            ResultsMissing: Since it was joined, results were given up; the message says how many.
            DaemonUnreachable: Nothing was recorded for `patience_s`, or it was started anew.
        """
        now = wait_delivered(self._health_socket, patience_s)
        see = f"see: millpond verify {now['output_dir']}"
        if now["pid"] != self._before["pid"]:
            raise DaemonUnreachable(
                f"the daemon at {self._socket} is not the one that was joined (it has pid "
                f"{now['pid']}, and had {self._before['pid']}): some results may be lost; {see}"
            )
        earlier = self._before["loggers"]
        dead = {name: row["dead"] - earlier[name]["dead"] for name, row in now["loggers"].items()}
        told = ", ".join(f"{count} for logger '{name}'" for name, count in dead.items() if count)
        if told:
            raise ResultsMissing(
                f"not every logger has every result: since the daemon at {self._socket} was "
                f"joined, results were given up, of this or another renderer: {told}; {see}"
            )

    def _status_of(self, pid: int, deadline_s: float) -> dict[str, Any]:
        """The status of the daemon with this number."""
        while True:
            try:
                status = fetch_status(self._health_socket)
            except OSError as error:
                problem = error.strerror or str(error)
            else:
                if status.get("pid") == pid:
                    return status
                problem = f"it is that of another daemon (pid {status.get('pid')})"
            if time.monotonic() >= deadline_s:
                raise DaemonUnreachable(
                    f"the daemon at {self._socket} (pid {pid}) cannot be asked what it has "
                    f"recorded: {self._health_socket}: {problem}; if its service.health_socket "
                    f"is elsewhere, join it by its configuration: {SOCKET_VARIABLE}=CONFIG.yaml"
                )
            time.sleep(LOOK_S)


def sockets_of(place: Path) -> tuple[Path, Path]:
    """The sockets for renderers and for health.

    Args:
        place: A socket, a run folder, or a configuration, which alone tells where both are: else
            the two are taken to be in the same folder.

    Raises:
        ConfigError: It is a configuration, and wrong.
        DaemonUnreachable: It is none of these.
    """
    if place.suffix in (".yaml", ".yml") and not place.is_dir():
        from millpond.config.load import load  # noqa: PLC0415  Renderers do without.

        # The variable that names the daemon sets no key of its configuration.
        environ = {name: text for name, text in os.environ.items() if name != SOCKET_VARIABLE}
        config = load(place, environ=environ)
        return config.socket_path, config.health_socket_path
    socket = find_socket(place)
    return socket, socket.parent / HEALTH_NAME
