"""A new logger: what is written is short, clean, tested, and works in a real daemon."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from system.harness import SMALL, Daemon

import millpond
from millpond.logger_template import write_logger


def run(*command: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", *command],
        cwd=cwd,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )


def test_its_own_test_passes_as_it_is_written(tmp_path: Path) -> None:
    made = write_logger("worst", tmp_path)
    done = run("pytest", "-q", "-p", "no:asyncio", "-W", "error", made.test.name, cwd=tmp_path)
    assert done.returncode == 0, done.stdout
    assert re.search(r"^\d\d passed", done.stdout, re.MULTILINE)  # The suite's, too.


@pytest.mark.parametrize("name", ["worst", "a_name_as_long_as_one_may_be"])
@pytest.mark.parametrize("line_length", ["--line-length=88", "--line-length=100"])
def test_it_is_clean_and_read_in_a_minute(tmp_path: Path, name: str, line_length: str) -> None:
    made = write_logger(name, tmp_path)
    # Not by the rules of this repository: by those of a folder that has none.
    rules = ["--select=E,F,W,I,N,UP,B,ANN,RUF,PL,PT,SIM,RET,PTH", "--ignore=ANN401"]
    checked = run("ruff", "check", "--isolated", line_length, *rules, ".", cwd=tmp_path)
    assert checked.returncode == 0, checked.stdout
    formatted = run("ruff", "format", "--isolated", line_length, "--diff", ".", cwd=tmp_path)
    assert formatted.returncode == 0, formatted.stdout
    for path in (made.module, made.test):
        assert len(path.read_text().splitlines()) < 65


def test_its_types_are_right(tmp_path: Path) -> None:
    typed = run("mypy", "--strict", write_logger("worst", tmp_path).module.name, cwd=tmp_path)
    assert typed.returncode == 0, typed.stdout


def test_it_records_what_a_renderer_publishes(tmp_path: Path) -> None:
    write_logger("worst", tmp_path)
    logger = {"module": "./worst_logger.py", "options": {"file": "other.jsonl"}}
    sections = {
        "buffer": {"slots": 8, "channels": SMALL},
        "logging": {"logger_modules": [logger]},
    }
    daemon = Daemon(tmp_path, sections, "--exit-when-done")
    try:
        daemon.wait_serving()
        rgb = np.full((3, 16, 16), 0.25, np.float32)
        with millpond.connect(daemon.run) as pond:
            for number in range(20):
                pond.publish(f"{number}", {"zoom": number}, rgb=rgb, loss=0.5, is_correct=True)
        log = daemon.wait_exit(code=0)
    finally:
        daemon.end()
    assert "worst: 20 published = 20 delivered + 0 dead + 0 on the disk" in log
    assert "writing to other.jsonl" in log
    rows = [json.loads(line) for line in (daemon.run / "other.jsonl").read_text().splitlines()]
    assert rows[7] == {
        "id": "7", "render_args": {"zoom": 7}, "rgb": 0.25, "loss": 0.5, "is_correct": True,
    }  # fmt: skip
    assert [row["id"] for row in rows] == [f"{number}" for number in range(20)]


@pytest.mark.parametrize("name", ["worst", "worst_logger", "worst_logger.py"])
def test_what_is_added_to_a_name_may_be_there_already(tmp_path: Path, name: str) -> None:
    made = write_logger(name, tmp_path / "new" / "folder")
    assert made.module == tmp_path / "new" / "folder" / "worst_logger.py"
    assert made.test == made.module.with_name("test_worst_logger.py")
    assert "class WorstLogger(BaseLogger):" in made.module.read_text()


def test_a_configuration_finds_it_by_the_reference_that_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert write_logger("worst_of_all", Path()).reference == "./worst_of_all_logger.py"
    assert write_logger("worst", Path("sub")).reference == "./sub/worst_logger.py"
    assert write_logger("best", tmp_path).reference == str(tmp_path / "best_logger.py")


@pytest.mark.parametrize(
    ("name", "better"),
    [
        ("Worst-Only", ", such as worst_only"),
        ("worst only", ", such as worst_only"),
        ("7", ""),
        ("", ""),
        ("_logger", ""),
        ("_hidden", ", such as hidden"),
        ("../../x", ", such as x"),
        ("class", ""),
        ("größe", ", such as gr_e"),
        ("a\nb", ", such as a_b"),
    ],
)
def test_a_bad_name_is_refused_with_a_better_one(tmp_path: Path, name: str, better: str) -> None:
    with pytest.raises(ValueError, match="is no name for a logger") as refused:
        write_logger(name, tmp_path)
    assert str(refused.value).endswith(f"beginning with a letter{better}")
    assert list(tmp_path.iterdir()) == []


def test_a_very_long_name_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="has 31 characters; at most 30"):
        write_logger("a" * 31, tmp_path)


@pytest.mark.parametrize("name", ["worst_logger.py", "test_worst_logger.py"])
def test_a_file_that_is_there_stays_and_nothing_is_written(tmp_path: Path, name: str) -> None:
    (tmp_path / name).symlink_to("nowhere")
    with pytest.raises(FileExistsError, match=f"{name} exists already"):
        write_logger("worst", tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [name]
