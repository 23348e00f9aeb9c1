"""The life of a logger, as a table.  Looking up a pair that is missing is the check.

Everything that changes the state of a logger goes through `step`, in `supervisor.py`; the picture
in ARCHITECTURE.md is drawn from this table, and a test keeps the two in step.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import Final


class State(Enum):
    """Where a logger is in its life."""

    DOWN = "down"  # Not started yet.
    STARTING = "starting"  # Its process runs, and has not said that it is ready.
    RUNNING = "running"  # Ready: it gets jobs.
    BACKOFF = "backoff"  # It ended; it is started again after a delay.
    FATAL = "fatal"  # It ended too often; it is tried again after a long delay.
    STOPPING = "stopping"  # Its pipe was closed; it finishes and ends.
    STOPPED = "stopped"  # It ended and stays so.


class Input(Enum):
    """What moves it on."""

    SPAWN = "spawn"
    READY = "ready"
    EXIT = "exit"  # Its process was reaped, and it may be started again.
    GIVE_UP = "give up"  # Its process was reaped, and it ends too often.
    STOP = "stop"


TRANSITIONS: Final[Mapping[State, Mapping[Input, State]]] = {
    State.DOWN: {Input.SPAWN: State.STARTING, Input.STOP: State.STOPPED},
    State.STARTING: {
        Input.READY: State.RUNNING,
        Input.EXIT: State.BACKOFF,
        Input.GIVE_UP: State.FATAL,
        Input.STOP: State.STOPPING,
    },
    State.RUNNING: {
        Input.EXIT: State.BACKOFF,
        Input.GIVE_UP: State.FATAL,
        Input.STOP: State.STOPPING,
    },
    State.BACKOFF: {Input.SPAWN: State.STARTING, Input.STOP: State.STOPPED},
    State.FATAL: {Input.SPAWN: State.STARTING, Input.STOP: State.STOPPED},
    State.STOPPING: {Input.EXIT: State.STOPPED},
    State.STOPPED: {},
}

HAS_PROCESS: Final = frozenset({State.STARTING, State.RUNNING, State.STOPPING})


def step(state: State, stimulus: Input) -> State:
    """The next state.

    Raises:
        KeyError: This cannot happen in this state; a bug of ours.
    """
    return TRANSITIONS[state][stimulus]
