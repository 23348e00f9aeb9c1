"""millpond: each render result once in shared memory, every logger fed, none waited for.

The renderer's side is here: `connect` gives a `Pond`.  Importing this needs numpy and the standard
library only, and numpy not before `connect` is touched.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from millpond.client import Pond, Slot, connect
    from millpond.errors import (
        ChannelsRefused,
        DaemonUnreachable,
        InvalidResult,
        MillpondError,
        PondFull,
    )

__all__ = [
    "ChannelsRefused",
    "DaemonUnreachable",
    "InvalidResult",
    "MillpondError",
    "Pond",
    "PondFull",
    "Slot",
    "__version__",
    "connect",
]


def __getattr__(name: str) -> Any:
    """Import what is asked for, and nothing before."""
    if name not in __all__:
        raise AttributeError(f"module 'millpond' has no attribute {name!r}")
    home = "millpond.client" if name in {"connect", "Pond", "Slot"} else "millpond.errors"
    return getattr(import_module(home), name)
