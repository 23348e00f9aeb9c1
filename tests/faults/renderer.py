"""A renderer in a process of its own, with a journal of what it meant to publish and did.

Run as a script with one argument, a JSON object; see `DEFAULTS`.  It ends when it has published
all, or when its standard input ends.  The journal has one JSON object on each line, and is on the
disk before the results that a line announces are sent::

    {"intent": ["r-0000000-well", ...]}      will be published now
    {"sent": {"r-0000000-well": [3, 1]}}     was given to the socket: renderer and sequence
    {"acked": ["r-0000000-well", ...]}       the daemon has acknowledged it
    {"waits": [0.0001, ...], "at": 12.5}     seconds in claim and publish for each; when, monotonic
    {"long": 0.2, "from": 12.1}              one of them that was long, and its beginning, monotonic
    {"trouble": "...", "after_s": 0.2}       what a call raised, and how long it took
    {"end": true}
"""

from __future__ import annotations

import json
import os
import random
import select
import sys
import time
from typing import Any

import millpond

DEFAULTS: dict[str, Any] = {
    "run": "",  # The run folder.
    "journal": "",  # The file to append to.
    "name": "r",  # Begins every id.
    "count": None,  # Results; None: until the end of the standard input.
    "think_s": 0.0,  # Between two results.
    "batch": 20,  # Results between two waits for the disk and for the acknowledgement.
    "moods": {},  # Number of a result, as text, to the last part of its id.
    "mood_rates": {},  # The same by chance: mood to probability.
    "seed": 0,
    "timeout_s": 10.0,
    "patience_s": 30.0,  # A daemon may be away so long; what was not acknowledged stays so.
}

LONG_S = 0.05


class Journal:
    """Lines that are on the disk when `write` returns."""

    def __init__(self, path: str) -> None:
        self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)

    def write(self, *lines: dict[str, Any]) -> None:
        os.write(self._fd, b"".join(json.dumps(line).encode() + b"\n" for line in lines))
        os.fsync(self._fd)


class Renderer:
    """Publishes in batches, and writes the journal."""

    def __init__(self, wanted: dict[str, Any]) -> None:
        self.wanted = {**DEFAULTS, **wanted}
        self.journal = Journal(self.wanted["journal"])
        self.chance = random.Random(f"{self.wanted['seed']}:{self.wanted['name']}")
        self.next = 0
        self.pond: Any = None
        self.notes: list[dict[str, Any]] = []  # Written with the next line that must be written.

    def run(self) -> None:
        while not self.is_over():
            ids = [self.make_id() for _ in range(self.batch_size())]
            self.journal.write(*self.notes, {"intent": ids})
            self.notes = []
            try:
                self.publish(ids)
            except millpond.MillpondError as error:
                self.notes.append({"trouble": str(error), "after_s": 0.0})
                if not self.reconnect():
                    break
        if self.pond is not None:
            self.pond.close()
        self.journal.write(*self.notes, {"end": True})

    def is_over(self) -> bool:
        count = self.wanted["count"]
        if count is not None and self.next >= count:
            return True
        return bool(select.select([sys.stdin], [], [], 0)[0])

    def batch_size(self) -> int:
        size, count = self.wanted["batch"], self.wanted["count"]
        return size if count is None else min(size, count - self.next)

    def make_id(self) -> str:
        mood = self.wanted["moods"].get(str(self.next), "well")
        for name, rate in self.wanted["mood_rates"].items():
            if self.chance.random() < rate:
                mood = name
        self.next += 1
        return f"{self.wanted['name']}-{self.next - 1:07d}-{mood}"

    def publish(self, ids: list[str]) -> None:
        waits: list[float] = []
        sent: dict[str, list[int]] = {}
        try:
            if self.pond is None:
                self.pond = millpond.connect(
                    self.wanted["run"], claim_timeout_s=self.wanted["timeout_s"]
                )
            for id in ids:
                self.publish_one(id, waits, sent)
            self.pond.flush()
            self.notes.append({"acked": ids})
        finally:
            self.notes.insert(0, {"sent": sent})
            self.notes.append({"waits": waits, "at": time.monotonic()})

    def publish_one(self, id: str, waits: list[float], sent: dict[str, list[int]]) -> None:
        number = int(id.split("-")[1])
        start_s = time.perf_counter()
        slot = self.pond.claim()
        claimed_s = time.perf_counter()
        with slot:
            slot["rgb"][...] = number % 251
            slot["loss"] = number
            slot["is_correct"] = number % 2 == 0
            written_s = time.perf_counter()
            slot.publish(id, {"loss": number})
        connection = self.pond._connection
        if connection is not None:
            sent[id] = [connection.renderer, connection.sequence]
        waits.append(time.perf_counter() - written_s + claimed_s - start_s)
        if waits[-1] > LONG_S:
            self.notes.append({"long": waits[-1], "from": start_s})
        if self.wanted["think_s"]:
            time.sleep(self.wanted["think_s"])

    def reconnect(self) -> bool:
        """Wait until a daemon answers; False when none does, or the test wants no more."""
        end_s = time.monotonic() + self.wanted["patience_s"]
        while time.monotonic() < end_s and not self.is_over():
            try:
                self.pond = millpond.connect(
                    self.wanted["run"], claim_timeout_s=self.wanted["timeout_s"]
                )
            except millpond.MillpondError:
                time.sleep(0.05)
            else:
                return True
        self.pond = None
        return False


if __name__ == "__main__":
    Renderer(json.loads(sys.argv[1])).run()
