"""The word that says what a logger is doing."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from millpond.core.layout import SLOT_COUNT_MAX
from millpond.core.progress import (
    IDLE,
    Started,
    flush_word,
    log_word,
    read_word,
    returned_word,
)

COUNTS = st.integers(0, 2**46 - 1)


@given(st.integers(0, SLOT_COUNT_MAX - 1), COUNTS)
def test_a_started_result_is_read_back(slot: int, generation: int) -> None:
    word = log_word(slot, generation)
    assert 0 < word < 2**64
    assert read_word(word) == Started(slot, generation)


@given(COUNTS)
def test_a_flush_names_no_result_and_each_is_another_word(count: int) -> None:
    assert read_word(flush_word(count)) is None
    assert flush_word(count) != flush_word(count + 1)
    assert flush_word(count) != IDLE


def test_nothing_was_started_yet() -> None:
    assert read_word(IDLE) is None


@given(st.integers(0, SLOT_COUNT_MAX - 1), st.integers(0, 2**45))
def test_a_log_that_has_returned_is_nobodys_fault(slot: int, generation: int) -> None:
    word = returned_word(slot, generation)
    assert read_word(word) is None
    assert word < 2**64
    assert word != log_word(slot, generation)
