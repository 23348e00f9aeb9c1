"""3DB's sections keep the meaning that `safe_load` gives them, and cannot explode."""

from pathlib import Path

import pytest
import yaml

from millpond.config.yaml_source import read
from millpond.errors import ConfigError


def load(tmp_path: Path, text: str) -> dict:
    path = tmp_path / "experiment.yaml"
    path.write_text(text)
    return read(path, own=frozenset()).data


def refusal(tmp_path: Path, text: str) -> ConfigError:
    with pytest.raises(ConfigError) as error:
        load(tmp_path, text)
    return error.value


@pytest.mark.parametrize(
    "text",
    [
        "policy: {on: no, t: 12:30:45, octal: 017, date: 2026-01-01, n: 1_000, e: 1e3}",
        "policy: &a [1, 2]\ncontrols: [*a, *a]",
        "policy: &a {x: 1, y: 2}\ncontrols: {<<: *a, y: 3}",
        "policy: {<<: [{a: 1}, {b: 2}], c: 3}",
        "policy: !!set {a, b}\ncontrols: !!binary aGVsbG8=",
        "policy: {1: a, 2.5: b, ~: c}",
        "policy: !!str 12\ncontrols: ! 12",
        "policy:\n  text: |\n    two\n    lines\n",
        "policy: (-.5, .5)",
    ],
)
def test_values_are_those_of_safe_load(tmp_path: Path, text: str) -> None:
    assert load(tmp_path, text) == yaml.safe_load(text)


def test_tuples_as_in_the_examples_of_3db(tmp_path: Path) -> None:
    text = "controls:\n- x: &id001 !!python/tuple\n  - -1.0\n  - 1.0\n  y: *id001\n"
    assert load(tmp_path, text) == {"controls": [{"x": (-1.0, 1.0), "y": (-1.0, 1.0)}]}


@pytest.mark.parametrize(
    ("text", "line", "key", "words"),
    [
        ("policy:\n  run: !!python/object/apply:os.system [x]", 2, "policy.run", "!!python"),
        ("policy: !mine 3", 1, "policy", "!mine"),
        ("policy: !!python/tuple {a: 1}", 1, "policy", "needs a list"),
        ("policy:\n  a: 1\n  a: 2", 3, "policy.a", "given twice"),
        ("policy: [1, {b: *nobody}]", 1, "policy[1].b", "*nobody"),
        ("policy: &me [*me]", 1, "policy[0]", "no finished anchor"),
        ("policy: 1\ncontrols: !!int x", 2, "controls", "does not fit its type"),
        ("policy: 2026-99-99", 1, "policy", "does not fit its type"),
        ("policy: !!bool maybe", 1, "policy", "does not fit its type"),
        ("policy: !!timestamp x", 1, "policy", "does not fit its type"),
        ("policy: {{a: 1}: 2}", 1, "policy", "unhashable"),
        ("policy: {<<: 5}", 1, "policy", "mapping"),
    ],
)
def test_what_is_refused(tmp_path: Path, text: str, line: int, key: str, words: str) -> None:
    error = refusal(tmp_path, text)
    assert (error.line, error.key) == (line, key)
    assert words in error.problem


def test_a_billion_laughs_is_refused_at_its_line(tmp_path: Path) -> None:
    lines = ["policy:", "  a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"  a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 10)]
    error = refusal(tmp_path, "\n".join(lines))
    assert error.line == 6
    assert "50000 values" in error.problem


def test_merge_keys_cannot_explode_either(tmp_path: Path) -> None:
    lines = ["policy:", "  a0: &a0 {x: 1}"]
    lines += [f"  a{i}: &a{i} {{<<: [{', '.join([f'*a{i - 1}'] * 10)}]}}" for i in range(1, 12)]
    assert "50000 values" in refusal(tmp_path, "\n".join(lines)).problem


def test_a_chain_of_aliases_is_no_deeper_than_brackets(tmp_path: Path) -> None:
    chain = ["policy:", "- &a0 [1]", *(f"- &a{i} [*a{i - 1}]" for i in range(1, 2000))]
    assert "levels deep" in refusal(tmp_path, "\n".join(chain)).problem
    assert "levels deep" in refusal(tmp_path, "policy: " + "[" * 100_000).problem
