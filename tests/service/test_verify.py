"""The books of a run: what adds up, and what is said when something does not."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from loggers.memory_buffer import MemoryBuffer

from millpond.core.deliveries import Result
from millpond.core.layout import plan
from millpond.core.ranges import ResultRanges
from millpond.dead_letters import DeadLetters, Letter
from millpond.errors import ConfigError
from millpond.ledger import Ledger
from millpond.ledger_reader import lines_path, numbers, read_start
from millpond.run_folder import RunFolder
from millpond.verify import Report, audit, has_daemon, run_folder_of, verify
from millpond_loggers import csv_logger, json_logger

CHANNELS = {"loss": ((), "float32")}
AS_JSON = {"loss": [[], "float32"]}
PLACES = {"csv": csv_logger, "json": json_logger}
CSV = 0


def definition(name: str, kind: str = "csv", **options: Any) -> dict[str, Any]:
    place = f"millpond_loggers.{kind}_logger"
    return {"name": name, "kind": "module", "place": place, "options": options}


def results(first: int, last: int, renderer: int = 1) -> list[Result]:
    return [Result(0, 1, renderer, n, f"{renderer}-{n}", b"") for n in range(first, last + 1)]


def ids(found: list[Result]) -> list[str]:
    return [result.id for result in found]


def record(run: Path, found: list[Result], kind: str = "csv", **options: Any) -> None:
    """Have a logger write what it is then said to have delivered."""
    buffer = MemoryBuffer(CHANNELS, slot_count=len(found))
    config = {"logger": {"name": kind, "options": options}}
    logger = PLACES[kind].Logger(str(run), buffer, config)
    for result in found:
        logger.log(buffer.put(result.id, {}, loss=np.float32(1)))
    logger.flush()
    logger.end()


def begin(run: Path, *loggers: dict[str, Any], renderer: int = 1, count: int = 9) -> Ledger:
    ledger = Ledger(run, loggers or [definition("csv")])
    ledger.begin({}, channels=AS_JSON)
    ledger.renderer_joined(renderer, 1)
    ledger.published(results(1, count, renderer))
    return ledger


def bury(run: Path, logger: str, found: list[Result]) -> None:
    letters = DeadLetters(run, None, arrays_bytes_max=0)
    told = [Letter(r.renderer, r.sequence, r.id, 1, None, b"{}") for r in found]
    letters.bury(logger, told, reason="drop", problem="")
    letters.close()


def check(run: Path, *, is_running: bool = False, **spilled: list[tuple[int, int]]) -> Report:
    """As `verify`, for what a test says is spilled."""
    starts = [read_start(run, number) for number in numbers(run)]
    return audit(run, starts, dead={}, spilled=spilled, is_running=is_running)


def kinds(report: Report) -> dict[str, list[str]]:
    return {wrong.kind: wrong.what for wrong in report.wrong}


def command(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "millpond", "verify", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


# What adds up.


@pytest.mark.parametrize("is_end", [True, False])
def test_a_run_in_order_adds_up(tmp_path: Path, is_end: bool) -> None:
    ledger = begin(tmp_path, definition("csv"), definition("json", "json"))
    for logger, kind in enumerate(("csv", "json")):
        record(tmp_path, results(1, 7), kind)
        ledger.delivered(logger, results(1, 7))
        bury(tmp_path, kind, results(8, 9))
        ledger.otherwise(logger, results(8, 9))
    ledger.close(is_end=is_end)
    report = verify(tmp_path)
    assert report.is_good
    assert report.lines() == [
        f"{tmp_path}: 1 start",
        "  csv: 9 published = 7 delivered + 2 dead + 0 on the disk; files: 7 expected, 0 missing",
        "  json: 9 published = 7 delivered + 2 dead + 0 on the disk; files: 7 expected, 0 missing",
        f"everything adds up; 4 are dead: millpond dead list {tmp_path}",
    ]


def test_the_starts_of_a_run_are_added_up(tmp_path: Path) -> None:
    """What one start leaves on the disk, the next one delivers."""
    ledger = begin(tmp_path)
    record(tmp_path, results(1, 5))
    ledger.delivered(CSV, results(1, 5))
    ledger.otherwise(CSV, results(6, 9))
    ledger.close()
    left = [(1, n) for n in range(6, 10)]
    first = check(tmp_path, csv=left)
    assert first.is_good
    assert first.lines()[1].startswith("  csv: 9 published = 5 delivered + 0 dead + 4 on the disk;")
    ledger = Ledger(tmp_path, [definition("csv")])
    ledger.begin({"csv": ResultRanges(left)})
    ledger.renderer_joined(2, 1)
    ledger.published(results(1, 3, renderer=2))
    found = [*results(6, 9), *results(1, 3, renderer=2)]
    record(tmp_path, found)
    ledger.delivered(CSV, found)
    ledger.close()
    # The file of the spill may still be there.
    report = check(tmp_path, csv=left)
    assert report.is_good
    assert report.lines()[1:2] == [
        "  csv: 12 published = 12 delivered + 0 dead + 0 on the disk; files: 12 expected, 0 missing"
    ]


def test_rows_that_were_written_before_a_crash_are_told_apart(tmp_path: Path) -> None:
    ledger = begin(tmp_path)
    record(tmp_path, results(1, 6))
    ledger.delivered(CSV, results(1, 4))
    ledger.close()
    report = check(tmp_path, csv=[(1, n) for n in range(5, 10)])
    assert report.is_good
    assert report.lines()[1].endswith(
        "files: 4 expected, 0 missing, 2 written though not acknowledged"
    )


def test_what_a_logger_does_not_want_need_not_be_in_its_file(tmp_path: Path) -> None:
    ledger = begin(tmp_path)
    ledger.filtered(CSV, results(1, 3))
    ledger.delivered(CSV, results(4, 9))
    ledger.close()
    record(tmp_path, results(4, 9))
    report = check(tmp_path)
    assert report.is_good
    [row] = report.rows
    assert (row.published, row.delivered, row.filtered, row.missing) == (9, 6, 3, 0)
    assert "9 published = 6 delivered + 0 dead + 0 on the disk + 3 filtered" in row.text
    record(tmp_path, results(1, 1))  # It was written all the same.
    assert kinds(check(tmp_path)) == {"in its files too often": ["1-1"]}


def test_what_is_filtered_cannot_be_delivered(tmp_path: Path) -> None:
    ledger = begin(tmp_path)
    ledger.filtered(CSV, results(1, 3))
    ledger.delivered(CSV, results(1, 9))
    ledger.close()
    wrong = kinds(check(tmp_path))
    assert wrong["filtered, and delivered all the same"] == ids(results(1, 3))


def test_each_definition_of_a_logger_has_its_own_files(tmp_path: Path) -> None:
    for renderer, file in enumerate(("a.csv", "b.csv", "a.csv"), 1):
        ledger = begin(tmp_path, definition("csv", file=file), renderer=renderer)
        record(tmp_path, results(1, 9, renderer), file=file)
        ledger.delivered(CSV, results(1, 9, renderer))
        ledger.close()
    report = verify(tmp_path)
    assert report.is_good
    assert [found.expected for found in report.rows[0].files] == [18, 9]


def test_a_file_that_was_another_loggers_is_no_error(tmp_path: Path) -> None:
    for renderer, name in enumerate(("old", "new"), 1):
        ledger = begin(tmp_path, definition(name), renderer=renderer)
        record(tmp_path, results(1, 9, renderer))
        ledger.delivered(CSV, results(1, 9, renderer))
        ledger.close()
    report = verify(tmp_path)
    assert report.is_good
    assert [row.logger for row in report.rows] == ["old", "new"]


def test_a_logger_that_cannot_be_asked_is_not_checked(tmp_path: Path) -> None:
    ledger = begin(tmp_path, definition("null", "null"), definition("mine", "no_such"))
    for logger in (0, 1):
        ledger.delivered(logger, results(1, 9))
    ledger.close()
    report = verify(tmp_path)
    assert report.is_good
    null, mine = (row.files[0].not_checked for row in report.rows)
    assert null == "this logger does not say what it has recorded"
    assert "no_such" in mine
    assert report.lines()[-1] == "everything adds up; the files of null, mine were not checked"


def test_what_is_older_than_the_ledger_is_left_out(tmp_path: Path) -> None:
    bury(tmp_path, "csv", results(1, 3, renderer=4))
    ledger = Ledger(tmp_path, [definition("null", "null")])
    ledger.begin({}, renderer_last=4)
    ledger.close()
    report = verify(tmp_path)
    assert report.is_good
    assert report.rows[-1].dead == 0


def test_an_empty_ledger_adds_up(tmp_path: Path) -> None:
    (tmp_path / "ledger").mkdir()
    assert verify(tmp_path).lines() == [f"{tmp_path}: 0 starts", "everything adds up"]


# What does not.


def test_a_result_without_an_outcome_is_missing(tmp_path: Path) -> None:
    ledger = begin(tmp_path)
    record(tmp_path, results(1, 6))
    ledger.delivered(CSV, results(1, 6))
    ledger.close(is_end=False)
    report = verify(tmp_path)
    assert kinds(report) == {"published without an outcome": ["1-7", "1-8", "1-9"]}
    assert report.lines()[-2:] == [
        "WRONG: csv: 3 published without an outcome: 1-7, 1-8, 1-9",
        "the books do not add up",
    ]
    assert " + 3 MISSING; " in report.lines()[1]


def test_a_row_that_is_not_there_and_one_too_many_are_found(tmp_path: Path) -> None:
    ledger = begin(tmp_path, definition("csv"), definition("json", "json"))
    for logger, kind in enumerate(("csv", "json")):
        record(tmp_path, [*results(1, 8), *results(3, 3)], kind)
        ledger.delivered(logger, results(1, 9))
    ledger.close()
    report = verify(tmp_path)
    assert [(wrong.logger, wrong.kind, wrong.what) for wrong in report.wrong] == [
        (name, kind, what)
        for name in ("csv", "json")
        for kind, what in (
            ("delivered, not in its files", ["1-9"]),
            ("in its files too often", ["1-3"]),
        )
    ]


def test_two_outcomes_are_one_too_many(tmp_path: Path) -> None:
    ledger = begin(tmp_path)
    record(tmp_path, results(1, 9))
    ledger.delivered(CSV, results(1, 9))
    ledger.close()
    bury(tmp_path, "csv", results(2, 2))
    assert kinds(verify(tmp_path)) == {"delivered and dead": ["1-2"]}


def test_what_was_never_published_cannot_have_an_outcome(tmp_path: Path) -> None:
    ledger = begin(tmp_path, count=3)
    record(tmp_path, results(1, 3))
    ledger.delivered(CSV, results(1, 4))
    ledger.close()
    bury(tmp_path, "csv", results(6, 6))
    report = verify(tmp_path)
    assert kinds(report)["delivered, never published"] == ["(renderer 1, sequence 4)"]
    assert kinds(report)["dead, never published"] == ["(renderer 1, sequence 6)"]
    assert kinds(check(tmp_path, csv=[(1, 8)]))["spilled, never published"] == [
        "(renderer 1, sequence 8)"
    ]


def test_gaps_and_damage_of_the_ledger_are_told(tmp_path: Path) -> None:
    ledger = begin(tmp_path, definition("null", "null"))
    ledger.delivered(0, results(1, 9))
    ledger.close()
    path = lines_path(tmp_path, 1)
    path.write_bytes(path.read_bytes() + b'garbage\n{"p":[1,12,["x"]]}\n')
    found = kinds(verify(tmp_path))
    assert found == {
        "problems of the ledger": ["000001.jsonl has 1 lines that make no sense"],
        "renderers whose sequences have gaps": ["(renderer 1, [[1, 9], [12, 12]])"],
        "published without an outcome": ["x"],
    }


def test_people_are_shown_some_and_scripts_all(tmp_path: Path) -> None:
    begin(tmp_path, definition("null", "null"), count=50).close(is_end=False)
    report = verify(tmp_path)
    assert report.lines()[-2].startswith("WRONG: null: 50 published without an outcome: 1-1, ")
    assert report.lines()[-2].endswith(", 1-20, ...")
    assert len(report.to_json()["wrong"][0]["results"]) == 50


# While a daemon runs.


def test_what_a_daemon_has_in_hand_is_not_missing(tmp_path: Path) -> None:
    begin(tmp_path).close()
    ledger = begin(tmp_path, renderer=2)
    record(tmp_path, results(1, 5, renderer=2))
    ledger.delivered(CSV, results(1, 4, renderer=2))
    assert not has_daemon(tmp_path)
    lock = RunFolder(tmp_path)
    assert has_daemon(tmp_path)
    report = verify(tmp_path)
    lock.close()
    assert report.is_running
    assert report.rows[0].in_hand == 5
    # Those of a start that is over are nobody's.
    assert kinds(report) == {"published without an outcome": ids(results(1, 9))}
    ledger.close()


def test_a_daemon_at_work_is_never_said_to_lose_anything(tmp_path: Path) -> None:
    code = (
        "import sys\n"
        "from pathlib import Path\n"
        "from millpond.core.deliveries import Result\n"
        "from millpond.ledger import Ledger\n"
        "from millpond.run_folder import RunFolder\n"
        "lock = RunFolder(Path(sys.argv[1]))\n"
        "ledger = Ledger(Path(sys.argv[1]), [{'name': 'null'}])\n"
        "ledger.begin({})\n"
        "ledger.renderer_joined(1, 1)\n"
        "print('begun', flush=True)\n"
        "first = 1\n"
        "while True:\n"
        "    batch = [Result(0, 1, 1, n, f'{n}', b'') for n in range(first, first + 8)]\n"
        "    ledger.published(batch)\n"
        "    ledger.delivered(0, batch)\n"
        "    first += 8\n"
        "    if first % 1000 == 1:\n"
        "        ledger.prepare()\n"
        "        ledger.sync()\n"
    )
    child = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    with child:
        assert child.stdout is not None
        child.stdout.readline()
        try:
            for _ in range(5):
                report = verify(tmp_path)
                assert report.is_good, report.lines()
                assert report.is_running
        finally:
            child.kill()
    assert verify(tmp_path).rows[0].missing <= 8


# The command.


def test_the_command_says_it_and_ends_with_0_or_1(tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    config = tmp_path / "pond.yaml"
    config.write_text(f"output_dir: {run}\nlogging: {{logger_modules: [csv]}}\n")
    ledger = begin(run)
    record(run, results(1, 9))
    ledger.delivered(CSV, results(1, 9))
    ledger.close()
    for where in (run, config):
        done = command(where)
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout.splitlines() == verify(run).lines()
    (run / "details.csv").unlink()
    done = command(run, "--json")
    assert (done.returncode, done.stderr) == (1, "")
    report = json.loads(done.stdout)
    assert not report["good"]
    assert report["wrong"][0]["results"] == ids(results(1, 9))


def test_what_is_no_run_folder_is_64_and_a_wrong_configuration_78(tmp_path: Path) -> None:
    for where in (tmp_path, tmp_path / "none"):
        with pytest.raises(FileNotFoundError, match="is no run folder"):
            run_folder_of(where)
    with pytest.raises(ConfigError):
        run_folder_of(tmp_path / "none.yaml")
    done = command(tmp_path)
    assert (done.returncode, done.stdout) == (64, "")
    assert done.stderr == f"millpond: {tmp_path} is no run folder: it has no ledger/\n"
    assert command(tmp_path / "none.yaml").returncode == 78


def test_channels_of_a_layout_are_those_of_the_ledger() -> None:
    """The form that `begin` gets is the one that the check of the images reads."""
    from millpond.core.layout import channels_from_json, channels_to_json  # noqa: PLC0415

    layout = plan(channels_from_json(AS_JSON), 1)
    assert channels_to_json(layout.channels) == AS_JSON
