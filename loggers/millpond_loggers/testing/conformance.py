"""The suite that every logger should pass: a pytest class to derive from.

::

    class TestMine(LoggerConformance):
        module = "my_logger.py"

        def read_ids(self, root):
            return (root / "mine.txt").read_text().split()

Each test gives the logger results as the daemon does, then reads the files back with `read_ids`.
"""

from __future__ import annotations

import inspect
import shutil
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, ClassVar, Final

import pytest

from millpond.client_values import channels_of
from millpond.core.layout import Channel, channels_to_json
from millpond_loggers.audit import compare
from millpond_loggers.testing import scene
from millpond_loggers.testing.faults import HOW
from millpond_loggers.testing.found import difference
from millpond_loggers.testing.loading import find_logger, load_once
from millpond_loggers.testing.points import POINTS, REPEATED
from millpond_loggers.testing.pond import MemoryPond, Result
from millpond_loggers.testing.torn import torn_copies
from millpond_loggers.testing.victim import SLOT_COUNT
from millpond_loggers.testing.victims import Outcome, victims_of

CHANNELS: Final[Mapping[str, Any]] = {
    "rgb": ((3, 8, 8), "float32"),
    "segmentation": ((1, 8, 8), "int32"),
    "loss": ((), "float32"),
    "is_correct": ((), "bool"),
}
# In the tests with processes that are killed: three rounds of the batches.
CRASH_RESULTS: Final = 24
# Of the operations on files, so many are tried, evenly spread.
OPERATIONS_MAX: Final = 30
BATCH: Final = 32


class LoggerConformance:
    """What every logger should do, test by test.

    Attributes:
        module: The logger's module: a dotted name, or the path of a file beside the test or in
            the current folder.
        options: Its ``options:``.
        config: The rest of the experiment file.
        channels: The channels of the results.
        is_ordered: Whether `read_ids` gives the order of delivery.
        is_exactly_once: Whether a result that comes again is recorded once.  It must always be
            recorded at least once.
        is_split: Whether several processes of it may write to the same folder.
        result_count: How many results the large test has.
    """

    module: ClassVar[str] = ""
    options: ClassVar[Mapping[str, Any]] = {}
    config: ClassVar[Mapping[str, Any]] = {}
    channels: ClassVar[Mapping[str, Any]] = CHANNELS
    is_ordered: ClassVar[bool] = True
    is_exactly_once: ClassVar[bool] = True
    is_split: ClassVar[bool] = False
    result_count: ClassVar[int] = 10_000

    # What an author writes.

    def read_ids(self, root: Path) -> Iterable[str]:
        """The id of every result that is recorded in the folder, with the format's own reader."""
        raise NotImplementedError(f"{type(self).__name__} has no read_ids(self, root)")

    def written_id(self, id: str) -> str:
        """What `read_ids` gives for an id, if it is not the id itself."""
        return id

    @staticmethod
    def id_of(number: int) -> str:
        """The id of a result by its number, which is also the value of its scalar channels."""
        return scene.id_of(number)

    # The tests: what is recorded.

    def test_results_are_recorded(self, tmp_path: Path) -> None:
        """Alone and in batches, with arguments that change on the way."""
        pond = self._pond(tmp_path)
        pond.start(self._load())
        for size in (1, 5, 1, 9):
            pond.deliver(self._results(pond, size))
        pond.end()
        self._check(tmp_path, pond.released)

    def test_an_empty_run_leaves_no_broken_file(self, tmp_path: Path) -> None:
        """Nothing comes; then, in a second run, something does."""
        pond = self._pond(tmp_path)
        pond.start(self._load())
        pond.end()
        self._check(tmp_path, [])
        pond.start(self._load())
        pond.deliver(self._results(pond, 3))
        pond.end()
        self._check(tmp_path, pond.released)

    def test_many_results(self, tmp_path: Path) -> None:
        """10,000 of them, unless `result_count` says otherwise."""
        pond = self._pond(tmp_path)
        pond.start(self._load())
        for start in range(0, self.result_count, BATCH):
            pond.deliver(self._results(pond, min(BATCH, self.result_count - start)))
        pond.end()
        self._check(tmp_path, pond.released)

    def test_odd_ids(self, tmp_path: Path) -> None:
        """Paths, options, quotes, 300 characters, emoji: each is recorded, and nothing else is."""
        root = tmp_path / "outer" / "root"
        pond = self._pond(root)
        pond.start(self._load())
        for number, id in enumerate(scene.ODD_IDS, 1):
            pond.log(id, {"zoom": 1}, **scene.arrays_of(self._channels(), number))
        pond.end()
        self._check(root, pond.released)
        outside = {path for path in tmp_path.rglob("*") if root not in path.parents}
        assert outside == {root, root.parent}, "an id led out of the folder"

    def test_nan_and_the_infinities(self, tmp_path: Path) -> None:
        """In every channel that can hold them."""
        pond = self._pond(tmp_path)
        pond.start(self._load())
        for number, value in enumerate(scene.ODD_NUMBERS, 1):
            arrays = scene.odd_arrays_of(self._channels(), value)
            pond.log(self.id_of(number), {"zoom": number}, **arrays)
        pond.end()
        self._check(tmp_path, pond.released, is_ordered=False)

    def test_odd_render_arguments(self, tmp_path: Path) -> None:
        """None, lists, texts with quotes and newlines, names that are taken, types that change."""
        pond = self._pond(tmp_path)
        pond.start(self._load())
        for number, arguments in enumerate(scene.ODD_ARGUMENTS, 1):
            arrays = scene.arrays_of(self._channels(), number)
            pond.log(self.id_of(number), arguments, fields={"model": "cup"}, **arrays)
        pond.end()
        self._check(tmp_path, pond.released)

    def test_what_is_recorded_is_what_verify_looks_for(self, tmp_path: Path) -> None:
        """For a logger with ``recorded`` or ``is_recorded``, which ``millpond verify`` asks."""
        pond = self._pond(tmp_path)
        pond.start(self._load())
        pond.deliver(self._results(pond, 5))
        pond.end()
        kind, place = self._place()
        logger = {
            "root_dir": str(tmp_path),
            "kind": kind,
            "place": place,
            "options": dict(self.options),
            "channels": channels_to_json(self._channels()),
        }
        findings = compare(logger, {result.id: (1, 0) for result in pond.released})
        if findings.not_checked:
            pytest.skip(findings.not_checked)
        assert (findings.expected, findings.missing, findings.extra) == (5, {}, {})

    # The tests: what comes again.

    def test_it_goes_on_where_it_ended(self, tmp_path: Path) -> None:
        """Each run adds to the files of the one before."""
        pond = self._pond(tmp_path)
        for _ in range(3):
            pond.start(self._load())
            pond.deliver(self._results(pond, 4))
            pond.end()
        self._check(tmp_path, pond.released)

    def test_what_is_released_survives_without_an_end(self, tmp_path: Path) -> None:
        """It is in the file when `flush` returns: the process may die at any moment after that."""
        pond = self._pond(tmp_path)
        pond.start(self._load())
        for size in (1, 4, 2):
            pond.deliver(self._results(pond, size))
            pond.restart(self._load())
            pond.redeliver()  # What it kept.
        pond.end()
        self._check(tmp_path, pond.released)

    def test_a_result_that_comes_again_is_recorded(self, tmp_path: Path) -> None:
        """The daemon died before it knew that they are released; once, if `is_exactly_once`."""
        pond = self._pond(tmp_path)
        pond.start(self._load())
        results = self._results(pond, 6)
        pond.deliver(results)
        pond.restart(self._load())
        pond.deliver(results[2:])
        pond.end()
        pond.start(self._load())
        pond.deliver(results[4:])
        pond.end()
        self._check(tmp_path, results)

    @pytest.mark.parametrize("point", ["before_log", "after_log", "before_flush", "after_flush"])
    def test_an_error_on_the_way(self, tmp_path: Path, point: str) -> None:
        """The result is told as not recorded, and comes again; the others are recorded."""
        reached = []

        def watch(name: str) -> None:
            if name == point:
                reached.append(name)
                if len(reached) == 2:
                    raise OSError("made by the test")

        pond = self._pond(tmp_path)
        pond.start(self._load(), watch=watch)
        results = self._results(pond, 9)
        for batch in (results[:3], results[3:8], results[8:]):
            with suppress(OSError):
                pond.deliver(batch)
            pond.redeliver()
        pond.end()
        if len(reached) < 2:
            pytest.skip(f"{point} is never reached")
        self._check(tmp_path, results, is_ordered=False)

    def test_two_processes_beside_each_other(self, tmp_path: Path) -> None:
        """``instances: 2``: each has files of its own."""
        if not self.is_split:
            pytest.skip("is_split is off")
        ponds = [self._pond(tmp_path, instance=number, instances=2) for number in (1, 2)]
        for pond in ponds:
            pond.start(self._load())
        for first in (1, 4, 7):
            for offset, pond in enumerate(ponds):
                pond.deliver(self._results(pond, 3, first=2 * first + 3 * offset))
        for pond in ponds:
            pond.end()
        released = [result for pond in ponds for result in pond.released]
        self._check(tmp_path, released, is_ordered=False)

    # The tests: processes that are killed.

    @pytest.mark.parametrize(
        ("point", "occurrence"), [*((point, 1) for point in POINTS), *((p, 3) for p in REPEATED)]
    )
    def test_killed_at(self, tmp_path: Path, point: str, occurrence: int) -> None:
        """SIGKILL at this point; the next process is given what was not released."""
        killed = self._run(tmp_path, point=point, at=occurrence)
        if not killed.is_killed:
            pytest.skip(f"{point} is not reached {occurrence} times")
        self._finish(tmp_path)

    @pytest.mark.parametrize("how", HOW)
    def test_at_each_operation_on_files(self, tmp_path: Path, how: str) -> None:
        """As far as they are Python's: open, write, rename, remove, sync ..."""
        count = self._run(tmp_path / "counted").operations
        steps = range(1, count + 1)
        if count > OPERATIONS_MAX:
            steps = range(1, count + 1, -(-count // OPERATIONS_MAX))
        for step in steps:
            folder = tmp_path / str(step)
            self._run(folder, operation=step, how=how)
            with _told(f"{how} operation {step} of {count}"):
                # What fails comes again when others have gone ahead.
                self._finish(folder, is_ordered=how != "failing")
            shutil.rmtree(folder)

    def test_torn_files(self, tmp_path: Path) -> None:
        """A file that grows has half a record at its end: nothing else is lost, and it goes on."""
        pond = self._pond(tmp_path / "after")
        pond.start(self._load())
        pond.deliver(self._results(pond, 4))
        shutil.copytree(pond.root_dir, tmp_path / "before")
        pond.deliver(self._results(pond, 1))
        released = list(pond.released)
        shutil.copytree(pond.root_dir, tmp_path / "torn")
        pond.end()
        count = 0
        copies = torn_copies(tmp_path / "before", tmp_path / "torn", tmp_path / "copies")
        for what, is_lost, folder in copies:
            count += 1
            later = self._pond(folder)
            with _told(what):
                later.start(self._load())
                later.deliver(self._results(later, 3, first=len(released) + 1))
                later.end()
                optional = released[-1:] if is_lost else []
                self._check(folder, [*released, *later.released], optional=optional)
        if not count:
            pytest.skip("no file of this logger grows")

    # How.

    def _place(self) -> tuple[str, str]:
        module, name = self.module, type(self).__name__
        assert module, f'{name} needs module = "my_logger.py", or a dotted name'
        return find_logger(module, Path(inspect.getfile(type(self))).parent)

    def _load(self) -> Any:
        return load_once(*self._place())

    def _channels(self) -> tuple[Channel, ...]:
        return channels_of(self.channels)

    def _pond(self, root: Path, *, instance: int = 1, instances: int = 1) -> MemoryPond:
        return MemoryPond(
            root,
            self.channels,
            slots=SLOT_COUNT,
            options=self.options,
            config=self.config,
            instance=instance,
            instances=instances,
        )

    def _results(self, pond: MemoryPond, count: int, *, first: int | None = None) -> list[Result]:
        """The next results of a pond, by number."""
        if first is None:
            first = pond.result_count + 1
        return [
            pond.result(
                self.id_of(number),
                scene.arguments_of(number),
                fields={"model": "cup"},
                **scene.arrays_of(self._channels(), number),
            )
            for number in range(first, first + count)
        ]

    def _run(self, folder: Path, **fault: Any) -> Outcome:
        case = {
            "root_dir": str(folder / "root"),
            "books": str(folder / "books"),
            "channels": channels_to_json(self._channels()),
            "options": dict(self.options),
            "config": dict(self.config),
            "count": CRASH_RESULTS,
            **fault,
        }
        folder.mkdir(exist_ok=True)
        return victims_of(*self._place()).run(case)

    def _finish(self, folder: Path, *, is_ordered: bool = True) -> None:
        """Deliver what was not released, and look at all of it."""
        outcome = self._run(folder)
        assert not outcome.problem, f"the next process cannot go on:\n{outcome.problem}"
        ids = [self.id_of(number) for number in range(1, CRASH_RESULTS + 1)]
        self._check_ids(folder / "root", ids, is_ordered=is_ordered)

    def _check(
        self,
        root: Path,
        results: Sequence[Result],
        *,
        optional: Sequence[Result] = (),
        is_ordered: bool = True,
    ) -> None:
        ids = [result.id for result in results]
        self._check_ids(
            root, ids, optional={result.id for result in optional}, is_ordered=is_ordered
        )

    def _check_ids(
        self,
        root: Path,
        ids: Sequence[str],
        *,
        optional: Collection[str] = (),
        is_ordered: bool = True,
    ) -> None:
        problem = difference(
            list(self.read_ids(root)),
            [self.written_id(id) for id in ids],
            optional={self.written_id(id) for id in optional},
            is_ordered=self.is_ordered and is_ordered,
            is_exactly_once=self.is_exactly_once,
        )
        if problem:
            raise AssertionError(problem)


@contextmanager
def _told(what: str) -> Iterator[None]:
    """Say in what case it was that something went wrong."""
    try:
        yield
    except Exception as error:
        error.add_note(what)
        raise
