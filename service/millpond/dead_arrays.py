"""The arrays of dead results, kept as ``dead/<logger>/<id>.npz`` up to a limit.

A file is there whole or not at all.  Ids and names of loggers never become paths: they are
encoded, and opened beneath the run folder without following symlinks.
"""

from __future__ import annotations

import hashlib
import os
import zipfile
import zlib
from contextlib import suppress
from pathlib import Path
from typing import IO, Any, Final

from millpond.core.layout import Layout
from millpond.errors import MillpondError

DEAD_FOLDER_NAME: Final = "dead"
ARRAYS_SUFFIX: Final = ".npz"
# What is being written is called so, with a dot before it; what is left of one is removed.
PART_SUFFIX: Final = ".part"
# With the numbers and the suffixes behind it, it stays below the 255 bytes of a name.
NAME_BYTES_MAX: Final = 180
JOB_ENTRY: Final = "job"
# No channel can be called so: their names begin with a letter.
OTHER_JOB_ENTRY: Final = "0job"
_ENTRY_SUFFIX: Final = ".npy"  # As `numpy.load` wants it.

_SAFE: Final = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-")
_FOLDER_FLAGS: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC


class ArraysFull(MillpondError):
    """The limit leaves no room for these arrays.  Nothing was written."""


class DeadArrays:
    """The kept arrays of one run folder.

    Args:
        folder: The run folder.
        layout: Where the channels lie in a slot.
        bytes_max: At most so many bytes are in all files.
    """

    def __init__(self, folder: Path, layout: Layout, *, bytes_max: int) -> None:
        self._folder = folder
        self._layout = layout
        self._bytes_max = bytes_max
        self.bytes_used = _look_through(folder / DEAD_FOLDER_NAME)

    def save(
        self, logger: str, id: str, key: tuple[int, int], payload: bytes | memoryview, body: bytes
    ) -> str:
        """Keep the arrays of a result; they are on the disk when this returns.

        Args:
            logger: Which logger did not get it.
            id: The renderer's name for it.
            key: (renderer, sequence); in the file name when another file has the id.
            payload: The bytes of its slot.
            body: Its job, JSON.

        Returns:
            The path, relative to the run folder.

        Raises:
            ArraysFull: The limit does not allow it.
            ValueError: The payload is shorter than the channels.
            OSError: The disk refused; nothing is left.
        """
        if len(payload) < self._layout.payload_bytes:
            raise ValueError(f"{len(payload)} bytes are too few for the channels")
        self._check_room(self._layout.payload_bytes)
        inner = safe_name(logger)
        folder_fd = _open_folder(self._folder, DEAD_FOLDER_NAME, inner)
        try:
            name = safe_name(id) + ARRAYS_SUFFIX
            if _size_of(folder_fd, name):
                name = f"{safe_name(id)}-{key[0]}-{key[1]}{ARRAYS_SUFFIX}"
            self._put(folder_fd, name, payload, body)
        finally:
            os.close(folder_fd)
        return f"{DEAD_FOLDER_NAME}/{inner}/{name}"

    def _put(self, folder_fd: int, name: str, payload: bytes | memoryview, body: bytes) -> None:
        part = f".{name}{PART_SUFFIX}"
        with suppress(FileNotFoundError):
            os.unlink(part, dir_fd=folder_fd)
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
        with os.fdopen(os.open(part, flags, 0o644, dir_fd=folder_fd), "w+b") as file:
            try:
                _write_arrays(file, self._layout, payload, body)
                file.flush()
                os.fsync(file.fileno())
                size_bytes = os.fstat(file.fileno()).st_size
                older_bytes = _size_of(folder_fd, name)
                self._check_room(size_bytes - older_bytes)
                os.replace(part, name, src_dir_fd=folder_fd, dst_dir_fd=folder_fd)
            except BaseException:
                with suppress(FileNotFoundError):
                    os.unlink(part, dir_fd=folder_fd)
                raise
        self.bytes_used += size_bytes - older_bytes
        os.fsync(folder_fd)

    def _check_room(self, more_bytes: int) -> None:
        if self.bytes_used + more_bytes > self._bytes_max:
            raise ArraysFull(
                f"{DEAD_FOLDER_NAME}/ is full: {self.bytes_used} of {self._bytes_max} bytes are "
                f"used, {more_bytes} more are wanted"
            )


def load_letter(path: Path) -> tuple[bytes, dict[str, Any]]:
    """Read what was kept of a dead result.

    Args:
        path: A file that `DeadArrays` wrote.

    Returns:
        Its job, JSON, and its arrays: for each channel one of the channel's shape and dtype.

    Raises:
        OSError: It cannot be read.
        ValueError: It is no such file.
    """
    import numpy as np  # noqa: PLC0415 - Most daemons never need it.

    arrays = {}
    try:
        with zipfile.ZipFile(path) as archive:
            for name in archive.namelist():
                with archive.open(name) as entry:
                    array = np.lib.format.read_array(entry, allow_pickle=False)
                arrays[name.removesuffix(_ENTRY_SUFFIX)] = array
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
        raise ValueError(f"{path} has no arrays of a dead result: {error}") from error
    job = arrays.pop(OTHER_JOB_ENTRY if OTHER_JOB_ENTRY in arrays else JOB_ENTRY, None)
    if job is None:
        raise ValueError(f"{path} has no arrays of a dead result: there is no job")
    return job.tobytes(), arrays


def safe_name(text: str) -> str:
    """The text as a file name: what is no letter, digit, ``.``, ``_`` or ``-`` is ``%XX``.

    Never empty, hidden, or taken for an option; of at most 180 bytes.  A longer one is cut, and
    ends with ``-`` and 8 hex digits of the hash of the text.
    """
    raw = text.encode(errors="surrogatepass")
    name = "".join(chr(byte) if byte in _SAFE else f"%{byte:02X}" for byte in raw) or "%"
    if name[0] in ".-":
        name = f"%{raw[0]:02X}{name[1:]}"
    if len(name) > NAME_BYTES_MAX:
        tail = "-" + hashlib.blake2s(raw, digest_size=4).hexdigest()
        name = name[: NAME_BYTES_MAX - len(tail)] + tail
    return name


def _write_arrays(
    file: IO[bytes], layout: Layout, payload: bytes | memoryview, body: bytes
) -> None:
    """Write what `numpy.load` reads: `numpy.savez` itself refuses channels of some names."""
    import numpy as np  # noqa: PLC0415 - Most daemons never need it.

    names = {channel.name for channel in layout.channels}
    job_entry = OTHER_JOB_ENTRY if JOB_ENTRY in names else JOB_ENTRY
    arrays: dict[str, Any] = {job_entry: np.frombuffer(body, np.uint8)}
    for channel, offset in zip(layout.channels, layout.offsets, strict=True):
        end = offset + channel.size_bytes
        inner = np.frombuffer(memoryview(payload)[offset:end], channel.dtype)
        arrays[channel.name] = inner.reshape(channel.shape)
    with zipfile.ZipFile(file, "w") as archive:
        for name, array in arrays.items():
            with archive.open(name + _ENTRY_SUFFIX, "w", force_zip64=True) as entry:
                np.lib.format.write_array(entry, array, allow_pickle=False)


def _open_folder(folder: Path, *names: str) -> int:
    """The descriptor of a folder beneath another, made if need be; no symlink is followed."""
    descriptor = os.open(folder, _FOLDER_FLAGS)
    for name in names:
        outer = descriptor
        try:
            with suppress(FileExistsError):
                os.mkdir(name, 0o755, dir_fd=outer)
                os.fsync(outer)
            descriptor = os.open(name, _FOLDER_FLAGS | os.O_NOFOLLOW, dir_fd=outer)
        finally:
            os.close(outer)
    return descriptor


def _size_of(folder_fd: int, name: str) -> int:
    """Bytes of what has this name; 0 when nothing has."""
    try:
        return os.stat(name, dir_fd=folder_fd, follow_symlinks=False).st_size
    except FileNotFoundError:
        return 0


def _look_through(folder: Path) -> int:
    """Remove what an earlier daemon did not finish, and count the bytes of the rest."""
    size_bytes = 0
    with suppress(OSError):
        for inner in folder.iterdir():
            if not inner.is_dir() or inner.is_symlink():
                continue
            for path in inner.iterdir():
                if path.name.startswith(".") and path.name.endswith(PART_SUFFIX):
                    path.unlink()
                elif path.name.endswith(ARRAYS_SUFFIX):
                    size_bytes += path.lstat().st_size
    return size_bytes
