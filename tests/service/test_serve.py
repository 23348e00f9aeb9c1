"""From the lock to the summary: `serve` in this process, with a renderer in a thread."""

from __future__ import annotations

import json
import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import millpond
from millpond.config.load import load
from millpond.config.model import Config
from millpond.health_client import fetch_status
from millpond.module_search import check_modules
from millpond.run_folder import AlreadyRunning
from millpond.serve import EXIT_LOST, EXIT_OK, serve, summary

WATCHDOG_S = 60.0
CHANNELS = {"loss": ((), "float32")}
MOODY = """
class Logger:
    def __init__(self, root_dir, result_buffer, config):
        pass

    def log(self, item):
        if item["id"] == "bad":
            raise ValueError("do not like it")

    def end(self):
        pass
"""


@pytest.fixture(autouse=True)
def signals_as_before() -> Iterator[None]:
    """A daemon that ends blocks its signals for the rest of its process, which here goes on."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    yield
    signal.pthread_sigmask(signal.SIG_SETMASK, before)


def config(tmp_path: Path, **service: Any) -> Config:
    (tmp_path / "moody.py").write_text(MOODY)
    path = tmp_path / "pond.yaml"
    path.write_text(
        json.dumps(
            {
                "output_dir": str(tmp_path / "run"),
                "buffer": {"slots": 4},
                "logging": {"logger_modules": ["null", "./moody.py"]},
                "service": service,
            }
        )
    )
    return load(path, environ={})


@pytest.fixture(autouse=True)
def _signals_are_heard() -> Iterator[None]:
    """Also where a shell has started the tests in the background, and had SIGINT ignored."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    for number in before:
        signal.signal(number, signal.SIG_DFL)
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def run(loaded: Config, renderer: Callable[[], None], *, exit_when_done: bool = True) -> int:
    """Serve in this thread, which has the signals, until the renderer's work is done."""
    problems: list[BaseException] = []

    def work() -> None:
        try:
            renderer()
        except BaseException as problem:  # noqa: BLE001  Raised again below.
            problems.append(problem)
            os.kill(os.getpid(), signal.SIGTERM)

    modules = check_modules(loaded)
    thread = threading.Thread(target=work)
    thread.start()
    try:
        return serve(
            loaded,
            [modules[logger.name] for logger in loaded.loggers],
            exit_when_done=exit_when_done,
        )
    finally:
        thread.join(WATCHDOG_S)
        for problem in problems:
            raise problem


def publish(folder: Path, *ids: str) -> None:
    with millpond.connect(folder, CHANNELS, claim_timeout_s=WATCHDOG_S) as pond:
        for name in ids:
            pond.publish(name, {}, loss=0.0)


def test_all_delivered_is_0_and_a_line_for_each_logger(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    loaded = config(tmp_path)
    code = run(loaded, lambda: publish(loaded.output_dir, "a", "b", "c"))
    assert code == EXIT_OK
    assert capsys.readouterr().out.endswith(
        "null: 3 published = 3 delivered + 0 dead + 0 on the disk\n"
        "moody: 3 published = 3 delivered + 0 dead + 0 on the disk\n"
    )
    left = {path.name for path in loaded.output_dir.iterdir()}
    assert left == {"millpond.lock", "ledger"}


def test_a_lost_result_is_1_and_the_summary_says_where_the_list_is(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    loaded = config(tmp_path)
    code = run(loaded, lambda: publish(loaded.output_dir, "a", "bad", "c"))
    assert code == EXIT_LOST
    dead = loaded.output_dir / "dead.jsonl"
    assert capsys.readouterr().out.endswith(
        "null: 3 published = 3 delivered + 0 dead + 0 on the disk\n"
        "moody: 3 published = 2 delivered + 1 dead + 0 on the disk\n"
        f"the lost ones are listed in {dead}\n"
    )
    [line] = dead.read_text().splitlines()
    assert json.loads(line)["id"] == "bad"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_in_order(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], number: signal.Signals
) -> None:
    # In folders that are not there yet.
    loaded = config(
        tmp_path, socket=str(tmp_path / "s/r.sock"), health_socket=str(tmp_path / "s/h.sock")
    )

    def stop() -> None:
        publish(loaded.socket_path, "a")
        assert fetch_status(loaded.health_socket_path)["results"] == 1
        os.kill(os.getpid(), number)

    assert run(loaded, stop, exit_when_done=False) == EXIT_OK
    assert "null: 1 published = 1 delivered" in capsys.readouterr().out
    assert list((tmp_path / "s").iterdir()) == []


def test_a_logger_that_fails_to_end_is_1(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its file may lack a footer: everything was delivered, and yet something may be lost."""
    loaded = config(tmp_path)
    moody = tmp_path / "moody.py"
    moody.write_text(
        moody.read_text().replace(
            "def end(self):\n        pass", "def end(self):\n        raise OSError"
        )
    )
    assert run(loaded, lambda: publish(loaded.output_dir, "a")) == EXIT_LOST
    said = capsys.readouterr().out
    assert "moody: 1 published = 1 delivered + 0 dead" in said
    assert "moody ended badly" in said


def given_up(tmp_path: Path) -> Config:
    """A configuration whose second logger cannot be made, and is given up at once."""
    loaded = config(tmp_path)
    moody = tmp_path / "moody.py"
    moody.write_text(
        moody.read_text().replace("config):\n        pass", "config):\n        {}['losss']")
    )
    path = loaded.source
    given = json.loads(path.read_text())
    restart = {"intensity": 0, "delay_s": 0.01, "delay_s_max": 0.01}
    given["logging"]["logger_modules"][1] = {"module": "./moody.py", "restart": restart}
    path.write_text(json.dumps(given))
    return load(path, environ={})


def test_what_is_left_for_a_logger_that_was_given_up_is_1_with_the_reason(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """All is done but that, so a script must not take it for success."""
    loaded = given_up(tmp_path)
    assert run(loaded, lambda: publish(loaded.output_dir, "a", "b")) == EXIT_LOST
    assert capsys.readouterr().out.endswith(
        "null: 2 published = 2 delivered + 0 dead + 0 on the disk\n"
        "moody: 2 published = 0 delivered + 0 dead + 2 on the disk\n"
        "moody did not get 2 of them: making the logger failed: KeyError: 'losss' "
        f"(moody.py:4, in __init__); mend it, then: millpond replay {loaded.output_dir}\n"
    )


def test_what_is_left_after_a_signal_is_0_for_the_next_start_has_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    loaded = given_up(tmp_path)

    def stop() -> None:
        publish(loaded.output_dir, "a")
        os.kill(os.getpid(), signal.SIGTERM)

    assert run(loaded, stop, exit_when_done=False) == EXIT_OK
    assert "what is on the disk goes to its logger when" in capsys.readouterr().out


def test_one_signal_while_the_end_is_under_way_does_not_cut_it_short(tmp_path: Path) -> None:
    """The work was done and the loggers are ending: the first signal is no second one."""
    loaded = config(tmp_path)
    moody = tmp_path / "moody.py"
    slow_end = (
        "def end(self):\n"
        "        import os, time\n"
        "        os.kill(os.getppid(), 15)\n"
        "        time.sleep(0.3)\n"
        "        open(f'{self.root}/footer', 'w').close()\n"
    )
    moody.write_text(
        moody.read_text()
        .replace("def end(self):\n        pass", slow_end)
        .replace("config):\n        pass", "config):\n        self.root = root_dir")
    )
    assert run(loaded, lambda: publish(loaded.output_dir, "a")) == EXIT_OK
    assert (loaded.output_dir / "footer").exists()


def test_a_socket_in_use_is_left_alone(tmp_path: Path) -> None:
    loaded = config(tmp_path)
    loaded.output_dir.mkdir()
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(os.fspath(loaded.health_socket_path))
        other.listen()
        with pytest.raises(AlreadyRunning, match=r"another program serves .*health\.sock"):
            run(loaded, lambda: None)
    # The folder was given back with it.
    loaded.health_socket_path.unlink()
    assert run(loaded, lambda: publish(loaded.output_dir, "a")) == EXIT_OK


def row(
    published: int,
    delivered: int,
    dead: int,
    queued: int,
    in_window: int,
    *,
    spilled: int = 0,
    filtered: int = 0,
    ended_badly: bool = False,
) -> dict[str, Any]:
    return {
        "ended_badly": ended_badly,
        "filtered": filtered,
        "published": published,
        "delivered": delivered,
        "dead": dead,
        "queued": queued,
        "in_window": in_window,
        "spilled": spilled,
    }


@pytest.mark.parametrize(
    ("loggers", "text"),
    [
        ({}, "no renderer came; nothing was published\n"),
        ({"csv": row(0, 0, 0, 0, 0)}, "csv: 0 published = 0 delivered + 0 dead + 0 on the disk\n"),
        (
            {"csv": row(9, 4, 0, 3, 2)},
            "csv: 9 published = 4 delivered + 0 dead + 0 on the disk + 5 left\n",
        ),
        (
            {"csv": row(9, 4, 0, 0, 0, spilled=5), "json": row(9, 9, 0, 0, 0)},
            "csv: 9 published = 4 delivered + 0 dead + 5 on the disk\n"
            "json: 9 published = 9 delivered + 0 dead + 0 on the disk\n"
            "what is on the disk goes to its logger when this configuration is run again\n",
        ),
        (
            {"csv": row(9, 4, 0, 0, 0, filtered=5)},
            "csv: 9 published = 4 delivered + 0 dead + 0 on the disk + 5 filtered\n",
        ),
        (
            {"csv": row(1, 1, 0, 0, 0, ended_badly=True)},
            "csv: 1 published = 1 delivered + 0 dead + 0 on the disk\n"
            "csv ended badly: its last words may be missing, see the log\n",
        ),
        (
            {"csv": row(2, 2, 0, 0, 0), "json": row(2, 1, 1, 0, 0)},
            "csv: 2 published = 2 delivered + 0 dead + 0 on the disk\n"
            "json: 2 published = 1 delivered + 1 dead + 0 on the disk\n"
            "the lost ones are listed in runs/a/dead.jsonl\n",
        ),
    ],
)
def test_the_summary_accounts_for_every_result(loggers: dict[str, Any], text: str) -> None:
    disk = {"unlisted": 0, "lost_before": 0}
    status = {"loggers": loggers, "output_dir": "runs/a", "disk": disk}
    assert summary(status, was_stopped=True) == text


def test_the_summary_says_whose_results_are_left_why_and_what_to_do() -> None:
    disk = {"unlisted": 0, "lost_before": 0}
    boom = {**row(9, 0, 0, 0, 0, spilled=9), "last_error": "ValueError: no lss (boom.py:5)"}
    loggers = {"csv": row(9, 9, 0, 0, 0), "boom": boom}
    assert summary({"loggers": loggers, "output_dir": "runs/a", "disk": disk}) == (
        "csv: 9 published = 9 delivered + 0 dead + 0 on the disk\n"
        "boom: 9 published = 0 delivered + 0 dead + 9 on the disk\n"
        "boom did not get 9 of them: ValueError: no lss (boom.py:5); mend it, then: "
        "millpond replay runs/a\n"
    )


def test_a_replay_of_nothing_says_so() -> None:
    disk = {"unlisted": 0, "lost_before": 0}
    for loggers in ({}, {"csv": row(0, 0, 0, 0, 0)}):
        status = {"loggers": loggers, "output_dir": "runs/a", "disk": disk}
        assert summary(status, is_replay=True) == "nothing waits on the disk\n"


def test_the_summary_does_not_point_to_a_list_that_lacks_them() -> None:
    loggers = {"csv": row(2, 0, 2, 0, 0)}
    text = summary(
        {"loggers": loggers, "output_dir": "runs/a", "disk": {"unlisted": 2, "lost_before": 0}}
    )
    assert "2 of the lost ones could not be listed" in text
    assert "dead.jsonl" not in text


def test_the_summary_tells_what_earlier_starts_have_lost() -> None:
    disk = {"unlisted": 0, "lost_before": 3}
    text = summary({"loggers": {}, "output_dir": "runs/a", "disk": disk})
    assert "3 results of earlier starts are lost: see runs/a/dead.jsonl" in text
