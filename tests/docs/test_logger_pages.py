"""The pages on the loggers say what is so: every logger, every option, every default."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from docs.page import blocks

from millpond.config.load import load
from millpond.module_search import check_modules
from millpond_loggers.catalogue import Description, describe

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
LOGGERS: dict[str, str] = PROJECT["entry-points"]["millpond.loggers"]
PAGES = sorted([ROOT / "README.md", ROOT / "ARCHITECTURE.md", *DOCS.rglob("*.md")])


def described(name: str) -> Description:
    told = describe("module", LOGGERS[name])
    assert not told.problem, told.problem
    return told


def page_of(name: str) -> Path:
    """Two names of one module have one page, that of the first."""
    first = next(other for other, module in LOGGERS.items() if module == LOGGERS[name])
    return DOCS / "loggers" / f"{first}.md"


def defaults_on(page: Path) -> dict[str, str]:
    """The second cell of every row of the table of options, by the first; without remarks."""
    defaults = {}
    tables = re.findall(
        r"^\| option \| default \|.*\n((?:\|.*\n)+)", page.read_text(), re.MULTILINE
    )
    for row in "".join(tables).splitlines():
        name, default = (cell.strip() for cell in row.split("|")[1:3])
        defaults[name.strip("`")] = re.sub(r" \(.*\)$", "", default).strip("`")
    return defaults


def ways_to_write(value: Any) -> set[str]:
    """A value as a page may show it: as YAML, as JSON, as it is; what is for all by itself."""
    if isinstance(value, dict) and list(value) == ["*"]:
        value = value["*"]
    flow = yaml.safe_dump(value, default_flow_style=True, width=1000)
    ways = {str(value), json.dumps(value), flow.removesuffix("\n").removesuffix("\n...")}
    return ways | {f"{value:,}"} if type(value) is int else ways


@pytest.mark.parametrize("name", LOGGERS)
def test_every_option_is_on_the_page_of_its_logger_with_its_default(name: str) -> None:
    path = page_of(name)
    assert path.is_file(), f"write {path.relative_to(ROOT)}"
    defaults = defaults_on(path)
    for option in described(name).options or ():
        assert option.name in defaults, (
            f"{path.name} has no row for `{option.name}` in its table | option | default | means |"
        )
        default = defaults[option.name]
        # Of nothing, the cell rather says what it stands for: "every image".
        if not option.is_required and option.default is not None:
            assert default in ways_to_write(option.default), (
                f"{path.name} says that the default of `{option.name}` is {default}, "
                f"not {json.dumps(option.default)}"
            )


@pytest.mark.parametrize("name", LOGGERS)
def test_every_option_says_what_it_means(name: str) -> None:
    for option in described(name).options or ():
        assert option.description, f"{name}: {option.name} needs Field(..., description=...)"
        assert option.description.endswith("."), f"{name}: {option.name}: a sentence"


@pytest.mark.parametrize("name", LOGGERS)
def test_every_logger_is_in_the_table_with_its_extra(name: str) -> None:
    rows = [row for row in (DOCS / "loggers.md").read_text().splitlines() if row.startswith("| ")]
    link = f"[{name}](loggers/{page_of(name).name})"
    (row,) = [row for row in rows if link in row]
    extra = described(name).extra
    shown = f"`{extra}`" if extra else "none"
    assert f"| {shown} |" in row, f"the row of {name} must say that its extra is {shown}"
    assert extra is None or extra in PROJECT["optional-dependencies"]


def test_the_table_has_these_loggers_and_no_others() -> None:
    text = (DOCS / "loggers.md").read_text()
    assert set(re.findall(r"^\| \[(\w+)\]", text, re.MULTILINE)) == set(LOGGERS)


def test_the_example_is_a_configuration(tmp_path: Path) -> None:
    (example,) = blocks(DOCS / "loggers.md")
    path = tmp_path / "example.yaml"
    path.write_text(example.text)
    config = load(path)
    assert [logger.name for logger in config.loggers] == ["csv", "wrong_ones"]
    check_modules(config)


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_links_lead_somewhere(page: Path) -> None:
    text = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", text):
        assert (page.parent / target).exists(), f"{page.name} links to {target}"
