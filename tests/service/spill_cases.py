"""Results, slots and stores for the tests of the spill."""

from __future__ import annotations

import random
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import orjson

from millpond.core.deliveries import Result
from millpond.core.layout import Channel, plan
from millpond.core.wire import Kind, pack
from millpond.spill import SpillStore

LAYOUT = plan((Channel("rgb", (3, 5), "float32"), Channel("label", (), "uint8")), 4)
SLOT_BYTES = LAYOUT.payload_bytes
OTHER_LAYOUT = plan((Channel("rgb", (3, 6), "float32"), Channel("label", (), "uint8")), 4)
BIG = 1 << 40


def result(renderer: int, sequence: int, id: str | None = None, extra: int = 0) -> Result:
    name = f"{renderer}/{sequence}" if id is None else id
    body = orjson.dumps({"id": name, "render_args": {"x": "y" * extra}})
    frame = pack(Kind.PUBLISH, body, renderer=renderer, sequence=sequence)
    return Result(0, 1, renderer, sequence, name, frame)


def payload(renderer: int, sequence: int, layout: Any = LAYOUT) -> bytes:
    return random.Random(f"{renderer} {sequence}").randbytes(layout.payload_bytes)


def payload_of(result: Result) -> memoryview:
    # A slot is longer than what the channels take.
    return memoryview(payload(result.renderer, result.sequence) + b"behind it")


def never() -> bool:
    return False


def make_store(folder: Path, **limits: int) -> SpillStore:
    return SpillStore(folder, LAYOUT, **{"size_max_bytes": BIG, **limits})


def write(store: SpillStore, token: int, results: Iterable[Result]) -> None:
    store.write(token, list(results), payload_of, never)


def read(store: SpillStore, token: int, count: int = 1000) -> list[tuple[int, int]]:
    """Read and check; the keys of what came."""
    slots = [bytearray(SLOT_BYTES + 7) for _ in range(count)]
    replayed = store.read(token, [memoryview(slot) for slot in slots])
    for one, slot in zip(replayed, slots, strict=False):
        assert one.problem == ""
        assert slot == payload(one.renderer, one.sequence) + bytes(7)
        assert one.frame == result(one.renderer, one.sequence, one.id).frame
    return [(one.renderer, one.sequence) for one in replayed]


def keys(results: Iterable[Any]) -> list[tuple[int, int]]:
    return [(one.renderer, one.sequence) for one in results]


def segments(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.glob("*.seg"))
