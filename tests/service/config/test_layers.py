"""Files that inherit from files, and where each value then comes from."""

from collections.abc import Callable
from pathlib import Path

import pytest

from millpond.config.layers import BASE_LEVELS_MAX, overlay, read_with_bases
from millpond.config.yaml_source import Place, Source
from millpond.errors import ConfigError

OWN = frozenset({"base_config", "name", "buffer", "logging", "service"})


@pytest.fixture(name="write")
def fixture_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    monkeypatch.chdir(tmp_path)

    def write(name: str, text: str) -> Path:
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
        return path

    return write


def test_own_sections_are_merged_and_lists_replaced(write: Callable[..., Path]) -> None:
    base = write(
        "base.yaml",
        "name: base\nservice:\n  drain_s: 1\n  allow_uids: [1, 2]\nlogging: {a: 1}\n",
    )
    main = write(
        "main.yaml", "base_config: base.yaml\nservice:\n  allow_uids: [3]\n  socket: s\nlogging:\n"
    )
    source = read_with_bases(main, own=OWN)
    assert source.data == {
        "name": "base",
        "service": {"drain_s": 1, "allow_uids": [3], "socket": "s"},
        "logging": {"a": 1},
        "base_config": "base.yaml",
    }
    assert source.places["name",] == Place(str(base), 1)
    assert source.places["service", "drain_s"] == Place(str(base), 3)
    assert source.places["service", "allow_uids", 0] == Place(str(main), 3)
    assert ("service", "allow_uids", 1) not in source.places
    assert source.places[()] == Place(str(main), 1)


def test_sections_of_3db_are_replaced_as_3db_does(write: Callable[..., Path]) -> None:
    """Merged, a grid search would get the `samples` of a random search and fail."""
    write("base.yaml", "policy: {module: random_search, samples: 5}\nrender_args: {samples: 16}")
    main = write(
        "main.yaml", "base_config: base.yaml\npolicy: {module: grid_search, samples_per_dim: 15}"
    )
    assert read_with_bases(main, own=OWN).data == {
        "base_config": "base.yaml",
        "policy": {"module": "grid_search", "samples_per_dim": 15},
        "render_args": {"samples": 16},
    }


def test_bases_are_found_beside_the_file_and_then_in_the_current_folder(
    write: Callable[..., Path],
) -> None:
    write("base.yaml", "name: here")
    main = write("sub/main.yaml", "base_config: base.yaml")
    assert read_with_bases(main, own=OWN).data["name"] == "here"
    write("sub/base.yaml", "name: beside")
    assert read_with_bases(main, own=OWN).data["name"] == "beside"


def test_no_base_is_none(write: Callable[..., Path]) -> None:
    assert read_with_bases(write("a.yaml", "base_config: null"), own=OWN).data == {
        "base_config": None
    }


@pytest.mark.parametrize("named", ["main.yaml", "./main.yaml", "second.yaml"])
def test_circles_are_refused(write: Callable[..., Path], named: str) -> None:
    main = write("main.yaml", f"name: a\nbase_config: {named}")
    second = write("second.yaml", "base_config: main.yaml")
    with pytest.raises(ConfigError, match="circle") as refusal:
        read_with_bases(main, own=OWN)
    place = (str(second), 1) if named == "second.yaml" else (str(main), 2)
    assert (refusal.value.file, refusal.value.line) == place
    assert refusal.value.key == "base_config"


def test_a_link_to_itself_is_no_file(write: Callable[..., Path]) -> None:
    link = write("main.yaml", "").with_name("link.yaml")
    link.symlink_to(link)
    with pytest.raises(ConfigError, match="cannot be read"):
        read_with_bases(link, own=OWN)


def test_levels_are_bounded(write: Callable[..., Path]) -> None:
    write("f0.yaml", "name: a")
    for i in range(1, BASE_LEVELS_MAX + 2):
        last = write(f"f{i}.yaml", f"base_config: f{i - 1}.yaml")
    assert read_with_bases(last.with_name("f8.yaml"), own=OWN).data["name"] == "a"
    with pytest.raises(ConfigError, match="8 levels"):
        read_with_bases(last, own=OWN)


@pytest.mark.parametrize("named", ["3", "''", "[a]", "absent.yaml", '"a\\0b"', "x" * 5000])
def test_what_is_no_base_is_refused(write: Callable[..., Path], named: str) -> None:
    main = write("main.yaml", f"name: a\nbase_config: {named}")
    with pytest.raises(ConfigError) as refusal:
        read_with_bases(main, own=OWN)
    error = refusal.value
    assert (error.file, error.line, error.key) == (str(main), 2, "base_config")


def test_a_problem_in_a_base_is_reported_there(write: Callable[..., Path]) -> None:
    base = write("base.yaml", "\nname: yes")
    main = write("main.yaml", "base_config: base.yaml")
    with pytest.raises(ConfigError) as refusal:
        read_with_bases(main, own=OWN)
    assert (refusal.value.file, refusal.value.line) == (str(base), 2)


@pytest.mark.parametrize(
    ("below", "above", "merged"),
    [
        ({"slots": 5}, {"size": "1MiB"}, {"size": "1MiB"}),
        ({"size": "1MiB"}, {"slots": 5}, {"slots": 5}),
        ({"slots": 5}, {"size": None}, {"slots": 5, "size": None}),
        ({"slots": 5}, {"slots": 6, "size": 7}, {"slots": 6, "size": 7}),
    ],
)
def test_slots_and_size_replace_each_other(below: dict, above: dict, merged: dict) -> None:
    base, over = Source({"buffer": below}, {}), Source({"buffer": above}, {})
    assert overlay(base, over, own=OWN).data == {"buffer": merged}
    assert base.data == {"buffer": below}
