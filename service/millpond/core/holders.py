"""Who holds the slots, in words: the answer to a renderer that waits."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from millpond.core.lifecycle import State
from millpond.core.logger_record import LoggerRecord
from millpond.core.renderer_table import Renderer


def describe_holders(
    loggers: Iterable[LoggerRecord],
    renderers: Iterable[Renderer],
    *,
    since_s: Sequence[float],
    now_s: float,
) -> str:
    """Name the holders, the one with most slots first.

    Args:
        loggers: All of them.
        renderers: All of them.
        since_s: When each slot was published last, in seconds on a clock that never goes back.
        now_s: The present moment on it.
    """
    slot_count = len(since_s)
    parts: list[tuple[int, str]] = []
    for record in loggers:
        waiting = [*record.deliveries.window[:1], *list(record.deliveries.queue)[:1]]
        if not waiting:
            continue
        count = len(record.deliveries.window) + len(record.deliveries.queue)
        oldest = waiting[0]
        age_s = now_s - since_s[oldest.slot]
        who = f"pid {record.pid}" if record.state is State.RUNNING else record.state.value
        parts.append(
            (
                count,
                f"{count} of {slot_count} held by logger '{record.spec.name}' ({who}), "
                f"oldest {age_s:.1f} s, result {oldest.id}",
            )
        )
    for renderer in renderers:
        count = renderer.claimed
        if count:
            parts.append((count, f"{count} of {slot_count} held by renderer (pid {renderer.pid})"))
    parts.sort(key=lambda part: -part[0])
    return "; ".join(text for _, text in parts) or "nobody holds a slot now"
