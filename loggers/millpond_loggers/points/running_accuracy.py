"""How many of the results so far are right: over all, and for each model, environment and the like.

What is right is a channel of one truth value, such as ``is_correct``.  The counts can be kept and
taken up again, so that a restart does not begin at zero.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

Counts = dict[str, list[int]]
"""Tag to how many results were counted, and how many of those were right."""

PREFIX: Final = "accuracy"
TAG_CHARACTERS_MAX: Final = 80
# What TensorBoard, MLflow and W&B all take in a name; a slash would begin a group of its own.
_REFUSED: Final = re.compile(r"[^\w. -]")


class RunningAccuracy:
    """Counts, and says what share was right so far.

    Tags are ``accuracy/<channel>`` and ``accuracy/<channel>/<field>/<value>``.

    Args:
        group_count_max: So many values of a field get a tag; results with others count only in
            the whole.  A bound against renderers that never send the same value twice.
        counts: Where it goes on; not changed.
    """

    def __init__(self, group_count_max: int, counts: Mapping[str, list[int]] | None = None) -> None:
        self.group_count_max = group_count_max
        self.counts: Counts = {tag: list(pair) for tag, pair in (counts or {}).items()}
        # Of each group, how many values have a tag.
        self._sizes: dict[str, int] = {}
        for tag in self.counts:
            if tag.count("/") > 1:
                self._grow(tag)

    def copy(self) -> RunningAccuracy:
        """One that counts on its own from here."""
        return RunningAccuracy(self.group_count_max, self.counts)

    def add(self, flags: Mapping[str, bool], groups: Mapping[str, str]) -> dict[str, float]:
        """Count one result.

        Args:
            flags: Channel to whether it is right.
            groups: Field to the value of this result, as `group_name` has it.

        Returns:
            Tag to the share that is right now, from 0 to 1, of every tag that this changed.
        """
        shares = {}
        for channel, is_right in flags.items():
            tag = f"{PREFIX}/{channel}"
            shares[tag] = self._count(tag, is_right)
            for field, value in groups.items():
                group_tag = f"{tag}/{field}/{value}"
                if group_tag in self.counts or self._has_room(group_tag):
                    shares[group_tag] = self._count(group_tag, is_right)
        return shares

    def _count(self, tag: str, is_right: bool) -> float:
        pair = self.counts.setdefault(tag, [0, 0])
        pair[0] += 1
        pair[1] += is_right
        return pair[1] / pair[0]

    def _has_room(self, tag: str) -> bool:
        """Take a place for a new tag if there is one."""
        if self._sizes.get(tag.rpartition("/")[0], 0) >= self.group_count_max:
            return False
        self._grow(tag)
        return True

    def _grow(self, tag: str) -> None:
        group = tag.rpartition("/")[0]
        self._sizes[group] = self._sizes.get(group, 0) + 1


def group_name(value: Any) -> str:
    """A value as a part of a tag: letters, digits, ``_``, ``.``, ``-`` and blanks, not too long."""
    name = _REFUSED.sub("_", str(value))[:TAG_CHARACTERS_MAX].strip()
    return name if name.strip(".") else "_"
