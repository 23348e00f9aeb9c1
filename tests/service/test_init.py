"""`import millpond` costs nothing, and a renderer needs numpy and the standard library only."""

import subprocess
import sys

import pytest

import millpond

# Before anything else is imported: whatever is not numpy, millpond or Python's own cannot be.
BLOCK = """
import sys

class Blocker:
    def find_spec(self, name, path=None, target=None):
        top = name.partition(".")[0]
        if top not in sys.stdlib_module_names | {"numpy", "millpond"}:
            raise ModuleNotFoundError(f"{name} is blocked", name=name)

sys.meta_path.insert(0, Blocker())
"""
RENDERER = """
import millpond

assert "numpy" not in sys.modules
assert "millpond.errors" not in sys.modules
assert issubclass(millpond.InvalidResult, ValueError)
assert "numpy" not in sys.modules
assert callable(millpond.connect)
assert "numpy" in sys.modules

import os
import numpy
import millpond.client
from millpond.client_values import channels_of, encode_job, write_value
from millpond.core.layout import plan
from millpond.mapped_arrays import map_arrays

# What a renderer does, as far as it goes without a daemon.
channels = channels_of({"rgb": ((2, 2), "float32")})
layout = plan(channels, 2)
fd = os.memfd_create("segment")
os.truncate(fd, layout.segment_bytes)
array = map_arrays(layout, fd, writable=True)["rgb"]
write_value(array, 1, channels[0], numpy.ones((2, 2), "float32"))
encode_job("a", {"zoom": 1.5}, None)
try:
    millpond.connect("nowhere.sock", {"rgb": ((2, 2), "float32")}, claim_timeout_s=0)
except millpond.DaemonUnreachable as error:
    print(error)
"""


def run(*arguments: str, **options) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        **options,
    )


def test_the_block_blocks() -> None:
    child = run("-c", f"{BLOCK}\nimport msgspec")
    assert "msgspec is blocked" in child.stderr


def test_a_renderer_needs_numpy_and_the_standard_library_only(tmp_path) -> None:
    child = run("-c", BLOCK + RENDERER, cwd=tmp_path)
    assert child.stderr == ""
    assert child.stdout.startswith("nowhere.sock: no daemon answers")


def imported_by(*arguments: str) -> tuple[str, set[str]]:
    """What a command prints, and the packages that it imported."""
    child = run("-X", "importtime", *arguments)
    assert child.returncode == 0, child.stderr
    lines = [line for line in child.stderr.splitlines() if line.startswith("import time:")]
    names = {line.rpartition("|")[2].strip() for line in lines}
    assert "millpond" in names
    return child.stdout, {name.partition(".")[0] for name in names}


def test_the_version_is_told_without_importing_anything() -> None:
    text, packages = imported_by("-m", "millpond", "--version")
    assert text == f"millpond {millpond.__version__}\n"
    assert not packages & {"numpy", "typer", "rich", "pydantic", "structlog", "msgspec", "aiohttp"}


def test_importing_the_package_imports_nothing_else() -> None:
    _, packages = imported_by("-c", "import millpond")
    assert not packages & {"numpy", "typer", "rich", "pydantic", "structlog", "msgspec", "aiohttp"}


def test_every_public_name_is_there() -> None:
    assert len(set(millpond.__all__)) == len(millpond.__all__)
    for name in millpond.__all__:
        assert getattr(millpond, name) is not None


@pytest.mark.parametrize("name", ["Connect", "daemon_", "__wrapped__"])
def test_another_name_is_an_attribute_error(name) -> None:
    with pytest.raises(AttributeError, match=f"module 'millpond' has no attribute '{name}'"):
        getattr(millpond, name)
