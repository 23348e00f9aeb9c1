"""3DB's main runs with our two classes in the place of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

FILES = {
    "__init__.py": "",
    "utils.py": "import os; threads = os.environ['OMP_NUM_THREADS']\nclass CyclicBuffer: pass",
    "result_logging/__init__.py": "",
    "result_logging/logger_manager.py": "class LoggerManager: pass",
    "main.py": """
import sys
from threedb.result_logging.logger_manager import LoggerManager
from threedb.utils import CyclicBuffer, threads
if __name__ == '__main__':
    print(LoggerManager.__module__, CyclicBuffer.__module__, threads, *sys.argv[1:])
""",
}


def test_the_two_imports_are_replaced_and_the_arguments_passed_on(tmp_path: Path) -> None:
    for name, text in FILES.items():
        path = tmp_path / "threedb" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    told = subprocess.run(
        [sys.executable, "-m", "millpond.compat.threedb_main", "root", "config.yaml", "out"],
        env={**os.environ, "PYTHONPATH": str(tmp_path), "OMP_NUM_THREADS": "7"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert told.stdout.split() == [
        "millpond.compat.appended_loggers",
        "millpond.compat.cyclic_buffer",
        "1",
        "root",
        "config.yaml",
        "out",
    ]
