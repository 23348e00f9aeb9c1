"""The daemon: carries out what the supervisor decides, and tells it what happened.

It waits, reads, writes and kills, and decides nothing.  There is no `await` between an event and
the deeds that follow from it, and events that arise from deeds wait for their turn.
"""

from __future__ import annotations

import asyncio
import os
import random
import time
from collections import deque
from collections.abc import Iterable, Sequence
from typing import Any, assert_never

import structlog

import millpond
from millpond.config.model import Config
from millpond.core.commands import (
    BuryResults,
    CancelKeeping,
    CloseLogger,
    Command,
    EndRenderer,
    Finish,
    GrantSlots,
    KillLogger,
    RecordDelivered,
    RecordFiltered,
    RecordPublished,
    ReplayResults,
    ReportDead,
    ReportExit,
    ReportRaised,
    ReportReady,
    ReportResumed,
    ReportSuspended,
    SendJobs,
    SpawnLogger,
    SpillResults,
    TellClosing,
    TellHolders,
)
from millpond.core.events import (
    Event,
    RendererJoined,
    RendererLeft,
    StopNow,
    StopRequested,
    TimePassed,
)
from millpond.core.layout import Channel, Layout, channels_from_json, plan
from millpond.core.slots import SlotTable
from millpond.core.supervisor import Supervisor
from millpond.core.wire import Kind, pack_grants
from millpond.errors import ChannelsRefused, ConfigError, MillpondError
from millpond.filters import check_channels, make_filters
from millpond.logger_group import LoggerGroup
from millpond.machine_check import check_memory
from millpond.module_search import FoundModule
from millpond.renderer_socket import Host, RendererConnection, RendererServer
from millpond.reports import Reports
from millpond.segment import Segment
from millpond.setup_frame import encode_experiment, make_setup, make_spec, share_out
from millpond.status import pond_status
from millpond.storage import Storage

log = structlog.get_logger(__name__)


class Daemon:
    """One pond and all that serves it.

    Args:
        config: What the operator wants.
        modules: Where each logger was found, in the order of the configuration.
        loop: The event loop.
        exit_when_done: Stop when every renderer has left and every result has its outcome.
        is_replay: Take no renderer; deliver what waits on the disk, and stop.
    """

    def __init__(
        self,
        config: Config,
        modules: Sequence[FoundModule],
        loop: asyncio.AbstractEventLoop,
        *,
        exit_when_done: bool,
        is_replay: bool = False,
    ) -> None:
        self.finished: asyncio.Future[None] = loop.create_future()
        self._config = config
        self._modules = modules
        self._experiment = encode_experiment(config)
        self._reports = Reports([process.name for process in config.processes], loop.call_later)
        self._storage = Storage(config, modules, loop, dispatch=self.dispatch, fail=self.fail)
        self._loop = loop
        self._exit_when_done = exit_when_done or is_replay
        self._is_replay = is_replay
        self._started_s = time.monotonic()
        self._segment: Segment | None = None
        self._layout: Layout | None = None
        self._supervisor: Supervisor | None = None
        self._loggers: LoggerGroup | None = None
        self._events: deque[Event] = deque()
        self._is_dispatching = False
        self._timer: asyncio.TimerHandle | None = None
        self._timer_s: float | None = None
        self._stops = 0  # How often an operator asked for it.
        self._server: RendererServer | None = None

    def start(self) -> None:
        """Listen for renderers, and start the loggers if the channels are known.

        Raises:
            MillpondError: The memory cannot be had.
            OSError: The socket cannot be made.
        """
        config = self._config
        channels = self._storage.channels_for(config.buffer.declared, is_replay=self._is_replay)
        if channels is not None:
            self._open_pond(channels)
        if self._is_replay:
            if channels is None:
                self.stop()  # Nothing was ever published.
        else:
            host = Host(
                welcome=self._welcome,
                dispatch=self.dispatch,
                allow_uids=config.service.allow_uids,
                renderers_max=config.service.renderers_max,
            )
            first = self._storage.renderer_last + 1
            self._server = RendererServer(config.socket_path, self._loop, host, first_number=first)

    def _open_pond(self, channels: tuple[Channel, ...]) -> None:
        """Make the shared memory and start the loggers, now that the channels are known.

        Raises:
            MillpondError: It cannot be had.
        """
        config = self._config
        slot_count = config.buffer.slot_count(plan(channels, 1).slot_bytes)
        layout = plan(channels, slot_count)
        check_memory(config, channels)
        check_channels(config, channels)
        processes = config.processes
        segment = Segment(layout, len(processes))
        self._segment, self._layout = segment, layout
        setups = [
            make_setup(config, index, self._modules[process.team], layout, self._experiment)
            for index, process in enumerate(processes)
        ]
        self._loggers = LoggerGroup(config, self._loop, self._segment, setups, self.dispatch)
        slots = SlotTable(slot_count, self._segment.want, self._segment.acks)
        self._supervisor = Supervisor(
            slots,
            slot_bytes=layout.slot_bytes,
            loggers=[make_spec(process, slot_count) for process in processes],
            teams=[process.team for process in processes],
            filters=make_filters(config, layout, segment.slot),
            drain_s=config.service.drain_s,
            keep_s=config.disk.deadline_s,
            recovered=share_out(processes, self._storage.open(segment)),
            exit_when_done=self._exit_when_done,
            is_replay=self._is_replay,
            chance=random.random,
        )
        shown = [str(channel) for channel in channels]
        log.info("pond opened", slots=slot_count, slot_bytes=layout.slot_bytes, channels=shown)
        self._carry_out(self._supervisor, self._supervisor.start(self._loop.time()))

    def _welcome(self, renderer: int, declared: Any) -> tuple[dict[str, Any], int]:
        """Decide on a renderer by its channels; the first one's are taken if there are none.

        Raises:
            MillpondError: It is refused.
        """
        try:
            channels = None if declared is None else channels_from_json(declared)
        except ValueError as error:
            raise ChannelsRefused(str(error)) from None
        if self._layout is None:
            if channels is None:
                raise ChannelsRefused(
                    "the pond has no channels yet: give connect() the channels that this renderer "
                    "writes, or the configuration buffer.channels"
                )
            try:
                self._open_pond(channels)
            except (ConfigError, ValueError) as error:
                log.error("pond cannot have these channels", problem=str(error))
                raise ChannelsRefused(str(error)) from None
            except OSError as error:
                self.fail(error)
                raise MillpondError(f"the pond cannot be opened: {error}") from None
        assert self._layout is not None
        assert self._segment is not None
        if channels is not None and set(channels) != set(self._layout.channels):
            ours = ", ".join(map(str, self._layout.channels))
            theirs = ", ".join(map(str, channels))
            raise ChannelsRefused(f"the pond has the channels {ours}; this renderer has {theirs}")
        if self._supervisor is not None and self._supervisor.renderers.is_full:
            raise MillpondError(
                f"busy: {self._layout.slot_count} slots are too few for one more renderer; "
                "raise buffer.slots"
            )
        body = {"renderer": renderer, "pid": os.getpid(), **self._layout.to_json()}
        return body, self._segment.fd

    # Events and commands.

    def dispatch(self, event: Event) -> None:
        """Tell the supervisor what happened, and do what it says."""
        match event:
            case RendererJoined(renderer, pid):
                self._storage.renderer_joined(renderer, pid)
            case RendererLeft(renderer):
                self._storage.renderer_left(renderer)
        self._events.append(event)
        if not self._is_dispatching and self._supervisor is not None:
            self._carry_out(self._supervisor, ())

    def _carry_out(self, supervisor: Supervisor, commands: Iterable[Command]) -> None:
        """Do these, and then what follows from what has happened meanwhile."""
        self._is_dispatching = True
        try:
            for command in commands:
                self._perform(command)
            while self._events:
                for command in supervisor.handle(self._events.popleft(), self._loop.time()):
                    self._perform(command)
        finally:
            self._is_dispatching = False
        self._rearm()

    def _rearm(self) -> None:
        """Have the loop call at the supervisor's next deadline."""
        assert self._supervisor is not None
        due_s = self._supervisor.wake_at_s
        if due_s == self._timer_s:
            return
        if self._timer is not None:
            self._timer.cancel()
        self._timer_s = due_s
        self._timer = None if due_s is None else self._loop.call_at(due_s, self._time_passed)

    def _time_passed(self) -> None:
        self._timer = self._timer_s = None
        self.dispatch(TimePassed())

    def _perform(self, command: Command) -> None:
        match command:
            case RecordPublished(results):
                self._storage.published(results)
            case RecordFiltered(team, results):
                self._storage.filtered(team, results)
            case RecordDelivered(logger, results):
                self._storage.delivered(logger, results)
            case GrantSlots(renderer, slots):
                self._tell(renderer, Kind.GRANT, pack_grants(slots))
            case TellHolders(renderer, text):
                self._tell(renderer, Kind.HOLDERS, text.encode())
            case TellClosing(renderer):
                self._tell(renderer, Kind.CLOSING)
            case EndRenderer(renderer, problem):
                if (connection := self._connection(renderer)) is not None:
                    connection.end(problem)
            case SendJobs() | SpawnLogger() | CloseLogger() | KillLogger() | ReportReady():
                self._perform_on_logger(command)
            case SpillResults() | CancelKeeping() | ReplayResults():
                self._storage.perform(command)
            case BuryResults() | ReportDead():
                self._reports.dead(command)
                self._storage.perform(command)
            case ReportExit():
                self._reports.exit(command)
            case ReportRaised():
                self._reports.raised(command)
            case ReportSuspended():
                self._reports.suspended(command)
            case ReportResumed():
                self._reports.resumed(command)
            case Finish():
                self._finish()
            case _:
                assert_never(command)

    def _perform_on_logger(
        self, command: SendJobs | SpawnLogger | CloseLogger | KillLogger | ReportReady
    ) -> None:
        loggers = self._loggers
        assert loggers is not None
        match command:
            case SendJobs(logger, results):
                loggers.send(logger, results)
            case SpawnLogger(logger):
                loggers.spawn(logger)
            case CloseLogger(logger):
                loggers.close_one(logger)
            case KillLogger(logger, why, dump):
                loggers.kill(logger, why, dump=dump)
            case ReportReady(logger):
                loggers.report_ready(logger)

    def _tell(self, renderer: int, kind: Kind, body: bytes = b"") -> None:
        if (connection := self._connection(renderer)) is not None:
            connection.send(kind, body)

    def _connection(self, renderer: int) -> RendererConnection | None:
        return None if self._server is None else self._server.connections.get(renderer)

    # The end.

    def stop(self) -> None:
        """Drain and end; called again, end at once."""
        if self._supervisor is None:
            self._finish()
            return
        self._stops += 1
        again = self._stops > 1
        log.info("stopping now" if again else "stopping", drain_s=self._config.service.drain_s)
        self.dispatch(StopNow() if again else StopRequested())

    @property
    def was_stopped(self) -> bool:
        """Whether an operator asked for the end."""
        return self._stops > 0

    def _finish(self) -> None:
        if not self.finished.done():
            self.finished.set_result(None)

    def fail(self, problem: BaseException) -> None:
        """End because of a bug of ours; nothing that follows could be trusted."""
        if not self.finished.done():
            self.finished.set_exception(problem)

    def finish(self) -> dict[str, Any]:
        """Close the books after an orderly end, and give the last status."""
        self._reports.close()
        self._storage.close(is_end=True)
        return self.status()

    def close(self) -> None:
        """Let go of everything; no logger is left behind, whatever went wrong before."""
        self._supervisor = None  # What happens from now on has no consequences.
        if self._loggers is not None:
            self._loggers.close()
        self._reports.close()
        if self._timer is not None:
            self._timer.cancel()
        if self._server is not None:
            self._server.close()
        self._storage.close(is_end=False)
        if self._segment is not None:
            self._segment.close()

    def status(self) -> dict[str, Any]:
        """What ``/status`` shows."""
        return {
            "name": self._config.name,
            "version": millpond.__version__,
            "pid": os.getpid(),
            "uptime_s": round(time.monotonic() - self._started_s, 3),
            **pond_status(self._config, self._supervisor),
            "disk": self._storage.status(),
            "output_dir": os.fspath(self._config.output_dir),
            "socket": os.fspath(self._config.socket_path),
        }
