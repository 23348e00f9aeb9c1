"""Dead results that were taken back: how they get into the spill that they are replayed from."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from millpond.core.deliveries import Result
from millpond.core.layout import Layout
from millpond.core.wire import Kind, pack
from millpond.dead_arrays import load_letter
from millpond.dead_list import DeadLine, read_lines
from millpond.spill import RECOVERED_TOKEN, SpillError, SpillStore


class TakenBack(NamedTuple):
    """A dead result that is to be delivered again, and where its arrays are kept."""

    line: DeadLine
    arrays: Path

    @property
    def key(self) -> tuple[int, int]:
        """Which result it is: (renderer, sequence)."""
        return self.line.renderer, self.line.sequence


def taken_back(run: Path) -> Iterator[TakenBack]:
    """The results that were taken back and are not in a spill yet.

    Args:
        run: The run folder.

    Raises:
        OSError: The list of the dead is there and cannot be read.
    """
    last: dict[tuple[str, int, int], tuple[DeadLine, bool]] = {}
    for line in read_lines(run):
        key = (line.logger, line.renderer, line.sequence)
        if isinstance(line, DeadLine):
            last[key] = line, False
        elif key in last:
            last[key] = last[key][0], True
    for line, is_back in last.values():
        if is_back and line.arrays is not None and (run / line.arrays).is_file():
            yield TakenBack(line, run / line.arrays)


def put_into_spill(one: TakenBack, store: SpillStore, layout: Layout) -> str:
    """Write a result that was taken back behind all that was recovered.

    The file with its arrays stays: the caller removes it when the ledger knows of the result.

    Returns:
        Why it cannot be delivered again; empty when it can.
    """
    try:
        job, arrays = load_letter(one.arrays)
    except (OSError, ValueError) as error:
        return str(error)
    payload = bytearray(layout.payload_bytes)
    for channel, offset in zip(layout.channels, layout.offsets, strict=True):
        array = arrays.get(channel.name)
        if array is None or array.shape != channel.shape or array.dtype != channel.dtype:
            return f"its arrays do not fit the channel {channel}"
        content = np.ascontiguousarray(array).tobytes()
        payload[offset : offset + len(content)] = content
    renderer, sequence = one.key
    frame = pack(Kind.PUBLISH, job, renderer=renderer, sequence=sequence)
    result = Result(0, 0, renderer, sequence, one.line.id, frame)
    try:
        store.write(RECOVERED_TOKEN, [result], lambda _: memoryview(payload), lambda: False)
    except SpillError as error:
        return str(error)
    return ""
