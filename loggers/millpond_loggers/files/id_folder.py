"""A folder with files for each id, spread over subfolders if there will be very many."""

from __future__ import annotations

import hashlib
import os
from contextlib import suppress
from typing import Final

from millpond_loggers.files.names import open_folder, remove_leftovers, write_atomically

# 4,096 subfolders: ten million files are some 2,400 in each.
DIGITS_MAX: Final = 3


class IdFolder:
    """Writes the files; each is whole under its name, or not there.

    Args:
        root_dir: The folder that it is in, which exists.
        name: What it is called; it is made.
        digits: How long the names of the subfolders are, see `subfolder`; 0: there are none.

    Raises:
        OSError: There can be no such folder, or it is a symlink.
    """

    def __init__(self, root_dir: str, name: str, *, digits: int = 0) -> None:
        self._digits = digits
        self._seen: set[str] = set()
        self._folder = open_folder(root_dir, name=name)
        remove_leftovers(self._folder)

    def write(self, id: str, name: str, content: bytes) -> None:
        """Put a file of an id in place.

        Raises:
            OSError: It cannot be written; nothing is left behind.
        """
        if not self._digits:
            write_atomically(self._folder, name, content)
            return
        inner = self._open(subfolder(id, self._digits))
        try:
            write_atomically(inner, name, content)
        finally:
            os.close(inner)

    def close(self) -> None:
        """Close the descriptor.  The second time does nothing."""
        if self._folder >= 0:
            os.close(self._folder)
            self._folder = -1

    def _open(self, name: str) -> int:
        if name not in self._seen:
            with suppress(FileExistsError):
                os.mkdir(name, 0o755, dir_fd=self._folder)
        flags = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW
        inner = os.open(name, flags, dir_fd=self._folder)
        if name not in self._seen:
            # Now and not at the start, when all of many million files would be looked at.  What
            # a dead process left half written comes again, and its id leads here.
            remove_leftovers(inner)
            self._seen.add(name)
        return inner


def subfolder(id: str, digits: int) -> str:
    """The subfolder of an id: so many hex digits of its hash, for ids often begin alike."""
    raw = id.encode("utf-8", "surrogatepass")
    return hashlib.blake2s(raw, digest_size=DIGITS_MAX).hexdigest()[:digits]
