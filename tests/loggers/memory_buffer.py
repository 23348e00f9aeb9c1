"""A result buffer in plain memory, for tests: real numpy arrays, handed out read-only.

It knows which of the arrays that it handed out are still alive, as the runner does.
"""

from __future__ import annotations

import itertools
import os
import weakref
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

# No two buffers share a key, whatever process they are in: they are renderers of the same run.
_numbers = itertools.count(1)


class MemoryBuffer:
    def __init__(self, channels: Mapping[str, tuple[tuple[int, ...], str]], slot_count: int = 2):
        self.channels = dict(channels)
        self.initialized = True
        self.registered = 0
        self.freed: list[tuple[int, int]] = []
        self._slots = [
            {name: np.zeros(shape, dtype) for name, (shape, dtype) in channels.items()}
            for _ in range(slot_count)
        ]
        self._renderer = os.getpid() << 32 | next(_numbers)
        self._sequence = 0
        self._keys: dict[int, tuple[int, int]] = {}
        self._next = 0
        self._borrowed: list[weakref.ref[NDArray[Any]]] = []

    def put(
        self,
        id: str,
        render_args: dict[str, Any] | None = None,
        *,
        key: tuple[int, int] | None = None,
        **values: Any,
    ) -> dict:
        """Write a result into the next slot; the item for `log`.  A key makes it a known one.

        Values that name no channel become fields of the item.
        """
        index, self._next = self._next, (self._next + 1) % len(self._slots)
        self._keys.pop(index, None)
        if key is not None:
            self._keys[index] = key
        item: dict[str, Any] = {"id": id}
        for name, array in self._slots[index].items():
            array[...] = values.pop(name, 0)
        return item | values | {"render_args": render_args or {}, "result_ix": index}

    def register(self) -> int:
        self.registered += 1
        return self.registered

    def __getitem__(self, result_ix: int) -> dict[str, NDArray[Any]]:
        arrays = {}
        for name, array in self._slots[result_ix].items():
            view = array.view()
            view.setflags(write=False)
            self._borrowed.append(weakref.ref(view))
            arrays[name] = view
        return arrays

    def key_of(self, result_ix: int) -> tuple[int, int]:
        """The key that `put` was given last for this slot, else one that never was."""
        self._sequence += 1
        return self._keys.get(result_ix, (self._renderer, self._sequence))

    def free(self, result_ix: int, regid: int) -> None:
        self.freed.append((result_ix, regid))

    def kept_count(self) -> int:
        """How many of the arrays that were handed out are still alive."""
        self._borrowed = [reference for reference in self._borrowed if reference() is not None]
        return len(self._borrowed)
