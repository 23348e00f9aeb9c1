"""Measure what the ledger costs the event loop: one `published` and one `delivered` a batch.

``.venv/bin/python benchmarks/ledger.py [FOLDER]``; the folder is where the file is written.
Between the batches `prepare` and `sync` are called as the daemon does, and timed apart.
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

from millpond.core.deliveries import Result
from millpond.ledger import Ledger
from millpond.ledger_previous import Previous

BATCHES = (1, 8, 32)
RESULT_COUNT = 200_000
SYNC_EVERY_S = 0.25


def measure(folder: Path, batch: int) -> None:
    run = folder / f"batch-{batch}"
    run.mkdir()
    logger = {"name": "csv", "kind": "module", "place": "millpond_loggers.csv_logger"}
    ledger = Ledger(run, [{**logger, "options": {}}])
    ledger.begin({})
    ledger.renderer_joined(1, 1)
    results = [Result(0, n, 1, n, f"{n:06}", b"") for n in range(1, RESULT_COUNT + 1)]
    batches = [results[at : at + batch] for at in range(0, RESULT_COUNT, batch)]
    published_s = delivered_s = prepared_s = synced_s = 0.0
    clock = time.perf_counter
    told_s = clock()
    for part in batches:
        start_s = clock()
        ledger.published(part)
        middle_s = clock()
        ledger.delivered(0, part)
        end_s = clock()
        published_s += middle_s - start_s
        delivered_s += end_s - middle_s
        if end_s - told_s > SYNC_EVERY_S / 10:  # The loop does nothing else, so more often.
            ledger.prepare()
            prepared_s += clock() - end_s
            middle_s = clock()
            ledger.sync()
            synced_s += clock() - middle_s
            told_s = clock()
    ledger.close()
    start_s = clock()
    previous = Previous.read(run, ["csv"])
    left = previous.unaccounted("csv", [], [])
    read_s = clock() - start_s
    count = len(batches)
    print(
        f"{batch:5} {published_s / count * 1e6:10.2f} {delivered_s / count * 1e6:10.2f} "
        f"{(published_s + delivered_s) / RESULT_COUNT * 1e6:10.3f} {prepared_s * 1e3:10.2f} "
        f"{synced_s * 1e3:10.2f} {read_s * 1e6 / RESULT_COUNT:10.2f}"
    )
    assert not left, left[:3]


def main() -> None:
    print("batch  published  delivered       both   prepare       sync       read")
    print("        us/batch   us/batch  us/result    ms all     ms all  us/result")
    with tempfile.TemporaryDirectory(dir=sys.argv[1] if sys.argv[1:] else None) as folder:
        for batch in BATCHES:
            measure(Path(folder), batch)


if __name__ == "__main__":
    main()
