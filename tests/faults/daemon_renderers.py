"""Renderers that misbehave: many that claim and never publish, and peers that are none.

Both begin with a process that has everything imported already, so that hundreds take seconds.
"""

from __future__ import annotations

import array
import contextlib
import json
import os
import random
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

# A child for each line: it claims so many slots, writes into a part of one, and waits.
_CLAIMERS = """
import os, sys, millpond
for line in sys.stdin:
    count, touched = map(int, line.split())
    reader, writer = os.pipe()
    pid = os.fork()
    if not pid:
        pond = millpond.connect(sys.argv[1])
        slots = [pond.claim() for _ in range(count)]
        if touched:
            slots[0]["rgb"][:touched] = 1
        if touched > 1:
            slots[0]["loss"] = 1
        os.write(writer, b"!")
        os.read(0, 1)
        os._exit(0)
    os.read(reader, 1)
    os.close(reader), os.close(writer)
    print(pid, flush=True)
    os.waitpid(pid, 0)
    print("reaped", flush=True)
"""

# The header of a frame as it is documented: magic, version, kind, length, slot, renderer,
# generation, sequence.
FRAME_HEADER = struct.Struct("<2sBBIIIQQ")
MAGIC = b"mp"
HELLO, PUBLISH = 1, 5
BACKLOG_S = 10.0


class Claimers:
    """Processes that claim slots and never publish, one after the other."""

    def __init__(self, run: Path) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", _CLAIMERS, str(run)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def claim(self, count: int, touched: int) -> int:
        """Have one claim, and give its pid."""
        return int(self._ask(f"{count} {touched}\n"))

    def kill(self, pid: int) -> None:
        """Kill it; it is the parent's to reap."""
        os.kill(pid, signal.SIGKILL)

    def wait_reaped(self) -> None:
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == "reaped\n"

    def _ask(self, line: str) -> str:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(line)
        self._process.stdin.flush()
        return self._process.stdout.readline()

    def close(self) -> None:
        with self._process:
            self._process.kill()


@contextlib.contextmanager
def claimers(run: Path) -> Iterator[Claimers]:
    """Claimers, none of which is left behind."""
    made = Claimers(run)
    try:
        yield made
    finally:
        made.close()


def raw_peer(place: Path) -> socket.socket:
    """A connection that has said nothing yet."""
    peer = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    peer.settimeout(5)
    end_s = time.monotonic() + BACKLOG_S
    while True:
        try:
            peer.connect(str(place))
        except BlockingIOError:  # More are waiting to be let in than the kernel keeps.
            if time.monotonic() > end_s:
                peer.close()
                raise
            time.sleep(0.002)
        else:
            return peer


def garbage(chance: random.Random) -> bytes:
    """Bytes that are no frame of a renderer, or one that no renderer may send."""
    header = FRAME_HEADER.pack
    body = json.dumps({"id": "evil", "render_args": {}}).encode()
    greeting = json.dumps({"protocol": 1, "pid": 1, "channels": None}).encode()
    hello = header(MAGIC, 1, HELLO, len(greeting), 0, 0, 0, 0) + greeting
    number = chance.randrange(2**32)
    makers: list[Callable[[], bytes]] = [
        lambda: chance.randbytes(chance.randrange(1, 4096)),
        lambda: MAGIC + chance.randbytes(chance.randrange(30, 300)),
        lambda: header(MAGIC, 1, chance.randrange(256), len(body), number, 1, 1, 1) + body,
        lambda: header(MAGIC, 1, PUBLISH, 2**31 + chance.randrange(2**31), 0, 0, 0, 0),
        lambda: hello + header(MAGIC, 1, PUBLISH, len(body), number % 70, 1, 1, 1) + body,
        lambda: hello + chance.randbytes(chance.randrange(1, 4096)),
        lambda: header(MAGIC, chance.randrange(2, 256), HELLO, 4, 0, 0, 0, 0) + b"null",
        lambda: header(MAGIC, 1, HELLO, 64, 0, 0, 0, 0) + chance.randbytes(64),
        lambda: header(MAGIC, 1, HELLO, 60_000, 0, 0, 0, 0) + b"[" * 60_000,
        lambda: b"GET / HTTP/1.1\r\nHost: x\r\n\r\n" * 3,
    ]
    return chance.choice(makers)()


def send_garbage(place: Path, data: bytes) -> None:
    """Send it and hear what is said, if anything; the daemon may close at any byte."""
    with contextlib.suppress(OSError), contextlib.closing(raw_peer(place)) as peer:
        peer.sendall(data)
        peer.shutdown(socket.SHUT_WR)
        while peer.recv(65536):
            pass


def send_descriptors(place: Path, count: int) -> None:
    """Send so many descriptors in one message, which nobody has asked for."""
    with open(os.devnull) as file, contextlib.closing(raw_peer(place)) as peer:  # noqa: PTH123
        fds = array.array("i", [file.fileno()] * count)
        with contextlib.suppress(OSError):
            peer.sendmsg([b"x" * 40], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, fds)])
            peer.recv(65536)


def are_closed(peers: list[socket.socket]) -> bool:
    """Whether the daemon has closed all of these connections."""
    for peer in peers:
        peer.setblocking(False)
        try:
            while peer.recv(65536):
                pass
        except BlockingIOError:
            return False
        except OSError:
            pass
    return True
