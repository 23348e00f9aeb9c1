"""Disks that are small, full or read-only, and what is on them."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest


@contextlib.contextmanager
def small_disk(place: Path, size: str) -> Iterator[Path]:
    """A disk of that size on a folder; skips the test where that is not allowed."""
    place.mkdir(parents=True, exist_ok=True)
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(place)]
    made = subprocess.run(mount, capture_output=True, text=True, check=False)
    if made.returncode:
        pytest.skip(f"a small disk needs root: {made.stderr.strip()}")
    try:
        yield place
    finally:
        # Lazily: a test that failed may have left somebody in it.
        subprocess.run(["umount", "-l", str(place)], check=True)


def remount(place: Path, how: str) -> None:
    """Make a disk read-only (ro) or writable (rw)."""
    subprocess.run(["mount", "-o", f"remount,{how}", str(place)], check=True)


def fill(place: Path) -> Path:
    """Take every byte that is left on the disk of a folder, and give the file that has them."""
    filler = place / "filler"
    with filler.open("ab") as file:
        for size in (1 << 20, 1 << 16, 1 << 12, 1):
            with contextlib.suppress(_Full):
                while True:
                    _append(file.fileno(), b"x" * size)
    return filler


class _Full(Exception):
    pass


def _append(file_fd: int, data: bytes) -> None:
    try:
        if os.write(file_fd, data) < len(data):
            raise _Full
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        raise _Full from None


def durable_keys(run: Path, logger: str) -> set[tuple[int, int]]:
    """The (renderer, sequence) that the ledger calls delivered or safe on the disk.

    Read with nothing but `json`; it ends at its first NUL, and its last line may be torn.
    """
    keys = set()
    for path in sorted((run / "ledger").glob("*.jsonl")):
        content = path.read_bytes().partition(b"\0")[0]
        for line in content.splitlines(keepends=True):
            if not line.endswith(b"\n"):
                continue
            fact = json.loads(line)
            for kind in ("d", "o"):
                if kind in fact and fact[kind][0] == logger:
                    _, renderer, first, last = fact[kind]
                    keys |= {(renderer, sequence) for sequence in range(first, last + 1)}
    return keys


def record_offsets(content: bytes) -> list[int]:
    """Where the records of a segment begin: at a magic word, on a multiple of 64 bytes."""
    magic = b"\xf5mpR"
    return [at for at in range(0, len(content), 64) if content.startswith(magic, at)]
