"""Names of files: an id never becomes a path, and no symlink is followed.

Ids come from renderers and may be anything: ``../../x``, empty, 300 characters, emoji.  Every
file of the built-in loggers is named by `file_name` and opened by `open_beneath`, relative to the
descriptor of a folder, or put in place whole by `write_atomically`.
"""

from __future__ import annotations

import hashlib
import os
import re
import stat
from collections.abc import Callable
from contextlib import suppress
from typing import Final

# The id's part of a name.  A suffix of up to 75 bytes still fits into the 255 of a name.
ID_BYTES_MAX: Final = 180
NAME_BYTES_MAX: Final = 255
# 64 bits: among a billion ids, two that agree are a matter of 1 in 37.
HASH_BYTES: Final = 8
# A temporary name repeats so much of the real one that people see what it was to become.
TEMPORARY_NAME_BYTES: Final = 200

_SAFE: Final = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-")
_ENCODED: Final = tuple(chr(byte) if byte in _SAFE else f"%{byte:02X}" for byte in range(256))
_PLAIN: Final = re.compile(rf"[A-Za-z0-9_][A-Za-z0-9._-]{{0,{ID_BYTES_MAX - 1}}}", re.ASCII)
_HASHED: Final = re.compile(rf"-[0-9a-f]{{{2 * HASH_BYTES}}}\Z", re.ASCII)
_TEMPORARY: Final = re.compile(r"\..*\.tmp-([0-9]{1,10})", re.ASCII | re.DOTALL)


def file_name(id: str, suffix: str, *, hashed_ends: tuple[str, ...] = ()) -> str:
    """The name of the file for an id: one component, never empty, ``.`` or ``..``.

    An id of up to 180 letters, digits, ``.``, ``_`` and ``-``, not led by ``.`` or ``-``, is its
    own name.  Any other one has each other byte as ``%XX``, is cut to fit, and ends with ``-`` and
    the 16 hex digits of its hash.

    No two ids share a name.  Two plain names are the ids themselves.  Two hashed names differ in
    the hash, cut or not (2**-64 aside).  And a plain name is never a hashed one: every hashed name
    ends with ``-`` and 16 hex digits, and an id that looks so of itself (because it copies
    a hashed name, say) is not plain: it gets a hash of its own.  Letters differ by case, as the
    file systems of Linux have it.

    Args:
        id: Any string, lone surrogates included.
        suffix: What follows, such as ``_rgb.png``; it is ours, and has no slash and no NUL.
        hashed_ends: An id with one of these ends is not plain either.  For callers whose suffix
            could be taken for a part of the id: ``x`` + ``_left_rgb`` and ``x_left`` + ``_rgb``.
    """
    assert not {"/", "\0"} & set(suffix), suffix
    if _PLAIN.fullmatch(id) and not _HASHED.search(id) and not id.endswith(hashed_ends):
        return id + suffix
    raw = id.encode("utf-8", "surrogatepass")
    tail = "-" + hashlib.blake2s(raw, digest_size=HASH_BYTES).hexdigest()
    room = ID_BYTES_MAX - len(tail)
    # One byte becomes one character or more, so what lies behind `room` bytes is cut anyway.
    pieces = [_ENCODED[byte] for byte in raw[:room]] or ["%"]
    if pieces[0] in {".", "-"}:
        pieces[0] = f"%{raw[0]:02X}"
    while sum(map(len, pieces)) > room:
        pieces.pop()
    return "".join(pieces) + tail + suffix


def open_folder(path: str, *, name: str | None = None) -> int:
    """The descriptor of the folder, or of the one called `name` in it, which is made.

    Raises:
        OSError: There is none, or `name` is a file or a symlink.
    """
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
    outer = os.open(path, flags)
    if name is None:
        return outer
    try:
        _check_component(name)
        with suppress(FileExistsError):
            os.mkdir(name, 0o755, dir_fd=outer)
        return os.open(name, flags | os.O_NOFOLLOW, dir_fd=outer)
    finally:
        os.close(outer)


def open_beneath(dir_fd: int, name: str, flags: int, *, mode: int = 0o644) -> int:
    """Open a regular file in the folder itself: no path, no symlink, no pipe.

    Raises:
        ValueError: The name is none, or is a path.
        OSError: As `os.open`; ELOOP for a symlink.
    """
    _check_component(name)
    # O_NONBLOCK: the open of a named pipe must not wait for its reader; files do not mind.
    extra = os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
    descriptor = os.open(name, flags | extra, mode, dir_fd=dir_fd)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise ValueError(f"{name!r} is not a regular file")
    return descriptor


def write_all(descriptor: int, content: bytes) -> None:
    """Write every byte, however many calls it takes.

    Raises:
        OSError: As `os.write`; some of the bytes may have been written.
    """
    rest = memoryview(content)
    while rest:
        rest = rest[os.write(descriptor, rest) :]


def write_atomically(dir_fd: int, name: str, content: bytes) -> None:
    """Put a file in place: whole under its name, or not at all; an older one is replaced.

    A symlink of that name is replaced, not followed.  The bytes are in the file, but not
    necessarily on the disk, when this returns.

    Raises:
        OSError: It cannot be written; nothing is left behind.
    """
    replace_atomically(dir_fd, name, lambda descriptor: write_all(descriptor, content))


def replace_atomically(dir_fd: int, name: str, fill: Callable[[int], None]) -> None:
    """As `write_atomically`, for a content that `fill` writes to the descriptor it is given."""
    _check_component(name)
    temporary = temporary_name(name)
    descriptor = open_beneath(dir_fd, temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
    try:
        try:
            fill(descriptor)
        finally:
            os.close(descriptor)
        os.replace(temporary, name, src_dir_fd=dir_fd, dst_dir_fd=dir_fd)
    except BaseException:
        with suppress(FileNotFoundError):
            os.unlink(temporary, dir_fd=dir_fd)
        raise


def temporary_name(name: str) -> str:
    """What the file is called while it is being written by this process."""
    return f".{name[:TEMPORARY_NAME_BYTES]}.tmp-{os.getpid()}"


def remove_leftovers(dir_fd: int) -> int:
    """Remove the temporary files of processes that are no more; return how many.

    Those of processes that live are theirs: other loggers write to the same folder.  Call this
    before this process writes, for a file that bears its number is an earlier one's.
    """
    dead = []
    with os.scandir(dir_fd) as entries:
        for entry in entries:
            match = _TEMPORARY.fullmatch(entry.name)
            if match and not _is_other_process(int(match[1])):
                dead.append(entry.name)
    removed = 0
    for name in dead:
        try:
            os.unlink(name, dir_fd=dir_fd)
        except (FileNotFoundError, IsADirectoryError):
            continue  # Another logger was faster; or it is none of ours.
        removed += 1
    return removed


def _is_other_process(process_id: int) -> bool:
    if process_id == os.getpid():
        return False
    try:
        os.kill(process_id, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return process_id != 0


def _check_component(name: str) -> None:
    if name in {"", ".", ".."} or "/" in name or "\0" in name:
        raise ValueError(f"{name!r} is not a plain file name")
    if len(os.fsencode(name)) > NAME_BYTES_MAX:
        raise ValueError(f"{name!r} is longer than {NAME_BYTES_MAX} bytes")
