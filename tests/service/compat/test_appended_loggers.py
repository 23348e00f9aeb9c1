"""Loggers are appended as 3DB's ``main`` does it, and run by the daemon."""

from __future__ import annotations

import contextlib
import csv
import importlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from service.compat.conftest import CHANNELS, allocating, wait_until
from service.compat.forked import in_fork

from millpond.compat.appended_loggers import LoggerManager
from millpond.compat.cyclic_buffer import CyclicBuffer
from millpond.compat.delivery import ResultsMissing
from millpond.core.layout import channels_to_json
from millpond.errors import DaemonUnreachable, InvalidResult

pytestmark = pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")

DECLARED = channels_to_json(CHANNELS)
VALUES = {"rgb": np.ones((3, 4, 4), "float32"), "is_correct": True, "loss": 0.5}
PLUGIN = """
from pathlib import Path

class Base:
    pass

class Plugin(Base):
    def __init__(self, root_dir, result_buffer, config):
        self.root_dir, self.buffer, self.config = root_dir, result_buffer, config
        self.regid = self.buffer.register()
        self.file = (Path(root_dir) / "plugin.txt").open("a")

    def log(self, item):
        print(item["id"], self.config["policy"], file=self.file, flush=True)

    def end(self):
        print("end", file=self.file)
        self.file.close()

Logger = Plugin
"""


def item(index: int, id: str = "a", **changes: Any) -> dict[str, Any]:
    return {"id": id, "render_args": {("Camera", "zoom"): 1.5}, "result_ix": index, **changes}


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def buffer() -> Iterator[CyclicBuffer]:
    made = CyclicBuffer(size=8)
    yield made
    made.end()
    with contextlib.suppress(ResultsMissing):
        made.wait_delivered(30)


@pytest.fixture
def write_plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Any]]:
    """Makes a module of a logger, and imports it."""
    names: list[str] = []
    monkeypatch.syspath_prepend(str(tmp_path / "plugins"))
    (tmp_path / "plugins").mkdir()

    def write(name: str, text: str = PLUGIN) -> Any:
        (tmp_path / "plugins" / f"{name}.py").write_text(text)
        importlib.invalidate_caches()
        names.append(name)
        return importlib.import_module(name)

    yield write
    for name in names:
        sys.modules.pop(name, None)


def recorded(folder: Path) -> list[dict[str, str]]:
    with (folder / "details.csv").open(newline="") as table:
        return list(csv.DictReader(table))


def test_every_result_of_several_policies_is_recorded_once_by_every_logger(
    buffer: CyclicBuffer, tmp_path: Path
) -> None:
    count = 60
    regid = buffer.register()
    loggers = LoggerManager(buffer=buffer, output_dir=tmp_path / "out", config={"policy": {}})
    loggers.append("csv")
    loggers.append({"module": "json", "name": "lines"})
    assert buffer.declare_buffers(DECLARED)
    loggers.start()

    def policy(indices: list[int]) -> int:
        for index in indices:
            order = int(np.asarray(buffer[index]["loss"]))
            loggers.log(item(index, f"r{order}", order=order, model="mug"))
            buffer.free(index, regid)
        return len(indices)

    for start in range(0, count, 4):  # More results than slots.
        indices = [buffer.allocate({**VALUES, "loss": start + step}) for step in range(4)]
        assert in_fork(policy, indices) == 4
    buffer.close()
    loggers.log(None)
    loggers.join()
    table = recorded(tmp_path / "out")
    assert sorted(row["id"] for row in table) == sorted(f"r{number}" for number in range(count))
    assert all(row["id"] == f"r{float(row['loss']):g}" == f"r{row['order']}" for row in table)
    assert {(row["model"], row["Camera.zoom"]) for row in table} == {("mug", "1.5")}
    assert len((tmp_path / "out" / "details.log").read_text().splitlines()) == count


def test_a_logger_that_was_made_is_made_again_by_the_daemon(
    buffer: CyclicBuffer, tmp_path: Path, write_plugin: Callable[..., Any]
) -> None:
    plugin = write_plugin("made_plugin")
    assert buffer.register() == 1
    loggers = LoggerManager()
    (tmp_path / "out").mkdir()
    loggers.append(plugin.Logger(str(tmp_path / "out"), buffer, {"policy": {"samples": 3}}))
    assert buffer.registration_count == 2
    assert loggers.loggers == ["made_plugin"]
    buffer.declare_buffers(DECLARED)
    loggers.start()
    index = buffer.allocate(VALUES)
    loggers.log(item(index, "only-one"))
    buffer.free(index, 1)  # Nobody waits for the logger's own registration.
    loggers.log(None)
    loggers.join()
    # The first end is that of the one that was made here: it gives back what it has open.
    assert (tmp_path / "out" / "plugin.txt").read_text().splitlines() == [
        "end",
        "only-one {'samples': 3}",
        "end",
    ]


def test_one_of_3db_is_not_ended_before_it_begins(
    buffer: CyclicBuffer, tmp_path: Path, write_plugin: Callable[..., Any]
) -> None:
    theirs = PLUGIN.replace("    pass", '    __module__ = "threedb.result_logging.base_logger"')
    plugin = write_plugin("their_plugin", theirs)
    LoggerManager().append(plugin.Logger(str(tmp_path), buffer, {}))
    assert (tmp_path / "plugin.txt").read_text() == ""


def test_loggers_of_ours_that_were_made_here_give_back_their_locks(
    buffer: CyclicBuffer, tmp_path: Path
) -> None:
    loggers = LoggerManager()
    for name in ("csv", "json"):
        module = importlib.import_module(f"millpond_loggers.{name}_logger")
        loggers.append(module.Logger(str(tmp_path), buffer, {}))
    buffer.declare_buffers(DECLARED)
    loggers.start()
    loggers.log(item(buffer.allocate(VALUES)))
    loggers.join()  # It ends what was not ended.
    assert [row["id"] for row in recorded(tmp_path)] == ["a"]


def test_a_module_stands_for_its_logger(
    buffer: CyclicBuffer, write_plugin: Callable[..., Any]
) -> None:
    loggers = LoggerManager(buffer=buffer)
    loggers.append(write_plugin("named_plugin"))
    assert loggers.loggers == ["named_plugin"]
    assert loggers.plan(5).output_dir == Path("runs/threedb").absolute()
    assert loggers.plan(5).slots == 5


def test_a_class_that_another_module_exports_is_found_there(
    buffer: CyclicBuffer, tmp_path: Path, write_plugin: Callable[..., Any]
) -> None:
    write_plugin("inner_plugin", PLUGIN.replace("Logger = Plugin", ""))
    outer = write_plugin("outer_plugin", "from inner_plugin import Plugin as Logger")
    loggers = LoggerManager()
    loggers.append(outer.Logger(str(tmp_path), buffer, {}))
    assert loggers.loggers == ["outer_plugin"]


def test_what_is_no_logger_is_refused(
    buffer: CyclicBuffer, tmp_path: Path, write_plugin: Callable[..., Any]
) -> None:
    plugin = write_plugin("wrong_plugin", PLUGIN.replace("Logger = Plugin", ""))
    loggers = LoggerManager(buffer=buffer)
    unnamed = plugin.Plugin(str(tmp_path), buffer, {})
    with pytest.raises(InvalidResult, match="no module exports Plugin as `Logger`"):
        loggers.append(unnamed)
    for wrong in (7, None, plugin.Plugin):
        with pytest.raises(InvalidResult, match="is no logger, and names none"):
            loggers.append(wrong)
    other = plugin.Plugin(str(tmp_path), buffer, {})
    other.buffer = {}
    with pytest.raises(InvalidResult, match="the buffer of Plugin is a dict"):
        loggers.append(other)
    assert loggers.loggers == []
    unnamed.end()
    other.end()


def test_loggers_come_before_the_daemon(buffer: CyclicBuffer) -> None:
    loggers = LoggerManager(buffer=buffer)
    loggers.append("null")
    with pytest.raises(InvalidResult, match="no channels yet"):
        loggers.start()
    buffer.declare_buffers(DECLARED)
    loggers.start()
    with pytest.raises(InvalidResult, match="append loggers before the first result"):
        loggers.append("csv")
    assert loggers.loggers == ["null"]


def test_one_buffer_is_found_and_of_several_one_must_be_named(buffer: CyclicBuffer) -> None:
    second = CyclicBuffer()
    with pytest.raises(InvalidResult, match=r"there are \d+ buffers: .*LoggerManager\(buffer="):
        LoggerManager().append("csv")
    LoggerManager(buffer=second).append("csv")


def test_an_item_that_cannot_be_sent_is_an_error_where_it_was_logged(
    buffer: CyclicBuffer,
) -> None:
    regid = buffer.register()
    loggers = LoggerManager(buffer=buffer)
    loggers.append("null")
    buffer.declare_buffers(DECLARED)
    loggers.start()
    index = buffer.allocate(VALUES)

    def child() -> None:
        with pytest.raises(InvalidResult, match="must have id, render_args and result_ix"):
            loggers.log({"id": "a"})
        buffer.free(index, regid)

    in_fork(child)
    with pytest.raises(LookupError, match="result 'b' cannot be logged: result_ix 5000 is free"):
        loggers.log(item(5000, "b"))
    loggers.log(item(index))
    loggers.log(None)
    loggers.join()
    with pytest.raises(DaemonUnreachable):
        buffer.allocate(VALUES)


def test_results_that_did_not_reach_a_logger_are_an_error_of_join(
    buffer: CyclicBuffer, write_plugin: Callable[..., Any]
) -> None:
    write_plugin("bad_plugin", PLUGIN.replace("print(item", "__import__('os')._exit(3)  # "))
    loggers = LoggerManager(buffer=buffer)
    loggers.append({"module": "bad_plugin", "on_crash": "drop"})
    buffer.declare_buffers(DECLARED)
    loggers.start()
    loggers.log(item(buffer.allocate(VALUES)))
    loggers.log(None)
    with pytest.raises(ResultsMissing, match=r"1 published = 0 delivered . 1 dead"):
        loggers.join()


@pytest.fixture
def loggers(buffer: CyclicBuffer, tmp_path: Path) -> LoggerManager:
    """Those of a run that has begun."""
    made = LoggerManager(buffer=buffer, output_dir=tmp_path)
    made.append("csv")
    buffer.declare_buffers(DECLARED)
    made.start()
    return made


def test_only_the_owner_joins_and_a_child_that_tries_never_hangs(
    buffer: CyclicBuffer, loggers: LoggerManager
) -> None:
    told = r"only the process that made the buffer \(pid \d+\) ends it"
    with pytest.raises(InvalidResult, match=told):
        in_fork(loggers.join)
    with allocating(buffer, VALUES), pytest.raises(InvalidResult, match=told):
        in_fork(loggers.join)  # It was forked while the other thread had its turn.
    loggers.log(item(buffer.allocate(VALUES)))
    loggers.join()


def test_what_a_child_logs_after_the_end_is_an_error_where_it_is_logged(
    buffer: CyclicBuffer, loggers: LoggerManager, tmp_path: Path
) -> None:
    index, late = buffer.allocate(VALUES), buffer.allocate(VALUES)
    loggers.log(item(index))
    in_fork(loggers.log, None)
    wait_until(lambda: (tmp_path / "millpond.log").read_text().count("published ="))
    with pytest.raises(DaemonUnreachable, match=r"nothing is logged or freed after log\(None\)"):
        in_fork(loggers.log, item(late, "late"))
    with pytest.raises(LookupError, match="'late' cannot be logged: it comes after the end"):
        loggers.log(item(late, "late"))
    loggers.join()  # Who logged it was told.
    assert [row["id"] for row in recorded(tmp_path)] == ["a"]


def test_what_a_child_logged_just_after_the_end_is_an_error_of_join(
    buffer: CyclicBuffer, loggers: LoggerManager, tmp_path: Path
) -> None:
    indices = [buffer.allocate(VALUES) for _ in range(2)]

    def child() -> None:
        loggers.log(item(indices[0], "in-time"))
        loggers.log(None)
        loggers.log(item(indices[1], "late"))

    with allocating(buffer, VALUES):
        in_fork(child)  # All of it waits for the owner's turn.
    for _ in range(2):
        with pytest.raises(ResultsMissing, match=r"1 results were logged after the end.*: late$"):
            loggers.join()
    assert [row["id"] for row in recorded(tmp_path)] == ["in-time"]
    with pytest.raises(ResultsMissing):
        buffer.wait_delivered(1)


def test_a_daemon_that_cannot_be_started_at_a_fork_is_told_to_whoever_uses_it(
    tmp_path: Path,
) -> None:
    buffer = CyclicBuffer(size=2)
    loggers = LoggerManager(buffer=buffer, output_dir=tmp_path)
    loggers.append("no.such.logger")
    buffer.declare_buffers(DECLARED)
    for _ in range(2):
        told = r"when it was forked, the daemon could not be started: .*no\.such\.logger"
        with pytest.raises(DaemonUnreachable, match=told):
            in_fork(buffer.__getitem__, 0)
    # A second fork does not try again; whoever asks for it does.
    assert (tmp_path / "millpond.log").read_text().count("no.such.logger") == 1
    for use in (loggers.start, lambda: buffer.allocate(VALUES), loggers.join):
        with pytest.raises(DaemonUnreachable, match=r"no\.such\.logger"):
            use()
    assert (tmp_path / "millpond.log").read_text().count("no.such.logger") == 3
