"""3DB's own ``main``, with its two imports replaced: nothing of 3DB need be edited.

``python -m millpond.compat.threedb_main`` takes the arguments of ``python -m threedb.main``.
"""

from __future__ import annotations

import os
import runpy
from importlib import import_module
from typing import Final

from millpond.compat.threedb import CyclicBuffer, LoggerManager

# As 3DB's `main` has it, which is too late here: a process that has used torch with several
# threads must not fork.
THREAD_VARIABLES: Final = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
    "NUMEXPR_NUM_THREADS",
)


def main() -> None:
    """Run it."""
    os.environ.update(dict.fromkeys(THREAD_VARIABLES, "1"))
    replaced = {
        "threedb.utils": CyclicBuffer,
        "threedb.result_logging.logger_manager": LoggerManager,
    }
    for module, ours in replaced.items():
        setattr(import_module(module), ours.__name__, ours)
    runpy.run_module("threedb.main", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
