"""Which results are recorded, by their keys: the latest ones, for only those can come again."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice
from typing import Final

Key = tuple[int, int]
"""The renderer and the sequence of a result: `ResultBuffer.key_of`."""

# Results that come again were in the pipe when the logger or the daemon died: 1,024 at most, and
# as many from the daemon's disk before they were settled there.  Remembered are so many, or twice.
KEYS_KEPT: Final = 4096


def remember(known: dict[Key, None], keys: Iterable[Key], *, kept: int = KEYS_KEPT) -> None:
    """Take note of keys, and forget the oldest once there are more than twice as many as are kept.

    Args:
        known: All that are known, the latest last; it is changed.
        keys: Those that are recorded now, in order.
        kept: So many of the latest are always known.
    """
    known.update(dict.fromkeys(keys))
    if len(known) > 2 * kept:
        for key in list(islice(known, len(known) - kept)):
            del known[key]
