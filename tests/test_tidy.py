"""The house rules that a test can check.  Each message says what to do instead."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

from millpond.core.lifecycle import TRANSITIONS

ROOT = Path(__file__).parents[1]
SERVICE = ROOT / "service" / "millpond"
LOGGERS = ROOT / "loggers" / "millpond_loggers"
SOURCES = sorted([*SERVICE.rglob("*.py"), *LOGGERS.rglob("*.py")])
CORE = sorted((SERVICE / "core").glob("*.py"))

FILE_LINES_MAX = 400
FUNCTION_LINES_MAX = 50
# A clock, a socket, a process or a file has no business in the core.
CORE_FORBIDDEN = {"asyncio", "os", "socket", "subprocess", "signal", "time", "random", "pathlib"}
# ARCHITECTURE.md, Words: one thing, one word.
FORBIDDEN_WORDS = {
    "producer", "consumer", "worker", "sink", "chunk", "lease", "epoch", "acquire", "utils",
    "helpers", "common", "misc", "manager", "refcount", "shm", "tmp",
}  # fmt: skip
# What others call their things: 3DB what this file stands in for, pytest a fixture.
NAMES_OF_OTHERS = {
    "service/millpond/compat/appended_loggers.py": {"manager"},
    "loggers/millpond_loggers/testing/conformance.py": {"tmp"},
}
# The door through which authors' tests reach the kit.
WITHOUT_WALL = {"service/millpond/testing.py"}
# Tables of frozen values, and doors that the system tests go through.
WITHOUT_OWN_TEST = {
    "service/millpond/__main__.py",
    "service/millpond/core/commands.py",
    "service/millpond/core/events.py",
}


def relative(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


def imports(path: Path) -> set[str]:
    """The full names of the modules that a file imports, wherever it does."""
    found = set()
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add(node.module or "")
    return found


def tracked() -> list[Path]:
    listed = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if listed.returncode:
        pytest.skip("not a git checkout")
    return [ROOT / name for name in listed.stdout.split("\0") if name and (ROOT / name).is_file()]


@pytest.mark.parametrize("path", CORE, ids=relative)
def test_the_core_is_pure(path: Path) -> None:
    tops = {name.partition(".")[0] for name in imports(path)}
    assert not tops & CORE_FORBIDDEN, "the core decides; let the shell do it (ARCHITECTURE.md)"
    assert tops <= {"millpond", *sys.stdlib_module_names}
    inner = {name for name in imports(path) if name.startswith("millpond.")}
    outside = {name for name in inner if not name.startswith("millpond.core")}
    assert outside <= {"millpond.errors"}, "the core imports only itself and the errors"


@pytest.mark.parametrize("path", SOURCES, ids=relative)
def test_imports_go_one_way(path: Path) -> None:
    tops = {name.partition(".")[0] for name in imports(path)}
    assert not tops & {"service", "loggers"}, "the import names are millpond and millpond_loggers"
    if SERVICE in path.parents and relative(path) not in WITHOUT_WALL:
        assert "millpond_loggers" not in tops, "the pipe is the interface: start the process"


def test_the_renderers_side_needs_numpy_and_the_standard_library_only() -> None:
    """It must run in a foreign Python, such as Blender's."""
    seen: set[str] = set()
    todo = ["millpond", "millpond.client"]
    while todo:
        name = todo.pop()
        if name in seen:
            continue
        seen.add(name)
        path = SERVICE.parent / Path(*name.split("."))
        path = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
        for found in imports(path):
            if found.partition(".")[0] == "millpond":
                todo.append(found)
            else:
                top = found.partition(".")[0]
                assert top in {"numpy", *sys.stdlib_module_names}, f"{name} imports {found}"


@pytest.mark.parametrize("path", SOURCES, ids=relative)
def test_files_and_functions_are_short(path: Path) -> None:
    lines = len(path.read_text().splitlines())
    assert lines <= FILE_LINES_MAX, f"{lines} lines: find the two ideas in it and part them"
    for node in ast.walk(tree(path)):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            body = node.body[1:] if ast.get_docstring(node) else node.body
            length = (node.end_lineno or 0) - body[0].lineno + 1 if body else 0
            assert length <= FUNCTION_LINES_MAX, f"{node.name} has {length} lines: part it"


@pytest.mark.parametrize("path", SOURCES, ids=relative)
def test_every_module_says_what_it_is_for(path: Path) -> None:
    assert ast.get_docstring(tree(path)), "begin it with a sentence that a stranger understands"


@pytest.mark.parametrize("path", SOURCES, ids=relative)
def test_names_are_the_words_of_the_house(path: Path) -> None:
    names = {path.stem}
    for node in ast.walk(tree(path)):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            names.add(node.name)
        elif isinstance(node, ast.arg):
            names.add(node.arg)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
    parts = {part.lower() for name in names for part in re.findall(r"[A-Z]?[a-z]+", name)}
    forbidden = FORBIDDEN_WORDS - NAMES_OF_OTHERS.get(relative(path), set())
    assert not parts & forbidden, "see ARCHITECTURE.md, Words"


@pytest.mark.parametrize("path", SOURCES, ids=relative)
def test_tasks_live_in_a_group(path: Path) -> None:
    text = path.read_text()
    assert "create_task(" not in text.replace("tasks.create_task(", ""), "use a TaskGroup"
    assert "ensure_future(" not in text, "use a TaskGroup"


@pytest.mark.parametrize("path", SOURCES, ids=relative)
def test_every_source_file_has_a_test_file(path: Path) -> None:
    is_empty = len(tree(path).body) == 1  # Only its docstring.
    if is_empty or relative(path) in WITHOUT_OWN_TEST:
        return
    root = SERVICE if SERVICE in path.parents else LOGGERS
    folder = "service" if root is SERVICE else "loggers"
    inner = path.relative_to(root)
    stem = {"__init__": "init", "__main__": "main"}.get(path.stem, path.stem)
    expected = ROOT / "tests" / folder / inner.with_name(f"test_{stem}.py")
    assert expected.exists(), f"write {relative(expected)}"


def test_the_picture_of_a_loggers_life_is_the_table() -> None:
    text = (ROOT / "ARCHITECTURE.md").read_text()
    drawn = set(re.findall(r"^\s+(\w+) --> (\w+): ([\w ]+)$", text, re.MULTILINE))
    table = {
        (state.value, after.value, stimulus.value)
        for state, row in TRANSITIONS.items()
        for stimulus, after in row.items()
    }
    assert drawn == table, "draw it anew: " + ", ".join(map(str, sorted(drawn ^ table)))


def test_architecture_names_only_files_that_exist() -> None:
    text = (ROOT / "ARCHITECTURE.md").read_text()
    for name in re.findall(r"`((?:service|loggers|tests|examples|benchmarks)/[\w./-]+)`", text):
        assert (ROOT / name).exists(), f"ARCHITECTURE.md names {name}"


def test_the_readme_names_only_targets_that_exist() -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for name in ("README.md", "ARCHITECTURE.md"):
        named = set(
            re.findall(r"`make ([a-z]+)`|^make ([a-z]+)", (ROOT / name).read_text(), re.MULTILINE)
        )
        assert {first or second for first, second in named} <= targets


def test_nothing_of_one_machine_is_committed() -> None:
    """No path of a machine, and no host of a package registry."""
    # In parts, so that this file itself is free of them.
    words = (("python", "hosted"), ("pypi", r"\.org"), ("registry", r"\.npm"), ("index", "-url"))
    hosts = "|".join("".join(parts) for parts in (*words, ("deb", r"\.debian")))
    paths = "|".join(f"/{name}/" for name in ("work", "root", "farm"))
    forbidden = re.compile(rf"{hosts}|(?<![\w.]){paths}")
    for path in tracked():
        if path == Path(__file__) or path.suffix in {".png", ".npy"}:
            continue
        found = forbidden.search(path.read_text(errors="replace"))
        assert not found, f"{relative(path)}: {found}"
