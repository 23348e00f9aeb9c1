"""A logger process, started as the daemon starts it: its pipes, its frames, its end."""

import os
import select
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest

from millpond.core.layout import Channel, plan
from millpond.core.logger_record import brief
from millpond.core.progress import read_word
from millpond.core.wire import Frame, FrameReader, Kind, pack
from millpond.mapped_arrays import map_arrays
from millpond.segment import Segment

LAYOUT = plan((Channel("image", (4, 4), "float32"), Channel("is_correct", (), "bool")), 4)
WATCHDOG_S = 60


class LoggerProcess:
    """The daemon's end of a real logger process; every wait ends when the process does."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.segment = Segment(LAYOUT, 2)
        self.arrays = map_arrays(LAYOUT, self.segment.fd, writable=True)
        jobs_read, self.jobs = os.pipe2(os.O_CLOEXEC)
        self.status, status_write = os.pipe2(os.O_CLOEXEC)
        self.doorbell = os.eventfd(0, os.EFD_CLOEXEC)
        passed = [
            *(jobs_read, status_write, self.doorbell, self.segment.fd_read_only),
            *(self.segment.control_fd_read_only, self.segment.acks_fds[1]),
        ]
        self.process = subprocess.Popen(
            [sys.executable, "-P", "-m", "millpond_loggers", *map(str, passed)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            pass_fds=passed,
            start_new_session=True,
            cwd=folder,
        )
        self._pidfd = os.pidfd_open(self.process.pid)
        os.close(jobs_read)
        os.close(status_write)
        assert self.process.stdout is not None
        assert self.process.stderr is not None
        self.stdout, self.stderr = self.process.stdout, self.process.stderr
        self._reader = FrameReader()
        self._watchdog = threading.Timer(WATCHDOG_S, self.process.kill)
        self._watchdog.start()

    def set_up(self, code: str, *, more: bytes = b"", **changes: Any) -> None:
        """Write the logger's file, and send the first frame."""
        (self.folder / "my_logger.py").write_text(code, encoding="utf-8")
        setup = {
            "index": 1,
            "name": "mine",
            "kind": "file",
            "place": str(self.folder / "my_logger.py"),
            "options": {},
            "root_dir": str(self.folder),
            "search_path": [str(self.folder)],
            "experiment": {"policy": {"n": 1}},
            **LAYOUT.to_json(),
            **changes,
        }
        self.send(pack(Kind.SETUP, orjson.dumps(setup)) + more)

    def job(self, slot: int, id: str, **render_args: Any) -> bytes:
        """Write a result and want it; its frame."""
        self.arrays["image"][slot] = slot
        self.arrays["is_correct"][slot] = slot % 2 == 1
        self.segment.want[1][slot] = 1
        body = orjson.dumps({"id": id, "render_args": render_args})
        return pack(Kind.PUBLISH, body, slot=slot, generation=1)

    def send(self, data: bytes) -> None:
        assert os.write(self.jobs, data) == len(data)

    def frame(self) -> Frame:
        """The next frame of the logger; it sends one at a time."""
        frames: list[Frame] = []
        while not frames:
            data = os.read(self.status, 65536)
            assert data, f"the logger ended: {self.stderr.read().decode()}"
            frames = self._reader.feed(data)
        (frame,) = frames
        return frame

    def wait_ready(self) -> None:
        frame = self.frame()
        assert (frame.kind, frame.body) == (Kind.READY, b"")

    def wait_acks(self, acks: list[int]) -> None:
        """Wait for rings of the doorbell until the words are these."""
        while list(self.segment.acks[1])[:4] != acks:
            ready, _, _ = select.select([self.doorbell, self._pidfd], [], [])
            assert self.doorbell in ready, f"the logger ended: {self.stderr.read().decode()}"
            os.eventfd_read(self.doorbell)

    def end(self) -> int:
        """Close the pipe, and wait for the exit code."""
        os.close(self.jobs)
        self.jobs = -1
        return self.process.wait()

    def close(self) -> None:
        self._watchdog.cancel()
        self.process.kill()
        self.process.wait()
        self.stdout.close()
        self.stderr.close()
        for fd in (self.jobs, self.status, self.doorbell, self._pidfd):
            if fd >= 0:
                os.close(fd)
        self.segment.close()


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[[], LoggerProcess]]:
    started: list[LoggerProcess] = []

    def start_one() -> LoggerProcess:
        started.append(LoggerProcess(tmp_path))
        return started[-1]

    yield start_one
    for process in started:
        process.close()


@pytest.fixture
def logger(start: Callable[[], LoggerProcess]) -> LoggerProcess:
    return start()


SEED = """
from os import path

from millpond_loggers.base import BaseLogger


class CSVLogger(BaseLogger):

    def __init__(self, root_dir, result_buffer, config):
        super().__init__(root_dir, result_buffer, config)
        fname = path.join(root_dir, 'details.csv')
        self.handle = open(fname, 'w')
        self.regid = self.buffer.register()
        self.first = True

    def log(self, item):
        if item is None:
            self.handle.close()
            return
        rix = item['result_ix']
        buffer_data = self.buffer[rix]
        if self.first:
            param_keys = list(item['render_args'].keys())
            self.handle.write(','.join(['Id', 'correct'] + param_keys))
            self.handle.write('\\n')
            self.first = False
        row = [item['id'], buffer_data['is_correct']] + list(item['render_args'].values())
        self.handle.write(','.join(map(str, row)))
        self.handle.write('\\n')
        self.buffer.free(rix, self.regid)


Logger = CSVLogger
"""


@pytest.mark.parametrize("has_return", [True, False])
def test_the_logger_of_the_3db_page_works_as_it_stands(
    logger: LoggerProcess, has_return: bool
) -> None:
    """Also as the page has it: after None it goes on, and trips over it."""
    logger.set_up(SEED if has_return else SEED.replace("            return\n", ""))
    logger.wait_ready()
    logger.send(logger.job(0, "000001", zoom=1.2, name="a") + logger.job(1, "000002", zoom=1, b=2))
    logger.wait_acks([1, 1, 0, 0])
    logger.send(logger.job(3, "000003", zoom=-1, name=None))
    assert logger.end() == 0
    assert list(logger.segment.acks[1])[:4] == [1, 1, 0, 1]
    assert (logger.folder / "details.csv").read_text() == (
        "Id,correct,zoom,name\n000001,False,1.2,a\n000002,True,1,2\n000003,True,-1,None\n"
    )
    said = logger.stdout.read() + logger.stderr.read()
    notes = said.decode().splitlines()
    assert notes.pop(0).startswith("[millpond:INFO] CSVLogger has no flush(): ")
    if has_return:
        assert notes == []
    else:
        [warning] = notes
        assert warning.startswith("[millpond:WARNING] log(None) at the end raised ")
        assert "define end()" in warning
    assert os.read(logger.status, 100) == b""


def test_jobs_that_come_together_with_the_set_up_are_logged(logger: LoggerProcess) -> None:
    logger.set_up(SEED, more=logger.job(0, "1") + logger.job(2, "2"))
    logger.wait_ready()
    assert logger.end() == 0
    assert (logger.folder / "details.csv").read_text() == "Id,correct\n1,False\n2,False\n"


# What the 3DB page has, or leads to; and what is said first of it.
MISTAKES = {
    "no import": (
        "from os import path\n",
        "",
        "NameError: name 'path' is not defined (my_logger.py:10, in __init__)",
    ),
    "no import for a type": (
        "root_dir, result_buffer, config):",
        "root_dir: str, result_buffer: BigChungusCyclicBuffer, config):",
        "NameError: name 'BigChungusCyclicBuffer' is not defined",
    ),
    "a list is written": (
        "','.join(['Id', 'correct'] + param_keys)",
        "['Id', 'correct'] + param_keys",
        "TypeError: write() argument must be str, not list (my_logger.py:24, in log)",
    ),
    "an array is joined": (
        "map(str, row)",
        "row",
        "TypeError: sequence item 1: expected str instance, numpy.ndarray found "
        "(my_logger.py:28, in log)",
    ),
    "a number is joined": (
        "[item['id'], buffer_data['is_correct']]",
        "[item['id']]",
        "TypeError: sequence item 1: expected str instance, float found (my_logger.py:28, in log)",
    ),
    "a channel of another name": (
        "buffer_data['is_correct']",
        "buffer_data['correct']",
        "no channel 'correct'; did you mean 'is_correct'? the channels are image, is_correct "
        "(my_logger.py:27, in log)",
    ),
    "no class": ("Logger = CSVLogger", "Logger = CSVLogger()", "CSVLogger.__init__() missing 3"),
    "no log": ("def log(", "def _log(", "has neither log(self, item) nor log_many(self, items)"),
    "no free": ("        self.buffer.free(rix, self.regid)\n", "", ""),
    "a half line": ("free(rix, self.regid)", "free(rix), self.regid)", "unmatched ')'"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_each_mistake_of_the_3db_page_is_told_by_what_and_where(
    logger: LoggerProcess, mistake: str
) -> None:
    right, wrong, told = MISTAKES[mistake]
    assert right in SEED
    code = SEED.replace(right, wrong)
    if mistake == "a number is joined":
        code = code.replace("map(str, row)", "row")
    logger.set_up(code)
    said = logger.frame()
    if said.kind == Kind.READY:
        logger.send(logger.job(0, "1", zoom=1.5))
        if not told:
            logger.wait_acks([1, 0, 0, 0])
            return
        said = logger.frame()
    assert told in brief(said.body.decode())


GIVEN = """
import json, os
class Logger:
    def __init__(self, *given):
        root_dir, buffer, config = given
        with open(os.path.join(root_dir, "given.json"), "w") as file:
            json.dump([root_dir, buffer.register(), buffer.initialized, buffer.channels, config,
                       os.getcwd()], file)
    def log(self, item): pass
"""


def test_a_logger_is_made_with_the_folder_the_buffer_and_the_experiment(
    logger: LoggerProcess,
) -> None:
    logger.set_up(GIVEN, options={"format": "png"})
    logger.wait_ready()
    assert orjson.loads((logger.folder / "given.json").read_bytes()) == [
        str(logger.folder),
        2,
        True,
        {"image": [[4, 4], "float32"], "is_correct": [[], "bool"]},
        {
            "policy": {"n": 1},
            "logger": {
                "name": "mine",
                "module": str(logger.folder / "my_logger.py"),
                "options": {"format": "png"},
                "instance": 1,
                "instances": 1,
            },
        },
        str(logger.folder),
    ]
    assert logger.end() == 0


def test_a_module_on_the_search_path_is_found(logger: LoggerProcess) -> None:
    logger.set_up(SEED, kind="module", place="my_logger")
    logger.wait_ready()
    assert logger.end() == 0


def test_files_named_like_libraries_do_no_harm_in_the_folder_of_the_plugin(
    logger: LoggerProcess,
) -> None:
    for name in ("json", "csv", "signal", "numpy", "orjson"):
        (logger.folder / f"{name}.py").write_text("raise RuntimeError\n", encoding="utf-8")
    logger.set_up("import csv, json\n" + SEED)
    logger.wait_ready()
    assert logger.end() == 0


FAILING = {
    "raises": "raise OSError(13, 'Permission denied')",
    "exits": "raise SystemExit(0)",
    "lacks": "raise ModuleNotFoundError('pip install millpond[parquet]')",
}


@pytest.mark.parametrize("mistake", FAILING)
def test_a_constructor_that_raises_is_told_with_its_traceback(
    logger: LoggerProcess, mistake: str
) -> None:
    line = FAILING[mistake]
    logger.set_up(
        f"class Logger:\n    def __init__(self, *_):\n        {line}\n    def log(self, _): ..."
    )
    frame = logger.frame()
    assert frame.kind == Kind.FAILED
    text = frame.body.decode()
    assert text.startswith("making the logger failed:\nTraceback ")
    assert f'my_logger.py", line 3, in __init__\n    {line}\n' in text
    assert logger.process.wait() == 1
    assert os.read(logger.status, 100) == b""


def test_an_unknown_option_is_told_by_its_name(logger: LoggerProcess) -> None:
    place = "millpond_loggers.csv_logger"
    logger.set_up("", kind="module", place=place, options={"formt": "png"})
    frame = logger.frame()
    assert frame.kind == Kind.FAILED
    assert frame.body.startswith(b"mine.options: option 'formt' is unknown; the options are")
    assert logger.process.wait() == 1


@pytest.mark.parametrize(
    ("code", "told"),
    [
        (
            "import no_such_library",
            "No module named 'no_such_library' (my_logger.py:1, in <module>)\n",
        ),
        ("import sys; sys.exit(0)", "SystemExit: 0 (my_logger.py:1, in <module>)\n"),
        ("class A:\n    def log(self, item): ...", ": write `Logger = A` at its end"),
    ],
)
def test_a_module_that_cannot_serve_is_told_in_its_own_words(
    logger: LoggerProcess, code: str, told: str
) -> None:
    logger.set_up(code)
    frame = logger.frame()
    assert frame.kind == Kind.FAILED
    assert frame.body.decode().endswith(told)
    assert logger.process.wait() == 1
    assert logger.stderr.read() == b""


def test_a_pipe_that_is_closed_before_the_set_up_ends_it_quietly(logger: LoggerProcess) -> None:
    assert logger.end() == 0
    assert logger.stdout.read() + logger.stderr.read() + os.read(logger.status, 100) == b""


TALKING = """
import sys
class Logger:
    def __init__(self, *_):
        print("made \\ud800")
    def log(self, item):
        print("log", item["id"])
        print("half a line", end="")
        print("aside", file=sys.stderr)
        raise RuntimeError(item["id"])
    def flush(self): pass
    def end(self):
        print(", the rest")
"""


def test_what_a_logger_prints_comes_line_by_line(logger: LoggerProcess) -> None:
    """Each line is read while the logger lives and waits: it is not kept until the end."""
    logger.set_up(TALKING)
    assert logger.stdout.readline() == b"made \\ud800\n"
    logger.wait_ready()
    logger.send(logger.job(0, "7"))
    assert logger.stdout.readline() == b"log 7\n"
    assert logger.stderr.readline() == b"aside\n"
    frame = logger.frame()
    assert (frame.kind, frame.slot, frame.generation) == (Kind.RAISED, 0, 1)
    assert frame.body.endswith(b"RuntimeError: 7 (my_logger.py:10, in log)\n")
    assert logger.end() == 0
    assert logger.stdout.read() == b"half a line, the rest\n"


def test_an_interrupt_does_not_end_a_logger(logger: LoggerProcess) -> None:
    logger.set_up(SEED)
    logger.wait_ready()
    logger.process.send_signal(signal.SIGINT)
    logger.send(logger.job(0, "1"))
    logger.wait_acks([1, 0, 0, 0])
    logger.process.send_signal(signal.SIGINT)
    logger.send(logger.job(1, "2"))
    assert logger.end() == 0
    assert (logger.folder / "details.csv").read_text() == "Id,correct\n1,False\n2,True\n"
    assert logger.stderr.read().count(b"\n") == 1  # It has no flush.


CRASHING = """
import ctypes
class Logger:
    def __init__(self, *_): pass
    def log(self, item):
        if item["id"] == "bad":
            ctypes.string_at(0)
    def flush(self): pass
"""


def test_a_crash_leaves_its_stack_and_what_was_released_before(logger: LoggerProcess) -> None:
    logger.set_up(CRASHING)
    logger.wait_ready()
    logger.send(logger.job(0, "good"))
    logger.wait_acks([1, 0, 0, 0])
    logger.send(logger.job(1, "bad"))
    assert logger.process.wait() == -signal.SIGSEGV
    stack = logger.stderr.read().decode()
    assert stack.startswith("Fatal Python error: Segmentation fault\n")
    assert 'my_logger.py", line 7 in log' in stack
    assert list(logger.segment.acks[1])[:4] == [1, 0, 0, 0]


def test_an_end_that_raises_leaves_its_traceback_and_fails(logger: LoggerProcess) -> None:
    code = "    def end(self):\n        raise OSError(28, 'No space left on device')\n"
    logger.set_up(CRASHING + code)
    logger.wait_ready()
    logger.send(logger.job(0, "good"))
    assert logger.end() == 1
    assert b"OSError: [Errno 28] No space left on device" in logger.stderr.read()
    assert list(logger.segment.acks[1])[:4] == [1, 0, 0, 0]


RECORDING = """
import os
class Logger:
    def __init__(self, root_dir, *_):
        self.file = open(os.path.join(root_dir, "record"), "w")
    def log(self, item):
        if item["id"] == "bad":
            raise RuntimeError("bad")
        self.file.write(item["id"] + "\\n")
    def end(self):
        self.file.write("end\\n")
        self.file.close()
"""


DIAGNOSED = """
from millpond_loggers.base import BaseLogger
class Logger(BaseLogger):
    def log(self, item):
        self.logger.warning("odd result id=%s", item["id"])
        print("only printed")
"""


def test_diagnostics_are_lines_with_their_level(logger: LoggerProcess) -> None:
    logger.set_up(DIAGNOSED, more=logger.job(0, "7"))
    logger.wait_ready()
    assert logger.end() == 0
    assert b"[millpond:WARNING] odd result id=7\n" in logger.stderr.read()
    assert logger.stdout.read() == b"only printed\n"


def test_a_channel_that_the_pond_does_not_have_is_told_in_one_line(logger: LoggerProcess) -> None:
    logger.set_up(SEED, wanted=["imgae"])
    frame = logger.frame()
    assert frame.kind == Kind.FAILED
    told = "no channel 'imgae'; did you mean 'image'? the channels are image, is_correct"
    assert frame.body.decode() == f"channels: {told}"
    assert logger.process.wait() == 1


def test_a_logger_gets_the_channels_that_it_wants_and_its_number(logger: LoggerProcess) -> None:
    logger.set_up(GIVEN, wanted=["is_correct"], instance=2, instances=4)
    logger.wait_ready()
    assert logger.end() == 0
    given = orjson.loads((logger.folder / "given.json").read_bytes())
    assert given[3] == {"is_correct": [[], "bool"]}
    assert (given[4]["logger"]["instance"], given[4]["logger"]["instances"]) == (2, 4)


def test_a_logger_finishes_what_it_was_sent_when_the_daemon_is_gone(logger: LoggerProcess) -> None:
    """Nobody reads what it says any more; that is no reason to lose what it can still record."""
    logger.set_up(RECORDING)
    logger.wait_ready()
    jobs = logger.job(0, "1") + logger.job(1, "bad") + logger.job(2, "3")
    os.close(logger.status)
    logger.status = -1
    logger.stdout.close()
    logger.stderr.close()
    logger.send(jobs)
    assert logger.end() == 0
    assert (logger.folder / "record").read_text() == "1\n3\nend\n"


def test_a_logger_cannot_write_where_it_must_not(logger: LoggerProcess) -> None:
    """The segment and the daemon's words are there to be read only, whatever a logger tries."""
    code = """
import mmap, os, sys
class Logger:
    def __init__(self, *_):
        for fd in map(int, sys.argv[4:6]):
            try:
                mmap.mmap(fd, os.fstat(fd).st_size)
            except PermissionError:
                print("refused")
    def log(self, item): pass
"""
    logger.set_up(code)
    logger.wait_ready()
    assert logger.end() == 0
    assert logger.stdout.read() == b"refused\nrefused\n"


LIMITED = """
import json, os, resource
class Logger:
    def __init__(self, root_dir, *_):
        with open(os.path.join(root_dir, "limits.json"), "w") as file:
            json.dump([resource.getrlimit(resource.RLIMIT_NOFILE),
                       resource.getrlimit(resource.RLIMIT_CORE)], file)
    def log(self, item): pass
"""


def test_the_limits_are_set_before_the_logger_is_made(logger: LoggerProcess) -> None:
    logger.set_up(LIMITED, daemon_pid=os.getpid(), limits={"open_files": 50, "processes": None})
    logger.wait_ready()
    assert logger.end() == 0
    assert orjson.loads((logger.folder / "limits.json").read_bytes()) == [[50, 50], [0, 0]]


def test_shared_memory_that_does_not_fit_into_the_limit_is_told(logger: LoggerProcess) -> None:
    logger.set_up(HANGING, limits={"memory_bytes": 1})
    frame = logger.frame()
    assert frame.kind == Kind.FAILED
    assert b"Cannot allocate memory" in frame.body or b"MemoryError" in frame.body
    assert logger.process.wait() == 1


def test_a_logger_whose_daemon_is_gone_finishes_what_it_was_sent(logger: LoggerProcess) -> None:
    """It is not the child of the process that it is told of, so that one must have died."""
    logger.set_up(RECORDING, daemon_pid=1, more=logger.job(0, "1") + logger.job(2, "3"))
    assert logger.end() == 0
    assert (logger.folder / "record").read_text() == "1\n3\nend\n"


HANGING = """
import time
class Logger:
    def __init__(self, *_): pass
    def log(self, item): time.sleep(1000)
"""


def test_a_logger_that_hangs_when_the_daemon_is_gone_is_ended(logger: LoggerProcess) -> None:
    logger.set_up(HANGING, daemon_pid=1, more=logger.job(0, "1"))
    assert logger.end() == -signal.SIGALRM
    assert read_word(logger.segment.acks[1][4]) == (0, 1)


def test_a_start_for_which_the_disk_has_no_room_is_told_with_its_number(
    logger: LoggerProcess,
) -> None:
    code = "    def __init__(self, *args):\n        raise OSError(28, 'No space left on device')\n"
    logger.set_up(f"class Logger:\n{code}    def log(self, item): ...\n")
    frame = logger.frame()
    assert (frame.kind, frame.sequence) == (Kind.FAILED, 28)
    assert logger.process.wait() == 1
