"""What ``/status`` shows of the pond: the slots, the renderers, the loggers."""

from __future__ import annotations

from typing import Any, Final

from millpond.config.model import Config
from millpond.core.lifecycle import State
from millpond.core.supervisor import Supervisor

# Of several processes, the one that is worst says how their logger is.
WORST_FIRST: Final = (
    State.FATAL,
    State.BACKOFF,
    State.DOWN,
    State.STARTING,
    State.STOPPED,
    State.STOPPING,
    State.RUNNING,
)
# What several processes of a logger have in all.
SUMS: Final = ("restarts", "published", "delivered", "queued", "in_window", "spilled", "dead")


def pond_status(config: Config, supervisor: Supervisor | None) -> dict[str, Any]:
    """The numbers of the supervisor; before the first renderer has come there may be none.

    For every logger: published = delivered + dead + filtered + queued + in_window + spilled.
    """
    if supervisor is None:  # It waits for a renderer that declares the channels.
        slots = {"total": 0, "free": 0}
        return {"state": "waiting", "slots": slots, "renderers": [], "loggers": {}, "results": 0}
    return {
        "state": _state(supervisor),
        "slots": {"total": supervisor.slots.slot_count, "free": supervisor.slots.free_count},
        "renderers": [
            {"pid": member.pid, "claimed": member.claimed, "published": member.published}
            for member in supervisor.renderers.members.values()
        ],
        "loggers": _loggers(config, supervisor),
        "results": supervisor.results_count,
    }


def _state(supervisor: Supervisor) -> str:
    if supervisor.is_stopping:
        return "draining"
    states = {record.state for record in supervisor.loggers}
    if State.FATAL in states:
        return "degraded"
    return "running" if states == {State.RUNNING} else "starting"


def _loggers(config: Config, supervisor: Supervisor) -> dict[str, Any]:
    """By logger; with several processes it has a row for each of them."""
    shown: dict[str, Any] = {}
    for process, record in zip(config.processes, supervisor.loggers, strict=True):
        row = record.statistics()
        if process.instance == 1:
            shown[process.logger.name] = whole = {**row, "filtered": 0}
            if process.logger.instances > 1:
                whole["processes"], whole["pid"] = [row], None
        else:
            whole = shown[process.logger.name]
            whole["processes"].append(row)
            whole.update({key: whole[key] + row[key] for key in SUMS})
            whole["state"] = min(whole["state"], row["state"], key=_badness)
            whole["is_suspended"] |= row["is_suspended"]
            whole["last_error"] = whole["last_error"] or row["last_error"]
            whole["ended_badly"] |= row["ended_badly"]
    for logger, count in zip(config.loggers, supervisor.routes.filtered, strict=True):
        shown[logger.name]["filtered"] = count
        shown[logger.name]["published"] += count
    return shown


def _badness(state: str) -> int:
    return WORST_FIRST.index(State(state))
