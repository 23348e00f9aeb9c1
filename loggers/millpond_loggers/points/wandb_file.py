"""Reading the run file of Weights & Biases while it is written: which steps are in it.

The file is a log in blocks of 32 KiB, as LevelDB has it.  A record lies in one piece or in
several; each is: CRC-32 of what follows the length u32, bytes u16, kind u8, the bytes.
"""

from __future__ import annotations

import os
import struct
import zlib
from pathlib import Path
from typing import Any, Final

from millpond_loggers.extras import require

BLOCK_BYTES: Final = 32 * 1024
FILE_HEADER: Final = struct.pack("<4sHB", b":W&B", 0xBEE1, 0)
PIECE_HEADER: Final = struct.Struct("<IHB")
WHOLE, FIRST, MIDDLE, LAST = 1, 2, 3, 4
# The last step of a run that is over stands in its last records.
TAIL_BYTES: Final = 128 * BLOCK_BYTES


class WandbFile:
    """Follows one file from its end backwards far enough, then forwards as it grows.

    Args:
        path: The file ``run-<id>.wandb``.

    Attributes:
        last_step: The last step that has been read; -1 before there is one.

    Raises:
        OSError: It cannot be opened.
    """

    def __init__(self, path: Path) -> None:
        proto = require("wandb.proto.wandb_internal_pb2", extra="wandb", what="wandb logger")
        self._parse: Any = proto.Record.FromString
        self._file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        self.last_step = -1
        start = max(0, os.fstat(self._file).st_size - TAIL_BYTES)
        self._place = start - start % BLOCK_BYTES or len(FILE_HEADER)
        # A record whose beginning was not seen is none.
        self._pieces: list[bytes] | None = None

    def read(self) -> int:
        """Read what is new; give the last step.

        Raises:
            OSError: It cannot be read.
            ValueError: It is not such a file.
        """
        content = self._content()
        start = 0
        while (piece := _piece(content, start, self._place + start)) is not None:
            kind, body, start = piece
            if kind in {WHOLE, FIRST}:
                self._pieces = []
            if self._pieces is not None:
                self._pieces.append(body)
                if kind in {WHOLE, LAST}:
                    self._take(b"".join(self._pieces))
                    self._pieces = None
        self._place += start
        return self.last_step

    def close(self) -> None:
        """Close the file."""
        os.close(self._file)

    def _content(self) -> bytes:
        pieces: list[bytes] = []
        size = 0
        while piece := os.pread(self._file, TAIL_BYTES, self._place + size):
            pieces.append(piece)
            size += len(piece)
        if self._place == len(FILE_HEADER) and size:
            header = os.pread(self._file, len(FILE_HEADER), 0)
            if header != FILE_HEADER:
                raise ValueError(f"a run file of wandb begins with {header!r}, not {FILE_HEADER!r}")
        return b"".join(pieces)

    def _take(self, body: bytes) -> None:
        record = self._parse(body)
        if record.WhichOneof("record_type") == "history":
            self.last_step = record.history.step.num


def _piece(content: bytes, start: int, place: int) -> tuple[int, bytes, int] | None:
    """Kind, bytes and end of the piece at `start`, which is at `place` of the file.

    None: it is not whole, not yet or because its writer was killed.
    """
    room = BLOCK_BYTES - place % BLOCK_BYTES
    if room < PIECE_HEADER.size:  # A block ends with zeros where no header fits.
        start += room
    if start + PIECE_HEADER.size > len(content):
        return None
    checksum, size, kind = PIECE_HEADER.unpack_from(content, start)
    end = start + PIECE_HEADER.size + size
    if end > len(content):
        return None
    body = content[start + PIECE_HEADER.size : end]
    is_whole = zlib.crc32(body, zlib.crc32(bytes([kind]))) == checksum
    return (kind, body, end) if is_whole else None
