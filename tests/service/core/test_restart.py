"""A logger that ends is started again: soon, then less soon, and not for ever."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from millpond.core.restart import JITTER, START_TRIES_MAX, RestartHistory, RestartPolicy


def exits(history: RestartHistory, times_s, *, was_ready: bool = True) -> list[float | None]:
    return [
        history.record_exit(now_s, ready_since_s=now_s - 0.01 if was_ready else None, chance=0.5)
        for now_s in times_s
    ]


def test_the_delay_doubles_up_to_its_limit() -> None:
    history = RestartHistory(RestartPolicy(intensity=99, delay_s_max=1.0))
    assert exits(history, range(6)) == pytest.approx([0.1, 0.2, 0.4, 0.8, 1.0, 1.0])


def test_more_exits_than_the_intensity_in_one_period_end_it() -> None:
    history = RestartHistory(RestartPolicy(intensity=5, period_s=60))
    delays = exits(history, range(6))
    assert None not in delays[:5]
    assert delays[5] is None


def test_exits_that_are_a_period_old_are_forgotten() -> None:
    history = RestartHistory(RestartPolicy(intensity=2, period_s=60))
    assert None not in exits(history, [0, 30, 60, 90, 120, 150])


def test_health_starts_the_delay_anew() -> None:
    history = RestartHistory(RestartPolicy(intensity=99, healthy_s=60))
    exits(history, range(4))
    assert history.record_exit(100.0, ready_since_s=41.0, chance=0.5) == pytest.approx(1.6)
    assert history.record_exit(200.0, ready_since_s=140.0, chance=0.5) == pytest.approx(0.1)


def test_a_logger_that_is_never_ready_is_given_up_soon() -> None:
    """An import error does not heal by trying again."""
    history = RestartHistory(RestartPolicy(intensity=99))
    delays = exits(history, range(START_TRIES_MAX), was_ready=False)
    assert [delay is None for delay in delays] == [False] * (START_TRIES_MAX - 1) + [True]


def test_one_good_start_lets_it_fail_to_start_again() -> None:
    history = RestartHistory(RestartPolicy(intensity=99))
    for was_ready in (False, False, True, False, False):
        assert None not in exits(history, [0.0], was_ready=was_ready)


def test_a_logger_that_was_given_up_begins_with_a_clean_sheet() -> None:
    history = RestartHistory(RestartPolicy(intensity=0))
    assert exits(history, [0.0]) == [None]
    history.policy = RestartPolicy(intensity=1)
    assert exits(history, [0.0]) == [0.1]


@pytest.mark.parametrize(("chance", "delay_s"), [(0.0, 0.08), (0.5, 0.1), (1.0, 0.12)])
def test_chance_sets_restarts_apart(chance, delay_s) -> None:
    history = RestartHistory(RestartPolicy())
    assert history.record_exit(0.0, ready_since_s=0.0, chance=chance) == pytest.approx(delay_s)


SECONDS = st.floats(0, 1e6)


@given(
    policy=st.builds(
        RestartPolicy,
        intensity=st.integers(0, 10),
        period_s=SECONDS,
        delay_s=SECONDS,
        delay_s_max=SECONDS,
        healthy_s=SECONDS,
    ),
    script=st.lists(st.tuples(SECONDS, st.none() | SECONDS, st.floats(0, 1)), max_size=60),
)
def test_no_delay_is_negative_or_beyond_its_limit(policy, script) -> None:
    """And never are there more exits in one period than the policy bears."""
    history = RestartHistory(policy)
    now_s = 0.0
    borne_s: list[float] = []
    for passed_s, ready_s, chance in script:
        now_s += passed_s
        ready_since_s = None if ready_s is None else now_s - min(ready_s, now_s)
        delay_s = history.record_exit(now_s, ready_since_s=ready_since_s, chance=chance)
        borne_s = [t for t in borne_s if t > now_s - policy.period_s] + [now_s]
        if delay_s is None:
            borne_s = []
        else:
            assert 0 <= delay_s <= policy.delay_s_max * (1 + JITTER) * (1 + 1e-9)
            assert len(borne_s) <= policy.intensity


def test_a_thousand_exits_do_not_overflow() -> None:
    history = RestartHistory(RestartPolicy(intensity=9, period_s=1, healthy_s=1e9))
    assert exits(history, range(0, 2000, 2))[-1] == 30.0
