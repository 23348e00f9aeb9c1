"""The keeper: the one thread that reads and writes the run folder, so that the loop never waits.

Jobs are done in the order of asking.  What becomes of one is told to the loop as an event.  The
thread is a daemon thread: a disk that answers no more holds up neither the loop nor the end.
"""

from __future__ import annotations

import asyncio
import contextlib
import queue
import threading
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple

import structlog

from millpond.core.commands import BuryResults, ReplayResults, ReportDead, SpillResults
from millpond.core.deliveries import Key, Result
from millpond.core.disk_table import BATCH_BYTES
from millpond.core.events import Event, KeepingFailed, ResultsKept, ResultsReplayed
from millpond.core.wire import HEADER_BYTES, Kind, pack
from millpond.dead_letters import DeadLetters, Letter
from millpond.spill import SpillError, SpillStore

GROUP_MAX: Final = 4096  # Results that are written in one go.

log = structlog.get_logger(__name__)


class _Forget(NamedTuple):
    token: int
    command: SpillResults | None  # None: it was a burial, or is answered.


class Keeper:
    """Does what the supervisor wants of the disk.

    Args:
        loop: The event loop.
        dispatch: Takes events, on the loop.
        fail: Takes a bug of ours, on the loop.
        recorded: Takes a logger and results that are safe in its spill or in the list of the dead,
            on the loop, before the event that says so.
        names: The name of each logger; several may be processes of one, and share its name.
        stores: The spill of each; those of one name share it.
        letters: The list of the dead.
        slot_memory: The bytes of a slot, from its first to its last channel.
        slot_bytes: How many these are.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        *,
        dispatch: Callable[[Event], None],
        fail: Callable[[BaseException], None],
        recorded: Callable[[tuple[int, Sequence[Result]]], None],
        names: Sequence[str],
        stores: Sequence[SpillStore],
        letters: DeadLetters,
        slot_memory: Callable[[int], memoryview],
        slot_bytes: int,
    ) -> None:
        self._loop = loop
        self._dispatch = dispatch
        self._fail = fail
        self._recorded = recorded
        self._names = names
        self._stores = stores
        self._letters = letters
        self._slot_memory = slot_memory
        self._slot_bytes = slot_bytes
        self.spill_bytes = {
            name: store.bytes_used for name, store in zip(names, stores, strict=True)
        }
        self._to_spill: deque[SpillResults | _Forget] = deque()
        self._written: set[int] = set()  # Tokens whose answer is on its way.
        self._to_read: deque[ReplayResults] = deque()
        self._unanswered: dict[int, SpillResults] = {}
        self._cancelled: set[int] = set()
        self._jobs: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="keeper", daemon=True)
        self._thread.start()

    def ask(self, job: Callable[[], None]) -> None:
        """Have something done after all that was asked before."""
        self._jobs.put(job)

    def spill(self, command: SpillResults) -> None:
        """Write results to the spill of their logger, together with others that wait for that."""
        self._unanswered[command.token] = command
        self._to_spill.append(command)
        self.ask(self._spill_some)

    def bury(self, command: BuryResults | ReportDead, replayed: Sequence[Key]) -> None:
        """Note results as dead; with their arrays, if the command says so.

        Args:
            command: What the supervisor said.
            replayed: Those of them that the spill still has.
        """
        if isinstance(command, ReportDead):  # A stuck disk must not make them pile up whole.
            slim = [result._replace(frame=b"") for result in command.results]
            command = ReportDead(command.logger, slim, command.reason, command.problem)
        job = command
        self.ask(lambda: self._bury(job, replayed))

    def cancel(self, token: int) -> None:
        """Undo what was or will be written of a spill or a burial; nobody waits for it."""
        self._cancelled.add(token)
        # In its turn among the spills: what is asked for later must not be forgotten with it.
        self._to_spill.append(_Forget(token, self._unanswered.pop(token, None)))
        self.ask(self._spill_some)

    def replay(self, command: ReplayResults) -> None:
        """Read spilled results back into slots, before whatever else waits.

        They are there, or nobody would want them; and a logger waits for them.
        """
        self._to_read.append(command)
        self.ask(lambda: None)

    def settle(self, logger: int, keys: Sequence[Key]) -> None:
        """Forget what the spill has of results whose outcome is recorded."""
        self.ask(lambda: self._settle(logger, keys))

    def close(self, within_s: float) -> bool:
        """Finish what was asked and end the thread; False when the disk took longer than that."""
        self._jobs.put(None)
        self._thread.join(within_s)
        return not self._thread.is_alive()

    def _answer(self, event: ResultsKept | KeepingFailed) -> None:
        self._unanswered.pop(event.token, None)
        if event.token not in self._cancelled:
            self._written.discard(event.token)
        self._dispatch(event)

    # On the thread.

    def _run(self) -> None:
        while (job := self._jobs.get()) is not None:
            try:
                while self._to_read:
                    self._replay(self._to_read.popleft())
                job()
            except OSError as error:
                log.error("disk failed", problem=str(error))
            except BaseException as error:  # noqa: BLE001  A bug of ours ends the daemon.
                self._tell(self._fail, error)

    def _tell(self, say: Callable[[Any], None], what: Any) -> None:
        with contextlib.suppress(RuntimeError):  # The loop is closed: nobody listens any more.
            self._loop.call_soon_threadsafe(say, what)

    def _spill_some(self) -> None:
        """Write what waits for one spill in one go: the disk is waited for once."""
        if not self._to_spill:
            return  # It went with an earlier one.
        first = self._to_spill[0]
        if isinstance(first, _Forget):
            self._to_spill.popleft()
            self._forget(first.token, first.command)
            return
        logger = first.logger
        group: list[SpillResults] = []
        others: deque[SpillResults] = deque()
        count = 0
        while self._to_spill:
            command = self._to_spill.popleft()
            if isinstance(command, _Forget):
                self._to_spill.appendleft(command)
                break
            if command.logger != logger:
                others.append(command)
                continue
            count += len(command.results)
            if group and (count > GROUP_MAX or count * self._slot_bytes > BATCH_BYTES):
                self._to_spill.appendleft(command)
                break
            group.append(command)
        self._to_spill.extendleft(reversed(others))
        if not self._spill(group) and len(group) > 1:
            # One of them was given up, or one is too much: each for itself.
            for command in group:
                self._spill([command])

    def _spill(self, group: Sequence[SpillResults]) -> bool:
        """Write batches of one logger; when there is but one, its failure is told."""
        logger = group[0].logger
        store = self._stores[logger]
        try:
            store.write_many(
                [(command.home, command.results) for command in group],
                lambda result: self._slot_memory(result.slot),
                lambda: not self._cancelled.isdisjoint(command.token for command in group),
            )
        except (SpillError, OSError) as error:
            if len(group) == 1:
                self._tell(self._answer, KeepingFailed(group[0].token, str(error)))
            return False
        self.spill_bytes[self._names[logger]] = store.bytes_used
        for command in group:
            self._written.add(command.token)
            self._settled(logger, command.results)
            self._tell(self._answer, ResultsKept(command.token))
        return True

    def _forget(self, token: int, command: SpillResults | None) -> None:
        """After whatever was cancelled: it may have been done a moment before."""
        if command is not None and token in self._written:
            self._settle(command.logger, [result.key for result in command.results])
        self._written.discard(token)
        self._cancelled.discard(token)

    def _bury(self, command: BuryResults | ReportDead, replayed: Sequence[Key]) -> None:
        letters = []
        for result in command.results:
            payload, attempts = None, 0
            if isinstance(command, BuryResults):
                payload, attempts = bytes(self._slot_memory(result.slot)), command.attempts
                if command.token in self._cancelled:  # Another result may lie there by now.
                    payload = None
            letters.append(_letter(result, payload, attempts))
        name = self._names[command.logger]
        is_listed = self._letters.bury(
            name, letters, reason=command.reason, problem=command.problem
        )
        if is_listed:  # Else the spill keeps what it has, and the next start finds it there.
            self._settled(command.logger, command.results)
        if isinstance(command, BuryResults):
            self._tell(self._answer, ResultsKept(command.token))
        if is_listed and replayed:
            self._settle(command.logger, replayed)

    def _settled(self, logger: int, results: Sequence[Result]) -> None:
        """They are on the disk, or in the list of the dead: the ledger may know."""
        self._tell(self._recorded, (logger, results))

    def _settle(self, logger: int, keys: Sequence[Key]) -> None:
        self._stores[logger].settle(keys)
        self.spill_bytes[self._names[logger]] = self._stores[logger].bytes_used

    def _replay(self, command: ReplayResults) -> None:
        results: list[Result] = []
        corrupt: list[Result] = []
        places = [self._slot_memory(slot) for slot, _ in command.slots]
        read = self._stores[command.logger].read(command.token, places)
        for (slot, generation), one in zip(command.slots, read, strict=True):
            frame = pack(
                Kind.PUBLISH,
                one.frame[HEADER_BYTES:],
                slot=slot,
                renderer=one.renderer,
                generation=generation,
                sequence=one.sequence,
            )
            result = Result(slot, generation, one.renderer, one.sequence, one.id, frame)
            (corrupt if one.problem else results).append(result)
        event = ResultsReplayed(command.logger, command.token, results, corrupt)
        self._tell(self._dispatch, event)


def _letter(result: Result, payload: bytes | None, attempts: int = 0) -> Letter:
    return Letter(
        result.renderer,
        result.sequence,
        result.id,
        attempts,
        payload,
        result.frame[HEADER_BYTES:],
    )
