"""The main job, with nothing faked."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image
from system.harness import Daemon, ended, plugin, read_ids, read_json_lines, spawn_script

import millpond

RNG = np.random.default_rng(7)


def test_every_logger_gets_every_result_and_the_pixels_are_the_renderers(
    start: Callable[..., Daemon],
) -> None:
    daemon = start(["csv", "json", "image"], "--exit-when-done")
    pictures = {f"{n:03d}": RNG.random((3, 16, 16), dtype=np.float32) for n in range(60)}
    with millpond.connect(daemon.run) as pond:
        for number, (name, rgb) in enumerate(pictures.items()):
            with pond.claim() as slot:  # In place: the array is the shared memory.
                slot["rgb"][...] = rgb
                slot["loss"] = number / 8
                slot["is_correct"] = number % 2 == 0
                slot.publish(name, {"zoom": number}, fields={"model": "teapot"})
    log = daemon.wait_exit()

    with (daemon.run / "details.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    lines = [json.loads(line) for line in (daemon.run / "details.log").read_text().splitlines()]
    assert [row["id"] for row in rows] == [line["id"] for line in lines] == list(pictures)
    assert [float(row["loss"]) for row in rows] == [n / 8 for n in range(60)]
    assert lines[3]["is_correct"] is False
    assert lines[3]["model"] == "teapot"
    for name, rgb in pictures.items():
        with Image.open(daemon.run / "images" / f"{name}_rgb.png") as image:
            pixels = np.asarray(image)
        assert np.array_equal(pixels, np.round(rgb * 255).astype(np.uint8).transpose(1, 2, 0))
    assert "csv: 60 published = 60 delivered + 0 dead + 0 on the disk" in log


def test_several_renderers_share_the_pond_and_each_keeps_its_order(
    start: Callable[..., Daemon],
) -> None:
    daemon = start([plugin("recorder")])
    source = """
import sys, numpy as np, millpond
with millpond.connect(sys.argv[1], claim_timeout_s=30) as pond:
    for n in range(300):
        pond.publish(f"{sys.argv[2]}-{n}", {}, rgb=np.zeros((3, 16, 16), np.float32), loss=n,
                     is_correct=True)
"""
    renderers = [spawn_script(source, daemon.run, letter) for letter in "abcd"]
    for renderer in renderers:
        with ended(renderer):
            assert renderer.wait(60) == 0
    now = daemon.wait_settled()
    assert now["loggers"]["recorder"]["delivered"] == 1200
    daemon.stop()
    ids = read_ids(daemon.run / "recorder.ids")
    for letter in "abcd":
        own = [name for name in ids if name.startswith(letter)]
        assert own == [f"{letter}-{n}" for n in range(300)]


def test_the_first_renderer_declares_the_channels_and_others_must_agree(
    start: Callable[..., Daemon],
) -> None:
    daemon = start([plugin("recorder")], buffer={"slots": 8})
    assert daemon.status()["state"] == "waiting"
    with pytest.raises(millpond.ChannelsRefused, match="no channels yet"):
        millpond.connect(daemon.run)
    first = {"loss": ((), "float32"), "mask": ((4, 4), np.uint8)}
    with millpond.connect(daemon.run, first) as pond:
        pond.publish("1", {}, loss=1.0, mask=np.ones((4, 4), np.uint8))
        with pytest.raises(millpond.ChannelsRefused) as refusal:
            millpond.connect(daemon.run, {"loss": ((), "float64")})
        assert "loss () float32, mask (4, 4) uint8" in str(refusal.value)
        assert "loss () float64" in str(refusal.value)
        # In another order they are the same; and who declares none takes what there is.
        with millpond.connect(daemon.run, dict(reversed(first.items()))) as other:
            other.publish("2", {}, loss=2.0, mask=np.zeros((4, 4), np.uint8))
        with millpond.connect(daemon.run) as third:
            assert list(third.channels) == ["loss", "mask"]
        pond.publish("3", {}, loss=3.0, mask=np.ones((4, 4), np.uint8))
    assert daemon.wait_settled()["loggers"]["recorder"]["delivered"] == 3
    daemon.stop()


def test_a_wrong_value_is_refused_before_anything_is_sent(start: Callable[..., Daemon]) -> None:
    daemon = start([plugin("recorder")])
    good = {"rgb": np.zeros((3, 16, 16), np.float32), "loss": 0.0, "is_correct": True}
    wrong = [
        ({**good, "rgb": np.zeros((3, 16, 16))}, "expected shape .3, 16, 16. float32, got .*64"),
        ({**good, "rgb": np.zeros((16, 16, 3), np.float32)}, "got shape .16, 16, 3. float32"),
        ({**good, "is_correct": 0.5}, "'is_correct'.*expected shape .. bool"),
        ({**good, "depth": 1.0}, "no channel 'depth'; the channels are rgb"),
        ({"rgb": good["rgb"], "loss": 0.0}, "nothing was written to is_correct"),
    ]
    with millpond.connect(daemon.run) as pond:
        for arrays, message in wrong:
            with pytest.raises(millpond.InvalidResult, match=message):
                pond.publish("x", {}, **arrays)
        for _ in range(50):  # No slot is lost by it.
            with pytest.raises(millpond.InvalidResult):
                pond.publish("x", {"zoom": float("nan")}, **good)
        pond.publish("good", {}, **good)
    now = daemon.wait_settled()
    assert now["results"] == now["loggers"]["recorder"]["delivered"] == 1
    daemon.stop()


def test_odd_ids_never_leave_the_folder_and_never_collide(start: Callable[..., Daemon]) -> None:
    odd = [
        "../../x",
        "a/b",
        "a%2Fb",
        "e" * 300,
        "e" * 301,
        "\N{TEACUP WITHOUT HANDLE}",
        ".",
        "..",
        "-rf",
        "CON",
        "a\\b",
        " ",
        "%",
        "images/1",
        "/etc/passwd",
        "a\u0301",
        "\u00e1",
    ]
    arrays = {"rgb": np.zeros((3, 16, 16), np.float32), "loss": 0.0, "is_correct": True}
    daemon = start(["csv", "json", "image"], "--exit-when-done")
    outside = {path for path in daemon.folder.rglob("*") if daemon.run not in path.parents}
    with millpond.connect(daemon.run) as pond:
        for name in ("", "a\x00b", "a\nb", "\x1b[2J"):
            with pytest.raises(millpond.InvalidResult):
                pond.publish(name, {}, **arrays)
        for name in odd:
            pond.publish(name, {}, **arrays)
    daemon.wait_exit()
    assert {p for p in daemon.folder.rglob("*") if daemon.run not in p.parents} == outside
    assert len(list((daemon.run / "images").iterdir())) == len(odd)
    assert [line["id"] for line in read_json_lines(daemon.run / "details.log")] == odd


def test_what_a_logger_prints_is_in_the_log_line_by_line(start: Callable[..., Daemon]) -> None:
    daemon = start([plugin("moody")], service={"log_format": "json"})
    text = "two\nlines, and \x1b[31mcolour"
    arrays = {"rgb": np.zeros((3, 16, 16), np.float32), "loss": 0.0, "is_correct": True}
    with millpond.connect(daemon.run) as pond:
        pond.publish("say-1", {"text": text}, **arrays)
    daemon.wait_settled()
    records = [json.loads(line) for line in daemon.stop().splitlines() if line.startswith("{")]
    said = {(r["stream"], r["line"]) for r in records if r["event"] == "logger says"}
    assert said == {
        ("stdout", "two"),
        ("stdout", "lines, and \\x1b[31mcolour"),
        ("stderr", "to the other stream"),
    }
