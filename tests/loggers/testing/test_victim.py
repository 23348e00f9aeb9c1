"""What a process that will be killed does: its batches, its books, its second tries."""

from pathlib import Path
from typing import Any

import pytest

from millpond_loggers.testing.victim import TRIES, Books, Victim, _batches


class Logger:
    """Raises at some results, for so many times."""

    raises: dict[str, int]

    def __init__(self, root_dir: str, *_: Any) -> None:
        self.path = Path(root_dir) / "ids"

    def log(self, item: Any) -> None:
        left = self.raises.get(item["id"], 0)
        if left:
            self.raises[item["id"]] = left - 1
            raise ValueError(item["id"])
        with self.path.open("a") as file:
            file.write(item["id"] + " ")

    def end(self) -> None: ...


@pytest.fixture
def victim(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Victim:
    made = Victim(
        {
            "root_dir": str(tmp_path / "root"),
            "books": str(tmp_path / "books"),
            "channels": {"loss": [[], "float32"]},
            "options": {},
            "config": {},
            "count": 6,
        }
    )
    # A fault cannot be taken back: it is for processes that end.
    monkeypatch.setattr(made.fault, "install", lambda: None)
    return made


def test_what_raises_is_given_again(victim: Victim, tmp_path: Path) -> None:
    Logger.raises = {"000003": 1, "000004": TRIES}
    victim.run(Logger)
    logged = (tmp_path / "root" / "ids").read_text().split()
    assert logged == ["000001", "000002", "000005", "000003", "000004", "000006"]
    assert (tmp_path / "books").read_text().split() == ["1", "2", "5", "3", "4", "6"]


def test_what_always_raises_ends_it(victim: Victim, tmp_path: Path) -> None:
    Logger.raises = {"000003": TRIES + 1}
    with pytest.raises(ValueError, match="000003"):
        victim.run(Logger)


def test_books_go_on_where_they_were(tmp_path: Path) -> None:
    for number in (3, 5):
        Books(str(tmp_path / "books")).add(number)
    assert Books(str(tmp_path / "books")).numbers == {3, 5}


def test_batches_are_small_and_large() -> None:
    results: Any = list(range(13))
    assert [len(batch) for batch in _batches(results)] == [1, 4, 6, 1, 1]
    assert list(_batches([])) == []
