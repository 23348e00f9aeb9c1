"""How many slots there are, and what lies in each."""

import pytest
from pydantic import ValidationError

from millpond.config.buffer import BufferConfig
from millpond.core.layout import SLOT_COUNT_MAX, Channel
from millpond.errors import ConfigError


def test_slots_are_counted_or_fill_a_size() -> None:
    assert BufferConfig(slots=7).slot_count(4096) == 7
    assert BufferConfig(size="1MiB").slot_count(4096) == 256
    assert BufferConfig(size="1TiB").slot_count(4096) == SLOT_COUNT_MAX
    with pytest.raises(ConfigError, match="8192 bytes") as refusal:
        BufferConfig(size=4096).slot_count(8192)
    assert refusal.value.key == "buffer.size"


def test_slots_beside_an_empty_size_are_fine() -> None:
    assert BufferConfig(slots=7, size=None).slot_count(4096) == 7


def test_channels_keep_their_order() -> None:
    assert BufferConfig().declared is None
    buffer = BufferConfig(
        channels={
            "rgb": {"shape": [3, 8, 8], "dtype": "float32"},
            "loss": {"shape": [], "dtype": "float64"},
        }
    )
    assert buffer.declared == (Channel("rgb", (3, 8, 8), "float32"), Channel("loss", (), "float64"))


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"slots": 3, "size": "1MiB"}, "one of them"),
        ({"channels": {}}, "at least one array"),
        ({"channels": {"1": {"shape": [], "dtype": "int8"}}}, "channel name '1'"),
        ({"channels": {f"c{i}": {"shape": [], "dtype": "int8"} for i in range(65)}}, "65 channels"),
        ({"size": 4096, "channels": {"a": {"shape": [5000], "dtype": "int8"}}}, "8192 bytes"),
        ({"slots": 65536, "channels": {"a": {"shape": [2**28], "dtype": "int8"}}}, "1 TiB"),
    ],
)
def test_what_is_refused(given: dict, words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        BufferConfig.model_validate(given)
