"""What the daemon keeps in the run folder: the ledger, the spills, and the dead.

`open` squares what the last start left with what this one finds: what is in a spill is delivered
now, and what has neither outcome nor record is listed as dead, so that nothing is forgotten.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Final

import structlog

from millpond.config.model import Config
from millpond.core.commands import (
    BuryResults,
    CancelKeeping,
    ReplayResults,
    ReportDead,
    SpillResults,
)
from millpond.core.deliveries import Key, Result
from millpond.core.events import Event, ResultsReplayed
from millpond.core.layout import Channel, Layout, channels_or_none, channels_to_json
from millpond.core.ranges import ResultRanges
from millpond.dead_letters import DeadLetters, Letter, dead_of
from millpond.dead_retry import TakenBack, put_into_spill, taken_back
from millpond.keeper import Keeper
from millpond.ledger import Ledger
from millpond.module_search import FoundModule
from millpond.reports import shown
from millpond.run_folder import has_files, spill_folders
from millpond.segment import Segment
from millpond.setup_frame import definitions
from millpond.spill import RecoveredResult, SpillStore, list_spilled
from millpond.spill_recovery import spilled_channels

# Between two moments at which the ledger waits for the disk: what a loss of power may cost.
LEDGER_SYNC_S: Final = 0.25
# For the disk at the end, besides what `disk.deadline_s` gives it.
CLOSE_S: Final = 2.0

DiskCommand = SpillResults | BuryResults | CancelKeeping | ReplayResults | ReportDead

log = structlog.get_logger(__name__)


class Storage:
    """The run folder, as the daemon uses it.

    Args:
        config: The configuration.
        modules: Where each logger was found, in the order of the configuration.
        loop: The event loop.
        dispatch: Takes events.
        fail: Takes a bug of ours.

    Attributes:
        renderer_last: The highest number that a renderer ever had in this run folder.
        channels: Those of the last start, if something of it waits on the disk.
    """

    def __init__(
        self,
        config: Config,
        modules: Sequence[FoundModule],
        loop: asyncio.AbstractEventLoop,
        *,
        dispatch: Callable[[Event], None],
        fail: Callable[[BaseException], None],
    ) -> None:
        self._config = config
        self._names = [logger.name for logger in config.loggers]
        # To whom each process belongs: it is they who have a spill, and a place in the ledger.
        self._teams = [process.team for process in config.processes]
        self._loop = loop
        self._dispatch = dispatch
        self._fail = fail
        self._ledger = Ledger(config.output_dir, definitions(config, modules))
        previous = self._ledger.previous
        self._dead: dict[str, set[Key]] = {}
        for logger, renderer, sequence in dead_of(config.output_dir):
            self._dead.setdefault(logger, set()).add((renderer, sequence))
        self._back: dict[str, list[TakenBack]] = {}
        for one in taken_back(config.output_dir):
            self._back.setdefault(one.line.logger, []).append(one)
        folders = spill_folders(config.spill_path)
        if old := previous.spill_left(config.output_dir, config.spill_path):
            problem = f"results of this run wait in {old}: set it back until they are replayed"
            raise config.error(f"{problem}, or move them", "disk", "spill_dir")
        self._strangers = {
            folder.name: list(list_spilled(folder))
            for folder in folders
            if folder.name not in self._names
        }
        self._last_channels = channels_or_none(previous.channels)
        self.channels: tuple[Channel, ...] | None = None
        if folders or self._back:
            told = (channels_or_none(spilled_channels(folder)) for folder in folders)
            self.channels = self._last_channels or next(filter(None, told), None)
        self.renderer_last = self._highest_renderer(folders)
        # Dead, and the list did not take their lines yet: the ledger goes on owing them.
        self._unlisted: dict[str, list[Key]] = {}
        self._stores: list[SpillStore] = []
        self._letters: DeadLetters | None = None
        self._keeper: Keeper | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._is_syncing = False
        self._lost = 0  # Of earlier starts; listed as dead by this one.
        # Read back and without an outcome, for each process: their records are still on the disk.
        self._replayed: list[set[Key]] = [set() for _ in self._teams]
        self._to_settle: list[list[Key]] = [[] for _ in self._teams]

    def _highest_renderer(self, folders: Sequence[Path]) -> int:
        """The highest number that a renderer ever had here, as far as anything tells."""
        previous = self._ledger.previous
        keys: list[Iterable[tuple[int, ...]]] = [*self._dead.values()]
        keys += [[one.key for one in back] for back in self._back.values()]
        if not previous.is_whole:  # Else it knows all of them.
            keys += [(found[:2] for found in list_spilled(folder)) for folder in folders]
        highest = max((key[0] for some in keys for key in some), default=0)
        if not previous.number and has_files(self._config.output_dir):
            # Its ledger is gone, and the files here may name results of renderers 1, 2, 3 ...
            highest = max(highest, int(time.time()))
        return max(previous.renderer_last, highest)

    def channels_for(
        self, declared: tuple[Channel, ...] | None, *, is_replay: bool
    ) -> tuple[Channel, ...] | None:
        """The channels to begin with; None: the first renderer declares them.

        Args:
            declared: Those of the configuration.
            is_replay: No renderer will come.
        """
        if declared is None:
            return self.channels or (self._last_channels if is_replay else None)
        # In the order in which they lie on the disk, should they be the same.
        waiting = self.channels
        return waiting if waiting is not None and set(waiting) == set(declared) else declared

    def open(self, segment: Segment) -> list[int]:
        """Take over what the last start left, and begin this one.

        Returns:
            How many results wait on the disk for each logger.

        Raises:
            OSError: The ledger cannot be written.
        """
        config, layout = self._config, segment.layout
        previous = self._ledger.previous
        for problem in previous.problems:
            log.warning("ledger", problem=problem)
        self._letters = DeadLetters(
            config.output_dir, layout, arrays_bytes_max=config.disk.dead_max
        )
        self._letters.retry()  # While the disk has room: its reserve is made.
        waiting: dict[str, ResultRanges] = {}
        for name in self._names:
            store = SpillStore(
                config.spill_path / name, layout, size_max_bytes=config.disk.spill_max
            )
            self._stores.append(store)
            waiting[name] = ResultRanges(self._recover(name, store, layout))
        for name in sorted({*previous.logger_names, *self._strangers} - set(self._names)):
            is_settled = previous.settled(name, self._dead.get(name, ()))
            spilled = [r[:2] for r in self._strangers.get(name, ()) if not is_settled(r[:2])]
            waiting[name] = ResultRanges(spilled)
            if count := len(spilled):
                log.warning("spill of a logger that is not configured", logger=name, count=count)
            self._report_unaccounted(name, spilled)
        self._ledger.begin(
            {
                name: results.union(ResultRanges(self._unlisted.get(name, ())))
                for name, results in waiting.items()
            },
            renderer_last=self.renderer_last,
            spill=os.fspath(config.spill_path),
            config=os.fspath(config.source),
            output_dir=os.fspath(config.output_dir),
            channels=channels_to_json(layout.channels),
        )
        for name in self._names:
            for one in self._back.get(name, ()):
                if one.key in waiting[name]:
                    one.arrays.unlink(missing_ok=True)
        self._keeper = Keeper(
            self._loop,
            dispatch=self._tell,
            fail=self._fail,
            recorded=self._recorded,
            names=[self._names[team] for team in self._teams],
            stores=[self._stores[team] for team in self._teams],
            letters=self._letters,
            slot_memory=segment.slot,
            slot_bytes=layout.payload_bytes,
        )
        return [len(waiting[name]) for name in self._names]

    def _recover(self, name: str, store: SpillStore, layout: Layout) -> list[Key]:
        """Find what waits for one logger; settle what has an outcome, and list what is damaged."""
        recovery, previous = store.recover(), self._ledger.previous
        for problem in recovery.problems:
            log.warning("spill", logger=name, problem=problem)
        is_settled = previous.settled(name, self._dead.get(name, ()))
        store.settle([r[:2] for r in recovery.results if is_settled(r[:2])])
        damaged = [r for r in recovery.corrupt if not is_settled(r[:2])]
        self._bury(name, damaged, "spill_corrupt", "its record on the disk is damaged")
        others = [r for r in recovery.set_aside if not is_settled(r[:2])]
        problem = f"it has other channels; its record is in {self._config.spill_path / name}"
        self._bury(name, others, "spill_corrupt", problem)
        waiting = [r[:2] for r in recovery.results if not is_settled(r[:2])]
        self.renderer_last = max([self.renderer_last, *(r.renderer for r in recovery.results)])
        there = set(waiting)
        for one in self._back.get(name, ()):
            if one.key in there:
                continue  # The last start had it there, and ended before the arrays were removed.
            if problem := put_into_spill(one, store, layout):
                log.error("cannot be tried again", logger=name, id=one.line.id, problem=problem)
            else:
                waiting.append(one.key)
        known = [*waiting, *(r[:2] for r in (*damaged, *others))]
        self._report_unaccounted(name, known, is_complete=recovery.is_complete)
        if waiting:
            log.info("results wait on the disk", logger=name, count=len(waiting))
        return waiting

    def _report_unaccounted(
        self, name: str, spilled: Iterable[Key], *, is_complete: bool = True
    ) -> None:
        back = [one.key for one in self._back.get(name, ())]
        dead = self._dead.get(name, ())
        lost = self._ledger.previous.unaccounted(name, dead, [*spilled, *back])
        if not is_complete:  # They may lie in a file that the next start can read.
            self._unlisted.setdefault(name, []).extend(r[:2] for r in lost)
            return
        results = [RecoveredResult(r.renderer, r.sequence, r.id or "") for r in lost]
        problem = "the daemon ended without a word; the logger may have recorded it all the same"
        self._bury(name, results, "unaccounted", problem)

    def _bury(
        self, name: str, results: Sequence[RecoveredResult], reason: str, problem: str
    ) -> None:
        if not results:
            return
        self._lost += len(results)
        assert self._letters is not None
        letters = [Letter(r.renderer, r.sequence, r.id, 0, None, b"") for r in results]
        if not self._letters.bury(name, letters, reason=reason, problem=problem):
            self._unlisted.setdefault(name, []).extend(r[:2] for r in results)
        ids = [r.id or f"renderer {r.renderer}, sequence {r.sequence}" for r in results]
        log.error(
            "results lost",
            logger=name,
            count=len(ids),
            reason=reason,
            ids=shown(ids),
            problem=problem,
        )

    # While the daemon runs.

    def perform(self, command: DiskCommand) -> None:
        """Have the keeper do what the supervisor wants."""
        keeper = self._keeper
        assert keeper is not None
        match command:
            case SpillResults():
                keeper.spill(command)
            case BuryResults() | ReportDead():
                keeper.bury(command, self._take_replayed(command.logger, command.results))
            case CancelKeeping(token):
                keeper.cancel(token)
            case ReplayResults():
                keeper.replay(command)

    def published(self, results: list[Result]) -> None:
        """Note what a renderer published."""
        self._ledger.published(results)
        self._arm()

    def filtered(self, team: int, results: list[Result]) -> None:
        """Note what a logger does not want."""
        self._ledger.filtered(team, results)
        self._arm()

    def delivered(self, logger: int, results: list[Result]) -> None:
        """Note what a process of a logger has recorded."""
        self._ledger.delivered(self._teams[logger], results)
        self._arm()
        self._settle(logger, results)

    def renderer_joined(self, renderer: int, pid: int) -> None:
        """Note a renderer."""
        self._ledger.renderer_joined(renderer, pid)
        self._arm()

    def renderer_left(self, renderer: int) -> None:
        """Note that no more comes of it."""
        self._ledger.renderer_left(renderer)

    def _tell(self, event: Event) -> None:
        if isinstance(event, ResultsReplayed):
            keys = [result.key for result in (*event.results, *event.corrupt)]
            self._replayed[event.logger].update(keys)
        self._dispatch(event)

    def _recorded(self, what: tuple[int, Sequence[Result]]) -> None:
        logger, results = what
        self._ledger.otherwise(self._teams[logger], results)
        self._arm()

    def _settle(self, logger: int, results: Sequence[Result]) -> None:
        """Forget records of what was delivered, as soon as the ledger has it on the disk."""
        keys = self._take_replayed(logger, results)
        if keys:
            self._to_settle[logger] += keys
            self._arm()

    def _take_replayed(self, logger: int, results: Sequence[Result]) -> list[Key]:
        replayed = self._replayed[logger]
        if not replayed:
            return []
        keys = [result.key for result in results if result.key in replayed]
        replayed.difference_update(keys)
        return keys

    def _arm(self) -> None:
        if self._timer is None:
            self._timer = self._loop.call_later(LEDGER_SYNC_S, self._sync)

    def _sync(self) -> None:
        self._timer = None
        if self._keeper is None:
            return
        if self._is_syncing:  # The disk has not done yet what it was asked for.
            self._arm()
            return
        self._is_syncing = True
        self._ledger.prepare()
        self._keeper.ask(self._sync_on_disk)
        for logger, keys in enumerate(self._to_settle):
            if keys:
                self._keeper.settle(logger, keys)
                self._to_settle[logger] = []

    def _sync_on_disk(self) -> None:
        assert self._letters is not None
        self._is_syncing = False
        self._ledger.sync()
        if self._letters.waiting:
            self._letters.retry()

    def status(self) -> dict[str, Any]:
        """What ``/status`` shows of it."""
        keeper, letters = self._keeper, self._letters
        spill_bytes = dict.fromkeys(self._names, 0) if keeper is None else keeper.spill_bytes
        problems = []
        if keeper is not None and letters is not None:
            problems = [self._ledger.problem, letters.problem]
        return {
            "spill_bytes": dict(spill_bytes),
            "spill_max": self._config.disk.spill_max,
            "lost_before": self._lost,
            "unlisted": 0 if letters is None else letters.unlisted + letters.waiting,
            "problem": "; ".join(filter(None, problems)),
        }

    def close(self, *, is_end: bool) -> None:
        """Write the last words, as far as the disk takes them in time.

        Args:
            is_end: It is an orderly end: what has no outcome is on the disk.
        """
        if self._timer is not None:
            self._timer.cancel()
        keeper = self._keeper
        if keeper is None:
            return
        self._sync()
        self._keeper = None
        keeper.ask(lambda: self._close_files(is_end=is_end))
        if not keeper.close(CLOSE_S + self._config.disk.deadline_s):
            log.error("the disk does not answer: the end of the ledger is not written")

    def _close_files(self, *, is_end: bool) -> None:
        assert self._letters is not None
        self._letters.close()
        for store in self._stores:
            store.close()
        self._ledger.close(is_end=is_end)
