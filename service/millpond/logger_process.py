"""One process of one logger: its pipes, its descriptors, its end.

Death is told by a pidfd.  Everything here is non-blocking; what does not fit the pipe waits in a
buffer that is as bounded as the logger's window.  A process is gone when everything is that it
has started: until then another one of the same logger would not be alone.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import logging
import os
import signal
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import ClassVar, Final

import structlog

from millpond.containment import end_adopted, is_anything_left, is_stopped
from millpond.core.wire import Frame, FrameReader
from millpond.errors import PeerError
from millpond.logger_lines import unmark
from millpond.logger_output import LineCapture, LineLimit

# As much as an unprivileged process may ask for: thousands of jobs in one write.
PIPE_BYTES: Final = 1024 * 1024
READ_BYTES: Final = 64 * 1024
# Between two looks at a process that a debugger has.
TRACED_S: Final = 0.02
# What was printed before the end is read at most this often, so that a flood ends.
LAST_READS_MAX: Final = 64
# Kept of its standard error: the stacks that a crash leaves.
LAST_OUTPUT_CHARACTERS: Final = 8 * 1024
# To write its stacks, before it is killed.
DUMP_S: Final = 1.0
# Looks at what it has started, which may fork while it is ended; 50 ms each, and a pause.
ENDING_LOOKS: Final = 100
ENDING_PAUSE_S: Final = 0.01

log = structlog.get_logger(__name__)


class LoggerProcess:
    """A logger process from its start until nothing is left of it.

    Args:
        name: The logger's name.
        loop: The event loop.
        inherited: Descriptors for the child: segment, control, acks; in this order.
        setup: The first frame.
        env: Its environment.
        mark: The value of `containment.LOGGER_VARIABLE` in it, which no other process has.
        on_frame: Called with each frame of the logger.
        on_doorbell: Called when it has released results.
        on_exit: Called once, after the process was reaped, with the cause, and with the last lines
            of its standard error, about `LAST_OUTPUT_CHARACTERS` of them.

    Raises:
        OSError: The process cannot be started.
    """

    # Of this daemon, and not yet reaped.
    _pids: ClassVar[set[int]] = set()

    def __init__(
        self,
        name: str,
        loop: asyncio.AbstractEventLoop,
        *,
        inherited: Sequence[int],
        setup: bytes,
        env: Mapping[str, str],
        mark: str,
        on_frame: Callable[[Frame], None],
        on_doorbell: Callable[[], None],
        on_exit: Callable[[str, str], None],
    ) -> None:
        self._name = name
        self._mark = mark
        self._loop = loop
        self._on_frame = on_frame
        self._on_doorbell = on_doorbell
        self._on_exit = on_exit
        self._unsent = bytearray()
        self._is_closing = False
        self._frames = FrameReader()
        self._captures = {"stdout": LineCapture(), "stderr": LineCapture()}
        self._limits = {"stdout": LineLimit(), "stderr": LineLimit()}
        self._resting: dict[str, asyncio.TimerHandle] = {}  # Until it is told what was left out.
        self._last_lines: deque[str] = deque()
        self._last_characters = 0
        self._dump: asyncio.TimerHandle | None = None  # Until it is killed.
        self._open: set[int] = set()
        try:
            self._spawn(inherited, env)
        except OSError:
            self._close_all()
            raise
        self.pid = self._process.pid
        loop.add_reader(self._pidfd, self._exited)
        loop.add_reader(self._status_fd, self._read_status)
        loop.add_reader(self._doorbell_fd, self._rang)
        for stream, fd in self._outputs.items():
            loop.add_reader(fd, self._read_output, stream, fd)
        self.send(setup)

    def _spawn(self, inherited: Sequence[int], env: Mapping[str, str]) -> None:
        jobs_read, self._jobs_fd = self._pipe(writer_blocks=False)
        self._status_fd, status_write = self._pipe(reader_blocks=False)
        stdout, stdout_write = self._pipe(reader_blocks=False)
        stderr, stderr_write = self._pipe(reader_blocks=False)
        self._outputs = {"stdout": stdout, "stderr": stderr}
        self._doorbell_fd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._open.add(self._doorbell_fd)
        with contextlib.suppress(OSError):  # Smaller where the administrator says so.
            fcntl.fcntl(self._jobs_fd, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
        passed = [jobs_read, status_write, self._doorbell_fd, *inherited]
        # -P: not the current folder first, for a json.py there is not the library's.
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "millpond_loggers", *map(str, passed)],
            stdin=subprocess.DEVNULL,
            stdout=stdout_write,
            stderr=stderr_write,
            pass_fds=passed,
            start_new_session=True,
            env=env,
        )
        for fd in (jobs_read, status_write, stdout_write, stderr_write):
            self._close(fd)
        try:
            self._pidfd = os.pidfd_open(self._process.pid)
        except OSError:
            self._process.kill()
            self._process.wait()
            raise
        self._open.add(self._pidfd)
        self._pids.add(self._process.pid)

    def _pipe(self, *, reader_blocks: bool = True, writer_blocks: bool = True) -> tuple[int, int]:
        reader, writer = os.pipe2(os.O_CLOEXEC)
        self._open |= {reader, writer}
        os.set_blocking(reader, reader_blocks)
        os.set_blocking(writer, writer_blocks)
        return reader, writer

    def send(self, data: bytes) -> None:
        """Write frames to the logger, now or as soon as there is room."""
        if self._jobs_fd not in self._open:
            return  # It is dead; its exit is being told.
        if self._unsent:
            self._unsent += data
            return
        sent = self._write(data)
        if sent < len(data):
            self._unsent += data[sent:]
            self._loop.add_writer(self._jobs_fd, self._send_rest)

    def _send_rest(self) -> None:
        del self._unsent[: self._write(self._unsent)]
        if not self._unsent:
            self._loop.remove_writer(self._jobs_fd)
            if self._is_closing:
                self._close(self._jobs_fd)

    def _write(self, data: bytes | bytearray) -> int:
        try:
            return os.write(self._jobs_fd, data)
        except BlockingIOError:
            return 0
        except BrokenPipeError:
            return len(data)  # It is dead; its exit is being told.

    def close_jobs(self) -> None:
        """Let it finish what it was sent, and end."""
        self._is_closing = True
        if not self._unsent:
            self._close(self._jobs_fd)

    def kill(self, *, dump: bool = False) -> None:
        """End it; `on_exit` follows.

        Args:
            dump: Let it write the stacks of its threads first, for which it has `DUMP_S`.
        """
        if self._pidfd not in self._open:
            return  # Its number may be that of another by now.
        if not dump or is_stopped(self.pid):  # A process that is stopped writes nothing.
            self._signal(signal.SIGKILL)
        elif self._dump is None:
            self._signal(signal.SIGABRT)
            self._dump = self._loop.call_later(DUMP_S, self._signal, signal.SIGKILL)

    def _signal(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._pidfd, number)

    def _rang(self) -> None:
        with contextlib.suppress(BlockingIOError):
            os.eventfd_read(self._doorbell_fd)
        self._on_doorbell()

    def _read_status(self) -> bool:
        try:
            data = os.read(self._status_fd, READ_BYTES)
        except BlockingIOError:
            return False
        try:
            frames = self._frames.feed(data)
        except PeerError as error:
            log.error("ending logger", logger=self._name, pid=self.pid, problem=str(error))
            data, frames = b"", []
            self.kill()
        if not data:
            self._close(self._status_fd)  # Its exit is being told.
        for frame in frames:
            self._on_frame(frame)
        return bool(data)

    def _read_output(self, stream: str, fd: int) -> bool:
        try:
            data = os.read(fd, READ_BYTES)
        except BlockingIOError:
            return False
        if data:
            self._say(stream, self._captures[stream].feed(data, self._loop.time()))
        else:
            self._finish_output(stream, fd)
        return bool(data)

    def _finish_output(self, stream: str, fd: int) -> None:
        if fd in self._open:
            self._say(stream, self._captures[stream].finish())
            self._say_rest(stream)
            self._close(fd)

    def _say(self, stream: str, lines: list[str]) -> None:
        limit = self._limits[stream]
        for line in lines:
            level, text = unmark(line) if stream == "stderr" else (logging.INFO, line)
            if stream == "stderr":
                self._keep(text)
            # What it says with a level is meant for the log; what it prints may be an array.
            if text is not line or limit.admits(self._loop.time()):
                self._log_line(level, stream, text)
            elif stream not in self._resting:
                self._resting[stream] = self._loop.call_later(1, self._say_rest, stream)

    def _say_rest(self, stream: str) -> None:
        """Tell how many lines were left out."""
        if stream in self._resting:
            self._resting.pop(stream).cancel()
        if text := self._limits[stream].take_left():
            self._log_line(logging.INFO, stream, text)

    def _log_line(self, level: int, stream: str, text: str) -> None:
        log.log(level, "logger says", logger=self._name, pid=self.pid, stream=stream, line=text)

    def _keep(self, line: str) -> None:
        lines = self._last_lines
        lines.append(line)
        self._last_characters += len(line) + 1
        while self._last_characters > LAST_OUTPUT_CHARACTERS and len(lines) > 1:
            self._last_characters -= len(lines.popleft()) + 1

    def _exited(self) -> None:
        # Its number is still its own until it is reaped: so end what it left behind first.
        try:
            os.waitid(os.P_PIDFD, self._pidfd, os.WEXITED | os.WNOWAIT)
        except BlockingIOError:  # A debugger has it, and is told of its end before us.
            self._loop.remove_reader(self._pidfd)
            self._loop.call_later(TRACED_S, self._exited)
            return
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)
        status = os.waitid(os.P_PIDFD, self._pidfd, os.WEXITED)
        assert status is not None
        is_exit = status.si_code == os.CLD_EXITED
        self._process.returncode = status.si_status if is_exit else -status.si_status
        cause = f"exit({status.si_status})" if is_exit else _crash(status.si_status)
        self._read_last(self._status_fd, self._read_status)
        for stream, fd in self._outputs.items():
            self._read_last(fd, partial(self._read_output, stream, fd))
            self._finish_output(stream, fd)  # Somebody may hold the other end for ever.
            dropped = self._captures[stream].dropped_bytes
            if dropped:
                log.warning(
                    "logger output dropped", logger=self._name, stream=stream, bytes=dropped
                )
        self._close_all()
        self._pids.discard(self.pid)
        if self._dump is not None:
            self._dump.cancel()
        self._end_rest(cause, ENDING_LOOKS)

    def _end_rest(self, cause: str, looks: int) -> None:
        """End what it has started outside its process group, then tell of its exit."""
        killed = end_adopted(self._mark, self._pids)
        if killed:
            log.warning("ended what a logger left", logger=self._name, pid=self.pid, count=killed)
        # Its group was killed with it: those are ours now, to be reaped as soon as they have ended.
        if looks > 1 and is_anything_left(self._mark, self._pids):
            self._loop.call_later(ENDING_PAUSE_S, self._end_rest, cause, looks - 1)
            return
        self._on_exit(cause, "\n".join(self._last_lines))

    def _read_last(self, fd: int, read: Callable[[], bool]) -> None:
        reads = 0
        while fd in self._open and reads < LAST_READS_MAX and read():
            reads += 1

    def _close(self, fd: int) -> None:
        if fd in self._open:
            self._open.discard(fd)
            self._loop.remove_reader(fd)
            self._loop.remove_writer(fd)
            os.close(fd)

    def _close_all(self) -> None:
        for fd in list(self._open):
            self._close(fd)


def _crash(number: int) -> str:
    try:
        return f"crash({signal.Signals(number).name})"
    except ValueError:  # Real-time signals between the first and the last have no name.
        return f"crash(signal {number})"
