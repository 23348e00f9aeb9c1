"""`make demo`: a daemon with three loggers, a renderer beside it, and where the files are."""

import csv
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Final

from millpond.health_client import fetch_status

RESULT_COUNT: Final = 200
EXAMPLES: Final = Path(__file__).parent
RUN: Final = Path("runs/demo")
RENDERER_S_MAX: Final = 300
FIRST: Final = "000000"


def main() -> int:
    """Run it; 0 when every logger has recorded every result."""
    started_s = time.monotonic()
    if _is_running():
        print(f"a daemon is running in {RUN}: stop it, then try again")
        return 75
    shutil.rmtree(RUN, ignore_errors=True)  # What an earlier demo has left.
    daemon = subprocess.Popen(
        [sys.executable, "-m", "millpond", "run", EXAMPLES / "demo.yaml", "--exit-when-done"]
    )
    try:
        subprocess.run(
            [
                sys.executable,
                EXAMPLES / "demo_renderer.py",
                RUN / "millpond.sock",
                f"--count={RESULT_COUNT}",
                f"--keep={RUN / 'kept'}",
            ],
            check=True,
            timeout=RENDERER_S_MAX,
        )
        code = daemon.wait(RENDERER_S_MAX)
    finally:
        daemon.terminate()
        daemon.wait()
    print(f"\nIn {time.monotonic() - started_s:.0f} s, in {RUN.resolve()}:")
    code = code or _count_files()
    print(f"\nOpen {RUN}/images/{FIRST}_rgb.png first, then {FIRST}_segmentation.png beside it.")
    return code


def _is_running() -> bool:
    try:
        fetch_status(RUN / "health.sock")
    except OSError:
        return False
    return True


def _count_files() -> int:
    with (RUN / "details.csv").open(newline="") as file:
        rows = sum(1 for _ in csv.DictReader(file))
    counts = {
        "details.csv": (rows, "rows"),
        "details.log": (len((RUN / "details.log").read_text().splitlines()), "JSON lines"),
    }
    for channel in ("rgb", "segmentation", "depth"):
        pattern = f"*_{channel}.*"
        count = len(list((RUN / "images").glob(pattern)))
        counts[f"images/{pattern}"] = (count, "files")
    for name, (count, what) in counts.items():
        print(f"  {name:24} {count} {what}")
    return 0 if all(count == RESULT_COUNT for count, _ in counts.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
