"""The results of the suite are what renderers may publish, and the same every time."""

import math

import numpy as np
import pytest

from millpond.client_values import encode_job, write_value
from millpond.core.layout import DTYPE_BYTES, Channel
from millpond_loggers.testing import scene


def test_every_odd_id_is_one_that_a_renderer_may_publish() -> None:
    assert len(set(scene.ODD_IDS)) == len(scene.ODD_IDS)
    for id in scene.ODD_IDS:
        encode_job(id, {}, None)


def test_every_odd_argument_is_one_that_a_renderer_may_publish() -> None:
    for arguments in scene.ODD_ARGUMENTS:
        encode_job("1", arguments, None)


@pytest.mark.parametrize("dtype", DTYPE_BYTES)
@pytest.mark.parametrize("shape", [(), (1,), (3, 4, 4)])
def test_every_channel_can_hold_its_values(dtype: str, shape: tuple[int, ...]) -> None:
    channel = Channel("x", shape, dtype)
    array = np.zeros((1, *shape), dtype)
    for number in (1, 300):
        values = scene.arrays_of([channel], number)
        assert np.array_equal(values["x"], scene.arrays_of([channel], number)["x"])
        write_value(array, 0, channel, values["x"])
    for value in scene.ODD_NUMBERS:
        for odd in scene.odd_arrays_of([channel], value).values():
            write_value(array, 0, channel, odd)


def test_a_scalar_tells_the_number_of_its_result() -> None:
    values = scene.arrays_of([Channel("loss", (), "float32"), Channel("n", (1,), "int64")], 7)
    assert (values["loss"].item(), values["n"].item()) == (7.0, 7)
    assert scene.id_of(7) == "000007"


def test_nan_is_put_where_it_can_be() -> None:
    channels = [Channel("loss", (), "float32"), Channel("n", (), "int8")]
    assert list(scene.odd_arrays_of(channels, math.nan)) == ["loss"]
    assert scene.odd_arrays_of(channels, 1e308) == {}  # No float32.


def test_there_are_more_arguments_later() -> None:
    counts = [len(scene.arguments_of(number)) for number in (1, 5, 10, 15, 500)]
    assert counts == [1, 2, 3, 4, 4]
