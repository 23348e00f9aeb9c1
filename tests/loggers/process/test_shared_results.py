"""A logger's view of the results: read-only, of open slots only, and not to be kept."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from millpond.core.layout import Channel, Layout, plan
from millpond.errors import ConfigError
from millpond.mapped_arrays import map_arrays
from millpond.segment import Segment
from millpond_loggers.process.shared_results import KeptArrayError, NoChannelError, SharedResults

CHANNELS = (
    Channel("rgb", (3, 5, 7), "float32"),
    Channel("is_correct", (), "bool"),
    Channel("spectrum", (3,), "complex128"),
    Channel("ids", (2, 1), "uint16"),
)
SLOT_COUNT = 4
KEY = (7, 12)


@pytest.fixture
def layout() -> Layout:
    return plan(CHANNELS, SLOT_COUNT)


@pytest.fixture
def segment(layout: Layout) -> Iterator[Segment]:
    made = Segment(layout, 1)
    yield made
    made.close()


@pytest.fixture
def written(layout: Layout, segment: Segment) -> dict[str, NDArray[Any]]:
    """What the renderer sees, every channel of every slot with values of its own."""
    arrays = map_arrays(layout, segment.fd, writable=True)
    chance = np.random.default_rng(7)
    for array in arrays.values():
        array[...] = chance.integers(0, 200, array.shape)
    return arrays


@pytest.fixture
def results(layout: Layout, segment: Segment, written: dict[str, NDArray[Any]]) -> SharedResults:
    return SharedResults(layout, segment.fd_read_only, regid=3)


def test_the_channels_are_known_from_the_start(results: SharedResults) -> None:
    assert results.initialized is True
    assert results.channels == {
        "rgb": ((3, 5, 7), "float32"),
        "is_correct": ((), "bool"),
        "spectrum": ((3,), "complex128"),
        "ids": ((2, 1), "uint16"),
    }
    assert list(results.channels) == [channel.name for channel in CHANNELS]
    assert results.register() == 3
    assert results.register() == 3


def test_every_slot_and_channel_has_the_bytes_that_were_written(
    results: SharedResults, written: dict[str, NDArray[Any]]
) -> None:
    for slot in range(SLOT_COUNT):
        results.open(slot, KEY)
        arrays = results[slot]
        assert list(arrays) == [channel.name for channel in CHANNELS]
        for channel in CHANNELS:
            array = arrays[channel.name]
            assert type(array) is np.ndarray
            assert (array.shape, array.dtype) == (channel.shape, np.dtype(channel.dtype))
            assert array.flags.c_contiguous
            assert array.tobytes() == written[channel.name][slot].tobytes()


def test_the_arrays_are_the_memory_itself(
    results: SharedResults, written: dict[str, NDArray[Any]]
) -> None:
    results.open(2, KEY)
    rgb = results[2]["rgb"]
    written["rgb"][2, 1, 2, 3] = -1.5
    assert rgb[1, 2, 3] == -1.5


def test_a_scalar_is_an_array_without_dimensions(
    results: SharedResults, written: dict[str, NDArray[Any]]
) -> None:
    written["is_correct"][...] = [True, False, True, False]
    for slot, expected in enumerate([True, False, True, False]):
        results.open(slot, KEY)
        array = results[slot]["is_correct"]
        assert array.shape == ()
        assert array.item() is expected


@pytest.mark.parametrize("name", [channel.name for channel in CHANNELS])
def test_writing_into_a_result_raises_and_changes_nothing(
    results: SharedResults, written: dict[str, NDArray[Any]], name: str
) -> None:
    before = written[name].copy()
    results.open(1, KEY)
    array = results[1][name]
    with pytest.raises(ValueError, match="read-only"):
        array[...] = 1
    with pytest.raises(ValueError, match="cannot set WRITEABLE flag"):
        array.setflags(write=True)
    with pytest.raises(ValueError, match="read-only"):
        np.add(array, array, out=array)
    assert (written[name] == before).all()


@pytest.mark.parametrize("slot", [0, SLOT_COUNT, -1, 10**30, None, "0"])
def test_only_open_slots_can_be_seen(results: SharedResults, slot: Any) -> None:
    results.open(1, KEY)
    for look in (results.__getitem__, results.key_of):
        told = f"result_ix {slot!r} is not, or no longer, with this"
        with pytest.raises(LookupError, match=told):
            look(slot)


def test_every_open_slot_has_the_key_of_its_result(results: SharedResults) -> None:
    results.open(1, (3, 4))
    results.open(2, (3, 5))
    assert (results.key_of(1), results.key_of(2)) == ((3, 4), (3, 5))
    results.close(1)
    results.forget(2)
    for slot in (1, 2):
        with pytest.raises(LookupError, match=f"result_ix {slot} is not"):
            results.key_of(slot)
    results.open(1, (3, 6))
    assert results.key_of(1) == (3, 6)


def test_a_closed_slot_is_hidden_until_it_is_opened_again(
    results: SharedResults, written: dict[str, NDArray[Any]]
) -> None:
    results.open(1, KEY)
    results[1]["rgb"].sum()
    results.close(1)
    with pytest.raises(LookupError, match="result_ix 1 "):
        results[1]
    results.open(1, KEY)
    assert results[1]["rgb"].tobytes() == written["rgb"][1].tobytes()


KEEPERS: dict[str, Callable[[dict[str, NDArray[Any]]], Any]] = {
    "the array": lambda arrays: arrays["rgb"],
    "a scalar": lambda arrays: arrays["is_correct"],
    "the dict": lambda arrays: arrays,
    "a slice": lambda arrays: arrays["rgb"][0],
    "a slice of a slice": lambda arrays: arrays["rgb"][1:][0, 2:4],
    "a view in a list": lambda arrays: [1, [arrays["rgb"].reshape(-1).view("uint32")]],
    "a transposed one in a dict": lambda arrays: {"x": {"y": arrays["rgb"].T}},
    "the same under another name": lambda arrays: np.asarray(arrays["rgb"]),
    "its bytes": lambda arrays: memoryview(arrays["ids"]),
    "an array on its bytes": lambda arrays: np.frombuffer(arrays["ids"], "uint8"),
    "a real part": lambda arrays: arrays["spectrum"].real,
    "an iterator": lambda arrays: iter(arrays["rgb"]),
    "a method": lambda arrays: arrays["rgb"].mean,
    "a sub-class": lambda arrays: arrays["ids"].view(np.matrix),
}


@pytest.mark.filterwarnings("ignore:the matrix subclass:PendingDeprecationWarning")
@pytest.mark.parametrize("keeper", KEEPERS)
def test_what_is_kept_past_the_release_is_noticed(results: SharedResults, keeper: str) -> None:
    results.open(1, KEY)
    kept = KEEPERS[keeper](results[1])
    with pytest.raises(KeptArrayError, match=r"keep a copy of it \(array\.copy\(\), "):
        results.close(1)
    with pytest.raises(LookupError, match="result_ix 1 "):
        results[1]  # Hidden all the same.
    del kept
    results.open(1, KEY)
    results.close(1)  # What was noticed once is no fault of the next result.


COPIERS: dict[str, Callable[[dict[str, NDArray[Any]]], Any]] = {
    "a copy": lambda arrays: arrays["rgb"].copy(),
    "a sum": lambda arrays: arrays["rgb"].sum(axis=0),
    "an element": lambda arrays: arrays["rgb"][0, 0, 0],
    "a scalar": lambda arrays: arrays["is_correct"][()],
    "plain Python": lambda arrays: arrays["rgb"].tolist(),
    "other values": lambda arrays: arrays["rgb"].astype("uint8"),
    "chosen values": lambda arrays: arrays["rgb"][arrays["rgb"] > 1],
    "names": list,
}


@pytest.mark.parametrize("copier", COPIERS)
def test_what_is_copied_may_be_kept(results: SharedResults, copier: str) -> None:
    results.open(1, KEY)
    kept = COPIERS[copier](results[1])
    results.close(1)
    assert kept is not None


def test_a_cycle_that_is_garbage_is_no_keeper(results: SharedResults) -> None:
    results.open(1, KEY)
    garbage: list[Any] = [results[1], results[1]["rgb"][0]]
    garbage.append(garbage)
    del garbage
    results.close(1)


def test_a_cycle_that_is_in_use_is_a_keeper(results: SharedResults) -> None:
    results.open(1, KEY)
    cycle: list[Any] = [results[1]["rgb"][0]]
    cycle.append(cycle)
    with pytest.raises(KeptArrayError):
        results.close(1)
    assert cycle[1] is cycle


def test_every_look_at_a_result_is_watched_and_blamed_on_no_other(results: SharedResults) -> None:
    results.open(0, KEY)
    results.open(1, KEY)
    first = results[0]["rgb"][0]
    results[0]["rgb"].sum()
    results[1]["rgb"].sum()
    results.close(1)
    with pytest.raises(KeptArrayError):
        results.close(0)
    assert first.shape == (5, 7)


def test_a_result_that_was_never_looked_at_is_closed(results: SharedResults) -> None:
    results.open(1, KEY)
    results.close(1)


@pytest.mark.parametrize("slot", [1, 0, SLOT_COUNT, -1, 10**30, None])
def test_freeing_is_harmless_whatever_is_freed_and_however_often(
    results: SharedResults, slot: Any
) -> None:
    """The runner releases; it is there for loggers that were written for 3DB."""
    results.open(1, KEY)
    for regid in (3, 3, 99):
        results.free(slot, regid)
    assert results[1]["rgb"].shape == (3, 5, 7)
    results.close(1)
    results.free(slot, 3)


def test_closing_twice_is_harmless(results: SharedResults) -> None:
    results.open(1, KEY)
    results.close(1)
    results.close(1)
    results.close(3)


def test_the_memory_outlives_its_descriptors(
    layout: Layout, written: dict[str, NDArray[Any]], segment: Segment
) -> None:
    results = SharedResults(layout, segment.fd_read_only, regid=1)
    segment.close()
    written["rgb"][1] = 7
    results.open(1, KEY)
    assert (results[1]["rgb"] == 7).all()


# Channels.


def test_a_logger_sees_only_the_channels_that_it_wants(
    layout: Layout, segment: Segment, written: dict[str, NDArray[Any]]
) -> None:
    results = SharedResults(layout, segment.fd_read_only, regid=1, wanted=["ids", "rgb", "ids"])
    assert results.channels == {"rgb": ((3, 5, 7), "float32"), "ids": ((2, 1), "uint16")}
    assert list(results.channels) == ["rgb", "ids"]
    results.open(2, KEY)
    arrays = results[2]
    assert list(arrays) == ["rgb", "ids"]
    for name, array in arrays.items():
        assert array.tobytes() == written[name][2].tobytes()
    with pytest.raises(NoChannelError, match="no channel 'is_correct'; the channels are rgb, ids"):
        arrays["is_correct"]


def test_a_logger_may_want_none(layout: Layout, segment: Segment) -> None:
    results = SharedResults(layout, segment.fd_read_only, regid=1, wanted=[])
    results.open(0, KEY)
    assert results[0] == {}
    assert results.channels == {}


def test_a_channel_that_the_pond_does_not_have_is_refused(layout: Layout, segment: Segment) -> None:
    told = "no channel 'is_corect'; did you mean 'is_correct'[?] the channels are rgb, is_correct"
    with pytest.raises(ConfigError, match=told):
        SharedResults(layout, segment.fd_read_only, regid=1, wanted=["rgb", "is_corect"])


@pytest.mark.parametrize("name", ["rbg", 0, None])
def test_a_wrong_name_is_told_with_those_that_there_are(results: SharedResults, name: Any) -> None:
    results.open(1, KEY)
    with pytest.raises(KeyError) as caught:
        results[1][name]
    text = str(caught.value)
    assert text.startswith(f"no channel {name!r}; ")
    assert text.endswith("the channels are rgb, is_correct, spectrum, ids")
    assert ("did you mean 'rgb'?" in text) == (name == "rbg")
    assert results[1].get(name) is None
    assert name not in results[1]


# Loggers that keep slots.


def test_what_a_keeper_has_freed_is_taken_once_in_its_order(results: SharedResults) -> None:
    results.keeps = True
    for slot in (0, 1, 2):
        results.open(slot, KEY)
    for slot in (2, 0, 2, 3, 99, None):
        results.free(slot, 3)
    assert results.take_freed() == [2, 0]
    assert results.take_freed() == []


def test_what_was_forgotten_is_not_freed(results: SharedResults) -> None:
    results.keeps = True
    results.open(1, KEY)
    results.free(1, 3)
    results.forget(1)
    assert results.take_freed() == []


def test_a_keeper_is_told_that_it_has_freed_too_early(results: SharedResults) -> None:
    results.keeps = True
    results.open(1, KEY)
    kept = results[1]
    with pytest.raises(KeptArrayError, match=r"still referred to after free\(\)"):
        results.close(1)
    assert kept["rgb"].shape == (3, 5, 7)


def test_what_is_kept_is_named(results: SharedResults) -> None:
    results.open(1, KEY)
    kept = [results[1]["rgb"]]
    with pytest.raises(KeptArrayError, match=r"^array 'rgb' of this result is still"):
        results.close(1)
    results.open(1, KEY)
    kept += [results[1][name] for name in ("ids", "rgb", "ids")]
    with pytest.raises(KeptArrayError, match=r"^arrays 'rgb', 'ids' of this result are"):
        results.close(1)
