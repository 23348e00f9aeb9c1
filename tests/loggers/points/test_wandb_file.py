"""Following the run file of W&B: records in pieces, over blocks, torn, and while it grows."""

import struct
import zlib
from pathlib import Path

import pytest

pytest.importorskip("wandb", reason="wandb is not installed (make bridges)")
from wandb.proto.wandb_internal_pb2 import Record

from millpond_loggers.points.wandb_file import BLOCK_BYTES, FILE_HEADER, TAIL_BYTES, WandbFile


def history(step: int, size: int = 0) -> bytes:
    record = Record()
    record.history.step.num = step
    record.history.item.add(key="padding", value_json="x" * size)
    return record.SerializeToString()


def pack(records: list[bytes], place: int = 0) -> bytes:
    """As LevelDB's writer does it."""
    content = b"" if place else FILE_HEADER
    for record in records:
        rest, is_first = record, True
        while rest or is_first:
            room = BLOCK_BYTES - (place + len(content)) % BLOCK_BYTES
            if room < 7:
                content += bytes(room)
                room = BLOCK_BYTES
            piece, rest = rest[: room - 7], rest[room - 7 :]
            kind = {(1, 0): 1, (1, 1): 2, (0, 1): 3, (0, 0): 4}[is_first, bool(rest)]
            checksum = zlib.crc32(bytes([kind]) + piece)
            content += struct.pack("<IHB", checksum, len(piece), kind) + piece
            is_first = False
    return content


def test_the_last_step_is_that_of_the_last_whole_record(tmp_path: Path) -> None:
    path = tmp_path / "run.wandb"
    records = [history(0), history(1, 3 * BLOCK_BYTES), b"", history(2, 50)]
    path.write_bytes(pack(records))
    file = WandbFile(path)
    assert file.read() == 2
    assert file.read() == 2
    file.close()


def test_it_follows_a_file_that_grows_byte_by_byte(tmp_path: Path) -> None:
    path = tmp_path / "run.wandb"
    content = pack([history(0), history(1), history(2)])
    ends = [len(pack([history(step) for step in range(count)])) for count in range(1, 4)]
    with path.open("wb", buffering=0) as growing:
        file = WandbFile(path)
        for size, byte in enumerate(content, 1):
            growing.write(bytes([byte]))
            assert file.read() == sum(end <= size for end in ends) - 1
        file.close()


def test_blocks_that_end_too_early_for_a_header_are_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "run.wandb"
    for left in range(12):
        size = BLOCK_BYTES - left
        first = history(0)
        padding = size - len(pack([first])) - 7
        filler = history(1, padding - len(history(1, padding)) + padding)
        content = pack([first, filler, history(2)])
        path.write_bytes(content)
        file = WandbFile(path)
        assert file.read() == 2
        file.close()


def test_of_a_long_file_only_the_end_is_read(tmp_path: Path) -> None:
    path = tmp_path / "run.wandb"
    records = [history(step, 100_000) for step in range(100)]
    path.write_bytes(pack(records))
    assert path.stat().st_size > 2 * TAIL_BYTES
    file = WandbFile(path)
    assert file.read() == 99
    file.close()


@pytest.mark.parametrize("tail", [b"\0" * 100, b"half a row", b"\xff" * 4000])
def test_garbage_at_the_end_is_no_record(tmp_path: Path, tail: bytes) -> None:
    path = tmp_path / "run.wandb"
    path.write_bytes(pack([history(0), history(1)]) + tail)
    file = WandbFile(path)
    assert file.read() == 1
    file.close()


def test_another_kind_of_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "run.wandb"
    path.write_bytes(b"something else")
    file = WandbFile(path)
    with pytest.raises(ValueError, match="begins with b'somethi'"):
        file.read()
    file.close()
