"""The page on filters shows conditions that are some."""

from __future__ import annotations

import re
from pathlib import Path

from millpond.expression import FUNCTIONS, parse

PAGE = Path(__file__).parents[2] / "docs" / "filters.md"


def test_every_condition_in_the_table_can_be_read() -> None:
    rows = [line for line in PAGE.read_text().splitlines() if line.startswith("| ")]
    examples = re.findall(r"`([^`]+)`", "\n".join(row.split("|")[2] for row in rows))
    assert len(examples) > 15
    for example in examples:
        if example != "//":
            parse(example)
    named = {name for name in FUNCTIONS if any(f"{name}(" in example for example in examples)}
    assert named == set(FUNCTIONS)
