"""Tensors that view the shared memory: no copies, harmless writes, and nothing kept unseen."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from millpond.core.layout import Channel, Layout, plan
from millpond.errors import ConfigError
from millpond.mapped_arrays import map_arrays
from millpond.segment import Segment
from millpond_loggers.process.shared_results import KeptArrayError
from millpond_loggers.process.torch_results import TorchResults

torch = pytest.importorskip("torch", reason="torch is not installed here: make threedb")

CHANNELS = (
    Channel("rgb", (3, 5, 7), "float32"),
    Channel("is_correct", (), "bool"),
    Channel("large", (40_000,), "uint8"),  # Of several pages.
)
SLOT_COUNT = 3
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
    arrays = map_arrays(layout, segment.fd, writable=True)
    chance = np.random.default_rng(7)
    for array in arrays.values():
        array[...] = chance.integers(0, 200, array.shape)
    return arrays


@pytest.fixture
def results(layout: Layout, segment: Segment, written: dict[str, NDArray[Any]]) -> TorchResults:
    return TorchResults(layout, segment.fd_read_only, regid=3)


def test_every_channel_is_a_tensor_with_the_bytes_that_were_written(
    results: TorchResults, written: dict[str, NDArray[Any]]
) -> None:
    for slot in range(SLOT_COUNT):
        results.open(slot, KEY)
        for channel in CHANNELS:
            tensor = results[slot][channel.name]
            assert torch.is_tensor(tensor)
            assert tuple(tensor.shape) == channel.shape
            assert tensor.is_contiguous()
            assert tensor.numpy().tobytes() == written[channel.name][slot].tobytes()


def test_a_scalar_is_a_tensor_without_dimensions(
    results: TorchResults, written: dict[str, NDArray[Any]]
) -> None:
    written["is_correct"][1] = True
    results.open(1, KEY)
    tensor = results[1]["is_correct"]
    assert tensor.shape == ()
    assert tensor.dtype == torch.bool
    assert tensor.item() is True


def test_the_tensors_are_the_memory_itself(
    results: TorchResults, written: dict[str, NDArray[Any]]
) -> None:
    results.open(2, KEY)
    tensor = results[2]["rgb"]
    written["rgb"][2, 1, 2, 3] = -1.5
    assert tensor[1, 2, 3] == -1.5


def test_a_write_is_the_loggers_own_and_gone_with_the_next_result(
    results: TorchResults, written: dict[str, NDArray[Any]]
) -> None:
    written["large"][1] = 5
    results.open(1, KEY)
    results[1]["large"].mul_(2)
    assert (results[1]["large"] == 10).all()
    assert (written["large"][1] == 5).all()
    results.close(1)
    written["large"][1] = 6
    results.open(1, KEY)
    assert (results[1]["large"] == 6).all()


KEEPERS: dict[str, Callable[[dict[str, Any]], Any]] = {
    "the tensor": lambda tensors: tensors["rgb"],
    "a scalar": lambda tensors: tensors["is_correct"],
    "a slice": lambda tensors: tensors["rgb"][0, 1:],
    "a permuted one": lambda tensors: tensors["rgb"].permute(1, 2, 0),
    "an array of it": lambda tensors: tensors["rgb"].numpy(),
    "an array of a view in a list": lambda tensors: [tensors["rgb"][0].numpy().T],
    "its storage": lambda tensors: tensors["rgb"].untyped_storage(),
    "the same without a gradient": lambda tensors: tensors["rgb"].detach(),
    "the dict": lambda tensors: tensors,
}


@pytest.mark.parametrize("keeper", KEEPERS)
def test_what_is_kept_past_the_release_is_noticed(results: TorchResults, keeper: str) -> None:
    results.open(1, KEY)
    kept = KEEPERS[keeper](results[1])
    with pytest.raises(KeptArrayError, match=r"tensor\.clone\(\)"):
        results.close(1)
    del kept
    results.open(1, KEY)
    results.close(1)


@pytest.mark.parametrize(
    "copier", [torch.clone, torch.sum, lambda t: t.double(), torch.Tensor.tolist]
)
def test_what_is_copied_may_be_kept(results: TorchResults, copier: Callable[[Any], Any]) -> None:
    results.open(1, KEY)
    kept = copier(results[1]["rgb"])
    results.close(1)
    assert kept is not None


def test_only_open_slots_can_be_seen(results: TorchResults) -> None:
    results.open(1, KEY)
    results.close(1)
    with pytest.raises(LookupError, match="result_ix 1 is not"):
        results[1]


def test_only_the_wanted_channels_are_there(layout: Layout, segment: Segment) -> None:
    results = TorchResults(layout, segment.fd_read_only, regid=1, wanted=["is_correct"])
    results.open(0, KEY)
    assert list(results[0]) == ["is_correct"]


def test_a_dtype_that_torch_does_not_know_is_named_with_its_channel(
    layout: Layout, segment: Segment, monkeypatch: pytest.MonkeyPatch
) -> None:
    def from_numpy(array: NDArray[Any]) -> Any:
        raise TypeError("can't convert np.ndarray of that type")

    monkeypatch.setattr(torch, "from_numpy", from_numpy)
    with pytest.raises(ConfigError, match="has no dtype float32, which channel 'rgb' has"):
        TorchResults(layout, segment.fd_read_only, regid=1)
