"""The pages are really done: what they say wrongly is found."""

from __future__ import annotations

from pathlib import Path

import pytest
from docs.page import do

GOOD = """
# A page

```python
# deep/hello.py
def greet(name):
```

That is not all.

```python
# deep/hello.py, continued
    print(f"hello {name}")


greet("you")
print("done")
```

```yaml
# a.yaml
a: 1
```

```sh
python deep/hello.py
cat a.yaml
```

```text
hello ...
...
a: 1
```
"""


@pytest.fixture
def page(tmp_path: Path) -> Path:
    (tmp_path / "folder").mkdir()
    return tmp_path / "page.md"


def refused(page: Path, text: str) -> str:
    page.write_text(text)
    with pytest.raises(AssertionError) as caught:
        do(page, page.parent / "folder")
    return str(caught.value)


def test_a_page_is_done_from_top_to_bottom(page: Path) -> None:
    page.write_text(GOOD.replace("def greet(name):\n", 'def greet(name):\n    """Say it."""\n'))
    do(page, page.parent / "folder")
    written = (page.parent / "folder" / "deep" / "hello.py").read_text()
    assert written.count("def greet") == written.count("print(f") == 1


def test_what_does_not_work_is_told_with_its_line(page: Path) -> None:
    assert refused(page, "x\n```sh\necho no; false\n```\n") == "page.md:2: ended with 1:\nno\n"
    assert "a block of json" in refused(page, "```json\n{}\n```\n")
    assert "its first line must say which file" in refused(page, "```python\nx = 1\n```\n")
    assert "was not begun" in refused(page, "```python\n# a.py, continued\nx = 1\n```\n")
    told = refused(page, "```sh\necho one; echo two\n```\n```text\ntwo\none\n```\n")
    assert "does not print 'one', in this order" in told


def test_a_piece_that_is_no_python_is_told(page: Path) -> None:
    page.write_text("```python\n# a.py\nx = (\n```\n")
    with pytest.raises(SyntaxError):
        do(page, page.parent / "folder")
