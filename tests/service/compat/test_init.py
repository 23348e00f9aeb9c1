"""The stand-ins are for a renderer's side, which has numpy and the standard library only."""

from __future__ import annotations

import subprocess
import sys

CODE = """
import sys
class Nothing:
    def find_spec(self, name, path=None, target=None):
        top = name.partition(".")[0]
        if top not in sys.stdlib_module_names and top not in ("millpond", "numpy"):
            raise ImportError(name)
sys.meta_path.insert(0, Nothing())
import millpond.compat.threedb
assert "multiprocessing" not in sys.modules
"""


def test_importing_them_needs_numpy_and_the_standard_library_only() -> None:
    subprocess.run([sys.executable, "-c", CODE], check=True)
