"""The row file: no half row, and every row that was flushed, whatever breaks."""

import csv
import errno
import itertools
import logging
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from millpond_loggers.files import locked_file, row_file
from millpond_loggers.files.row_file import RowFile

LIMITED = """
import errno, resource, sys
from millpond_loggers.files.row_file import RowFile
folder, room, padding = sys.argv[1], int(sys.argv[2]), sys.argv[3].encode()
rows = RowFile(folder, "rows", starts_with=b"row")
rows.append(b"row 0%s\\n" % padding, (1, 1))
rows.flush()
for attempt in range(3):
    limit = room if attempt < 2 else 1_000_000
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
    for number in range(1, 500):
        rows.append(b"row %d%s\\n" % (number, padding), (2, number))
    try:
        rows.flush()
    except OSError as problem:
        assert problem.errno == errno.EFBIG
        print(open(folder + "/rows").read())
rows.close()
"""

KILLED = """
import os, sys
from millpond_loggers.files.row_file import RowFile
rows = RowFile(sys.argv[1], "rows", starts_with=b"row")
rows.append(b"row 1\\n", (0, 1))
rows.flush()
rows.append(b"row 2\\n", (0, 2))
os.kill(os.getpid(), 9)
"""

HOLDING = """
import sys
from millpond_loggers.files.row_file import RowFile
rows = RowFile(sys.argv[1], "rows", starts_with=b"row")
rows.append(b"row 1\\n", (0, 1))
print("held", flush=True)
sys.stdin.read()
rows.close()
"""


@contextmanager
def opened(folder: Path, *, is_csv: bool = False, starts_with: bytes = b"") -> Iterator[RowFile]:
    rows = RowFile(str(folder), "rows", starts_with=starts_with, is_csv=is_csv)
    try:
        yield rows
    finally:
        rows.close()


# The keys of results that never came before.
new = zip(itertools.repeat(3), itertools.count(1), strict=False)


def write(folder: Path, *rows: bytes, is_csv: bool = False) -> None:
    with opened(folder, is_csv=is_csv) as file:
        for row in rows:
            file.append(row, next(new))


def test_rows_are_in_the_file_when_flush_returns_and_not_before(tmp_path: Path) -> None:
    with opened(tmp_path) as rows:
        rows.append(b"1\n", next(new))
        rows.append(b"2\n", next(new))
        assert (tmp_path / "rows").read_bytes() == b""
        rows.flush()
        assert (tmp_path / "rows").read_bytes() == b"1\n2\n"
        rows.flush()
    rows.close()
    assert (tmp_path / "rows").read_bytes() == b"1\n2\n"


@pytest.mark.parametrize("is_csv", [False, True])
@pytest.mark.parametrize("block_bytes", [3, 7, 1 << 20])
def test_a_row_torn_at_any_byte_is_cut_off_and_no_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_csv: bool, block_bytes: int
) -> None:
    monkeypatch.setattr(row_file, "BLOCK_BYTES", block_bytes)
    rows = [b"id,a\n", b"1,x\n", b'2,"say ""hi"", a,b"\n', b"3,\n"]
    if is_csv:
        rows += [b'4,"two\nlines"\n', b'5,"\n\n""\n\n",""""\n', b'"\n",6\n']
    whole = b"".join(rows)
    ends = [sum(map(len, rows[:count])) for count in range(len(rows) + 1)]
    for length in range(len(whole) + 1):
        (tmp_path / "rows").write_bytes(whole[:length])
        with opened(tmp_path, is_csv=is_csv):
            kept = max(end for end in ends if end <= length)
            assert (tmp_path / "rows").read_bytes() == whole[:kept], length


@pytest.mark.parametrize("is_csv", [False, True])
def test_rows_that_are_in_the_file_already_are_written_again(tmp_path: Path, is_csv: bool) -> None:
    """A renderer that is deterministic may run twice into one folder; each run is counted."""
    rows = [b'1,"x\ny"\n' if is_csv else b"1,x\n", b"2,x\n"]
    write(tmp_path, b"id,a\n", *rows, is_csv=is_csv)
    write(tmp_path, *rows, rows[0], is_csv=is_csv)
    whole = b"id,a\n" + b"".join([*rows, *rows, rows[0]])
    assert (tmp_path / "rows").read_bytes() == whole


@pytest.mark.parametrize(("room", "padding"), [(1000, ""), (15_000, "x" * 100)])
def test_a_full_disk_leaves_no_half_row_and_a_retry_doubles_none(
    tmp_path: Path, room: int, padding: str
) -> None:
    """Full as soon as the keys are to be written; or the rows, when these are longer."""
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, str(tmp_path), str(room), padding],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == f"row 0{padding}\n\n" * 2
    expected = "".join(f"row {number}{padding}\n" for number in range(500))
    assert (tmp_path / "rows").read_text() == expected


def test_rows_of_a_failed_flush_are_forgotten(tmp_path: Path) -> None:
    write(tmp_path, b"1\n")
    with opened(tmp_path) as rows:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(row_file, "write_all", _disk_full)
            rows.append(b"2\n", next(new))
            with pytest.raises(OSError, match="full"):
                rows.flush()
        rows.append(b"3\n", next(new))
    assert (tmp_path / "rows").read_bytes() == b"1\n3\n"


def test_a_cut_that_failed_is_made_up_for_before_the_next_write(tmp_path: Path) -> None:
    with opened(tmp_path) as rows:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(row_file, "write_all", _half_written)
            patch.setattr(os, "ftruncate", _disk_full)
            rows.append(b"1 long row\n", next(new))
            with pytest.raises(OSError, match="half"):
                rows.flush()
        assert (tmp_path / "rows").read_bytes() == b"1 "
        rows.append(b"1\n", next(new))
        rows.flush()
        assert (tmp_path / "rows").read_bytes() == b"1\n"


def test_a_killed_process_leaves_what_it_flushed(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path)], check=False)
    assert done.returncode == -signal.SIGKILL
    assert (tmp_path / "rows").read_bytes() == b"row 1\n"
    write(tmp_path, b"row 2\n")
    assert (tmp_path / "rows").read_bytes() == b"row 1\nrow 2\n"


def test_widening_pads_the_rows_in_the_file_and_those_that_wait(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(row_file, "BLOCK_BYTES", 8)
    with opened(tmp_path, is_csv=True) as rows:
        rows.widen(b"id,a\n", b",,")
        rows.append(b"1,x\n", next(new))
        rows.append(b'2,"\n"\n', next(new))
        rows.flush()
        rows.append(b"3,y\n", next(new))
        rows.widen(b"id,a,b,c\n", b",,")
        assert (tmp_path / "rows").read_bytes() == b'id,a,b,c\n1,x,,\n2,"\n",,\n'
    assert (tmp_path / "rows").read_bytes() == b'id,a,b,c\n1,x,,\n2,"\n",,\n3,y,,\n'
    assert sorted(path.name for path in tmp_path.iterdir()) == [".rows.batch", "rows"]
    with opened(tmp_path, is_csv=True) as rows:
        assert rows.header == b"id,a,b,c\n"
        rows.widen(b"id,a,b,c,d\n", b",")
        rows.append(b"3,y,,,\n", next(new))
    assert (tmp_path / "rows").read_bytes().endswith(b"3,y,,,\n3,y,,,\n")


def test_a_widening_that_fails_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path, b"id\n", b"1\n", is_csv=True)
    with opened(tmp_path, is_csv=True) as rows:
        monkeypatch.setattr(row_file, "write_all", _disk_full)
        with pytest.raises(OSError, match="full"):
            rows.widen(b"id,a\n", b",")
        monkeypatch.undo()
        assert rows.header == b"id\n"
        rows.append(b"2\n", next(new))
    assert (tmp_path / "rows").read_bytes() == b"id\n1\n2\n"
    assert sorted(path.name for path in tmp_path.iterdir()) == [".rows.batch", "rows"]


def test_a_widened_file_that_cannot_be_opened_is_opened_by_the_next_write(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path, b"id\n", b"1\n", is_csv=True)

    def too_many(*_: object) -> int:
        raise OSError(errno.EMFILE, "too many open files")

    with opened(tmp_path, is_csv=True) as rows:
        with monkeypatch.context() as patch:
            patch.setattr(locked_file, "open_beneath", too_many)
            rows.widen(b"id,a\n", b",")
            rows.append(b"2,x\n", (9, 2))
            with pytest.raises(OSError, match="too many"):
                rows.flush()
        rows.append(b"2,x\n", (9, 2))
        rows.flush()
        rows.widen(b"id,a,b\n", b",")
    assert (tmp_path / "rows").read_bytes() == b"id,a,b\n1,,\n2,x,\n"


def test_rows_that_wait_are_no_less_when_a_widened_file_cannot_be_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path, b"id\n", b"1\n", is_csv=True)
    with opened(tmp_path, is_csv=True) as rows:
        rows.append(b"2\n", (9, 2))
        with monkeypatch.context() as patch:
            patch.setattr(locked_file, "open_beneath", _disk_full)
            rows.widen(b"id,a\n", b",")
    assert (tmp_path / "rows").read_bytes() == b"id,a\n1,\n2,\n"


def test_a_symlink_is_refused(tmp_path: Path) -> None:
    (tmp_path / "outside").write_text("kept")
    (tmp_path / "rows").symlink_to(tmp_path / "outside")
    with pytest.raises(OSError, match="rows") as caught:
        RowFile(str(tmp_path), "rows", starts_with=b"")
    assert caught.value.errno == errno.ELOOP
    assert (tmp_path / "outside").read_text() == "kept"


def test_two_loggers_cannot_write_to_one_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(locked_file, "LOCK_S", 0.1)
    told = r"another logger.*give one of the two .*another `options: \{file: \.\.\.\}`: 'rows'"
    with opened(tmp_path), pytest.raises(BlockingIOError, match=told):
        RowFile(str(tmp_path), "rows", starts_with=b"")
    with opened(tmp_path):
        pass


class WhenItWaits(logging.Handler):
    """Does something as soon as a row file says that it waits for another one."""

    def __init__(self, do: Callable[[], None]) -> None:
        super().__init__()
        self._do = do

    def emit(self, record: logging.LogRecord) -> None:
        if record.getMessage().startswith("file is locked, waiting file=rows"):
            self._do()

    def __enter__(self) -> None:
        locked_file.log.addHandler(self)

    def __exit__(self, *_: object) -> None:
        locked_file.log.removeHandler(self)


def test_one_that_is_about_to_end_is_waited_for(tmp_path: Path) -> None:
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDING, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    with holder, WhenItWaits(holder.stdin.close):  # type: ignore[union-attr]
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        write(tmp_path, b"row 2\n")
    assert holder.returncode == 0
    assert (tmp_path / "rows").read_bytes() == b"row 1\nrow 2\n"


def test_a_file_replaced_while_it_was_waited_for_is_not_written_to(tmp_path: Path) -> None:
    write(tmp_path, b"id\n", b"1\n", is_csv=True)
    earlier = RowFile(str(tmp_path), "rows", starts_with=b"id", is_csv=True)

    def widen_and_end() -> None:
        earlier.widen(b"id,a\n", b",")
        earlier.close()

    with WhenItWaits(widen_and_end), opened(tmp_path, is_csv=True, starts_with=b"id") as rows:
        assert rows.header == b"id,a\n"
        rows.append(b"2,x\n", next(new))
    assert (tmp_path / "rows").read_bytes() == b"id,a\n1,\n2,x\n"


def test_a_file_that_is_replaced_between_open_and_lock_is_opened_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path, b"1\n")
    open_it = locked_file.open_beneath

    def open_then_replace(*arguments: Any) -> int:
        monkeypatch.undo()
        descriptor = open_it(*arguments)
        (tmp_path / "new").write_bytes(b"new\n")
        (tmp_path / "new").replace(tmp_path / "rows")
        return descriptor

    monkeypatch.setattr(locked_file, "open_beneath", open_then_replace)
    write(tmp_path, b"2\n")
    assert (tmp_path / "rows").read_bytes() == b"new\n2\n"


@pytest.mark.parametrize("content", [b"name,x\n1,2", b"\x89PNG"])
def test_a_file_of_someone_else_is_not_touched(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "rows").write_bytes(content)
    with pytest.raises(ValueError, match="not a file of this logger"):
        RowFile(str(tmp_path), "rows", starts_with=b"id")
    assert (tmp_path / "rows").read_bytes() == content


def test_an_end_longer_than_a_crash_leaves_is_not_cut(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(row_file, "TORN_BYTES_MAX", 10)
    content = b"1\n" + b"x" * 11
    (tmp_path / "rows").write_bytes(content)
    with pytest.raises(ValueError, match="ends with 11 bytes"):
        RowFile(str(tmp_path), "rows", starts_with=b"")
    assert (tmp_path / "rows").read_bytes() == content


def test_a_file_cut_by_someone_else_goes_on_at_its_end(tmp_path: Path) -> None:
    with opened(tmp_path, is_csv=True) as rows:
        rows.widen(b"id\n", b"")
        rows.append(b"1\n", next(new))
        rows.flush()
        os.truncate(tmp_path / "rows", 0)
        rows.append(b"2\n", next(new))
    assert (tmp_path / "rows").read_bytes() == b"id\n2\n"


def _disk_full(*_: object) -> None:
    raise OSError(errno.ENOSPC, "full")


def _half_written(descriptor: int, content: bytes) -> None:
    os.write(descriptor, content[:2])
    raise OSError(errno.EIO, "half")


# Results that come again.

CRASHES = str(Path(__file__).with_name("row_file_crashes.py"))
CRASH_MODES = ["dies after", "dies midway", "fails", "fails, then dies"]


def test_a_result_that_comes_again_is_written_once(tmp_path: Path) -> None:
    with opened(tmp_path) as rows:
        rows.append(b"1\n", (5, 1))
        rows.append(b"1 again\n", (5, 1))
        rows.flush()
        rows.append(b"1\n", (5, 1))
        rows.append(b"2\n", (5, 2))
        rows.flush()
    with opened(tmp_path) as rows:
        for number in (2, 1, 3):
            rows.append(b"%d\n" % number, (5, number))
        rows.append(b"1\n", (6, 1))
    assert (tmp_path / "rows").read_bytes() == b"1 again\n2\n3\n1\n"


def test_a_result_whose_row_was_torn_or_not_written_comes_again(tmp_path: Path) -> None:
    for length in range(4 * 3 + 1):
        folder = tmp_path / str(length)
        folder.mkdir()
        write(folder, b"0 0\n")
        with opened(folder) as rows:
            for number in range(1, 4):
                rows.append(b"%d 0\n" % number, (5, number))
        os.truncate(folder / "rows", 4 + length)  # As a kill in the middle of it leaves it.
        with opened(folder) as rows:
            for number in range(1, 4):
                rows.append(b"%d 1\n" % number, (5, number))
        kept = "".join(f"{number} {0 if 4 * number <= length else 1}\n" for number in range(1, 4))
        assert (folder / "rows").read_text() == "0 0\n" + kept, length


def test_the_first_batch_of_a_table_torn_at_any_byte_comes_again(tmp_path: Path) -> None:
    header = b"id,with,a,long,header\n"
    for length in range(len(header) + 3 * 3 + 1):
        folder = tmp_path / str(length)
        folder.mkdir()
        for delivery in range(2):
            with opened(folder, is_csv=True) as rows:
                rows.header = rows.header or header
                for number in range(1, 4):
                    rows.append(b"%d%d\n" % (number, delivery), (5, number))
            if delivery == 0:
                os.truncate(folder / "rows", length)
        found = (folder / "rows").read_bytes().split(b"\n")
        assert found[0] + b"\n" == header
        assert [row[:1] for row in found[1:-1]] == [b"1", b"2", b"3"], length


def test_rows_of_a_batch_that_failed_come_again(tmp_path: Path) -> None:
    with opened(tmp_path) as rows:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(row_file, "write_all", _half_written)
            rows.append(b"1\n", (5, 1))
            with pytest.raises(OSError, match="half"):
                rows.flush()
        rows.append(b"1\n", (5, 1))
    assert (tmp_path / "rows").read_bytes() == b"1\n"


def test_a_file_that_was_made_anew_gets_every_row(tmp_path: Path) -> None:
    for gone in (lambda path: path.unlink(), lambda path: path.write_bytes(b"")):
        with opened(tmp_path) as rows:
            rows.append(b"1\n", (5, 1))
            rows.flush()
            rows.append(b"2\n", (5, 2))
        gone(tmp_path / "rows")
        with opened(tmp_path) as rows:
            for number in (1, 2):
                rows.append(b"%d\n" % number, (5, number))
        assert (tmp_path / "rows").read_bytes() == b"1\n2\n"


def test_rows_are_known_in_a_file_that_was_widened(tmp_path: Path) -> None:
    with opened(tmp_path, is_csv=True) as rows:
        rows.widen(b"id\n", b"")
        rows.append(b"1\n", (5, 1))
        rows.flush()
        rows.widen(b"id,a\n", b",")
    for _ in range(2):
        with opened(tmp_path, is_csv=True) as rows:
            rows.append(b"1,x\n", (5, 1))
            rows.append(b"2,x\n", (5, 2))
    assert (tmp_path / "rows").read_bytes() == b"id,a\n1,\n2,x\n"


def test_a_widening_makes_up_for_a_cut_that_failed(tmp_path: Path) -> None:
    with opened(tmp_path, is_csv=True) as rows:
        rows.widen(b"id\n", b"")
        rows.append(b"1\n", (5, 1))
        rows.flush()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(row_file, "write_all", _half_written)
            patch.setattr(os, "ftruncate", _disk_full)
            rows.append(b"2 long\n", (5, 2))
            with pytest.raises(OSError, match="half"):
                rows.flush()
        rows.widen(b"id,a\n", b",")
        rows.append(b"2,x\n", (5, 2))
    assert (tmp_path / "rows").read_bytes() == b"id,a\n1,\n2,x\n"


@pytest.mark.parametrize("mode", CRASH_MODES)
def test_whichever_call_is_the_last_every_row_is_there_once(tmp_path: Path, mode: str) -> None:
    done = subprocess.run(
        [sys.executable, CRASHES, "crash", str(tmp_path), mode],
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert int((tmp_path / "calls").read_text()) > 40


def can_trace() -> bool:
    try:
        return not subprocess.run(["strace", "-o", os.devnull, "true"], check=False).returncode
    except FileNotFoundError:
        return False


@pytest.mark.parametrize(
    ("call", "when"),
    [*(("pwrite64", n) for n in (1, 2, 5)), *(("write", n) for n in (2, 5, 8)), ("renameat", 1)],
)
def test_a_kill_by_the_kernel_leaves_every_row_to_be_there_once(
    tmp_path: Path, call: str, when: int
) -> None:
    if not can_trace():
        pytest.skip("no strace here, or it may not trace")
    deliver = [sys.executable, CRASHES, "deliver", str(tmp_path)]
    kill = ["-e", f"trace={call}", "-e", f"inject={call}:signal=KILL:when={when}"]
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(
        ["strace", "-qq", "-o", os.devnull, *kill, *deliver], check=False, env=environment
    )
    assert done.returncode in (-signal.SIGKILL, 128 + signal.SIGKILL)
    subprocess.run(deliver, check=True)
    subprocess.run([sys.executable, CRASHES, "check", str(tmp_path)], check=True)


class Redelivery(RuleBasedStateMachine):
    """Batches, crashes that leave any part of the last one, wider headers; one row a result."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.path = Path(self.folder.name, "rows")
        self.columns = 1
        self.unreleased: list[int] = []
        self.last = 0
        self.open()

    def open(self) -> None:
        self.rows = RowFile(self.folder.name, "rows", starts_with=b"id", is_csv=True)
        if self.rows.header is None:
            self.rows.widen(b"id\n", b"")
            self.columns = 1

    def row(self, number: int) -> bytes:
        return b'"%d\n"%s\n' % (number, b"," * (self.columns - 1))

    @rule(count=st.integers(1, 4))
    def publish(self, count: int) -> None:
        self.unreleased += range(self.last + 1, self.last + count + 1)
        self.last += count

    @rule(count=st.integers(0, 6), releases=st.booleans())
    def deliver(self, count: int, releases: bool) -> None:
        for number in self.unreleased[:count]:
            self.rows.append(self.row(number), (1, number))
        self.rows.flush()
        if releases:
            del self.unreleased[:count]

    @rule(count=st.integers(1, 6), part=st.floats(0, 1))
    def crash_while_writing(self, count: int, part: float) -> None:
        before = self.path.stat().st_size
        self.deliver(count, releases=False)
        size = self.path.stat().st_size
        os.truncate(self.path, before + int((size - before) * part))
        self.crash()

    @rule()
    def crash(self) -> None:
        """A killed process closes its descriptors, and does nothing else."""
        self.rows._record.close()
        self.rows._close_descriptors()
        self.open()

    @rule()
    def end_and_begin(self) -> None:
        self.rows.close()
        self.open()

    @precondition(lambda self: self.columns < 5)
    @rule()
    def widen(self) -> None:
        self.columns += 1
        self.rows.widen(b"id" + b",x" * (self.columns - 1) + b"\n", b",")

    @invariant()
    def nothing_is_there_twice_or_missing(self) -> None:
        with self.path.open(newline="") as file:
            numbers = [int(row[0]) for row in list(csv.reader(file))[1:]]
        assert len(set(numbers)) == len(numbers)
        assert set(range(1, self.last + 1)) <= {*numbers, *self.unreleased}

    def teardown(self) -> None:
        self.unreleased.sort()
        self.deliver(len(self.unreleased), releases=True)
        self.nothing_is_there_twice_or_missing()
        self.rows.close()
        self.folder.cleanup()


TestRedelivery = Redelivery.TestCase
TestRedelivery.settings = settings(max_examples=120, stateful_step_count=25, deadline=None)
