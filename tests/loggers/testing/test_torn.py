"""Files that have grown are torn; those that were put in place whole are not."""

from pathlib import Path

from millpond_loggers.testing.torn import torn_copies


def make(folder: Path, **contents: str) -> Path:
    folder.mkdir()
    for name, content in contents.items():
        (folder / name).write_text(content)
    return folder


def test_a_file_that_has_grown_is_torn_at_both_sides_of_its_end(tmp_path: Path) -> None:
    before = make(tmp_path / "before", rows="one\n", same="x", other="abc", empty="")
    after = make(tmp_path / "after", rows="one\ntwo\n", same="x", other="xyz!", empty="z", new="n")
    copies = list(torn_copies(before, after, tmp_path))
    assert [(what, is_lost, (folder / "rows").read_text()) for what, is_lost, folder in copies] == [
        ("rows without its last 1 bytes", True, "one\ntwo"),
        ("rows with 1 bytes more", False, "one\ntwo\nt"),
        ("rows without its last 2 bytes", True, "one\ntw"),
        ("rows with 2 bytes more", False, "one\ntwo\ntw"),
        ("rows without its last 3 bytes", True, "one\nt"),
        ("rows with 3 bytes more", False, "one\ntwo\ntwo"),
    ]
    for _, _, folder in copies:
        assert (folder / "new").read_text() == "n"
        assert sorted(path.name for path in folder.iterdir()) == [
            *("empty", "new", "other", "rows", "same")
        ]


def test_what_lies_in_folders_is_found_too(tmp_path: Path) -> None:
    before, after = make(tmp_path / "before"), make(tmp_path / "after")
    make(before / "in", rows="a")
    make(after / "in", rows="ab\n")
    what = [what for what, _, _ in torn_copies(before, after, tmp_path)]
    assert what == ["in/rows without its last 1 bytes", "in/rows with 1 bytes more"]
