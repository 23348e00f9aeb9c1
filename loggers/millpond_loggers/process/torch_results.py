"""The results as tensors of torch, which view the shared memory: no copy is made.

Torch has no tensors that are read-only, and a write into memory that is would end the process.  So
the memory is mapped copy-on-write: a logger that writes into a tensor changes its own copy of
these pages, which lasts until the slot holds the next result; nobody else sees it.
"""

from __future__ import annotations

import mmap
from typing import Any, Final

import numpy as np

from millpond.errors import ConfigError
from millpond_loggers.process.shared_results import SharedResults

# Source: asm-generic/mman-common.h; `mmap` has it from Python 3.13 on.  Without it, the kernel
# would count the whole mapping as memory that is needed once more.
MAP_NORESERVE: Final = 0x4000


class TorchResults(SharedResults):
    """The buffer of a logger that wants tensors.

    Whatever refers to a tensor's memory, such as a view of it or the array that its ``numpy()``
    gives, is noticed like an array that is kept: the storage of a tensor keeps the array that it
    was made from.
    """

    def __init__(self, *arguments: Any, **options: Any) -> None:
        """Take what `SharedResults` takes.

        Raises:
            ConfigError: As there; or torch does not know the dtype of a channel.
            ImportError: There is no torch.
        """
        import torch  # noqa: PLC0415  It takes a second, and few loggers need it.

        super().__init__(*arguments, **options)
        self._tensor_of = torch.from_numpy
        for name, (_, dtype) in self.channels.items():
            try:
                torch.from_numpy(np.zeros((), dtype))
            except TypeError:
                raise ConfigError(
                    f"torch {torch.__version__} has no dtype {dtype}, which channel '{name}' has: "
                    "leave it out of the logger's 'channels:', or choose 'arrays: numpy'"
                ) from None

    @staticmethod
    def _map(segment_fd: int, size_bytes: int) -> mmap.mmap:
        """Map the segment, so that a write changes a copy of our own."""
        flags = mmap.MAP_PRIVATE | MAP_NORESERVE
        return mmap.mmap(segment_fd, size_bytes, flags, mmap.PROT_READ | mmap.PROT_WRITE)

    def open(self, slot: int, key: tuple[int, int]) -> None:
        """Let the logger see a slot, without what it wrote into the last result there."""
        self._memory.madvise(mmap.MADV_DONTNEED, slot * self._slot_bytes, self._slot_bytes)
        super().open(slot, key)

    def __getitem__(self, result_ix: int) -> dict[str, Any]:
        """The tensors of one result.

        Raises:
            LookupError: This logger has no such result now.
        """
        found: dict[str, Any] = super().__getitem__(result_ix)
        for name, array in found.items():
            found[name] = self._tensor_of(array)
        return found
