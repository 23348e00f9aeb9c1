"""Places come out in the order in which they went in."""

from hypothesis import given
from hypothesis import strategies as st

from millpond.spill_index import Place, PlaceQueue

NUMBERS = st.integers(0, 2**64 - 1)
PLACES = st.lists(st.builds(Place, NUMBERS, NUMBERS, NUMBERS, st.integers(0, 5)), max_size=20)


def queue_of(places) -> PlaceQueue:
    queue = PlaceQueue()
    for place in places:
        queue.append(place)
    return queue


@given(PLACES, st.lists(st.integers(0, 7)))
def test_what_goes_in_first_comes_out_first(places, counts):
    queue = queue_of(places)
    taken = []
    for count in counts:
        some = queue.take(count)
        assert len(some) == min(count, len(places) - len(taken))
        taken += some
        assert len(queue) == len(places) - len(taken)
    assert taken + queue.take(100) == places


@given(PLACES, st.integers(0, 5), st.sets(st.integers(0, 5)))
def test_removing_keeps_the_order_of_the_others(places, count, sequences):
    queue = queue_of(places)
    taken = queue.take(count)
    rest = places[len(taken) :]
    keys = {place.key for place in places if place.sequence in sequences}
    assert queue.remove(keys) == [place for place in rest if place.key in keys]
    assert len(queue) == len([place for place in rest if place.key not in keys])
    assert queue.take(100) == [place for place in rest if place.key not in keys]


def test_what_was_taken_is_not_kept():
    places = [Place(1, number, 2, number) for number in range(20_000)]
    queue = queue_of(places)
    taken = []
    while queue:
        taken += queue.take(999)
    assert taken == places
    assert all(len(column) < 5000 for column in queue._columns)


def test_the_key_of_a_place_is_the_identity_of_the_result():
    assert Place(1, 2, 3, 4).key == (3, 4)
