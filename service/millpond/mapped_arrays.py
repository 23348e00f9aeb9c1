"""The segment as numpy arrays, for those who write it and those who look at all of it."""

from __future__ import annotations

import mmap
from typing import Any

import numpy as np
from numpy.typing import NDArray

from millpond.core.layout import Layout


def map_arrays(layout: Layout, segment_fd: int, *, writable: bool) -> dict[str, NDArray[Any]]:
    """Map the segment: for each channel an array whose first axis is the slot.

    Args:
        layout: Where the channels lie.
        segment_fd: The segment; may be closed afterwards.
        writable: False maps it read-only: a write is an error, not damage.

    Returns:
        name: (slots, *shape), the channel's dtype; every array is a view of the shared memory.
    """
    protection = mmap.PROT_READ | (mmap.PROT_WRITE if writable else 0)
    memory = mmap.mmap(segment_fd, layout.segment_bytes, mmap.MAP_SHARED, protection)
    arrays = {}
    for channel, offset in zip(layout.channels, layout.offsets, strict=True):
        inner = np.empty(channel.shape, channel.dtype).strides
        arrays[channel.name] = np.ndarray(
            (layout.slot_count, *channel.shape),
            channel.dtype,
            buffer=memory,
            offset=offset,
            strides=(layout.slot_bytes, *inner),
        )
    return arrays
