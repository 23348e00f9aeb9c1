"""The life of a logger has no way around, and every state has a way to its end."""

from itertools import product

import pytest

from millpond.core.lifecycle import HAS_PROCESS, TRANSITIONS, Input, State, step


def test_every_state_has_its_row() -> None:
    assert set(TRANSITIONS) == set(State)


@pytest.mark.parametrize(("state", "stimulus"), list(product(State, Input)))
def test_what_is_not_in_the_table_cannot_happen(state, stimulus) -> None:
    if stimulus in TRANSITIONS[state]:
        assert step(state, stimulus) is TRANSITIONS[state][stimulus]
    else:
        with pytest.raises(KeyError):
            step(state, stimulus)


def test_a_process_begins_only_by_a_spawn_and_ends_only_by_an_exit() -> None:
    for state, row in TRANSITIONS.items():
        for stimulus, following in row.items():
            has_process = (state in HAS_PROCESS, following in HAS_PROCESS)
            assert (has_process == (False, True)) == (stimulus is Input.SPAWN)
            assert (has_process == (True, False)) == (stimulus in (Input.EXIT, Input.GIVE_UP))


@pytest.mark.parametrize("state", [state for state in State if state is not State.STOPPED])
def test_a_stop_ends_every_life(state) -> None:
    if state is not State.STOPPING:
        state = step(state, Input.STOP)
    if state in HAS_PROCESS:
        state = step(state, Input.EXIT)
    assert state is State.STOPPED
    assert not TRANSITIONS[state]


def test_every_state_is_reached() -> None:
    reached = {State.DOWN}
    for _ in State:
        reached |= {following for state in reached for following in TRANSITIONS[state].values()}
    assert reached == set(State)
