"""The two doors to the command line, and the exit codes that they keep to."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import millpond

MODULE = [sys.executable, "-m", "millpond"]
COMMAND = [str(Path(sys.executable).with_name("millpond"))]


def run(command: list[str], *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*command, *arguments], capture_output=True, text=True, check=False, timeout=60
    )


@pytest.mark.parametrize("command", [MODULE, COMMAND], ids=["python -m millpond", "millpond"])
def test_the_version_is_told_by_both_forms(command: list[str]) -> None:
    done = run(command, "--version")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"millpond {millpond.__version__}\n"


def test_the_version_is_told_without_importing_the_rest() -> None:
    source = """
import sys
from millpond.__main__ import main
sys.argv = ["millpond", "--version"]
main()
assert not {"typer", "pydantic", "numpy", "uvloop", "aiohttp"} & set(sys.modules), sys.modules
"""
    assert run([sys.executable, "-c", source]).stderr == ""


def test_wrong_usage_is_64_and_says_what_is_right() -> None:
    for wrong in ([], ["frob"], ["status"], ["run", "a.yaml", "b.yaml"]):
        done = run(MODULE, *wrong)
        assert done.returncode == 64, wrong
        assert "Usage: " in done.stdout + done.stderr, wrong


@pytest.mark.parametrize(
    ("deed", "code"),
    [
        ("1 // 0", 70),  # A bug of ours is no lost result, which would be 1.
        ("sys.exit(1)", 1),
        ("sys.exit(0)", 0),
        ("sys.exit(75)", 75),
        ("sys.exit(2)", 64),
        ("None", 0),
    ],
)
def test_the_exit_code_says_whose_fault_it_was(deed: str, code: int) -> None:
    source = f"""
import sys
from millpond import __main__, cli

def app():
    {deed}

cli.app = app
__main__.main()
"""
    done = run([sys.executable, "-c", source])
    assert done.returncode == code
    assert ("ZeroDivisionError" in done.stderr) == (code == 70)
