"""What the last start of the daemon left in the ledger, for the start that comes now."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from millpond.core.ranges import ResultRanges
from millpond.ledger_reader import Start, lines_path, numbers, read_ids, read_start
from millpond.run_folder import spill_folders


class Unaccounted(NamedTuple):
    """A result without an outcome; its id is None if no line of this file tells it."""

    renderer: int
    sequence: int
    id: str | None


class Previous:
    """What the last start of the daemon left.

    Attributes:
        number: Which start it was; 0: there was none.
        renderer_last: The largest number of a renderer so far; 0 if there was none.
        is_closed: It came to an orderly end; true if there was none.
        is_whole: There was one, and all that it said can be read.
        logger_names: To whom results were owed.
        channels: As `core.layout.channels_to_json` has them; None if they are not known.
        renderer_last_before: The largest number of a renderer when it began.
        output_dir: The run folder as it was called then; None if it is not known.
        spill: Where the spills of its loggers were; None if it is not known.
        delivered: By logger; what needs not be delivered again.
        problems: What is wrong with the ledger, for people.
    """

    def __init__(
        self, run: Path, start: Start | None, problems: Sequence[str], *, is_whole: bool = False
    ) -> None:
        self._run = run
        self._start = start if start is not None else Start(0, is_closed=True)
        self.number = self._start.number
        self.renderer_last = self._start.renderer_last
        self.is_closed = self._start.is_closed
        self.is_whole = is_whole
        self.logger_names = list({**dict.fromkeys(self._start.logger_names), **self._start.pending})
        self.channels = self._start.channels
        before = self._start.first.get("renderer_last")
        self.renderer_last_before = before if isinstance(before, int) else 0
        output_dir = self._start.first.get("output_dir")
        self.output_dir = Path(output_dir) if isinstance(output_dir, str) else None
        spill = self._start.first.get("spill")
        self.spill = Path(spill) if isinstance(spill, str) else None
        self.delivered = self._start.delivered
        self.problems = [*problems, *self._start.problems]

    @classmethod
    def read(cls, run: Path, logger_names: Sequence[str]) -> Previous:
        """Read the last start that has a line.

        Args:
            run: The run folder.
            logger_names: Whose results they are, if that cannot be read.
        """
        problems: list[str] = []
        renderer_last = 0
        is_whole = True
        for number in reversed(numbers(run)):
            start = read_start(run, number, logger_names)
            renderer_last = max(renderer_last, start.renderer_last)
            is_whole = is_whole and not start.problems
            if not start.is_empty:
                previous = cls(run, start, problems, is_whole=is_whole)
                if not start.first:
                    # Its numbers continue those of a start whose lines can be read.
                    older = [read_start(run, other) for other in numbers(run) if other < number]
                    previous.renderer_last = max(
                        [renderer_last, *(other.renderer_last for other in older)]
                    )
                return previous
            problems += start.problems
            problems.append(f"{lines_path(run, number).name} has no line: that start failed")
        return cls(run, None, problems)

    def owed(self, logger: str) -> ResultRanges:
        """All results that the last start had to bring to a logger, whatever became of them."""
        return self._start.owed(logger)

    def spill_left(self, output_dir: Path, spill: Path) -> Path | None:
        """Where results of this run wait that a start would not find; None: nowhere.

        Args:
            output_dir: The run folder as it is called now.
            spill: Where this start looks for them.
        """
        is_moved = self.output_dir != output_dir  # The spill has come along.
        if is_moved or self.spill is None or self.spill == spill or not spill_folders(self.spill):
            return None
        return self.spill

    def settled(
        self, logger: str, dead: Container[tuple[int, int]]
    ) -> Callable[[tuple[int, int]], bool]:
        """Tells whether a result that is in a spill has its outcome: segments go as a whole.

        Args:
            logger: Its name.
            dead: (renderer, sequence) of those in its list of the dead.
        """
        delivered, owed = self.delivered.get(logger, ResultRanges()), self.owed(logger)
        # What the last start owed to nobody had its outcome before, if its ledger is whole; but a
        # loss of power may have cost it lines of its own renderers.
        known = self.renderer_last_before if self.is_whole else 0
        return lambda key: key in dead or key in delivered or (key[0] <= known and key not in owed)

    def unaccounted(
        self,
        logger: str,
        dead: Iterable[tuple[int, int]],
        spilled: Iterable[tuple[int, int]],
    ) -> list[Unaccounted]:
        """The results that are owed to a logger, and have no outcome and no record.

        Args:
            logger: Its name.
            dead: (renderer, sequence) of those in its list of the dead.
            spilled: Of those that are on the disk for it now.
        """
        known = ResultRanges(dead).union(
            ResultRanges(spilled), self.delivered.get(logger, ResultRanges())
        )
        left = self.owed(logger).difference(known)
        ids = read_ids(self._run, self._start, left)
        return [Unaccounted(*key, ids.get(key)) for key in left]
