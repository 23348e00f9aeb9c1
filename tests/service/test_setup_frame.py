"""The first frame of a logger says all that it needs, or the configuration is refused."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from millpond.config.load import load
from millpond.core.layout import Channel, plan
from millpond.core.wire import HEADER_BYTES, FrameReader, Kind
from millpond.errors import ConfigError
from millpond.module_search import FoundModule
from millpond.setup_frame import EXPERIMENT_BYTES_MAX, encode_experiment, make_setup

LAYOUT = plan([Channel("loss", (), "float32")], 4)


def write(folder: Path, text: str) -> Path:
    path = folder / "c.yaml"
    path.write_text(text)
    return path


def test_it_holds_the_loggers_own_words_and_the_whole_file(tmp_path: Path) -> None:
    text = """
output_dir: out
logging: {logger_modules: [csv, {module: json, name: lines, options: {a: 1}}]}
evaluation: {module: mine, when: 2026-01-01}
"""
    config = load(write(tmp_path, text))
    frame = make_setup(
        config, 1, FoundModule("module", "some.json"), LAYOUT, encode_experiment(config)
    )
    (read,) = FrameReader(len(frame)).feed(frame)
    assert read.kind == Kind.SETUP
    setup = json.loads(frame[HEADER_BYTES:])
    assert (setup["index"], setup["name"], setup["options"]) == (1, "lines", {"a": 1})
    assert (setup["kind"], setup["place"]) == ("module", "some.json")
    assert setup["channels"] == {"loss": [[], "float32"]}
    assert setup["slots"] == 4
    assert setup["experiment"]["evaluation"] == {"module": "mine", "when": "2026-01-01"}
    assert str(tmp_path) in setup["search_path"]
    assert setup["daemon_pid"] == os.getpid()


def test_it_holds_the_limits_of_its_process(tmp_path: Path) -> None:
    limits = "{memory: 1GiB, file_size: 2MiB, open_files: 77, processes: 9, oom_score_adj: 300}"
    text = f"logging: {{logger_modules: [csv, {{module: json, limits: {limits}}}]}}\n"
    config = load(write(tmp_path, text))
    made = []
    for index in range(2):
        module = FoundModule("module", "some.json")
        frame = make_setup(config, index, module, LAYOUT, encode_experiment(config))
        made.append(json.loads(frame[HEADER_BYTES:])["limits"])
    own = config.loggers[0].limits
    assert made[0]["memory_bytes"] == own.memory
    assert made[1] == {
        "memory_bytes": 2**30,
        "file_size_bytes": 2 * 2**20,
        "open_files": 77,
        "processes": 9,
        "oom_score_adj": 300,
    }


def test_a_file_that_is_too_large_for_it_is_refused(tmp_path: Path) -> None:
    """Aliases make much of little: each stands for the whole text."""
    text = f"logging: {{logger_modules: [csv]}}\npolicy:\n- &long {'x' * 10_000}\n"
    config = load(write(tmp_path, text + "- *long\n" * (EXPERIMENT_BYTES_MAX // 10_000 + 1)))
    with pytest.raises(ConfigError, match="bytes as JSON"):
        encode_experiment(config)


@pytest.mark.parametrize("line", ["policy: {on: 1}", "controls: {? [1, 2] : 3}", "policy: {~: 1}"])
def test_what_json_does_not_hold_is_refused_with_the_file(tmp_path: Path, line: str) -> None:
    path = write(tmp_path, f"logging: {{logger_modules: [csv]}}\n{line}\n")
    with pytest.raises(ConfigError) as refusal:
        encode_experiment(load(path))
    assert str(path) in str(refusal.value)
