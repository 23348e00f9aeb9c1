"""A slot is done with when its result was logged and everybody has freed it, in any order."""

from __future__ import annotations

from itertools import permutations

import pytest

from millpond.compat.slots_in_use import ALL, SlotsInUse

JOB = ("a", b"{}")


def in_use(*holders: int, slot: int = 5) -> SlotsInUse:
    uses = SlotsInUse()
    uses.begin(slot, 9, holders)
    return uses


@pytest.mark.parametrize("order", list(permutations(["log", 1, 2])))
def test_the_last_one_to_come_finishes_it_whoever_that_is(order: tuple[object, ...]) -> None:
    uses = in_use(1, 2)
    steps = [uses.log(5, JOB) if step == "log" else uses.free(5, int(str(step))) for step in order]
    assert steps[:2] == [None, None]
    done = steps[2]
    assert done is not None
    assert (done.slot, done.generation, done.job) == (5, 9, JOB)
    assert len(uses) == 0


def test_without_holders_the_log_alone_finishes_it() -> None:
    done = in_use().log(5, JOB)
    assert done is not None
    assert done.job == JOB


def test_any_number_of_registrations_is_waited_for() -> None:
    uses = in_use(*range(1, 101))
    assert uses.log(5, JOB) is None
    assert not any(uses.free(5, holder) for holder in range(1, 100))
    assert uses.free(5, 100) is not None


def test_freeing_for_everybody_gives_it_back_even_when_it_was_logged() -> None:
    for was_logged in (False, True):
        uses = in_use(1, 2)
        if was_logged:
            uses.log(5, JOB)
        done = uses.free(5, ALL)
        assert done is not None
        assert done.job is None
        assert len(uses) == 0


def test_freeing_twice_or_what_nobody_holds_does_nothing() -> None:
    uses = in_use(1, 2)
    uses.log(5, JOB)
    assert uses.free(5, 1) is None
    assert uses.free(5, 1) is None
    assert uses.free(5, 77) is None
    assert uses.free(6, 1) is None
    assert uses.free(-1, ALL) is None
    assert uses.free(5, 2) is not None


def test_a_slot_that_is_free_cannot_be_logged() -> None:
    uses = in_use(1)
    uses.free(5, ALL)
    with pytest.raises(LookupError, match="result 'a' cannot be logged: result_ix 5 is free"):
        uses.log(5, JOB)


def test_a_result_is_logged_once() -> None:
    uses = in_use(1)
    uses.log(5, JOB)
    with pytest.raises(LookupError, match=r"result 'b' cannot .* is result 'a', which was logged"):
        uses.log(5, ("b", b"{}"))
    done = uses.free(5, 1)
    assert done is not None
    assert done.job == JOB


def test_the_next_use_of_a_slot_is_another_one() -> None:
    uses = in_use()
    uses.log(5, JOB)
    uses.begin(5, 10, [1])
    assert uses.log(5, ("b", b"")) is None
    done = uses.free(5, 1)
    assert done is not None
    assert (done.generation, done.job) == (10, ("b", b""))


def test_at_the_end_all_that_are_left_are_told() -> None:
    uses = in_use(1)
    uses.begin(6, 1, [1])
    uses.log(6, JOB)
    assert [(use.slot, use.job) for use in uses.end()] == [(5, None), (6, JOB)]
    assert len(uses) == 0
    assert uses.end() == []


def test_it_tells_what_is_waited_for() -> None:
    uses = in_use(1, 12)
    uses.begin(6, 1, [12])
    uses.log(6, JOB)
    assert str(uses) == (
        "of 2 results in use by this process, 1 to be logged, 1 to be freed by registration 1, "
        "2 to be freed by registration 12"
    )
    assert "all done" in str(SlotsInUse())
