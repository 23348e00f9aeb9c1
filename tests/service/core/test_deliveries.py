"""What is published for a logger is in one place at a time, and leaves in the order it came."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from millpond.core.deliveries import Batch, Blame, Deliveries, Result
from millpond.core.progress import flush_word, log_word


def result(number: int) -> Result:
    """The result in slot `number`."""
    return Result(number, 7, 1, number + 1, f"{number:06}", b"frame")


def sent(count: int, window_max: int = 3) -> Deliveries:
    deliveries = Deliveries(window_max)
    deliveries.admit([result(number) for number in range(count)])
    deliveries.advance(9)
    return deliveries


def test_no_more_is_sent_than_the_window_holds() -> None:
    deliveries = Deliveries(3)
    deliveries.admit(result(number) for number in range(5))
    assert deliveries.advance(9) == [result(0), result(1), result(2)]
    assert deliveries.advance(9) == []
    assert list(deliveries.queue) == [result(3), result(4)]
    assert not deliveries.is_settled
    deliveries.check_invariants()


def test_the_batch_that_was_sent_is_not_the_window() -> None:
    """Whoever has the batch may keep it; the window goes on changing."""
    deliveries = Deliveries(3)
    deliveries.admit([result(0)])
    batch = deliveries.advance(9)
    deliveries.take_window()
    assert batch == [result(0)]


def test_releases_make_room_in_any_order() -> None:
    deliveries = sent(4)
    acks = [0, 0, 7, 7]
    assert deliveries.collect(acks) == [result(2)]  # The word for 3 was written before it was sent.
    assert deliveries.advance(9) == [result(3)]
    acks[0] = 7
    assert deliveries.collect(acks) == [result(0), result(3)]
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
    assert deliveries.collect([7]) == [result(0)]
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


def test_the_window_is_taken_and_put_back_before_what_waits() -> None:
    deliveries = sent(5)
    taken = deliveries.take_window()
    assert taken == [result(0), result(1), result(2)]
    deliveries.put_back(taken)
    assert deliveries.waiting() == [result(number) for number in range(5)]
    deliveries.check_invariants()


def test_only_what_was_not_sent_is_taken_by_slot() -> None:
    deliveries = sent(6)
    deliveries.retry_later(deliveries.take_one(1, 7), 5.0)
    assert deliveries.take_slots({1}) == [result(1)]
    assert deliveries.retrying == []
    assert deliveries.take_slots({0, 3, 5}) == [result(3), result(5)]
    assert list(deliveries.queue) == [result(4)]
    assert deliveries.take_slots({0}) == []
    assert len(deliveries.window) == 2


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
            sent_so_far += deliveries.advance(count)
        else:
            acks.update((one.slot, one.generation) for one in deliveries.window[:count])
            deliveries.collect(acks)
        deliveries.check_invariants()
    assert [one.slot for one in sent_so_far] == list(range(len(sent_so_far)))


# Blame.


def test_the_word_names_what_is_in_the_window_and_nothing_else() -> None:
    deliveries = sent(4)
    assert deliveries.started(log_word(1, 7)) == result(1)
    for word in (0, flush_word(3), log_word(1, 6), log_word(3, 7), 2**64 - 1):
        assert deliveries.started(word) is None


def test_blame_is_for_the_result_in_whatever_slot_and_ends_with_its_delivery() -> None:
    deliveries = sent(2)
    deliveries.blame(result(0)).crashes += 2
    moved = result(0)._replace(slot=5, generation=9)
    assert deliveries.blame(moved) == Blame(crashes=2, raises=0)
    assert deliveries.blame(moved).attempts == 2
    deliveries.collect([7, 0])
    assert deliveries.blames == {}


# Retries.


def test_a_retry_waits_for_its_moment_and_the_others_go_on() -> None:
    deliveries = sent(4)
    for number, due_s in ((0, 3.0), (1, 2.0)):
        deliveries.retry_later(deliveries.take_one(number, 7), due_s)
    assert deliveries.retry_at_s == 2.0
    assert deliveries.advance(9) == [result(3)]
    assert deliveries.take_retries(2.5) == 1
    assert deliveries.retry_at_s == 3.0
    assert deliveries.advance(9) == [result(1)]
    deliveries.check_invariants()


def test_at_the_end_there_is_no_later() -> None:
    deliveries = sent(4)
    for number in (0, 1):
        deliveries.retry_later(deliveries.take_one(number, 7), 9.0)
    deliveries.hurry_retries()
    assert deliveries.waiting() == [result(0), result(1), result(3)]
    assert deliveries.retry_at_s is None


def test_what_a_failed_disk_gave_back_goes_before_what_waits() -> None:
    deliveries = sent(4)
    deliveries.returned = [deliveries.take_one(number, 7) for number in (0, 1)]
    deliveries.check_invariants()
    assert deliveries.requeue_returned() == 2
    assert deliveries.waiting() == [result(0), result(1), result(3)]
    deliveries.check_invariants()


# The disk.


def waiting(count: int) -> Deliveries:
    deliveries = Deliveries(9)
    deliveries.admit([result(number) for number in range(count)])
    return deliveries


def test_each_unbroken_row_leaves_as_one_batch() -> None:
    deliveries = waiting(5)
    batches = deliveries.make_batches({0, 1, 3}, token=4, count_max=9)
    assert [(batch.token, batch.results) for batch in batches] == [
        (4, [result(0), result(1)]),
        (5, [result(3)]),
    ]
    assert deliveries.waiting() == [result(2), result(4)]
    assert deliveries.queued == 5
    deliveries.check_invariants()


def test_a_long_row_leaves_as_several_batches() -> None:
    """So that a slow disk is seen to make progress."""
    deliveries = waiting(6)
    batches = deliveries.make_batches({0, 1, 2, 3, 4}, token=1, count_max=2)
    assert [(batch.token, batch.results) for batch in batches] == [
        (1, [result(0), result(1)]),
        (2, [result(2), result(3)]),
        (3, [result(4)]),
    ]
    assert list(deliveries.queue) == [*batches, result(5)]
    deliveries.check_invariants()


def tokens(deliveries: Deliveries) -> list[tuple[int, int]]:
    """The batches in the queue: each with its home."""
    return [(item.token, item.home) for item in deliveries.queue if isinstance(item, Batch)]


def test_what_follows_a_batch_joins_it_on_the_disk() -> None:
    """A queue of many small batches would be slow, and so would be their way back."""
    deliveries = waiting(4)
    (first,) = deliveries.make_batches({1}, token=1, count_max=9)
    (second,) = deliveries.make_batches({2}, token=2, count_max=9)
    deliveries.written(first)
    assert tokens(deliveries) == [(1, 1), (2, 1)]
    deliveries.written(second)
    assert tokens(deliveries) == [(1, 1)]
    assert (first.on_disk, deliveries.spilled, deliveries.batches) == (2, 2, 1)
    assert deliveries.waiting() == [result(0), result(3)]
    deliveries.check_invariants()


def test_what_follows_a_batch_that_is_gone_stands_for_itself() -> None:
    deliveries = waiting(3)
    (first,) = deliveries.make_batches({0}, token=1, count_max=9)
    (second,) = deliveries.make_batches({1}, token=2, count_max=9)
    deliveries.not_written(first, keep=True)
    deliveries.written(second)
    assert tokens(deliveries) == [(2, 1)]
    assert deliveries.advance(9) == [result(0)]
    assert deliveries.front is second
    deliveries.check_invariants()


def test_what_comes_between_two_parts_of_a_row_does_not_join_it() -> None:
    """It would be written behind the second, and come back too late."""
    deliveries = waiting(3)
    batches = deliveries.make_batches({0, 1, 2}, token=1, count_max=1)
    deliveries.written(batches[0])
    deliveries.not_written(batches[1], keep=True)
    (again,) = deliveries.make_batches({1}, token=4, count_max=1)
    deliveries.written(batches[2])
    deliveries.written(again)
    assert tokens(deliveries) == [(1, 1), (4, 4), (3, 1)]
    deliveries.check_invariants()


def test_a_row_does_not_join_another() -> None:
    deliveries = waiting(3)
    deliveries.make_batches({1}, token=1, count_max=9)
    deliveries.make_batches({0}, token=2, count_max=9)
    first, second = [item for item in deliveries.queue if isinstance(item, Batch)]
    deliveries.written(first)
    deliveries.written(second)
    assert tokens(deliveries) == [(2, 2), (1, 1)]
    deliveries.check_invariants()


def test_the_newest_leave_first_but_what_stands_behind_a_batch_leaves_in_its_order() -> None:
    deliveries = sent(7, window_max=1)
    deliveries.retry_later(deliveries.take_one(0, 7), 5.0)
    assert deliveries.leaving() == [result(n) for n in (0, 6, 5, 4, 3, 2, 1)]
    deliveries.make_batches({3}, token=1, count_max=9)
    assert deliveries.leaving() == [result(n) for n in (4, 5, 6, 2, 1, 0)]
    assert sorted(deliveries.leaving()) == sorted(deliveries.waiting())


def test_nothing_overtakes_what_is_on_its_way_to_the_disk() -> None:
    deliveries = waiting(3)
    (batch,) = deliveries.make_batches({1}, token=1, count_max=9)
    assert deliveries.advance(9) == [result(0)]
    assert deliveries.advance(9) == []
    assert deliveries.front is None
    assert deliveries.written(batch) == [result(1)]
    assert deliveries.front is batch
    assert (deliveries.spilled, deliveries.queued) == (1, 1)
    deliveries.check_invariants()


def test_what_comes_back_takes_its_place() -> None:
    deliveries = waiting(4)
    (batch,) = deliveries.make_batches({0, 1, 2}, token=1, count_max=9)
    deliveries.written(batch)
    batch.reading = 2
    assert deliveries.front is None  # It is coming.
    again = result(0)._replace(slot=7)
    deliveries.arrived(batch, [again], corrupt_count=1)
    deliveries.dead += 1
    assert deliveries.advance(9) == [again]
    assert deliveries.front is batch
    assert deliveries.spilled == 1
    deliveries.check_invariants()
    batch.reading = 1
    deliveries.arrived(batch, [result(2)], corrupt_count=0)
    assert deliveries.advance(9) == [result(2), result(3)]
    assert (deliveries.batches, deliveries.spilled) == (0, 0)
    deliveries.check_invariants()


@pytest.mark.parametrize("keep", [True, False])
def test_what_the_disk_did_not_take_is_put_back_or_taken_out(keep) -> None:
    deliveries = waiting(3)
    (batch,) = deliveries.make_batches({0, 1}, token=1, count_max=9)
    assert deliveries.not_written(batch, keep=keep) == [result(0), result(1)]
    assert deliveries.waiting() == [result(number) for number in range(0 if keep else 2, 3)]
    deliveries.dead += 0 if keep else 2
    deliveries.check_invariants()


def test_only_a_batch_with_another_before_it_is_behind() -> None:
    deliveries = waiting(4)
    deliveries.retry_later(deliveries.queue.pop(), 5.0)
    first, second, retry = deliveries.make_batches({0, 2, 3}, token=1, count_max=9)
    assert not deliveries.is_behind(first)
    assert deliveries.is_behind(second)
    assert not deliveries.is_behind(retry)


@pytest.mark.parametrize("is_kept", [True, False])
def test_a_retry_keeps_its_moment_on_the_disk(is_kept) -> None:
    deliveries = sent(2)
    deliveries.retry_later(deliveries.take_one(0, 7), 5.0)
    (batch,) = deliveries.make_batches({0}, token=1, count_max=9)
    if is_kept:
        deliveries.written(batch)
        assert deliveries.take_retries(4.0) == 0
        assert deliveries.take_retries(5.0) == 1
        assert deliveries.front is batch
    else:
        deliveries.not_written(batch, keep=True)
        assert deliveries.retrying == [(5.0, result(0))]
    deliveries.check_invariants()


def test_what_an_earlier_daemon_left_comes_first_and_counts() -> None:
    deliveries = Deliveries(3)
    batch = Batch(0, [], 0, on_disk=5)
    deliveries.recover(batch)
    deliveries.admit([result(0)])
    assert (deliveries.published, deliveries.spilled, deliveries.queued) == (6, 5, 1)
    assert deliveries.front is batch
    assert deliveries.advance(9) == []
    deliveries.check_invariants()
