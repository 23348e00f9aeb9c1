"""What stands between the runner and a logger of 3DB's.  Neither 3DB nor torch is needed."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from millpond.errors import ConfigError
from millpond_loggers.base import BaseLogger
from millpond_loggers.process.shared_results import SharedResults
from millpond_loggers.process.threedb_loggers import ThreedbLogger, is_threedb, prepare, threedb_key
from millpond_loggers.process.torch_results import TorchResults


class TheirBase:
    """What 3DB's base class is to us: a class of a module of that package."""

    __module__ = "threedb.result_logging.base_logger"


class Theirs(TheirBase):
    def __init__(self, root_dir: str, result_buffer: Any, config: Any) -> None:
        self.root_dir = root_dir
        self.buffer = result_buffer
        self.config = config
        self.items: list[Any] = []
        self.end_count = 0

    def log(self, item: Any) -> None:
        self.items.append(item)

    def end(self) -> None:
        self.end_count += 1


class Ours(BaseLogger):
    def log(self, item: Any) -> None:
        pass


def item(**changes: Any) -> dict[str, Any]:
    return {"id": "a", "render_args": {"Camera.zoom": 1.5}, "result_ix": 0, **changes}


def adapted(root: Path, **config: Any) -> tuple[ThreedbLogger, Theirs]:
    make, _ = prepare(Theirs, "numpy")
    made = make(str(root), None, config)
    return made, made._logger


@pytest.mark.parametrize(
    ("logger", "expected"),
    [(Theirs, True), (TheirBase, True), (Ours, False), (object, False), (len, False)],
)
def test_a_logger_of_3db_is_known_by_its_bases(logger: Any, expected: bool) -> None:
    assert is_threedb(logger) is expected


def test_a_package_that_only_begins_like_it_is_not_3db() -> None:
    assert not is_threedb(type("Logger", (), {"__module__": "threedbx.loggers"}))


def test_another_logger_is_made_by_its_class_and_gets_arrays() -> None:
    assert prepare(Ours, None) == (Ours, SharedResults)
    assert prepare(Ours, "numpy") == (Ours, SharedResults)


def test_a_logger_that_wants_tensors_needs_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    for logger, arrays in ((Ours, "torch"), (Theirs, None), (Theirs, "torch")):
        with pytest.raises(ConfigError, match=r"needs torch, which is not installed: pip install"):
            prepare(logger, arrays)
    assert prepare(Theirs, "numpy")[1] is SharedResults


def test_tensors_are_for_loggers_of_3db_and_for_those_that_ask() -> None:
    pytest.importorskip("torch", reason="torch is not installed here: make threedb")
    assert prepare(Theirs, None)[1] is TorchResults
    assert prepare(Ours, "torch") == (Ours, TorchResults)


def test_keys_of_render_args_are_those_of_3db(tmp_path: Path) -> None:
    made, theirs = adapted(tmp_path)
    made.log(item(render_args={"Camera.zoom": 1.5, "Light.a.b": [1, 2], "plain": None}))
    assert theirs.items[0]["render_args"] == {
        ("Camera", "zoom"): 1.5,
        ("Light", "a.b"): [1, 2],
        "plain": None,
    }


def test_the_controls_are_tuples_again_and_all_else_stays(tmp_path: Path) -> None:
    made, theirs = adapted(tmp_path)
    made.log(item(control_order=[["controls.camera", "Camera"]], order=3, model="m"))
    assert theirs.items == [
        {
            "id": "a",
            "render_args": {("Camera", "zoom"): 1.5},
            "result_ix": 0,
            "control_order": [("controls.camera", "Camera")],
            "order": 3,
            "model": "m",
        }
    ]


@pytest.mark.parametrize(
    ("name", "expected"),
    [("a.b", ("a", "b")), ("a", "a"), ("a.b.c", ("a", "b.c")), (".", ("", "")), ("", "")],
)
def test_a_key_is_parted_at_its_first_dot(name: str, expected: Any) -> None:
    assert threedb_key(name) == expected


def test_the_engine_that_an_experiment_leaves_out_is_the_one_of_3db(tmp_path: Path) -> None:
    _, theirs = adapted(tmp_path, render_args={"resolution": 64}, policy={"samples": 3})
    assert theirs.config == {
        "render_args": {"engine": "threedb.rendering.render_blender", "resolution": 64},
        "policy": {"samples": 3},
    }
    _, theirs = adapted(tmp_path, render_args={"engine": "mine"})
    assert theirs.config == {"render_args": {"engine": "mine"}}
    _, theirs = adapted(tmp_path, render_args=None)
    assert theirs.config == {"render_args": None}


def test_what_a_logger_has_written_is_in_the_file_after_a_flush(tmp_path: Path) -> None:
    made, theirs = adapted(tmp_path)
    text, binary = tmp_path / "text", tmp_path / "binary"
    closed = (tmp_path / "closed").open("w")
    closed.close()
    with text.open("w") as theirs.handle, binary.open("ab+") as theirs.other:
        theirs.closed_one = closed
        theirs.handle.write("row\n")
        theirs.other.write(b"row\n")
        assert text.read_text() + binary.read_text() == ""
        made.flush()
        assert text.read_text() == binary.read_text() == "row\n"


def test_a_flush_of_the_loggers_own_is_called_too(tmp_path: Path) -> None:
    made, theirs = adapted(tmp_path)
    called: list[bool] = []
    theirs.flush = lambda: called.append(True)
    made.flush()
    assert called


def test_it_is_ended_once_and_never_given_none(tmp_path: Path) -> None:
    made, theirs = adapted(tmp_path)
    made.log(item())
    made.end()
    assert theirs.end_count == 1
    assert None not in theirs.items


def test_a_logger_that_keeps_slots_says_so(tmp_path: Path) -> None:
    made, theirs = adapted(tmp_path)
    assert made.keeps_slots is False
    theirs.keeps_slots = True
    assert ThreedbLogger(theirs).keeps_slots is True
