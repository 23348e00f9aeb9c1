"""A slot is free, being written or held: one of them, whatever the loggers write."""

from array import array

import pytest

from millpond.core.slots import SlotRef, SlotTable

ANN, BEN = 1, 2  # Renderers.
CSV, JSON = 0, 1  # Loggers.


def table(slot_count: int = 2) -> tuple[SlotTable, list[list[int]]]:
    acks = [[0] * slot_count for _ in (CSV, JSON)]
    return SlotTable(slot_count, want=[[0] * slot_count for _ in (CSV, JSON)], ack=acks), acks


def test_each_use_of_a_slot_has_its_own_generation() -> None:
    slots, _ = table(1)
    assert slots.claim(ANN) == SlotRef(0, 1)
    slots.give_back(0)
    assert slots.claim(BEN) == SlotRef(0, 2)
    slots.check_invariants()


def test_the_slot_used_last_goes_first() -> None:
    """It is still in the caches."""
    slots, _ = table(3)
    assert [slots.claim(ANN), slots.claim(ANN)] == [SlotRef(0, 1), SlotRef(1, 1)]
    slots.give_back(0)
    assert slots.claim(ANN) == SlotRef(0, 2)


def test_nothing_is_claimed_when_all_are_held() -> None:
    slots, _ = table(1)
    slots.claim(ANN)
    assert slots.free_count == 0
    assert slots.claim(BEN) is None


@pytest.mark.parametrize(
    ("slot", "generation", "renderer"),
    [
        (0, 0, ANN),
        (0, 2, ANN),
        (0, 1, BEN),
        (1, 0, ANN),
        (-2, 1, ANN),
        (2, 1, ANN),
        (2**32, 1, ANN),
    ],
)
def test_only_the_writer_may_write_and_only_in_this_use(slot, generation, renderer) -> None:
    """A negative number is no index from the end."""
    slots, _ = table(2)
    assert slots.claim(ANN) == SlotRef(0, 1)
    assert slots.is_claimed(0, 1, ANN)
    assert not slots.is_claimed(slot, generation, renderer)


def test_what_was_published_may_not_be_written_any_more() -> None:
    slots, _ = table()
    slots.publish(*slots.claim(ANN), holders=[CSV, JSON])
    assert not slots.is_claimed(0, 1, ANN)
    assert slots.claimed_by(ANN) == []


def test_a_slot_is_free_when_its_last_hold_has_ended() -> None:
    slots, _ = table(1)
    slots.publish(*slots.claim(ANN), holders=[CSV, JSON])
    assert slots.holders_of(0) == [CSV, JSON]
    assert slots.end_holds(JSON, [0]) == 0
    slots.check_invariants()
    assert slots.holders_of(0) == [CSV]
    assert slots.end_holds(CSV, [0]) == 1
    assert slots.free_count == 1
    slots.check_invariants()


def test_no_hold_ends_twice() -> None:
    slots, _ = table(1)
    slots.publish(*slots.claim(ANN), holders=[CSV, JSON])
    slots.end_holds(CSV, [0])
    with pytest.raises(AssertionError, match="a hold ends once"):
        slots.end_holds(CSV, [0])


def test_who_reads_back_from_the_disk_is_no_renderer() -> None:
    slots, _ = table(1)
    slot, generation = slots.claim(-1)
    assert slots.is_claimed(slot, generation, -1)
    assert slots.claimed_by(-1) == [0]
    slots.publish(slot, generation, holders=[CSV])
    slots.check_invariants()
    assert (slots.hold_count(0), slots.holders_of(0)) == (1, [CSV])


def test_words_of_loggers_change_nothing_by_themselves() -> None:
    """The table reads them for the one who asks, and believes none."""
    slots, acks = table(1)
    slots.publish(*slots.claim(ANN), holders=[CSV])
    acks[CSV][0] = acks[JSON][0] = 2**64 - 1
    slots.check_invariants()
    assert slots.free_count == 0
    assert slots.acks_of(CSV)[0] == 2**64 - 1


def test_the_slots_of_one_renderer_are_found() -> None:
    slots, _ = table(3)
    for renderer in (ANN, BEN, ANN):
        slots.claim(renderer)
    assert slots.claimed_by(ANN) == [0, 2]


def test_the_words_may_be_shared_memory() -> None:
    rows = [memoryview(bytearray(array("Q", [0] * 2))).cast("Q") for _ in range(2)]
    slots = SlotTable(2, want=rows[:1], ack=rows[1:])
    slots.publish(*slots.claim(ANN), holders=[CSV])
    assert list(rows[0]) == [1, 0]
    slots.check_invariants()
    assert slots.end_holds(CSV, [0]) == 1
    assert list(rows[0]) == [0, 0]


@pytest.mark.parametrize(("want", "ack"), [([], []), ([[0]], [])])
def test_every_logger_has_both_rows_and_there_is_one_at_least(want, ack) -> None:
    with pytest.raises(AssertionError):
        SlotTable(1, want=want, ack=ack)
