"""Whether this machine can run a configuration: the folders, the sockets, and the memory."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import psutil

from millpond.config.model import Config
from millpond.core.layout import Channel, plan
from millpond.errors import ConfigError

# Version 1 says "no limit" with a number near 2**63.
_NO_LIMIT_BYTES: Final = 2**60
_MIB: Final = 2**20


def check_machine(config: Config, *, available_bytes: int | None = None) -> None:
    """Refuse what would fail later; leaves nothing behind.

    Args:
        config: What is to be run.
        available_bytes: Memory that may be used; None: ask the machine.

    Raises:
        ConfigError: The output folder cannot be written, a socket cannot be made, or the segment is
            too large.
    """
    problem = _folder_problem(config.output_dir)
    if problem:
        raise config.error(f"{config.output_dir} cannot be written: {problem}", "output_dir")
    _check_socket(config, "socket", config.socket_path)
    _check_socket(config, "health_socket", config.health_socket_path)
    if config.buffer.declared is not None:
        check_memory(config, config.buffer.declared, available_bytes=available_bytes)


def memory_available_bytes(
    *, membership: Path = Path("/proc/self/cgroup"), mount: Path = Path("/sys/fs/cgroup")
) -> int:
    """Memory that this process can still have, within the limits of its cgroups.

    Args:
        membership: The file that names the cgroups of this process.
        mount: Where cgroups are mounted.
    """
    available = int(psutil.virtual_memory().available)
    for folder in _cgroup_folders(membership, mount):
        limit = _number(folder / "memory.max", folder / "memory.limit_in_bytes")
        used = _number(folder / "memory.current", folder / "memory.usage_in_bytes")
        if limit is not None and used is not None and limit < _NO_LIMIT_BYTES:
            available = min(available, max(0, limit - used + _reclaimable_bytes(folder)))
    return available


def _check_socket(config: Config, key: str, path: Path) -> None:
    """Refuse a socket that cannot be made; one that is there may be left over, or served."""
    problem = _folder_problem(path.parent)
    if problem:
        problem = f"the socket {path} cannot be made: {problem}"
    elif os.path.lexists(path) and not path.is_socket():
        problem = f"{path} exists and is no socket: move it away, or set service.{key}"
    if problem:
        is_given = getattr(config.service, key) is not None
        raise config.error(problem, *(("service", key) if is_given else ("output_dir",)))


def _folder_problem(folder: Path) -> str:
    """Why a folder cannot be written, or nothing; makes it and a file in it, and removes both."""
    made: list[Path] = []
    try:
        for path in reversed([path for path in (folder, *folder.parents) if not path.exists()]):
            with contextlib.suppress(FileExistsError):  # Another start was quicker.
                path.mkdir()
                made.append(path)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        return error.strerror or str(error)
    finally:
        for path in reversed(made):
            with contextlib.suppress(OSError):  # Somebody has put something into it by now.
                path.rmdir()
    return ""


def check_memory(
    config: Config, channels: Sequence[Channel], *, available_bytes: int | None = None
) -> None:
    """Refuse a segment that does not fit.

    Args:
        config: What is to be run.
        channels: The configuration's, or the first renderer's.
        available_bytes: Memory that may be used; None: ask the machine.

    Raises:
        ConfigError: It is too large; says how many slots would fit.
    """
    if available_bytes is None:
        available_bytes = memory_available_bytes()
    key = "slots" if config.buffer.size is None else "size"
    slot_bytes = plan(channels, 1).slot_bytes
    try:
        layout = plan(channels, config.buffer.slot_count(slot_bytes))
    except ConfigError as error:
        raise config.error(error.problem, "buffer", key) from None
    if layout.segment_bytes > available_bytes:
        raise config.error(
            f"{layout.slot_count} slots of {slot_bytes} bytes need "
            f"{layout.segment_bytes / _MIB:.0f} MiB of memory, and "
            f"{available_bytes / _MIB:.0f} MiB are available; "
            f"{available_bytes // slot_bytes} slots would fit",
            "buffer",
            key,
        )


def _cgroup_folders(membership: Path, mount: Path) -> list[Path]:
    """The folders of this process's memory cgroup and of those around it."""
    try:
        lines = membership.read_text().splitlines()
    except OSError:
        return []
    folders = []
    for line in lines:
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if controllers == "":
            root = mount
        elif "memory" in controllers.split(","):
            root = mount / "memory"
        else:
            continue
        # In a container the path may be the host's, which is not mounted: then only the root is.
        inner = Path(os.path.normpath("/" + path.lstrip("/"))).relative_to("/")
        folders += [root / step for step in (inner, *inner.parents)]
    return [folder for folder in dict.fromkeys(folders) if folder.is_dir()]


def _reclaimable_bytes(folder: Path) -> int:
    """Cached pages of files that count as used and that the kernel gives up first."""
    try:
        lines = (folder / "memory.stat").read_text().splitlines()
    except OSError:
        return 0
    for line in lines:
        name, _, value = line.partition(" ")
        if name in {"inactive_file", "total_inactive_file"} and value.isdigit():
            return int(value)
    return 0


def _number(*paths: Path) -> int | None:
    """The number in the first of the files that there is; None for ``max`` or no file."""
    for path in paths:
        try:
            text = path.read_text().strip()
        except OSError:
            continue
        return int(text) if text.isdigit() else None
    return None
