"""What a process that dies leaves of its open files, done to one that lives on."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path


def abandon_files(folder: Path) -> int:
    """Put ``/dev/null`` in the place of every file and folder that is open in this folder.

    Locks on them end.  What waits in a buffer of the program to be written is lost, as it would
    be; and what it writes or closes later does no harm.

    Returns:
        How many there were.
    """
    root = os.fspath(folder.resolve())
    nothing = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    count = 0
    try:
        for name in os.listdir("/proc/self/fd"):  # noqa: PTH208  Names are all that is needed.
            # Some may be closed meanwhile: the one of the listing is.
            with suppress(OSError):
                path = os.readlink(f"/proc/self/fd/{name}")  # noqa: PTH115
                if path == root or path.startswith(root + os.sep):
                    os.dup2(nothing, int(name), inheritable=False)
                    count += 1
    finally:
        os.close(nothing)
    return count
