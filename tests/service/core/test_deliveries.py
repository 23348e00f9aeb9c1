"""What is published for a logger is in one place at a time, and leaves in the order it came."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from millpond.core.deliveries import Deliveries, Result


def result(number: int) -> Result:
    """The result in slot `number`."""
    return Result(number, 7, 1, number + 1, f"{number:06}", b"frame")


def sent(count: int, window_max: int = 3) -> Deliveries:
    deliveries = Deliveries(window_max)
    deliveries.admit([result(number) for number in range(count)])
    deliveries.advance()
    return deliveries


def test_no_more_is_sent_than_the_window_holds() -> None:
    deliveries = Deliveries(3)
    deliveries.admit(result(number) for number in range(5))
    assert deliveries.advance() == [result(0), result(1), result(2)]
    assert deliveries.advance() == []
    assert list(deliveries.queue) == [result(3), result(4)]
    assert not deliveries.is_settled
    deliveries.check_invariants()


def test_the_batch_that_was_sent_is_not_the_window() -> None:
    """Whoever has the batch may keep it; the window goes on changing."""
    deliveries = Deliveries(3)
    deliveries.admit([result(0)])
    batch = deliveries.advance()
    deliveries.take_window()
    assert batch == [result(0)]


def test_releases_make_room_in_any_order() -> None:
    deliveries = sent(4)
    acks = [0, 0, 7, 7]
    assert deliveries.collect(acks) == [2]  # The word for 3 was written before it was sent.
    assert deliveries.advance() == [result(3)]
    acks[0] = 7
    assert deliveries.collect(acks) == [0, 3]
    assert deliveries.window == [result(1)]
    assert (deliveries.published, deliveries.delivered) == (4, 3)
    deliveries.check_invariants()


@pytest.mark.parametrize("word", [0, 6, 8, 2**64 - 1])
def test_a_release_of_another_use_is_none(word) -> None:
    deliveries = sent(1)
    assert deliveries.collect([word]) == []
    assert deliveries.window == [result(0)]


def test_a_release_counts_once() -> None:
    deliveries = sent(1)
    assert deliveries.collect([7]) == [0]
    assert deliveries.collect([7]) == []
    assert deliveries.delivered == 1
    assert deliveries.is_settled


def test_each_word_is_read_once() -> None:
    """The logger may write between two readings."""

    class Turning:
        def __init__(self) -> None:
            self.readings = 0

        def __getitem__(self, index: int) -> int:
            self.readings += 1
            return 7 * (self.readings % 2)

    deliveries = sent(3)
    words = Turning()
    deliveries.collect(words)
    assert words.readings == 3
    deliveries.check_invariants()


def test_window_and_queue_are_taken_apart() -> None:
    deliveries = sent(5)
    assert deliveries.take_window() == [result(0), result(1), result(2)]
    assert deliveries.take_queue() == [result(3), result(4)]
    assert deliveries.is_settled
    deliveries.dead += 5
    deliveries.check_invariants()


def test_only_what_was_not_sent_is_taken_by_slot() -> None:
    deliveries = sent(6)
    assert deliveries.take_slots({0, 3, 5}) == [result(3), result(5)]
    assert list(deliveries.queue) == [result(4)]
    assert deliveries.take_slots({0}) == []
    assert len(deliveries.window) == 3


def test_one_result_is_blamed_by_its_use() -> None:
    deliveries = sent(3)
    assert deliveries.take_one(1, 6) is None
    assert deliveries.take_one(4, 7) is None
    assert deliveries.take_one(1, 7) == result(1)
    assert deliveries.take_one(1, 7) is None
    assert deliveries.window == [result(0), result(2)]


@given(
    window_max=st.integers(1, 5),
    moves=st.lists(st.tuples(st.sampled_from(["admit", "advance", "collect"]), st.integers(0, 5))),
)
def test_what_goes_in_comes_out_in_order(window_max, moves) -> None:
    deliveries = Deliveries(window_max)
    acks: dict[int, int] = {}
    sent_so_far: list[Result] = []
    for move, count in moves:
        if move == "admit":
            start = deliveries.published
            deliveries.admit([result(start + n) for n in range(count)])
            acks.update(dict.fromkeys(range(start, start + count), 0))
        elif move == "advance":
            sent_so_far += deliveries.advance()
        else:
            acks.update((one.slot, one.generation) for one in deliveries.window[:count])
            deliveries.collect(acks)
        deliveries.check_invariants()
    assert [one.slot for one in sent_so_far] == list(range(len(sent_so_far)))
