"""`make demo`: real renders through everything."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
from PIL import Image
from system.harness import WATCHDOG_S

DEMO = Path(__file__).parents[2] / "examples" / "demo.py"


def test_the_demo_records_every_render_and_its_pixels(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, DEMO],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=3 * WATCHDOG_S,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    run = tmp_path / "runs" / "demo"
    ids = {f"{number:06d}" for number in range(200)}
    with (run / "details.csv").open(newline="") as file:
        assert {row["id"] for row in csv.DictReader(file)} == ids
    lines = [json.loads(line) for line in (run / "details.log").read_text().splitlines()]
    assert {line["id"] for line in lines} == ids
    assert 0.6 < sum(line["is_correct"] for line in lines) / 200 < 1, "some fail, most do not"
    for channel, suffix in (("rgb", "png"), ("segmentation", "png"), ("depth", "tiff")):
        names = {path.name for path in (run / "images").glob(f"*_{channel}.*")}
        assert names == {f"{name}_{channel}.{suffix}" for name in ids}
    with Image.open(run / "images" / "000000_segmentation.png") as image:
        assert image.mode == "P", "labels are seen, in colours, and are the pixels all the same"
        assert set(np.unique(np.asarray(image))) <= {0, 1, 2}
        assert len(image.convert("RGB").getcolors()) > 1
    assert "Open runs/demo/images/000000_rgb.png first" in done.stdout
    for kept in sorted((run / "kept").glob("*.npy")):
        rgb = np.load(kept)
        with Image.open(run / "images" / f"{kept.stem}_rgb.png") as image:
            pixels = np.asarray(image)
        assert np.array_equal(pixels, np.round(rgb * 255).astype(np.uint8).transpose(1, 2, 0))
