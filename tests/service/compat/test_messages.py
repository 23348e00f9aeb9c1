"""What is said is what is understood."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from millpond.compat.messages import End, Free, Log, Message, decode, encode

NUMBERS = st.integers(-(2**63), 2**63 - 1)


@given(
    st.builds(Free, NUMBERS, NUMBERS)
    | st.builds(Log, NUMBERS, st.text(min_size=1, max_size=40), st.binary(max_size=200))
)
def test_a_message_survives_the_way(message: Message) -> None:
    assert decode(encode(message)) == message


def test_so_does_one_that_says_little() -> None:
    assert decode(encode(End())) == End()
