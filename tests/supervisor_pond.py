"""A supervisor with a clock and the words of its loggers, for scripts of events and commands."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from millpond.core.commands import (
    Command,
    GrantSlots,
    RecordDelivered,
    RecordPublished,
    ReplayResults,
    ReportReady,
    SpawnLogger,
    SpillResults,
    TellHolders,
)
from millpond.core.deliveries import Result
from millpond.core.events import (
    DoorbellRang,
    Event,
    LoggerExited,
    LoggerReady,
    LoggerSpawned,
    RendererJoined,
    ResultsPublished,
    TimePassed,
)
from millpond.core.logger_record import LoggerSpec
from millpond.core.progress import IDLE, log_word, returned_word
from millpond.core.restart import RestartPolicy
from millpond.core.routes import Filter
from millpond.core.slots import SlotRef, SlotTable
from millpond.core.supervisor import Supervisor

ANN, BEN = 1, 2  # Renderers.
CSV, JSON, IMAGE = 0, 1, 2  # Loggers.
SEGV = "crash(SIGSEGV)"
SPILL = {"when_full": "spill"}
DROP = {"when_full": "drop"}


class Pond:
    """A supervisor, the words of its loggers, and a clock.

    Args:
        slots: How many slots there are.
        loggers: How many loggers.
        window: The window of each.
        intensity: Exits of one logger that are borne.
        exit_when_done: As for the supervisor.
        slot_bytes: Bytes of one slot.
        recovered: Results of each logger that an earlier daemon left.
        policies: `when_full` and `on_crash` of each logger, as far as they are not the default.
        teams: Which loggers are processes of the same one; None: none are.
        filters: What each team wants.
    """

    def __init__(
        self,
        *,
        slots: int = 1,
        loggers: int = 1,
        window: int = 4,
        intensity: int = 5,
        exit_when_done: bool = False,
        slot_bytes: int = 4096,
        recovered: Sequence[int] = (),
        policies: Sequence[dict[str, str]] = ({}, {}, {}),
        teams: Sequence[int] | None = None,
        filters: Mapping[int, Filter] | None = None,
    ) -> None:
        self.now_s = 0.0
        self.acks = [[0] * (slots + 1) for _ in range(loggers)]
        want = [[0] * slots for _ in range(loggers)]
        restart = RestartPolicy(intensity=intensity, retry_s=300)
        names = ("csv", "json", "image")[:loggers]
        self.supervisor = Supervisor(
            SlotTable(slots, want=want, ack=self.acks),
            slot_bytes=slot_bytes,
            loggers=[
                LoggerSpec(name, window_max=window, restart=restart, **policy)
                for name, policy in zip(names, policies, strict=False)
            ],
            teams=teams,
            filters=filters,
            drain_s=10,
            keep_s=5,
            recovered=recovered,
            exit_when_done=exit_when_done,
            chance=lambda: 0.5,
        )
        assert self.supervisor.start(0.0) == [SpawnLogger(n) for n in range(loggers)]
        for logger in range(loggers):
            assert self.tell(LoggerSpawned(logger, pid=4711 + logger)) == []

    def tell(self, event: Event) -> list[Command]:
        commands = self.supervisor.handle(event, self.now_s)
        self.supervisor.check_invariants()
        return commands

    def play(self, *script: tuple[Event, list[Command]]) -> None:
        for event, commands in script:
            assert self.tell(event) == commands, event

    def wake(self) -> list[Command]:
        self.now_s = self.supervisor.wake_at_s
        return self.tell(TimePassed())

    def release(self, logger: int, *results: Result) -> list[Command]:
        for one in results:
            self.acks[logger][one.slot] = one.generation
        return self.tell(DoorbellRang(logger))

    def keep(self, logger: int, *kept: Result) -> list[Command]:
        """A logger that keeps slots has logged all that it was sent, and these it keeps."""
        last = kept[-1] if kept else None
        self.acks[logger][-1] = returned_word(last.slot, last.generation) if last else IDLE
        return self.tell(DoorbellRang(logger))

    def start(self, logger: int, one: Result) -> None:
        """The logger begins with a result."""
        self.acks[logger][-1] = log_word(one.slot, one.generation)

    def crash(self, logger: int, one: Result) -> list[Command]:
        """A result ends its logger."""
        self.start(logger, one)
        return self.tell(LoggerExited(logger, SEGV, "Segmentation fault"))

    def come_back(self, logger: int) -> list[Command]:
        """A logger that ended is started again, and is ready."""
        assert self.wake() == [SpawnLogger(logger)]
        ready, *rest = self.tell(LoggerReady(logger))
        assert ready == ReportReady(logger)
        return rest

    def ready(self, *loggers: int) -> Pond:
        for logger in loggers:
            assert self.tell(LoggerReady(logger))[0] == ReportReady(logger)
        return self


def result(slot=0, generation=1, sequence=1, renderer=ANN) -> Result:
    return Result(slot, generation, renderer, sequence, f"{sequence:06}", b"frame")


def grant(*refs: tuple[int, int], renderer=ANN) -> GrantSlots:
    return GrantSlots(renderer, [SlotRef(*ref) for ref in refs])


def published(*results: Result) -> RecordPublished:
    return RecordPublished(list(results))


def delivered(logger: int, *results: Result) -> RecordDelivered:
    return RecordDelivered(logger, list(results))


def spill(*results, token=1, home=None, logger=CSV) -> SpillResults:
    return SpillResults(logger, token, list(results), token if home is None else home)


def replay(*refs, token=1, logger=CSV) -> ReplayResults:
    return ReplayResults(logger, token, [SlotRef(*ref) for ref in refs])


def told(commands) -> bool:
    """Whether a renderer has to wait."""
    return len(commands) == 1 and isinstance(commands[0], TellHolders)


ONE = result()
TWO = result(slot=1, sequence=2)


def full_pond(*, loggers=1, **options) -> Pond:
    """Two slots with two results that were not sent yet, for which a renderer waits."""
    pond = Pond(slots=2, loggers=loggers, **options)
    pond.play(
        (RendererJoined(ANN, 9), [grant((0, 1))]),
        (ResultsPublished(ANN, [ONE]), [published(ONE), grant((1, 1))]),
        (ResultsPublished(ANN, [TWO]), [published(TWO)]),
    )
    return pond


def broken_pond(**options) -> Pond:
    """A renderer waits for one of two slots; the logger that held both has crashed."""
    pond = full_pond(**options).ready(CSV)
    pond.tell(LoggerExited(CSV, SEGV))
    return pond
