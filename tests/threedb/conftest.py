"""These tests run 3DB itself.  `make threedb` installs what they need; else they are skipped."""

from __future__ import annotations

import os
from importlib.util import find_spec
from pathlib import Path

import pytest

HERE = Path(__file__).parent
NEEDED = ("threedb.utils", "torch", "zmq", "cv2", "typeguard", "tqdm")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    # This folder itself would pass for a package "threedb" without anything in it.
    missing = [name for name in NEEDED if find_spec(name) is None]
    if missing:
        skip = pytest.mark.skip(reason=f"not installed here: {', '.join(missing)}; make threedb")
        for item in items:
            if HERE in item.path.parents:
                item.add_marker(skip)


@pytest.fixture(autouse=True)
def _with_plugins(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is started finds the plugins, and a torchvision if there is none."""
    folders = [str(HERE / "plugins")]
    if find_spec("torchvision") is None:
        folders.append(str(HERE / "stand_ins"))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(folders))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.delenv("MILLPOND_SOCKET", raising=False)
