"""The named points in the life of a logger, at which a test may look at it or kill it."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, Final

from millpond_loggers.process.logger_setup import METHODS

POINTS: Final = (
    "after_ready",
    "before_log",
    "after_log",
    "before_flush",
    "after_flush",
    "before_release",
    "during_release",
    "after_release",
    "before_end",
    "after_end",
)
"""In the order in which they come; a logger without ``flush`` or ``end`` has not those two."""

REPEATED: Final = tuple(point for point in POINTS if "ready" not in point and "end" not in point)
"""Those that come again with each result or batch."""

Watch = Callable[[str], None]
"""Is called with the name of a point when it is reached."""


def watch_logger(logger: Any, watch: Watch) -> Any:
    """What the runner needs of a logger, with a point before and after each method.

    Those around ``log_many`` are ``before_log`` and ``after_log`` too.
    """
    methods = {
        name: _watched(getattr(logger, name), name.removesuffix("_many"), watch)
        for name in METHODS
        if callable(getattr(logger, name, None))
    }
    return SimpleNamespace(**methods, keeps_slots=getattr(logger, "keeps_slots", False))


def _watched(method: Callable[..., Any], name: str, watch: Watch) -> Callable[..., Any]:
    def watched(*arguments: Any) -> Any:
        watch(f"before_{name}")
        returned = method(*arguments)
        watch(f"after_{name}")
        return returned

    return watched


class WatchedWords:
    """The words of a logger, with a point before each release of a batch.

    Args:
        words: Those in shared memory.
        watch: Is called with the points.
        on_release: Is called with the slot after each release.
    """

    def __init__(
        self, words: memoryview[int], watch: Watch, on_release: Callable[[int], None]
    ) -> None:
        self._words = words
        self._watch = watch
        self._on_release = on_release
        self._is_midway = False  # Something of this batch was released.

    def __len__(self) -> int:
        """How many words there are."""
        return len(self._words)

    def __setitem__(self, place: int, word: int) -> None:
        """Write one; all but the last are releases."""
        if place == len(self._words) - 1:  # What is called now comes after the batch.
            self._words[place] = word
            self._is_midway = False
            return
        self._watch("during_release" if self._is_midway else "before_release")
        self._words[place] = word
        self._is_midway = True
        self._on_release(place)
