"""Parts: whole or not there, each result in one of them, whatever dies in between."""

import errno
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import orjson
import pytest

from millpond_loggers.files import locked_file, part_folder
from millpond_loggers.files.journal import Record
from millpond_loggers.files.names import write_all
from millpond_loggers.files.part_folder import Bounds, PartFolder, last_part, recorded_ids
from millpond_loggers.files.part_names import PartNames

NAMES = PartNames("rows", "part.txt")
WIDE = Bounds(rows=100, size=10**9, age_s=3600)


def write_lines(descriptor: int, about: Any, records: Sequence[Record]) -> None:
    for record in records:
        id = orjson.loads(record.pieces[0])["id"]
        write_all(descriptor, f"{about} {id} {bytes(record.pieces[1]).decode()}\n".encode())


def read_lines(file: Any) -> list[str]:
    return [line.split()[1].decode() for line in file]


class Scene:
    """A folder, the processes that write to it one after the other, and the results they get."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.open: list[PartFolder] = []
        self.number = 0

    def start(
        self, names: PartNames = NAMES, bounds: Bounds = WIDE, about: Any = "v1", write=write_lines
    ) -> PartFolder:
        parts = PartFolder(str(self.root), names, bounds, about=about, write=write)
        self.open.append(parts)
        return parts

    def kill(self, parts: PartFolder) -> None:
        """Its descriptors are closed, and it says no more."""
        parts._close_descriptors()
        self.open.remove(parts)

    def log(self, parts: PartFolder, count: int = 1) -> None:
        for _ in range(count):
            self.number += 1
            put(parts, self.number)
        parts.flush()

    def parts(self) -> dict[str, list[str]]:
        return {
            path.name: [line.split()[1] for line in path.read_text().splitlines()]
            for path in sorted((self.root / "rows").glob("part*"))
        }

    def hidden(self) -> list[str]:
        return sorted(path.name for path in (self.root / "rows").glob(".*"))


def put(parts: PartFolder, number: int) -> None:
    parts.append((1, number), [orjson.dumps({"id": str(number)}), b"x" * number])


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    made = Scene(tmp_path)
    yield made
    for parts in made.open:
        parts.close()


def ids(*numbers: int) -> list[str]:
    return [str(number) for number in numbers]


def test_a_part_is_written_when_it_has_enough_results(scene: Scene) -> None:
    parts = scene.start(bounds=Bounds(rows=3, size=10**9, age_s=3600))
    scene.log(parts, 2)
    assert scene.parts() == {}
    scene.log(parts, 2)
    assert scene.parts() == {"part-000001.txt": ids(1, 2, 3, 4)}
    scene.log(parts, 3)
    scene.log(parts)
    parts.close()
    parts.close()
    assert scene.parts() == {
        "part-000001.txt": ids(1, 2, 3, 4),
        "part-000002.txt": ids(5, 6, 7),
        "part-000003.txt": ids(8),
    }


def test_a_part_is_written_when_it_has_enough_bytes(scene: Scene) -> None:
    parts = scene.start(bounds=Bounds(rows=100, size=400, age_s=3600))
    scene.number = 100
    scene.log(parts)
    assert scene.parts() == {}
    scene.log(parts)
    assert scene.parts() == {"part-000001.txt": ids(101, 102)}


def test_a_part_is_written_when_its_first_result_is_old(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    now_s = 1000.0
    monkeypatch.setattr(part_folder.time, "monotonic", lambda: now_s)
    parts = scene.start(bounds=Bounds(rows=100, size=10**9, age_s=5))
    for _ in range(3):
        scene.log(parts)
        now_s += 2
    assert scene.parts() == {}
    scene.log(parts)
    assert scene.parts() == {"part-000001.txt": ids(1, 2, 3, 4)}
    now_s += 100
    parts.flush()
    scene.log(parts)
    assert list(scene.parts()) == ["part-000001.txt"], "the age is that of the first result in it"


def test_an_empty_run_makes_no_part(scene: Scene) -> None:
    for _ in range(2):
        parts = scene.start()
        parts.flush()
        parts.close()
    assert scene.parts() == {}
    assert scene.hidden() == [".part.txt.journal"]


def test_what_was_flushed_survives_and_becomes_a_part_of_its_own(scene: Scene) -> None:
    parts = scene.start()
    scene.log(parts, 2)
    put(parts, 99)  # Not flushed.
    scene.kill(parts)
    parts = scene.start()
    assert scene.parts() == {"part-000001.txt": ids(1, 2)}
    scene.log(parts, 2)
    parts.close()
    assert scene.parts()["part-000002.txt"] == ids(3, 4)


def test_what_is_left_is_written_as_it_was_meant(scene: Scene) -> None:
    """The next process may have other options, and other channels."""
    parts = scene.start(about="old")
    scene.log(parts)
    scene.kill(parts)
    parts = scene.start(about="new")
    scene.log(parts)
    parts.close()
    folder = scene.root / "rows"
    assert (folder / "part-000001.txt").read_text() == "old 1 x\n"
    assert (folder / "part-000002.txt").read_text() == "new 2 xx\n"


def test_a_result_that_comes_again_is_recorded_once(scene: Scene) -> None:
    few = Bounds(rows=2, size=10**9, age_s=3600)
    parts = scene.start(bounds=few)
    put(parts, 1)
    put(parts, 1)
    parts.flush()
    put(parts, 1)
    put(parts, 2)
    parts.flush()  # A part is in place.
    put(parts, 2)
    parts.flush()
    scene.kill(parts)
    for _ in range(3):  # In a later process, and in one after an end.
        parts = scene.start(bounds=few)
        put(parts, 1)
        put(parts, 2)
        parts.flush()
        parts.close()
    assert scene.parts() == {"part-000001.txt": ids(1, 2)}


def test_the_keys_that_are_remembered_have_a_bound(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(part_folder, "KEYS_KEPT", 10)
    parts = scene.start(bounds=Bounds(rows=7, size=10**9, age_s=3600))
    for _ in range(50):
        scene.log(parts)
        assert min(scene.number, 10) <= len(parts.known) <= 20
        assert list(parts.known)[-1] == (1, scene.number)
    scene.kill(parts)
    parts = scene.start()
    assert set(parts.known) >= {(1, number) for number in range(41, 51)}


class Died(BaseException):
    """The process is no more; nothing of it goes on."""


def test_a_death_before_the_part_is_in_place_leaves_it_to_the_next(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    def die(*_: object) -> None:
        raise Died

    parts = scene.start(bounds=Bounds(rows=2, size=10**9, age_s=3600), write=die)
    with pytest.raises(Died):
        scene.log(parts, 2)
    scene.kill(parts)
    assert scene.parts() == {}
    scene.start()
    assert scene.parts() == {"part-000001.txt": ids(1, 2)}


def test_a_death_when_the_part_is_in_place_does_not_write_it_again(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    def die(*_: object) -> None:
        raise Died

    parts = scene.start(bounds=Bounds(rows=2, size=10**9, age_s=3600))
    assert parts._journal is not None
    monkeypatch.setattr(parts._journal, "begin", die)
    with pytest.raises(Died):
        scene.log(parts, 2)
    scene.kill(parts)
    parts = scene.start()
    put(parts, 2)
    parts.flush()
    scene.log(parts)
    parts.close()
    assert scene.parts() == {"part-000001.txt": ids(1, 2), "part-000002.txt": ids(3)}


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "full"), MemoryError("no memory")])
def test_a_part_that_cannot_be_written_is_tried_again_and_loses_nothing(
    scene: Scene,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    error: Exception,
) -> None:
    now_s = 1000.0
    monkeypatch.setattr(part_folder.time, "monotonic", lambda: now_s)
    is_full = True

    def write(descriptor: int, about: Any, records: Sequence[Record]) -> None:
        if is_full:
            raise error
        write_lines(descriptor, about, records)

    parts = scene.start(bounds=Bounds(rows=2, size=10**9, age_s=3600), write=write)
    scene.log(parts, 2)
    scene.log(parts, 2)
    assert [entry.getMessage() for entry in caplog.records] == [
        "part cannot be written, its results stay in the journal part=part-000001.txt "
        f"error={error!r} retry_s=10"
    ]
    assert scene.hidden() == [".part.txt.journal"], "nothing half written stays"
    is_full = False
    scene.log(parts)
    assert scene.parts() == {}
    now_s += 10
    scene.log(parts)
    assert scene.parts() == {"part-000001.txt": ids(1, 2, 3, 4, 5, 6)}


def test_at_the_end_a_part_that_cannot_be_written_is_an_error_and_is_left_to_the_next(
    scene: Scene,
) -> None:
    def write(*_: object) -> None:
        raise OSError(errno.ENOSPC, "full")

    parts = scene.start(write=write)
    scene.log(parts)
    with pytest.raises(OSError, match="full"):
        parts.close()
    parts.close()
    with pytest.raises(OSError, match="full"):  # Nor does a later one forget it.
        scene.start(write=write)
    scene.start()
    assert scene.parts() == {"part-000001.txt": ids(1)}


def test_results_that_cannot_be_recorded_are_told_and_can_come_again(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    parts = scene.start()
    scene.log(parts)

    def refuse(_: object) -> None:
        raise OSError(errno.ENOSPC, "full")

    with monkeypatch.context() as patch:
        patch.setattr(parts._journal, "append", refuse)
        with pytest.raises(OSError, match="full"):
            scene.log(parts, 2)
    parts.flush()
    put(parts, 3)
    parts.flush()
    parts.close()
    assert scene.parts() == {"part-000001.txt": ids(1, 3)}


def test_a_journal_that_cannot_be_begun_takes_nothing_until_it_is(
    scene: Scene, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Else the next results would be in the journal of a part that is in place."""
    parts = scene.start(bounds=Bounds(rows=2, size=10**9, age_s=3600))

    def refuse(*_: object) -> None:
        raise OSError(errno.ENOSPC, "full")

    with monkeypatch.context() as patch:
        patch.setattr(parts._journal, "begin", refuse)
        scene.log(parts, 2)
        assert scene.parts() == {"part-000001.txt": ids(1, 2)}
        with pytest.raises(OSError, match="full"):
            scene.log(parts)
    put(parts, 3)
    parts.flush()
    parts.close()
    assert scene.parts() == {"part-000001.txt": ids(1, 2), "part-000002.txt": ids(3)}


def test_numbers_go_on_over_gaps_and_after_parts_were_moved_away(scene: Scene) -> None:
    parts = scene.start()
    scene.log(parts)
    parts.close()
    (scene.root / "rows" / "part-000007.txt").write_text("v1 other x\n")
    parts = scene.start()
    scene.log(parts)
    parts.close()
    assert list(scene.parts()) == ["part-000001.txt", "part-000007.txt", "part-000008.txt"]
    for path in (scene.root / "rows").glob("part*"):
        path.unlink()
    for _ in range(3):  # Empty runs use up no number.
        scene.start().close()
    parts = scene.start()
    scene.log(parts)
    parts.close()
    assert list(scene.parts()) == ["part-000009.txt"]


def test_several_processes_write_parts_of_their_own(scene: Scene) -> None:
    both = [scene.start(PartNames("rows", "part.txt", number, 2)) for number in (1, 2)]
    for parts in (*both, *both):
        scene.log(parts)
    for parts in both:
        parts.close()
    assert scene.parts() == {"part-1-000001.txt": ids(1, 3), "part-2-000001.txt": ids(2, 4)}


def test_the_first_process_finishes_what_others_left_that_are_no_more(scene: Scene) -> None:
    for number in (1, 2, 3):
        parts = scene.start(PartNames("rows", "part.txt", number, 3))
        scene.log(parts)
        scene.kill(parts)
    second = scene.start(PartNames("rows", "part.txt", 2, 2))
    assert set(scene.parts()) == {"part-2-000001.txt"}
    first = scene.start(PartNames("rows", "part.txt", 1, 2))
    assert scene.parts()["part-3-000001.txt"] == ids(3)
    put(first, 3)
    first.close()
    second.close()
    scene.start()
    assert scene.parts() == {f"part-{n}-000001.txt": ids(n) for n in (1, 2, 3)}
    assert scene.hidden() == [".part.txt.journal"]


def test_two_loggers_of_one_folder_are_told_apart(
    scene: Scene, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(locked_file, "LOCK_S", 0.0)
    scene.start()
    with pytest.raises(BlockingIOError, match=r"another `options: \{folder: ...\}`"):
        scene.start()
    scene.start(PartNames("rows", "other.txt"))


def test_leftovers_of_dead_processes_are_removed(scene: Scene) -> None:
    (scene.root / "rows").mkdir()
    (scene.root / "rows" / ".part-000001.txt.tmp-4999999").write_text("half")
    scene.start()
    assert scene.hidden() == [".part.txt.journal"]


def test_a_folder_that_is_a_symlink_is_refused(scene: Scene) -> None:
    (scene.root / "rows").symlink_to(scene.root)
    with pytest.raises(OSError, match=r"Not a directory|symbolic"):
        scene.start()


def recorded(scene: Scene, names: PartNames = NAMES) -> Counter[str]:
    return recorded_ids(str(scene.root), names, read_lines)


def test_recorded_is_what_is_in_parts_and_in_the_journal(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert recorded(scene) == {}
    assert not (scene.root / "rows").exists(), "nothing is changed"
    parts = scene.start(bounds=Bounds(rows=2, size=10**9, age_s=3600))
    scene.log(parts, 2)
    scene.log(parts)
    assert recorded(scene) == Counter(ids(1, 2, 3))
    assert parts._journal is not None
    monkeypatch.setattr(parts._journal, "begin", lambda *_: None)
    scene.log(parts)  # The journal of the second part is still there.
    assert recorded(scene) == Counter(ids(1, 2, 3, 4))
    assert recorded(scene, PartNames("rows", "part-2.txt")) == {}


def test_recorded_is_asked_for_each_process_by_the_name_of_its_file(scene: Scene) -> None:
    for number in (1, 2):
        parts = scene.start(PartNames("rows", "part.txt", number, 2))
        scene.log(parts, 2)
        parts.close()
    assert recorded(scene, PartNames("rows", "part-2.txt")) == Counter(ids(3, 4))


def test_the_last_part_is_that_of_the_highest_number(scene: Scene) -> None:
    assert last_part(str(scene.root), NAMES) is None
    parts = scene.start(bounds=Bounds(rows=1, size=10**9, age_s=3600))
    assert last_part(str(scene.root), NAMES) is None
    scene.log(parts)
    scene.log(parts)
    assert last_part(str(scene.root), NAMES) == scene.root / "rows" / "part-000002.txt"


def test_a_part_is_on_the_disk_before_its_journal_goes(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = []
    for name in ("fsync", "replace"):
        real = getattr(os, name)
        monkeypatch.setattr(
            os, name, lambda *a, _name=name, _real=real, **k: (done.append(_name), _real(*a, **k))
        )
    parts = scene.start()
    scene.log(parts)
    done.clear()
    parts.close()
    assert done == ["fsync", "replace", "replace"]
