"""A supervisor with a clock and the words of its loggers, for scripts of events and commands."""

from __future__ import annotations

from millpond.core.commands import Command, GrantSlots, ReportReady, SpawnLogger
from millpond.core.deliveries import Result
from millpond.core.events import (
    DoorbellRang,
    Event,
    LoggerReady,
    LoggerSpawned,
    RendererJoined,
    ResultsPublished,
    TimePassed,
)
from millpond.core.logger_record import LoggerSpec
from millpond.core.restart import RestartPolicy
from millpond.core.slots import SlotRef, SlotTable
from millpond.core.supervisor import Supervisor

ANN, BEN = 1, 2  # Renderers.
CSV, JSON = 0, 1  # Loggers.
SEGV = "crash(SIGSEGV)"


class Pond:
    """A supervisor, the words of its loggers, and a clock."""

    def __init__(self, *, slots=1, loggers=1, window=4, intensity=5, exit_when_done=False) -> None:
        self.now_s = 0.0
        self.acks = [[0] * slots for _ in range(loggers)]
        want = [[0] * slots for _ in range(loggers)]
        restart = RestartPolicy(intensity=intensity, retry_s=300)
        names = ("csv", "json")[:loggers]
        self.supervisor = Supervisor(
            SlotTable(slots, want=want, ack=self.acks),
            slot_bytes=4096,
            loggers=[LoggerSpec(name, window_max=window, restart=restart) for name in names],
            drain_s=10,
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

    def ready(self, *loggers: int) -> Pond:
        for logger in loggers:
            assert self.tell(LoggerReady(logger))[0] == ReportReady(logger)
        return self


def result(slot=0, generation=1, sequence=1, renderer=ANN) -> Result:
    return Result(slot, generation, renderer, sequence, f"{sequence:06}", b"frame")


def grant(*refs: tuple[int, int], renderer=ANN) -> GrantSlots:
    return GrantSlots(renderer, [SlotRef(*ref) for ref in refs])


ONE = result()
TWO = result(slot=1, sequence=2)


def full_pond(*, loggers=1, **options) -> Pond:
    """Two slots with two results that were not sent yet, for which a renderer waits."""
    pond = Pond(slots=2, loggers=loggers, **options)
    pond.play(
        (RendererJoined(ANN, 9), [grant((0, 1))]),
        (ResultsPublished(ANN, [ONE]), [grant((1, 1))]),
        (ResultsPublished(ANN, [TWO]), []),
    )
    return pond
