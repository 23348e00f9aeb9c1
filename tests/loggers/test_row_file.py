"""The row file: no half row, and every row that was flushed, whatever breaks."""

import errno
import logging
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from millpond_loggers import row_file
from millpond_loggers.row_file import RowFile

LIMITED = """
import errno, resource, sys
from millpond_loggers.row_file import RowFile
rows = RowFile(sys.argv[1], "rows", starts_with=b"row")
rows.append(b"row 0\\n")
rows.flush()
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, resource.RLIM_INFINITY))
for attempt in range(3):
    for number in range(1, 500):
        rows.append(b"row %d\\n" % number)
    try:
        rows.flush()
    except OSError as problem:
        assert problem.errno == errno.EFBIG
        print(open(sys.argv[1] + "/rows").read())
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000 + 9000 * attempt, resource.RLIM_INFINITY))
rows.close()
"""

KILLED = """
import os, sys
from millpond_loggers.row_file import RowFile
rows = RowFile(sys.argv[1], "rows", starts_with=b"row")
rows.append(b"row 1\\n")
rows.flush()
rows.append(b"row 2\\n")
os.kill(os.getpid(), 9)
"""

HOLDING = """
import sys
from millpond_loggers.row_file import RowFile
rows = RowFile(sys.argv[1], "rows", starts_with=b"row")
rows.append(b"row 1\\n")
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


def write(folder: Path, *rows: bytes, is_csv: bool = False) -> None:
    with opened(folder, is_csv=is_csv) as file:
        for row in rows:
            file.append(row)


def test_rows_are_in_the_file_when_flush_returns_and_not_before(tmp_path: Path) -> None:
    with opened(tmp_path) as rows:
        rows.append(b"1\n")
        rows.append(b"2\n")
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


def test_a_full_disk_leaves_no_half_row_and_a_retry_doubles_none(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, str(tmp_path)], capture_output=True, text=True, check=True
    )
    assert done.stdout == "row 0\n\n" * 2
    expected = "".join(f"row {number}\n" for number in range(500))
    assert (tmp_path / "rows").read_text() == expected


def test_rows_of_a_failed_flush_are_forgotten(tmp_path: Path) -> None:
    write(tmp_path, b"1\n")
    with opened(tmp_path) as rows:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(row_file, "write_all", _disk_full)
            rows.append(b"2\n")
            with pytest.raises(OSError, match="full"):
                rows.flush()
        rows.append(b"3\n")
    assert (tmp_path / "rows").read_bytes() == b"1\n3\n"


def test_a_cut_that_failed_is_made_up_for_before_the_next_write(tmp_path: Path) -> None:
    with opened(tmp_path) as rows:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(row_file, "write_all", _half_written)
            patch.setattr(os, "ftruncate", _disk_full)
            rows.append(b"1 long row\n")
            with pytest.raises(OSError, match="half"):
                rows.flush()
        assert (tmp_path / "rows").read_bytes() == b"1 "
        rows.append(b"1\n")
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
        rows.append(b"1,x\n")
        rows.append(b'2,"\n"\n')
        rows.flush()
        rows.append(b"3,y\n")
        rows.widen(b"id,a,b,c\n", b",,")
        assert (tmp_path / "rows").read_bytes() == b'id,a,b,c\n1,x,,\n2,"\n",,\n'
    assert (tmp_path / "rows").read_bytes() == b'id,a,b,c\n1,x,,\n2,"\n",,\n3,y,,\n'
    assert [path.name for path in tmp_path.iterdir()] == ["rows"]
    with opened(tmp_path, is_csv=True) as rows:
        assert rows.header == b"id,a,b,c\n"
        rows.widen(b"id,a,b,c,d\n", b",")
        rows.append(b"3,y,,,\n")
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
        rows.append(b"2\n")
    assert (tmp_path / "rows").read_bytes() == b"id\n1\n2\n"
    assert [path.name for path in tmp_path.iterdir()] == ["rows"]


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
    monkeypatch.setattr(row_file, "LOCK_S", 0.1)
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
        row_file.log.addHandler(self)

    def __exit__(self, *_: object) -> None:
        row_file.log.removeHandler(self)


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
        rows.append(b"2,x\n")
    assert (tmp_path / "rows").read_bytes() == b"id,a\n1,\n2,x\n"


def test_a_file_that_is_replaced_between_open_and_lock_is_opened_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path, b"1\n")
    open_it = row_file.open_beneath

    def open_then_replace(*arguments: Any) -> int:
        monkeypatch.undo()
        descriptor = open_it(*arguments)
        (tmp_path / "new").write_bytes(b"new\n")
        (tmp_path / "new").replace(tmp_path / "rows")
        return descriptor

    monkeypatch.setattr(row_file, "open_beneath", open_then_replace)
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
        rows.append(b"1\n")
        rows.flush()
        os.truncate(tmp_path / "rows", 0)
        rows.append(b"2\n")
    assert (tmp_path / "rows").read_bytes() == b"id\n2\n"


def _disk_full(*_: object) -> None:
    raise OSError(errno.ENOSPC, "full")


def _half_written(descriptor: int, content: bytes) -> None:
    os.write(descriptor, content[:2])
    raise OSError(errno.EIO, "half")
