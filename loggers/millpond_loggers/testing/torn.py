"""Files as a crash leaves them: with half a record at their end."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path


def torn_copies(before: Path, after: Path, into: Path) -> Iterator[tuple[str, bool, Path]]:
    """Copies of a folder with one file torn, where one record was written last.

    A file that was put in place whole cannot be torn by the death of a process, so only those are
    that have grown: what they were before is what they begin with.

    Args:
        before: A copy of the folder as it was before that record.
        after: A copy of it as it was then.
        into: Where the copies are made.

    Yields:
        What was done; whether the record may be gone; and the folder.
    """
    for path in sorted(after.rglob("*")):
        name = path.relative_to(after)
        record = _growth(before / name, path)
        lengths = {1, len(record) // 2, len(record) - 1} - {0} if record else set()
        for length in sorted(lengths):
            cut = _copy(after, into / f"cut-{length}-{name.name}") / name
            with cut.open("r+b") as file:
                file.truncate(path.stat().st_size - length)
            yield (
                f"{name} without its last {length} bytes",
                True,
                into / f"cut-{length}-{name.name}",
            )
            more = _copy(after, into / f"more-{length}-{name.name}") / name
            with more.open("ab") as file:
                file.write(record[:length])
            yield f"{name} with {length} bytes more", False, into / f"more-{length}-{name.name}"


def _growth(old: Path, new: Path) -> bytes:
    """What was appended to a file; nothing if it is another one, or has not grown."""
    if new.is_symlink() or not new.is_file() or not old.is_file():
        return b""
    before, after = old.read_bytes(), new.read_bytes()
    return after[len(before) :] if before and after.startswith(before) else b""


def _copy(folder: Path, to: Path) -> Path:
    shutil.copytree(folder, to, symlinks=True)
    return to
