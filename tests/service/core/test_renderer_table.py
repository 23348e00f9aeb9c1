"""Free slots go to those who wait, in order; what is left is given ahead of need."""

import pytest

from millpond.core.renderer_table import (
    CREDITS_FIRST,
    CREDITS_MAX,
    HOT_BYTES,
    RendererTable,
)
from millpond.core.slots import SlotRef, SlotTable

ANN, BEN, CAT = 1, 2, 3


def pond(slot_count: int, *, slot_bytes: int = 4096) -> tuple[RendererTable, SlotTable]:
    slots = SlotTable(slot_count, want=[[0] * slot_count], ack=[[0] * slot_count])
    return RendererTable(slots, slot_bytes=slot_bytes), slots


def join(table: RendererTable, *renderers: int) -> None:
    for renderer in renderers:
        table.join(renderer, pid=1000 + renderer)


def use(table: RendererTable, slots: SlotTable, renderer: int) -> list[int]:
    """Publish everything that one may write into; the slots stay held."""
    used = slots.claimed_by(renderer)
    for slot in used:
        slots.publish(slot, slots._generations[slot], [0])
    table.get(renderer).claimed = 0
    return used


def test_everyone_begins_with_few_slots_ahead() -> None:
    table, _ = pond(100)
    join(table, ANN)
    assert table.grant(0) == {ANN: [SlotRef(0, 1), SlotRef(1, 1)]}
    assert table.grant(0) == {}
    table.check_invariants()


def test_one_that_runs_dry_gets_twice_as_many_up_to_a_limit() -> None:
    table, slots = pond(1000)
    join(table, ANN)
    counts = []
    for _ in range(8):
        table.want(ANN)
        counts.append(len(table.grant(0)[ANN]))
        slots.end_holds(0, use(table, slots, ANN))
    assert counts == [4, 8, 16, 32, 64, 64, 64, 64]
    assert max(counts) == CREDITS_MAX


def test_running_dry_in_a_full_pond_earns_nothing() -> None:
    """More ahead would not help: there is nothing to give."""
    table, slots = pond(8)
    join(table, ANN)
    while table.grant(0):
        use(table, slots, ANN)
    assert slots.free_count == 0
    table.want(ANN)
    assert table.get(ANN).credit_target == CREDITS_FIRST
    assert table.grant(0) == {}


def test_each_may_have_a_quarter_of_what_the_earlier_ones_leave() -> None:
    """One that rests keeps what it has: so there is always something for the next."""
    table, slots = pond(64)
    counts = []
    for renderer in range(1, 13):
        join(table, renderer)
        for _ in range(6):  # A burst, then it rests.
            slots.end_holds(0, use(table, slots, renderer))
            table.want(renderer)
            table.grant(0)
        counts.append(table.get(renderer).claimed)
        assert not table.is_waiting(renderer)
        table.check_invariants()
    assert counts == [16, 12, 9, 6, 5, 4, 3, 2, 1, 1, 1, 1]
    assert slots.free_count == 3


def test_it_is_full_when_one_more_might_get_none() -> None:
    table, _ = pond(3)
    join(table, ANN, BEN)
    assert not table.is_full
    join(table, CAT)
    assert table.is_full
    table.leave(BEN)
    assert not table.is_full


def test_large_slots_in_rotation_are_few() -> None:
    """They should stay in the caches."""
    table, _ = pond(1000, slot_bytes=HOT_BYTES // 4)
    join(table, ANN)
    for _ in range(4):
        table.want(ANN)
    assert len(table.grant(0)[ANN]) == 4


def test_grants_go_out_in_batches() -> None:
    """Not one slot each time that one was used."""
    table, slots = pond(100)
    join(table, ANN)
    table.want(ANN)
    assert len(table.grant(0)[ANN]) == 4
    for count, granted in ((1, 0), (1, 2)):
        for slot in slots.claimed_by(ANN)[:count]:
            slots.give_back(slot)
            table.get(ANN).claimed -= 1
        assert len(table.grant(0).get(ANN, [])) == granted


def test_each_who_waits_gets_one_before_anyone_gets_two() -> None:
    table, slots = pond(3)
    join(table, ANN)
    table.want(ANN)
    table.grant(0)
    join(table, BEN, CAT)
    table.grant(0)
    slots.end_holds(0, use(table, slots, ANN) + use(table, slots, BEN) + use(table, slots, CAT))
    for renderer in (CAT, ANN, BEN):
        table.want(renderer)
    assert {r: len(refs) for r, refs in table.grant(0).items()} == {CAT: 1, ANN: 1, BEN: 1}


def test_those_who_wait_are_served_in_the_order_of_asking() -> None:
    """Asking again does not lose the place, and being served puts one at the end."""
    table, slots = pond(1)
    join(table, ANN)
    table.grant(0)
    join(table, BEN, CAT)
    served = []
    for renderer in (CAT, BEN, CAT):
        table.want(renderer)
    for _ in range(6):
        (held,) = [r for r in table.members if slots.claimed_by(r)]
        table.want(held)
        slots.end_holds(0, use(table, slots, held))
        served += list(table.grant(0))
    assert served == [CAT, BEN, ANN, CAT, BEN, ANN]


def test_one_that_leaves_gives_everything_back() -> None:
    table, slots = pond(8)
    join(table, ANN, BEN)
    table.grant(0)
    table.want(ANN)
    assert table.leave(ANN)
    assert slots.claimed_by(ANN) == []
    assert not table.is_waiting(ANN)
    assert len(table) == 1
    assert table.get(ANN) is None
    table.check_invariants()


def test_one_that_was_never_there_leaves_nothing() -> None:
    table, _ = pond(8)
    join(table, ANN)
    assert table.leave(ANN)
    assert not table.leave(ANN)
    assert not table.leave(CAT)


def test_one_that_was_ended_keeps_its_slots_until_it_has_left() -> None:
    """It may still be writing into them."""
    table, slots = pond(8)
    join(table, ANN, BEN)
    table.grant(0)
    table.want(ANN)
    table.end(ANN)
    assert table.get(ANN) is None
    assert table.grant(0) == {}
    assert len(slots.claimed_by(ANN)) == 2
    table.check_invariants()
    assert table.leave(ANN)
    assert slots.claimed_by(ANN) == []
    assert not table.leave(ANN)


@pytest.mark.parametrize(("waiting", "shortage"), [([ANN], 2), ([ANN, BEN], 4)])
def test_a_shortage_is_as_large_as_the_next_grants(waiting, shortage) -> None:
    """Slots that would lie free are not worth a result."""
    table, slots = pond(16)
    join(table, ANN, BEN, CAT)
    table.grant(0)
    used = [slot for renderer in (ANN, BEN) for slot in use(table, slots, renderer)]
    while slots.claim(CAT):
        table.get(CAT).claimed += 1
    for renderer in waiting:
        table.want(renderer)
    assert table.shortage(0) == shortage
    slots.end_holds(0, used[:shortage])
    assert table.shortage(0) == 0
    table.grant(0)
    assert slots.free_count == 0


def test_a_reserve_is_left_free_and_is_missing_to_those_who_wait() -> None:
    table, slots = pond(8)
    join(table, ANN)
    assert [len(refs) for refs in table.grant(7).values()] == [1]
    use(table, slots, ANN)
    table.want(ANN)
    assert table.grant(7) == {}
    assert table.grant(8) == {}
    assert table.shortage(7) == 2  # One more would be given ahead.
    assert table.shortage(8) == 3
    table.stop_waiting()
    assert table.shortage(8) == 0


def test_nobody_waits_after_a_stop() -> None:
    table, _ = pond(1)
    join(table, ANN)
    table.want(ANN)
    table.stop_waiting()
    assert not table.is_waiting(ANN)
