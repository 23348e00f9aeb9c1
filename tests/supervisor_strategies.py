"""Any loggers: what they are, what they want, and what ends them."""

from __future__ import annotations

from hypothesis import strategies as st
from supervisor_books import HANG_S, Key
from supervisor_shell import DELAY_S_MAX
from supervisor_teams import TeamSpec
from supervisor_world import START_S

from millpond.core.logger_record import LoggerSpec
from millpond.core.restart import RestartPolicy

# What a team wants; it does not change its mind.


def everything(key: Key) -> bool:
    return True


def every_second(key: Key) -> bool:
    return key[1] % 2 == 0


def every_third(key: Key) -> bool:
    return key[1] % 3 == 0


def of_every_second_renderer(key: Key) -> bool:
    return key[0] % 2 == 0


def nothing(key: Key) -> bool:
    return False


SPECS = st.builds(
    LoggerSpec,
    name=st.just("any"),
    window_max=st.integers(1, 3),
    start_s=st.just(START_S),
    hang_s=st.just(HANG_S),
    when_full=st.sampled_from(["block", "spill", "drop"]),
    on_crash=st.sampled_from(["redeliver", "redeliver", "drop"]),
    restart=st.builds(
        RestartPolicy,
        # Often many, for a result is blamed only by a logger that is started again.
        intensity=st.sampled_from([0, 1, 3, 20]),
        delay_s_max=st.just(DELAY_S_MAX),
    ),
)

TEAMS = st.builds(
    TeamSpec,
    SPECS,
    recovered=st.lists(st.sampled_from([0, 0, 1, 5]), min_size=1, max_size=3),
    wants=st.sampled_from(
        [
            *[None] * 5,  # Nobody asks.
            everything,
            every_second,
            every_third,
            of_every_second_renderer,
            nothing,
        ]
    ),
    keeps_slots=st.sampled_from([False, False, True]),
)

# What becomes of loggers that work on results of such sequences.
POISON = st.dictionaries(
    st.integers(0, 3), st.sampled_from(["crash", "crash", "raise", "disk"]), max_size=2
)
