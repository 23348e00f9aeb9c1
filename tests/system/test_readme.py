"""The README's files and commands, as they stand there."""

from __future__ import annotations

import csv
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from system.harness import WATCHDOG_S, wait_until

README = Path(__file__).parents[2] / "README.md"


def test_its_three_files_do_what_it_says(tmp_path: Path) -> None:
    text = README.read_text()
    blocks = re.findall(r"^```(?:yaml|python)\n# (\S+)\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    assert [name for name, _ in blocks] == ["mine.yaml", "my_logger.py", "my_renderer.py"]
    for name, content in blocks:
        (tmp_path / name).write_text(content)

    def millpond(*arguments: str) -> list[str]:
        return [sys.executable, "-m", "millpond", *arguments]

    checked = subprocess.run(
        millpond("check", "mine.yaml"), cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert "good; loggers: csv, json, image, my" in checked.stdout
    command = millpond("run", "mine.yaml", "--exit-when-done")
    with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, text=True) as daemon:
        renderer = [sys.executable, "my_renderer.py"]
        subprocess.run(renderer, cwd=tmp_path, check=True, timeout=WATCHDOG_S)
        summary, _ = daemon.communicate(timeout=WATCHDOG_S)
    assert daemon.returncode == 0
    assert summary.count("21 published = 21 delivered + 0 dead + 0 on the disk") == 4

    run = tmp_path / "runs" / "mine"
    with (run / "details.csv").open(newline="") as file:
        rows = {row["id"]: row for row in csv.DictReader(file)}
    assert len(rows) == 21
    assert rows["000003"]["is_correct"] == "False"
    assert rows["000003"]["model"] == "teapot"
    assert len((run / "details.log").read_text().splitlines()) == 21
    assert len(list((run / "images").glob("*_rgb.png"))) == 21
    worst = (run / "worst.txt").read_text().splitlines()
    assert "black 9.900 {'zoom': 0}" in worst
    assert len(worst) == sum(float(row["loss"]) > 2 for row in rows.values())


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_the_health_commands_work(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("output_dir: runs/mine\nlogging: {logger_modules: [csv]}\n")
    daemon = subprocess.Popen(
        [sys.executable, "-m", "millpond", "run", "mine.yaml"],
        cwd=tmp_path,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        socket = tmp_path / "runs" / "mine" / "health.sock"
        wait_until(socket.exists, "the health socket")
        (line,) = re.findall(r"^curl .*?(?=\s+#)", README.read_text(), re.MULTILINE)
        for path in ("status", "livez", "readyz", "metrics"):
            command = line.replace("/status", f"/{path}").split()
            done = wait_until(
                lambda command=command: _curl(tmp_path, *command), f"curl gives /{path}"
            )
            assert done
        assert json.loads(_curl(tmp_path, *line.split()))["name"] == "mine"
    finally:
        daemon.send_signal(signal.SIGTERM)
        assert daemon.wait(WATCHDOG_S) == 0
    assert not os.path.lexists(socket)


def _curl(folder: Path, *command: str) -> str:
    done = subprocess.run(
        [*command, "--silent", "--fail"], cwd=folder, capture_output=True, text=True, check=False
    )
    return done.stdout
