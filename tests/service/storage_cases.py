"""Run folders as earlier daemons leave them, and a storage that is opened on one."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import orjson
from service.spill_cases import BIG, LAYOUT, payload, result

from millpond.config.load import load
from millpond.config.model import Config
from millpond.core.commands import ReplayResults, SpillResults
from millpond.core.deliveries import Key, Result
from millpond.core.events import Event, ResultsReplayed
from millpond.core.layout import Layout, channels_to_json
from millpond.core.slots import SlotRef
from millpond.dead_letters import DeadLetters, Letter, dead_of, retract
from millpond.ledger import Ledger
from millpond.module_search import check_modules
from millpond.segment import Segment
from millpond.spill import SpillStore
from millpond.storage import Storage

WATCHDOG_S = 60.0


def config_for(run: Path, names: Sequence[str] = ("a", "b"), **sections: Any) -> Config:
    """A configuration of loggers that keep nothing, beside the run folder."""
    path = run.parent / "pond.yaml"
    loggers = [{"module": "null", "name": name} for name in names]
    given = {"output_dir": str(run), "logging": {"logger_modules": loggers}, **sections}
    path.write_text(json.dumps(given))
    return load(path, environ={})


def results(renderer: int, first: int, last: int) -> list[Result]:
    return [result(renderer, sequence) for sequence in range(first, last + 1)]


def arrays_in(slot: Any) -> list[bytes]:
    """The bytes of each channel; what lies between two of them is nobody's."""
    ends = [(at, at + c.size_bytes) for at, c in zip(LAYOUT.offsets, LAYOUT.channels, strict=True)]
    return [bytes(slot[begin:end]) for begin, end in ends]


def spill(logger: int, token: int, given: Sequence[Result]) -> SpillResults:
    """The command for a batch that stands alone."""
    return SpillResults(logger, token, list(given), token)


def letters_of(given: Iterable[Result], *, with_arrays: bool) -> list[Letter]:
    return [
        Letter(*one.key, one.id, 1, payload(*one.key) if with_arrays else None, one.frame[32:])
        for one in given
    ]


class Past:
    """A start of the daemon that is over: it writes what it did into the run folder.

    Args:
        run: The run folder.
        names: The loggers that it had.
        pending: What it took over, by logger.
        renderer: The number of its only renderer.
        published: How many results that renderer published.
    """

    def __init__(
        self,
        run: Path,
        names: Sequence[str] = ("a", "b"),
        *,
        pending: Any = None,
        renderer: int = 1,
        published: int = 10,
        layout: Layout = LAYOUT,
    ) -> None:
        run.mkdir(exist_ok=True)
        self.run, self.names, self.layout, self.renderer = run, list(names), layout, renderer
        loggers = [{"name": n, "kind": "module", "place": n, "options": {}} for n in names]
        self.ledger = Ledger(run, loggers)
        config = str(run.parent / "pond.yaml")
        channels = channels_to_json(layout.channels)
        self.ledger.begin(pending or {}, channels=channels, config=config)
        self.letters = DeadLetters(run, layout, arrays_bytes_max=BIG)
        self.stores: dict[str, SpillStore] = {}
        if published:
            self.ledger.renderer_joined(renderer, 4711)
            self.ledger.published(self.these(1, published))

    def these(self, first: int, last: int) -> list[Result]:
        return results(self.renderer, first, last)

    def delivered(self, name: str, first: int, last: int) -> None:
        self.ledger.delivered(self.names.index(name), self.these(first, last))

    def spilled(
        self, name: str, given: Sequence[Result], *, layout: Layout | None = None
    ) -> SpillStore:
        layout = layout or self.layout
        store = SpillStore(self.run / "spill" / name, layout, size_max_bytes=BIG)
        store.recover()
        store.write(1, given, lambda r: memoryview(payload(*r.key, layout)), lambda: False)
        self.stores[name] = store
        if name in self.names:
            self.ledger.otherwise(self.names.index(name), given)
        return store

    def dead(self, name: str, first: int, last: int, *, with_arrays: bool = False) -> None:
        given = self.these(first, last)
        letters = letters_of(given, with_arrays=with_arrays)
        assert self.letters.bury(name, letters, reason="exception", problem="no")
        self.ledger.otherwise(self.names.index(name), given)

    def taken_back(self, name: str, first: int, last: int) -> None:
        """Dead with their arrays, and an operator wants them to be tried again."""
        self.dead(name, first, last, with_arrays=True)
        retract(self.run, [(name, *one.key) for one in self.these(first, last)])

    def end(self, *, is_killed: bool = False) -> None:
        for store in self.stores.values():
            store.close()
        self.letters.close()
        self.ledger.close(is_end=not is_killed)


class Opened:
    """A storage that is open, and what it tells."""

    def __init__(self, config: Config, *, layout: Layout = LAYOUT) -> None:
        self.config = config
        self.events: list[Event] = []
        self.bugs: list[BaseException] = []
        found = check_modules(config)
        self.storage = Storage(
            config,
            [found[logger.name] for logger in config.loggers],
            asyncio.get_running_loop(),
            dispatch=self.events.append,
            fail=self.bugs.append,
        )
        self.channels = self.storage.channels
        self.renderer_last = self.storage.renderer_last
        self.segment = Segment(layout, len(config.loggers))
        self.waiting: list[int] = []

    def open(self) -> Opened:
        self.waiting = self.storage.open(self.segment)
        return self

    async def next_event(self) -> Event:
        async with asyncio.timeout(WATCHDOG_S):
            while not self.events:
                assert self.bugs == []
                await asyncio.sleep(0.001)
        return self.events.pop(0)

    async def replay(self, logger: int = 0, token: int = 0) -> list[Result]:
        """Read back all that waits for a logger, and check every byte."""
        left, read = self.waiting[logger], []
        while left:
            count = min(left, self.segment.layout.slot_count)
            slots = [SlotRef(slot, 7) for slot in range(count)]
            self.storage.perform(ReplayResults(logger, token, slots))
            event = await self.next_event()
            assert isinstance(event, ResultsReplayed)
            assert (event.logger, event.token, event.corrupt) == (logger, token, [])
            for one in event.results:
                assert arrays_in(self.segment.slot(one.slot)) == arrays_in(payload(*one.key))
            read += event.results
            left -= count
        return read

    def write_slot(self, slot: int, key: Key) -> None:
        self.segment.slot(slot)[:] = payload(*key)

    def close(self, *, is_end: bool = True) -> None:
        self.storage.close(is_end=is_end)
        self.segment.close()
        assert self.bugs == []


def dead_now(run: Path) -> dict[tuple[str, int, int], str]:
    """Why each result is dead that is."""
    return {key: line.reason for key, line in dead_of(run).items()}


def first_line(run: Path, number: int) -> dict[str, Any]:
    """What the ledger of a start says at first."""
    raw = (run / "ledger" / f"{number:06}.jsonl").read_bytes().split(b"\n")[0]
    found: dict[str, Any] = orjson.loads(raw)["start"]
    return found
