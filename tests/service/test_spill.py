"""What is spilled comes back once, in order, and goes when its outcome is known."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule
from service.spill_cases import (
    BIG,
    SLOT_BYTES,
    keys,
    make_store,
    never,
    payload_of,
    read,
    result,
    segments,
    write,
)

from millpond import spill
from millpond.core.layout import Channel, plan
from millpond.spill import Cancelled, SpillError, SpillFull, SpillStore

TESTS = Path(__file__).parents[1]
RECORD_BYTES = 256
WATCHDOG_S = 60


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "spill" / "csv"


@pytest.fixture
def store(folder):
    made = make_store(folder)
    yield made
    made.close()


def slots(count: int) -> list[memoryview]:
    return [memoryview(bytearray(SLOT_BYTES)) for _ in range(count)]


# Round trips.


@settings(max_examples=30, deadline=None)
@given(
    shapes=st.lists(st.integers(1, 3000), min_size=1, max_size=3),
    frames=st.lists(st.integers(0, 9000), min_size=1, max_size=6),
    segment_bytes=st.sampled_from([1, 20_000, 10**9]),
)
def test_what_is_written_is_read(tmp_path_factory, shapes, frames, segment_bytes):
    channels = [Channel(f"c{at}", (length,), "uint8") for at, length in enumerate(shapes)]
    layout = plan(channels, 1)
    folder = tmp_path_factory.mktemp("spill")
    payloads = {at: os.urandom(layout.payload_bytes) for at in range(len(frames))}
    results = [result(1, at, extra=extra) for at, extra in enumerate(frames)]
    limits = {"size_max_bytes": BIG, "segment_bytes": segment_bytes}
    store = SpillStore(folder, layout, **limits)
    store.write(5, results, lambda one: memoryview(payloads[one.sequence]), never)
    for again in (False, True):
        if again:  # By another daemon.
            store.close()
            store = SpillStore(folder, layout, **limits)
            assert [one.id for one in store.recover().results] == [one.id for one in results]
        places = [memoryview(bytearray(layout.payload_bytes)) for _ in results]
        replayed = store.read(0 if again else 5, places)
        assert [one.frame for one in replayed] == [one.frame for one in results]
        assert [one.id for one in replayed] == [one.id for one in results]
        assert [bytes(place) for place in places] == list(payloads.values())
    store.settle(keys(results))
    store.close()
    assert not folder.exists()


def test_a_payload_larger_than_a_piece_is_written_whole(tmp_path):
    layout = plan([Channel("a", (20_000_003,), "uint8")], 1)
    content = os.urandom(layout.payload_bytes)
    store = SpillStore(tmp_path, layout, size_max_bytes=BIG)
    asked = []
    store.write(1, [result(1, 1)], lambda _: memoryview(content), lambda: bool(asked.append(1)))
    place = bytearray(layout.payload_bytes)
    (replayed,) = store.read(1, [memoryview(place)])
    assert replayed.problem == ""
    assert place == content
    assert len(asked) == 4  # Three pieces, and the end.
    store.close()


def test_tokens_are_queues_of_their_own(store):
    write(store, 1, [result(1, sequence) for sequence in (3, 1, 2)])
    write(store, 2, [result(2, 1), result(2, 2)])
    write(store, 1, [result(1, 4)])
    assert store.records == 6
    assert read(store, 1, 2) == [(1, 3), (1, 1)]
    assert read(store, 2) == [(2, 1), (2, 2)]
    assert read(store, 1) == [(1, 2), (1, 4)]
    assert read(store, 1) == []
    assert read(store, 99) == []
    assert store.records == 0


def test_nothing_is_made_for_nothing(store, folder):
    write(store, 1, [])
    assert store.read(1, slots(1)) == []
    store.settle([(1, 1)])
    store.drop(1)
    assert not folder.exists()


# Outcomes.


def test_a_segment_without_waiting_records_is_removed(folder):
    store = make_store(folder, segment_bytes=800)
    write(store, 1, [result(1, sequence) for sequence in range(1, 6)])
    assert segments(folder) == ["00000001.seg", "00000002.seg", "00000003.seg"]
    read(store, 1)
    store.settle([(1, 1)])
    assert len(segments(folder)) == 3
    store.settle([(1, 2), (1, 4)])
    assert segments(folder) == ["00000002.seg", "00000003.seg"]
    store.settle([(1, 5)])
    # The last one is appended to.
    assert segments(folder) == ["00000002.seg", "00000003.seg"]
    store.settle([(1, 3)])
    assert segments(folder) == ["00000003.seg"]
    store.close()
    assert not folder.exists()
    assert folder.parent.exists()


def test_the_last_segment_is_removed_too_when_it_is_long(folder):
    store = make_store(folder, segment_bytes=1000)
    write(store, 1, [result(1, 1)])
    read(store, 1)
    store.settle([(1, 1)])
    assert segments(folder) == ["00000001.seg"]
    write(store, 1, [result(1, 2)])
    read(store, 1)
    store.settle([(1, 2)])
    assert segments(folder) == []
    assert store.bytes_used == 0
    write(store, 1, [result(1, 3)])
    assert segments(folder) == ["00000002.seg"]
    store.close()


def test_what_waits_can_be_settled_too(folder, store):
    write(store, 1, [result(1, sequence) for sequence in range(1, 5)])
    write(store, 2, [result(2, 1)])
    store.settle([(1, 2), (1, 4), (2, 1), (9, 9)])
    assert store.records == 2
    assert read(store, 2) == []
    assert read(store, 1) == [(1, 1), (1, 3)]


def test_dropping_a_token_leaves_what_was_read_of_it(folder, store):
    write(store, 1, [result(1, sequence) for sequence in (1, 2, 3)])
    assert read(store, 1, 1) == [(1, 1)]
    store.drop(1)
    assert (store.records, read(store, 1)) == (0, [])
    store.close()
    assert segments(folder) == ["00000001.seg"]
    store.settle([(1, 1)])
    assert segments(folder) == []


def test_what_was_read_is_not_written_twice(folder, store):
    write(store, 1, [result(1, sequence) for sequence in (1, 2, 3)])
    read(store, 1, 2)
    used = store.bytes_used
    write(store, 7, [result(1, 1), result(1, 2)])
    assert store.bytes_used == used
    assert store.records == 3
    write(store, 8, [result(1, 4)])
    read(store, 7, 1)
    write(store, 9, [result(1, 5), result(1, 1), result(1, 6)])
    assert store.bytes_used == used + 3 * RECORD_BYTES
    assert [read(store, token) for token in (7, 1, 8)] == [[(1, 2)], [(1, 3)], [(1, 4)]]
    assert read(store, 9) == [(1, 5), (1, 1), (1, 6)]
    store.settle([(1, sequence) for sequence in range(1, 7)])
    store.close()
    assert not folder.exists()


def test_cancelling_what_needs_no_bytes_changes_nothing(store):
    write(store, 1, [result(1, 1)])
    read(store, 1)
    with pytest.raises(Cancelled):
        store.write(2, [result(1, 1)], payload_of, lambda: True)
    assert store.records == 0
    write(store, 2, [result(1, 1)])
    assert read(store, 2) == [(1, 1)]


def test_a_result_written_twice_is_read_twice_and_settled_once(folder, store):
    write(store, 1, [result(1, 1)])
    write(store, 2, [result(1, 1)])
    assert read(store, 1) == read(store, 2) == [(1, 1)]
    store.settle([(1, 1)])
    store.close()
    assert not folder.exists()


def test_what_is_settled_after_a_start_is_not_replayed(folder):
    first = make_store(folder)
    write(first, 1, [result(1, sequence) for sequence in (1, 2, 3)])
    first.close()
    store = make_store(folder)
    assert keys(store.recover().results) == [(1, 1), (1, 2), (1, 3)]
    store.settle([(1, 1), (1, 3)])
    assert read(store, 0) == [(1, 2)]
    store.settle([(1, 2)])
    assert segments(folder) == []
    store.close()


# Limits.


def test_as_many_results_as_allowed_may_wait(store, monkeypatch):
    monkeypatch.setattr(spill, "RECORDS_MAX", 3)
    write(store, 1, [result(1, 1), result(1, 2)])
    read(store, 1, 1)
    with pytest.raises(SpillFull, match="at most 3 results"):
        write(store, 2, [result(2, 1), result(2, 2)])
    write(store, 2, [result(2, 1), result(1, 1)])
    assert store.problem == ""
    assert store.records == 3
    store.settle([(1, 1)])
    write(store, 2, [result(2, 2)])


# What cannot be read.


def test_a_damaged_record_is_a_problem_of_its_own(folder, store):
    write(store, 1, [result(1, sequence) for sequence in (1, 2, 3)])
    path = folder / "00000001.seg"
    with path.open("r+b") as file:
        os.pwrite(file.fileno(), b"?", path.stat().st_size - RECORD_BYTES - 60)
    first, second, third = store.read(1, slots(3))
    assert (first.problem, third.problem) == ("", "")
    assert second[:4] == (1, 2, "", b"")
    assert "00000001.seg at " in second.problem
    assert "checksum" in second.problem
    store.settle([(1, 1), (1, 2), (1, 3)])
    store.close()
    assert not folder.exists()


def test_a_file_that_is_gone_is_a_problem_of_its_results(folder, store):
    write(store, 1, [result(1, 1), result(1, 2)])
    (folder / "00000001.seg").unlink()
    replayed = store.read(1, slots(2))
    assert keys(replayed) == [(1, 1), (1, 2)]
    assert all("No such file" in one.problem for one in replayed)
    store.settle(keys(replayed))


def test_a_record_of_another_result_is_not_given_out(folder, store):
    write(store, 1, [result(1, 1), result(1, 2)])
    (folder / "00000001.seg").unlink()
    other = make_store(folder)
    write(other, 1, [result(5, 1), result(5, 2)])
    other.close()
    assert all("another result" in one.problem for one in store.read(1, slots(2)))


def open_descriptors() -> list[str]:
    return sorted(entry.name for entry in Path("/proc/self/fd").iterdir())


def test_descriptors_are_closed(folder):
    before = open_descriptors()
    store = make_store(folder, segment_bytes=600)
    write(store, 1, [result(1, sequence) for sequence in range(1, 20)])
    read(store, 1)
    store.close()
    make_store(folder).recover()
    assert open_descriptors() == before


# Against a model.


class Machine(RuleBasedStateMachine):
    """Any order of calls and crashes; the model is a dict of queues."""

    tokens = Bundle("tokens")
    count = 0

    def __init__(self) -> None:
        super().__init__()
        Machine.count += 1
        self.folder = Path(Machine.base) / str(Machine.count)
        self.store = make_store(self.folder, segment_bytes=800)
        self.waiting: dict[int, list] = {}
        self.taken: list = []
        self.settled: set = set()
        self.sequence = 0
        self.token = 0

    def fresh(self, count: int) -> list:
        self.sequence += count
        return [result(1, self.sequence - count + at) for at in range(count)]

    @rule(target=tokens, count=st.integers(0, 5), again=st.integers(0, 3))
    def write(self, count, again):
        self.token += 1
        results = [result(*key) for key in self.taken[:again]] + self.fresh(count)
        del self.taken[:again]
        write(self.store, self.token, results)
        self.waiting.setdefault(self.token, []).extend(keys(results))
        return self.token

    @rule(count=st.integers(1, 5), asked=st.integers(0, 3))
    def cancel(self, count, asked):
        answers = iter([False] * asked + [True] * 100)
        try:
            self.store.write(1, self.fresh(count), payload_of, lambda: next(answers))
        except Cancelled:
            return
        self.waiting.setdefault(1, []).extend(
            (1, self.sequence - count + at) for at in range(count)
        )

    @rule(token=tokens, count=st.integers(0, 4))
    def read(self, token, count):
        some = self.waiting.get(token, [])[:count]
        assert read(self.store, token, count) == some
        self.taken += some
        self.waiting[token] = self.waiting.get(token, [])[len(some) :]

    @rule(data=st.data())
    def settle(self, data):
        alive = self.taken + [key for queue in self.waiting.values() for key in queue]
        some = data.draw(st.lists(st.sampled_from(alive), unique=True)) if alive else []
        self.store.settle(some)
        self.settled |= set(some)
        self.taken = [key for key in self.taken if key not in self.settled]
        for token, queue in self.waiting.items():
            self.waiting[token] = [key for key in queue if key not in self.settled]

    @rule(token=consumes(tokens))
    def drop(self, token):
        self.store.drop(token)
        self.settled |= set(self.waiting.pop(token, []))

    @rule(target=tokens, is_orderly=st.booleans())
    def start_again(self, is_orderly):
        if is_orderly:
            self.store.close()
        owed = {*self.taken, *(key for queue in self.waiting.values() for key in queue)}
        self.store = make_store(self.folder, segment_bytes=800)
        found = self.store.recover()
        assert found.problems == []
        assert owed <= set(keys(found.results)) <= owed | self.settled
        self.store.settle(self.settled)
        self.taken = []
        self.waiting = {0: sorted(owed)}
        return 0

    @invariant()
    def counts(self):
        assert self.store.records == sum(map(len, self.waiting.values()))
        files = [path.stat().st_size for path in self.folder.glob("*.seg")]
        assert self.store.bytes_used == sum(files)
        if not self.taken and not self.store.records:
            assert len(files) <= 1

    def teardown(self):
        self.store.settle(self.taken + [key for queue in self.waiting.values() for key in queue])
        self.store.close()
        assert not self.folder.exists()


def test_any_order_of_calls_and_crashes(tmp_path):
    Machine.base = tmp_path
    Machine.TestCase.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
    Machine.TestCase().runTest()


# Crashes of the process.

WRITE_FOREVER = """
import sys
from pathlib import Path
from service.spill_cases import make_store, result, write
store = make_store(Path(sys.argv[1]), segment_bytes=3000)
first = int(sys.argv[2])
for sequence in range(first, first + 100_000, 3):
    write(store, 1, [result(1, sequence + at) for at in range(3)])
    print(sequence + 2, flush=True)
"""


def python(code: str, *arguments: object, **options) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(TESTS)},
        **options,
    )


def test_what_was_written_survives_a_kill(folder):
    first = 1
    for turn in range(5):
        child = python(WRITE_FOREVER, folder, first)
        said = 0
        for _ in range(1 + 7 * turn):
            said = int(child.stdout.readline())
        child.send_signal(signal.SIGKILL)
        rest = child.communicate(timeout=WATCHDOG_S)[0].splitlines(keepends=True)
        # The last line may be torn.
        said = max([said, *(int(line) for line in rest if line.endswith("\n"))])
        found = keys(make_store(folder).recover().results)
        assert {(1, sequence) for sequence in range(1, said + 1)} <= set(found)
        assert found == [(1, sequence) for sequence in range(1, len(found) + 1)]
        first = len(found) + 1


SMALL_FILES = """
import json, resource, sys
from pathlib import Path
from service.spill_cases import keys, make_store, result, write
from millpond.spill import SpillError
store = make_store(Path(sys.argv[1]))
write(store, 1, [result(1, 1), result(1, 2)])
size = (Path(sys.argv[1]) / "00000001.seg").stat().st_size
hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
resource.setrlimit(resource.RLIMIT_FSIZE, (size + 700, hard))
said = []
for first in (10, 20, 30):
    try:
        write(store, 1, [result(1, first + at) for at in range(5)])
    except SpillError as error:
        now = (Path(sys.argv[1]) / "00000001.seg").stat().st_size
        said.append([str(error), store.problem, now == size])
fits = store.probe()
write(store, 1, [result(1, 50)])
healthy = store.problem
try:
    write(store, 1, [result(1, 60 + at) for at in range(5)])
except SpillError:
    pass
resource.setrlimit(resource.RLIMIT_FSIZE, (100, hard))
probe = [store.probe(), store.problem]
resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
probe += [store.probe(), store.problem]
write(store, 1, [result(1, 80)])
print(json.dumps([said, fits, healthy, probe]))
"""


def test_a_full_disk_keeps_nothing_of_the_call_and_later_ones_succeed(folder):
    out, err = python(SMALL_FILES, folder).communicate(timeout=WATCHDOG_S)
    assert err == ""
    said, fits, healthy, probe = json.loads(out)
    text = f"File too large: {folder}"
    assert said == [[text, text, True]] * 3
    assert (fits, healthy) == (False, "")  # A record may be larger than what is left.
    assert probe == [False, text, True, ""]
    assert keys(make_store(folder).recover().results) == [(1, 1), (1, 2), (1, 50), (1, 80)]
    assert not (folder / ".probe").exists()


def test_a_file_in_place_of_the_folder_is_an_error(tmp_path):
    (tmp_path / "spill").write_text("a file")
    store = make_store(tmp_path / "spill" / "csv")
    with pytest.raises(SpillError, match="Not a directory"):
        write(store, 1, [result(1, 1)])
    assert store.problem
    assert not store.probe()
    (tmp_path / "spill").unlink()
    assert store.probe()
    assert store.problem == ""
    write(store, 1, [result(1, 1)])
    assert read(store, 1) == [(1, 1)]
    store.close()
