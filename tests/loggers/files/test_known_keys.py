"""What is remembered of the keys of results has a bound."""

from millpond_loggers.files.known_keys import KEYS_KEPT, Key, remember


def test_the_latest_keys_are_known_and_never_more_than_twice_as_many() -> None:
    known: dict[Key, None] = {}
    for number in range(100):
        remember(known, [(1, 3 * number + place) for place in range(3)], kept=10)
        count = 3 * (number + 1)
        assert list(known) == [(1, place) for place in range(count - len(known), count)]
        assert min(10, count) <= len(known) <= 20


def test_a_key_that_comes_again_is_known_once() -> None:
    known: dict[Key, None] = {(1, 1): None}
    remember(known, [(1, 2), (1, 1)])
    assert list(known) == [(1, 1), (1, 2)]


def test_more_are_kept_than_can_come_again() -> None:
    window_max = 1024  # `max_in_window` in the configuration; and as many from the disk.
    assert 2 * window_max <= KEYS_KEPT
