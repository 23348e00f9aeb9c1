"""What tells one run of a tracking service from all others, over all restarts of its logger."""

from __future__ import annotations

import os
import re
import uuid
from typing import Final

from millpond_loggers.files.names import open_beneath, write_atomically

_IDENTITY: Final = re.compile(rb"[0-9a-f]{32}")


def run_identity(folder: int, name: str) -> str:
    """32 hex digits, chosen at the first start and kept in the folder, in ``.<name>.run``.

    Args:
        folder: The descriptor of the folder.
        name: The logger's, the number of its instance included.

    Raises:
        OSError: It cannot be read or written.
        ValueError: The file holds something else.
    """
    file_name = f".{name}.run"
    try:
        file = open_beneath(folder, file_name, os.O_RDONLY)
    except FileNotFoundError:
        identity = uuid.uuid4().hex
        write_atomically(folder, file_name, identity.encode())
        return identity
    with os.fdopen(file, "rb") as content:
        kept = content.read(100)
    if not _IDENTITY.fullmatch(kept):
        raise ValueError(
            f"{file_name} does not hold the id of a run: remove it, and a new run begins"
        )
    return kept.decode()
