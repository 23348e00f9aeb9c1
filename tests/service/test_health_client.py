"""A daemon's status is fetched, or the reason is told."""

import asyncio
import json
import socket
import threading
from contextlib import contextmanager

import pytest
from status_example import status_example

from millpond.errors import ConfigError
from millpond.health import HealthServer
from millpond.health_client import fetch_status, health_socket_of

OK = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s"


@contextmanager
def answering(path, answer: bytes):
    """A server that gives one client these bytes, whatever it asks."""

    def serve() -> None:
        peer, _ = listener.accept()
        with peer:
            peer.recv(65536)
            peer.sendall(answer)

    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        server = threading.Thread(target=serve)
        server.start()
        yield
        server.join(timeout=60)
        assert not server.is_alive()


async def test_the_status_comes_from_the_daemons_own_server(tmp_path) -> None:
    path = tmp_path / "health.sock"
    status = status_example(name="grün 👍")
    server = HealthServer(path, lambda: status)
    await server.start()
    try:
        assert await asyncio.to_thread(fetch_status, path) == status
    finally:
        await server.close()


def test_where_nobody_serves_the_reason_is_the_systems(tmp_path) -> None:
    with pytest.raises(FileNotFoundError):
        fetch_status(tmp_path / "none")
    stale = tmp_path / "stale"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(stale))
    with pytest.raises(ConnectionRefusedError):
        fetch_status(stale)
    (tmp_path / "file").write_text("")
    with pytest.raises(ConnectionRefusedError):
        fetch_status(tmp_path / "file")
    with pytest.raises(OSError, match="too long"):
        fetch_status(tmp_path / ("x" * 200))


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"hello\r\n",
        b"mp\x01\x03",
        b"HTTP/1.1 404 Not Found\r\nContent-Length: 14\r\n\r\n404: Not Found",
        b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{}",
        OK % (0, b""),
        OK % (4, b"\xff\xfe\x00\xd8"),
        OK % (3, b'"\xff"'),
        OK % (2, b"[]"),
        OK % (4, b"null"),
    ],
    ids=ascii,
)
def test_whoever_is_no_daemon_is_told_from_one(tmp_path, answer) -> None:
    with (
        answering(tmp_path / "s", answer),
        pytest.raises(OSError, match="that is no millpond daemon"),
    ):
        fetch_status(tmp_path / "s")


def test_a_status_is_read_whole(tmp_path) -> None:
    body = json.dumps({"loggers": {f"logger-{n}": {} for n in range(5000)}}).encode()
    with answering(tmp_path / "s", OK % (len(body), body)):
        assert fetch_status(tmp_path / "s") == json.loads(body)


def test_the_socket_is_found_by_folder_configuration_or_itself(tmp_path) -> None:
    own = tmp_path / "own.yaml"
    own.write_text(
        f"output_dir: {tmp_path}/run\nlogging: {{logger_modules: [csv]}}\n"
        f"service: {{health_socket: {tmp_path}/own.sock}}\n"
    )
    plain = tmp_path / "plain.yml"
    plain.write_text(f"output_dir: {tmp_path}/run\nlogging: {{logger_modules: [csv]}}\n")
    assert health_socket_of(tmp_path) == tmp_path / "health.sock"
    assert health_socket_of(own) == tmp_path / "own.sock"
    assert health_socket_of(plain) == tmp_path / "run" / "health.sock"
    assert health_socket_of(tmp_path / "any.sock") == tmp_path / "any.sock"


def test_a_configuration_that_is_wrong_says_so(tmp_path) -> None:
    config = tmp_path / "c.yaml"
    config.write_text("bufer: {}\n")
    with pytest.raises(ConfigError, match="bufer"):
        health_socket_of(config)
    with pytest.raises(ConfigError):
        health_socket_of(tmp_path / "none.yaml")
