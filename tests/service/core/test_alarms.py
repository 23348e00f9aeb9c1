"""An alarm has one moment, and goes off once."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from millpond.core.alarms import Alarm, Alarms, Why

STATE, HANG, KEEP = Alarm(Why.STATE, 0), Alarm(Why.HANG, 0), Alarm(Why.KEEP, 7)


def test_the_first_one_is_known() -> None:
    alarms = Alarms()
    assert alarms.next_s is None
    alarms.set(STATE, 5.0)
    alarms.set(HANG, 3.0)
    assert alarms.next_s == 3.0
    alarms.clear(HANG)
    assert alarms.next_s == 5.0
    alarms.clear(STATE)
    alarms.clear(STATE)
    assert alarms.next_s is None


def test_setting_it_again_moves_it() -> None:
    alarms = Alarms()
    alarms.set(STATE, 3.0)
    alarms.set(STATE, 8.0)
    assert alarms.next_s == 8.0
    assert alarms.take_due(3.0) == []


def test_those_that_are_due_come_in_order_with_their_moments_and_once() -> None:
    alarms = Alarms()
    for alarm, due_s in ((KEEP, 3.0), (STATE, 1.0), (HANG, 9.0)):
        alarms.set(alarm, due_s)
    assert alarms.take_due(3.0) == [(STATE, 1.0), (KEEP, 3.0)]
    assert alarms.take_due(3.0) == []
    assert STATE not in alarms
    assert HANG in alarms
    assert alarms.next_s == 9.0


def test_a_logger_and_a_batch_of_one_number_are_two() -> None:
    alarms = Alarms()
    alarms.set(Alarm(Why.STATE, 7), 1.0)
    alarms.set(KEEP, 2.0)
    alarms.clear(Alarm(Why.STATE, 7))
    assert KEEP in alarms


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["set", "clear", "take"]),
            st.sampled_from(Why),
            st.integers(0, 2),
            st.integers(0, 9),
        )
    )
)
def test_any_order_of_calls_is_that_of_a_dictionary(calls) -> None:
    alarms = Alarms()
    due: dict[Alarm, float] = {}
    for call, why, number, at_s in calls:
        if call == "set":
            alarms.set(Alarm(why, number), at_s)
            due[Alarm(why, number)] = at_s
        elif call == "clear":
            alarms.clear(Alarm(why, number))
            due.pop(Alarm(why, number), None)
        else:
            taken = {alarm for alarm, due_s in due.items() if due_s <= at_s}
            assert {alarm for alarm, _ in alarms.take_due(at_s)} == taken
            due = {alarm: due_s for alarm, due_s in due.items() if alarm not in taken}
        assert alarms.next_s == min(due.values(), default=None)
