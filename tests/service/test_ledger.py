"""The ledger: what it was told is in its files at once, whatever kills the daemon."""

from __future__ import annotations

import json
import mmap
import random
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from millpond.core.deliveries import Result
from millpond.core.ranges import ResultRanges
from millpond.ledger import Ledger
from millpond.ledger_reader import Start, lines_path, marks_path, read_ids, read_start

LOGGERS = [
    {"name": name, "kind": "module", "place": "somewhere", "options": {}}
    for name in ("csv", "json")
]
CSV, JSON = 0, 1
EXTENT = mmap.ALLOCATIONGRANULARITY


def results(renderer: int, first: int, last: int) -> list[Result]:
    return [Result(0, 1, renderer, n, f"{renderer}/{n}", b"") for n in range(first, last + 1)]


def begin(run: Path, **others: Any) -> Ledger:
    ledger = Ledger(run, LOGGERS, extent_bytes=EXTENT, **others)
    ledger.begin({})
    return ledger


def lines(run: Path, number: int = 1) -> list[dict[str, Any]]:
    content = lines_path(run, number).read_bytes().partition(b"\0")[0]
    return [json.loads(line) for line in content.splitlines()]


def delivered(start: Start, logger: str) -> list[list[int]]:
    return start.delivered[logger].to_json()


# What the files say.


def test_the_file_tells_the_life_of_a_start(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path, LOGGERS)
    pending = ResultRanges([(3, 7), (3, 8)])
    ledger.begin({"csv": pending}, renderer_last=17, config="a.yaml", channels=None)
    ledger.channels({"loss": [[], "float32"]})
    ledger.renderer_joined(18, 4711)
    ledger.published(results(18, 1, 3))
    ledger.delivered(CSV, results(18, 1, 2))
    ledger.otherwise(CSV, results(18, 3, 3))
    ledger.delivered(CSV, results(3, 7, 8))
    ledger.delivered(JSON, results(18, 1, 3))
    ledger.close()
    start, *facts, end = lines(tmp_path)
    assert start["start"].pop("pid") > 0
    assert start["start"].pop("at") <= end["end"].pop("at")
    assert start["start"].pop("version")
    assert start["start"] == {
        "number": 1,
        "loggers": LOGGERS,
        "renderer_last": 17,
        "pending": {"csv": [[3, 7, 8]]},
        "config": "a.yaml",
        "channels": None,
    }
    assert facts == [
        {"channels": {"loss": [[], "float32"]}},
        {"renderer": [18, 4711]},
        {"p": [18, 1, ["18/1", "18/2", "18/3"]]},
        {"o": ["csv", 18, 3, 3]},
        {"d": ["csv", 18, 1, 2]},
        {"d": ["csv", 3, 7, 8]},
        {"d": ["json", 18, 1, 3]},
    ]
    assert not marks_path(tmp_path, 1).exists()


@pytest.mark.parametrize("is_killed", [False, True])
def test_what_a_logger_does_not_want_is_neither_delivered_nor_owed(
    tmp_path: Path, is_killed: bool
) -> None:
    ledger = begin(tmp_path)
    ledger.renderer_joined(1, 1)
    ledger.published(results(1, 1, 9))
    ledger.filtered(CSV, results(1, 2, 4))
    ledger.delivered(CSV, results(1, 1, 1))
    ledger.delivered(CSV, results(1, 5, 7))
    ledger.filtered(CSV, results(1, 9, 9))
    ledger.delivered(CSV, results(1, 8, 8))
    ledger.delivered(JSON, results(1, 1, 9))
    if not is_killed:
        ledger.close()
    start = read_start(tmp_path, 1)
    assert start.filtered["csv"].to_json() == [[1, 2, 4], [1, 9, 9]]
    assert delivered(start, "csv") == [[1, 1, 1], [1, 5, 8]]
    assert start.owed("csv").to_json() == [[1, 1, 1], [1, 5, 8]]
    assert start.owed("json").to_json() == [[1, 1, 9]]
    if not is_killed:
        assert {"f": ["csv", 1, 2, 4]} in lines(tmp_path)
    else:
        ledger.close()


def test_what_is_filtered_is_owed_by_no_later_start(tmp_path: Path) -> None:
    ledger = begin(tmp_path)
    ledger.renderer_joined(1, 1)
    ledger.published(results(1, 1, 4))
    ledger.filtered(CSV, results(1, 1, 3))
    later = Ledger(tmp_path, LOGGERS, extent_bytes=EXTENT)
    assert [found[:2] for found in later.previous.unaccounted("csv", (), ())] == [(1, 4)]
    ledger.close()


def test_batches_in_order_become_one_line(tmp_path: Path) -> None:
    ledger = begin(tmp_path)
    ledger.renderer_joined(1, 1)
    ledger.published(results(1, 1, 100))
    for first in range(1, 101, 10):
        ledger.delivered(CSV, results(1, first, first + 9))
    assert not [fact for fact in lines(tmp_path) if "d" in fact]
    assert delivered(read_start(tmp_path, 1), "csv") == [[1, 1, 100]]
    ledger.prepare()
    assert [fact["d"] for fact in lines(tmp_path) if "d" in fact] == [["csv", 1, 1, 100]]
    ledger.close()


def test_what_has_no_mark_has_its_line_at_once(tmp_path: Path) -> None:
    """Out of order, of an earlier start, of several renderers, or of one without a row."""
    ledger = begin(tmp_path, rows=2)
    for renderer in (1, 2, 3):
        ledger.renderer_joined(renderer, 1)
        ledger.published(results(renderer, 1, 9))
    ledger.delivered(CSV, [*results(1, 1, 2), *results(2, 1, 1), *results(1, 3, 3)])
    ledger.delivered(CSV, results(1, 5, 6))
    ledger.delivered(CSV, results(3, 1, 4))
    ledger.delivered(JSON, results(99, 7, 7))
    ledger.delivered(JSON, [])
    told = [fact["d"] for fact in lines(tmp_path) if "d" in fact]
    assert ["csv", 1, 5, 6] in told
    assert ["csv", 3, 1, 4] in told
    assert ["json", 99, 7, 7] in told
    start = read_start(tmp_path, 1)
    assert delivered(start, "csv") == [[1, 1, 3], [1, 5, 6], [2, 1, 1], [3, 1, 4]]
    assert delivered(start, "json") == [[99, 7, 7]]
    ledger.close()
    assert delivered(read_start(tmp_path, 1), "csv") == delivered(start, "csv")


def test_the_dead_and_the_spilled_do_not_hold_up_the_mark(tmp_path: Path) -> None:
    ledger = begin(tmp_path)
    ledger.renderer_joined(1, 1)
    ledger.published(results(1, 1, 50))
    ledger.otherwise(CSV, results(1, 3, 4))
    ledger.delivered(CSV, results(1, 1, 2))
    ledger.delivered(CSV, results(1, 5, 20))
    ledger.otherwise(CSV, results(1, 21, 30))
    ledger.delivered(CSV, results(1, 31, 40))
    ledger.delivered(CSV, results(1, 21, 22))  # Of the spilled, and read back.
    expected = [[1, 1, 2], [1, 5, 22], [1, 31, 40]]
    assert delivered(read_start(tmp_path, 1), "csv") == expected
    ledger.close()
    assert delivered(read_start(tmp_path, 1), "csv") == expected


def test_the_row_of_a_settled_renderer_is_free_for_another(tmp_path: Path) -> None:
    ledger = begin(tmp_path, rows=1)
    for renderer in range(1, 6):
        ledger.renderer_joined(renderer, 1)
        ledger.published(results(renderer, 1, 5))
        ledger.delivered(CSV, results(renderer, 1, 5))
        ledger.renderer_left(renderer)
        ledger.prepare()
        assert not marks_path(tmp_path, 1).read_bytes()[32:].startswith(b"\0")
        ledger.delivered(JSON, results(renderer, 1, 3))
        ledger.otherwise(JSON, results(renderer, 4, 5))
        ledger.prepare()
        assert marks_path(tmp_path, 1).read_bytes()[32:40] == bytes(8)
    start = read_start(tmp_path, 1)
    assert delivered(start, "csv") == [[renderer, 1, 5] for renderer in range(1, 6)]
    assert delivered(start, "json") == [[renderer, 1, 3] for renderer in range(1, 6)]
    ledger.close()


def test_it_says_when_there_is_something_to_sync(tmp_path: Path) -> None:
    ledger = begin(tmp_path)
    assert not ledger.needs_sync
    ledger.renderer_joined(1, 1)
    for deed in (
        lambda: ledger.published(results(1, 1, 5)),
        lambda: ledger.delivered(CSV, results(1, 1, 5)),
        lambda: ledger.otherwise(JSON, results(1, 1, 5)),
        lambda: ledger.renderer_left(1),
    ):
        deed()
        assert ledger.needs_sync
        ledger.prepare()
        ledger.sync()
        assert not ledger.needs_sync
    assert ledger.problem == ""
    ledger.close()


def test_an_id_that_is_no_text_is_told_nevertheless(tmp_path: Path) -> None:
    ledger = begin(tmp_path)
    ids = ["\ud800", "\0", '"]}\n', "é👍"]
    ledger.published([Result(0, 1, 1, n, id, b"") for n, id in enumerate(ids, 1)])
    start = read_start(tmp_path, 1)
    told = read_ids(tmp_path, start, start.published)
    assert list(told.values()) == ["\\ud800", *ids[1:]]
    ledger.close()


def test_every_start_has_a_file_of_its_own(tmp_path: Path) -> None:
    for number in (1, 2, 3):
        ledger = begin(tmp_path)
        assert ledger.number == number
        ledger.close()
    assert sorted(path.name for path in (tmp_path / "ledger").iterdir()) == [
        "000001.jsonl",
        "000002.jsonl",
        "000003.jsonl",
    ]


def test_a_first_line_longer_than_an_extent_has_room(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path, LOGGERS, extent_bytes=EXTENT)
    ledger.begin({}, config="x" * 3 * EXTENT)
    ledger.close()
    assert lines(tmp_path)[0]["start"]["config"] == "x" * 3 * EXTENT


def test_an_end_that_is_not_orderly_leaves_the_marks(tmp_path: Path) -> None:
    ledger = begin(tmp_path)
    ledger.renderer_joined(1, 1)
    ledger.published(results(1, 1, 2))
    ledger.delivered(JSON, results(1, 1, 1))
    ledger.close(is_end=False)
    start = read_start(tmp_path, 1)
    assert not start.is_closed
    assert marks_path(tmp_path, 1).exists()
    assert delivered(start, "json") == [[1, 1, 1]]


# A full disk.

FULL_DISK = """
import mmap, resource, sys
from pathlib import Path
from millpond import ledger as module
from millpond.core.deliveries import Result
from millpond.ledger import Ledger

EXTENT = mmap.ALLOCATIONGRANULARITY
_, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
resource.setrlimit(resource.RLIMIT_FSIZE, (2 * EXTENT, hard))
ledger = Ledger(Path(sys.argv[1]), [{"name": "csv"}], extent_bytes=EXTENT, rows=10)
ledger.begin({})
ledger.renderer_joined(1, 1)
is_delivering = sys.argv[2] == "delivered"
module.WAITING_BYTES_MAX = int(sys.argv[3])
for first in range(1, 1001, 10):
    batch = [Result(0, 1, 1, n, f"{n:06}", b"") for n in range(first, first + 10)]
    ledger.published(batch)
    if is_delivering:
        ledger.delivered(0, batch)
    else:
        ledger.otherwise(0, batch)
    ledger.prepare()
    ledger.sync()
print(ledger.problem, flush=True)
print(ledger.needs_sync, flush=True)
sys.stdin.readline()
resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
for _ in range(10):
    ledger.prepare()
    ledger.sync()
print(ledger.problem, flush=True)
print(ledger.needs_sync, flush=True)
ledger.close()
"""


def on_full_disk(run: Path, how: str, waiting_bytes_max: int = 1 << 20) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", FULL_DISK, str(run), how, str(waiting_bytes_max)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def told(child: subprocess.Popen[str]) -> list[str]:
    assert child.stdout is not None
    return [child.stdout.readline().strip(), child.stdout.readline().strip()]


@pytest.mark.parametrize("how", ["delivered", "otherwise"])
def test_lines_wait_until_a_full_disk_has_room(tmp_path: Path, how: str) -> None:
    child = on_full_disk(tmp_path, how)
    assert told(child) == ["no room for more lines: File too large", "True"]
    start = read_start(tmp_path, 1)
    # Nothing is unknown: the marks go on.  What is dead or spilled counts not as delivered.
    assert start.published.to_json() == [[1, 1, 1000]]
    assert delivered(start, "csv") == ([[1, 1, 1000]] if how == "delivered" else [])
    output, problems = child.communicate("\n", timeout=60)
    assert (child.returncode, problems) == (0, "")
    assert output.splitlines() == ["", "False"]
    assert not marks_path(tmp_path, 1).exists()
    after = read_start(tmp_path, 1)
    assert after.published == start.published
    assert delivered(after, "csv") == delivered(start, "csv")
    assert len(read_ids(tmp_path, after, after.published)) == 1000
    assert after.is_closed


def test_lines_that_cannot_wait_are_counted_and_the_marks_stay(tmp_path: Path) -> None:
    child = on_full_disk(tmp_path, "delivered", 500)
    problem, _ = told(child)
    assert problem.endswith(" lines were lost")
    output, problems = child.communicate("\n", timeout=60)
    assert (child.returncode, problems) == (0, "")
    assert output.splitlines()[0].endswith(" lines were lost")
    start = read_start(tmp_path, 1)
    assert start.published.to_json() == [[1, 1, 1000]]
    assert delivered(start, "csv") == [[1, 1, 1000]]
    assert start.problems == []


def test_a_disk_without_room_at_the_start_is_an_error(tmp_path: Path) -> None:
    code = FULL_DISK.replace("2 * EXTENT", "EXTENT - 1")
    child = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path), "delivered", "0"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert "OSError: [Errno 27] File too large" in child.stderr
    assert not list((tmp_path / "ledger").iterdir())


# A killed daemon.

KILLED = """
import random, sys
from pathlib import Path
from millpond.core.deliveries import Result
from millpond.ledger import Ledger

choose = random.Random(int(sys.argv[2]))
ledger = Ledger(Path(sys.argv[1]), [{"name": "csv"}, {"name": "json"}], extent_bytes=4096)
ledger.begin({})
for renderer in (1, 2):
    ledger.renderer_joined(renderer, 1)
published = {1: 0, 2: 0}
while True:
    renderer = choose.choice((1, 2))
    count = choose.randint(1, 40)
    first = published[renderer] + 1
    published[renderer] += count
    batch = [Result(0, 1, renderer, n, f"{n:06}", b"") for n in range(first, first + count)]
    ledger.published(batch)
    print("p", renderer, first, first + count - 1, flush=True)
    for logger in (0, 1):
        if choose.random() < 0.9:
            ledger.delivered(logger, batch)
            print("d", logger, renderer, first, first + count - 1, flush=True)
        else:
            ledger.otherwise(logger, batch)
            print("o", logger, renderer, first, first + count - 1, flush=True)
    if choose.random() < 0.3:
        ledger.prepare()
        ledger.sync()
"""


@pytest.mark.parametrize("seed", range(6))
def test_a_kill_loses_nothing_that_was_told(tmp_path: Path, seed: int) -> None:
    child = subprocess.Popen(
        [sys.executable, "-c", KILLED, str(tmp_path), str(seed)],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert child.stdout is not None
    told = [child.stdout.readline() for _ in range(random.Random(seed).randint(1, 500))]
    child.send_signal(signal.SIGKILL)
    with child:
        rest = child.stdout.read().splitlines(keepends=True)
    told += [line for line in rest if line.endswith("\n")]  # The last may be cut short.
    published, delivered = ResultRanges(), {"csv": ResultRanges(), "json": ResultRanges()}
    for line in told:
        kind, *values = line.split()
        match kind, [int(value) for value in values]:
            case "p", [renderer, first, last]:
                published.add(renderer, first, last)
            case "d", [logger, renderer, first, last]:
                delivered[("csv", "json")[logger]].add(renderer, first, last)
    start = read_start(tmp_path, 1)
    assert start.problems == []
    more = 0
    pairs = [(start.published, published)]
    pairs += [(start.delivered[logger], delivered[logger]) for logger in delivered]
    for read, expected in pairs:
        assert not expected.difference(read)
        more += bool(read.difference(expected))
        assert len(read.difference(expected)) <= 40
    assert more <= 1  # It was stored, and not yet said.


# Any order of deeds.


class AnyOrder(RuleBasedStateMachine):
    """The files are read as a kill at this moment would leave them."""

    @initialize(rows=st.integers(0, 2))
    def start(self, rows: int) -> None:
        folder = Path(self.folder.mkdtemp())  # type: ignore[attr-defined]
        self.run = folder
        self.ledger = begin(folder, rows=rows)
        self.published: dict[int, int] = {}
        self.delivered: list[set[tuple[int, int]]] = [set(), set()]
        self.others: list[set[tuple[int, int]]] = [set(), set()]
        self.left: set[int] = set()

    @rule()
    def join(self) -> None:
        renderer = len(self.published) + 1
        self.published[renderer] = 0
        self.ledger.renderer_joined(renderer, 1)

    @precondition(lambda self: self.published)
    @rule(data=st.data(), count=st.integers(1, 30))
    def publish(self, data: st.DataObject, count: int) -> None:
        renderer = data.draw(st.sampled_from(sorted(self.published)))
        if renderer not in self.left:
            first = self.published[renderer] + 1
            self.published[renderer] += count
            self.ledger.published(results(renderer, first, first + count - 1))

    @precondition(lambda self: any(self.published.values()))
    @rule(data=st.data(), logger=st.sampled_from((CSV, JSON)), is_delivered=st.booleans())
    def settle(self, data: st.DataObject, logger: int, is_delivered: bool) -> None:
        keys = [(r, n) for r, last in self.published.items() for n in range(1, last + 1)]
        known = self.delivered[logger] | (set() if is_delivered else self.others[logger])
        keys = [key for key in keys if key not in known]
        if not keys:
            return
        start = data.draw(st.integers(0, len(keys) - 1)) if data.draw(st.booleans()) else 0
        chosen = keys[start : start + data.draw(st.integers(1, 20))]
        batch = [Result(0, 1, *key, "", b"") for key in chosen]
        if is_delivered:
            self.delivered[logger].update(chosen)
            self.ledger.delivered(logger, batch)
        else:
            self.others[logger].update(chosen)
            self.ledger.otherwise(logger, batch)

    @precondition(lambda self: self.published)
    @rule(data=st.data())
    def leave(self, data: st.DataObject) -> None:
        renderer = data.draw(st.sampled_from(sorted(self.published)))
        self.left.add(renderer)
        self.ledger.renderer_left(renderer)

    @rule()
    def prepare(self) -> None:
        self.ledger.prepare()

    @rule()
    def sync(self) -> None:
        self.ledger.sync()

    @invariant()
    def is_as_told(self) -> None:
        self.compare()

    def compare(self) -> None:
        start = read_start(self.run, 1)
        assert start.problems == []
        expected = {(r, n) for r, last in self.published.items() for n in range(1, last + 1)}
        assert set(start.published) == expected
        for logger, name in enumerate(("csv", "json")):
            assert set(start.delivered[name]) == self.delivered[logger]

    def teardown(self) -> None:
        while self.ledger.needs_sync:
            self.ledger.prepare()
            self.ledger.sync()
        self.compare()
        self.ledger.close()
        self.compare()
        assert not marks_path(self.run, 1).exists()


def test_any_order_of_deeds_is_read_back(tmp_path: Path) -> None:
    class Folders:
        count = 0

        def mkdtemp(self) -> str:
            self.count += 1
            folder = tmp_path / str(self.count)
            folder.mkdir()
            return str(folder)

    AnyOrder.folder = Folders()  # type: ignore[attr-defined]
    AnyOrder.TestCase.settings = settings(max_examples=100, stateful_step_count=25, deadline=None)
    AnyOrder.TestCase("runTest").runTest()
