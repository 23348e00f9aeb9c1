"""A result buffer in plain memory, for tests: real numpy arrays, handed out read-only.

It knows which of the arrays that it handed out are still alive, as the runner does.
"""

from __future__ import annotations

import weakref
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray


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
        self._next = 0
        self._borrowed: list[weakref.ref[NDArray[Any]]] = []

    def put(self, id: str, render_args: dict[str, Any] | None = None, **values: Any) -> dict:
        """Write a result into the next slot; the item for `log`.

        Values that name no channel become fields of the item.
        """
        index, self._next = self._next, (self._next + 1) % len(self._slots)
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

    def free(self, result_ix: int, regid: int) -> None:
        self.freed.append((result_ix, regid))

    def kept_count(self) -> int:
        """How many of the arrays that were handed out are still alive."""
        self._borrowed = [reference for reference in self._borrowed if reference() is not None]
        return len(self._borrowed)
