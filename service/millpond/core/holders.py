"""Who holds the slots, in words: the answer to a renderer that waits."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from millpond.core.lifecycle import State
from millpond.core.logger_record import LoggerRecord
from millpond.core.renderer_table import Renderer

NAMED_MAX: Final = 8  # Who holds less is hardly the culprit, and the answer must fit a frame.
ID_SHOWN_MAX: Final = 80


def describe_holders(
    loggers: Iterable[LoggerRecord],
    renderers: Iterable[Renderer],
    *,
    on_disk: int = 0,
    since_s: Sequence[float],
    now_s: float,
) -> str:
    """Name the holders, the one with most slots first.

    Args:
        loggers: All of them.
        renderers: All of them.
        on_disk: Slots whose content is on its way from or to the disk.
        since_s: When each slot was published last, in seconds on a clock that never goes back.
        now_s: The present moment on it.
    """
    slot_count = len(since_s)
    parts: list[tuple[int, str]] = []
    for record in loggers:
        deliveries = record.deliveries
        held = [*deliveries.returned, *deliveries.window, *deliveries.waiting()]
        if not held:
            continue
        oldest = held[0]
        age_s = now_s - since_s[oldest.slot]
        who = f"pid {record.pid}" if record.state is State.RUNNING else record.state.value
        if record.is_disk_bad:
            who += ", its disk failed"
        text = (
            f"logger '{record.spec.name}' ({who}), oldest {age_s:.1f} s, result {_short(oldest.id)}"
        )
        parts.append((len(held), text))
    parts += [(r.claimed, f"renderer (pid {r.pid})") for r in renderers if r.claimed]
    if on_disk:
        parts.append((on_disk, "the disk, which writes or reads them"))
    parts.sort(key=lambda part: -part[0])
    named = [f"{count} of {slot_count} held by {text}" for count, text in parts[:NAMED_MAX]]
    if len(parts) > NAMED_MAX:
        named.append(f"and {len(parts) - NAMED_MAX} more")
    return "; ".join(named) or "nobody holds a slot now"


def _short(id: str) -> str:
    return id if len(id) <= ID_SHOWN_MAX else f"{id[:ID_SHOWN_MAX]}..."
