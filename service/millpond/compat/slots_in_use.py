"""Which results a scheduler still works with, and what each of them waits for.

A slot is published when its result was logged and everybody here has freed it: until then it
belongs to the renderer, so nothing of this is the daemon's affair.  Nothing here does anything.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

ALL: Final = -1  # Frees a result for everybody.


@dataclass(slots=True)
class Use:
    """One use of a slot.

    Attributes:
        slot: Its number.
        generation: Which use of the slot it is.
        holders: The registrations that have not freed it.
        job: The id and the JSON body to publish it with; None as long as it was not logged.
    """

    slot: int
    generation: int
    holders: set[int]
    job: tuple[str, bytes] | None = None


class SlotsInUse:
    """The slots that were claimed and neither published nor given back."""

    def __init__(self) -> None:
        self._uses: dict[int, Use] = {}

    def __len__(self) -> int:
        """How many there are."""
        return len(self._uses)

    def begin(self, slot: int, generation: int, holders: Iterable[int]) -> None:
        """A slot was claimed, for a result that these registrations will free."""
        self._uses[slot] = Use(slot, generation, set(holders))

    def log(self, slot: int, job: tuple[str, bytes]) -> Use | None:
        """A result was logged.

        Returns:
            The use, if nothing more is waited for: it is to be published.

        Raises:
            LookupError: There is no such result, or it was logged before.
        """
        use = self._uses.get(slot)
        if use is None:
            raise LookupError(
                f"result {job[0]!r} cannot be logged: result_ix {slot} is free; it was freed with "
                "-1, or was recorded already"
            )
        if use.job is not None:
            raise LookupError(
                f"result {job[0]!r} cannot be logged: result_ix {slot} is result "
                f"{use.job[0]!r}, which was logged already"
            )
        use.job = job
        return self._take_if_done(use)

    def free(self, slot: int, registration: int) -> Use | None:
        """A registration is done with a result; freeing it twice, or what is free, does nothing.

        Args:
            slot: Which result.
            registration: Who is done; `ALL`: everybody, and it shall not be recorded.

        Returns:
            The use, if nothing more is waited for: it is to be published, or given back when it
            has no job.
        """
        use = self._uses.get(slot)
        if use is None:
            return None
        if registration == ALL:
            use.job = None
            return self._uses.pop(slot)
        use.holders.discard(registration)
        return self._take_if_done(use)

    def end(self) -> list[Use]:
        """Nobody comes any more: all that are left; those without a job are to be given back."""
        left = list(self._uses.values())
        self._uses.clear()
        return left

    def __str__(self) -> str:
        """What they wait for, for people."""
        unlogged = sum(use.job is None for use in self._uses.values())
        unfreed = Counter(holder for use in self._uses.values() for holder in use.holders)
        waits = [f"{unlogged} to be logged"] if unlogged else []
        waits += [
            f"{count} to be freed by registration {holder}"
            for holder, count in sorted(unfreed.items())
        ]
        return f"of {len(self)} results in use by this process, {', '.join(waits) or 'all done'}"

    def _take_if_done(self, use: Use) -> Use | None:
        if use.holders or use.job is None:
            return None
        return self._uses.pop(use.slot)
