"""Doing what a page of the documentation says, block after block, in an empty folder.

- A ``python``, ``yaml`` or ``toml`` block whose first line is ``# name.ext`` is written to that
  file; with ``# name.ext, continued`` it is put behind what stands there.
- A ``sh`` block is run by bash and must succeed.
- A ``text`` block is what the ``sh`` block before it printed: each line, in this order; ``...``
  stands for anything.

Any other block of these languages is an error: it would be read and never tried.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import yaml

WATCHDOG_S = 120.0
FILES = ("python", "yaml", "toml")
_BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_FILE = re.compile(r"# ([\w./-]+)(, continued)?\n")


@dataclass(frozen=True)
class Block:
    language: str
    text: str
    line: int


def blocks(page: Path) -> list[Block]:
    """The code blocks of a page, in order."""
    text = page.read_text()
    return [
        Block(match[1], match[2], text.count("\n", 0, match.start()) + 1)
        for match in _BLOCK.finditer(text)
    ]


def do(page: Path, folder: Path, env: dict[str, str] | None = None) -> None:
    """Do what the page says.

    Args:
        page: The Markdown file.
        folder: Where; it is empty.
        env: Environment variables besides the usual ones.

    Raises:
        AssertionError: Something does not do what the page says; with its line.
    """
    said = ""
    for block in blocks(page):
        place = f"{page.name}:{block.line}"
        match block.language:
            case language if language in FILES:
                _write(block, folder, place)
            case "sh":
                said = _run(block.text, folder, env or {}, place)
            case "text":
                _compare(block.text, said, place)
            case other:
                raise AssertionError(f"{place}: a block of {other or 'no language'}")


def write_files(page: Path, folder: Path) -> None:
    """Write the files of a page, and run nothing."""
    for block in blocks(page):
        if block.language in FILES:
            _write(block, folder, f"{page.name}:{block.line}")


def _write(block: Block, folder: Path, place: str) -> None:
    named = _FILE.match(block.text)
    assert named, f"{place}: its first line must say which file it is: # name.py"
    path = folder / named[1]
    if named[2]:
        assert path.is_file(), f"{place}: {named[1]} was not begun"
        path.write_text(path.read_text() + block.text[named.end() :])
    else:
        assert not path.exists(), f"{place}: {named[1]} is there already"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(block.text)
    if block.language == "python":
        compile(path.read_text(), place, "exec")
    elif block.language == "yaml":
        assert isinstance(yaml.safe_load(block.text), dict), place


def _run(commands: str, folder: Path, env: dict[str, str], place: str) -> str:
    """Run the commands as a user would who has installed millpond; what they print."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    # A file, not a pipe: what is left in the background would hold a pipe open.
    with tempfile.TemporaryFile("w+") as output:
        shell = subprocess.Popen(
            ["bash", "-eu", "-o", "pipefail", "-c", commands],
            cwd=folder,
            env={**os.environ, "PATH": path, **env},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
        try:
            status: object = shell.wait(WATCHDOG_S)
        except subprocess.TimeoutExpired:
            status = f"nothing for {WATCHDOG_S} s"
        with contextlib.suppress(ProcessLookupError):  # It has left nothing behind.
            os.killpg(shell.pid, signal.SIGTERM)
        shell.wait(WATCHDOG_S)
        output.seek(0)
        said = output.read()
    assert status == 0, f"{place}: ended with {status}:\n{said}"
    return said


def _compare(expected: str, said: str, place: str) -> None:
    rest = iter(said.splitlines())
    for line in expected.splitlines():
        pattern = ".*".join(map(re.escape, line.split("...")))
        is_there = line == "..." or any(re.fullmatch(pattern, found) for found in rest)
        assert is_there, f"{place}: it does not print {line!r}, in this order, but:\n{said}"
