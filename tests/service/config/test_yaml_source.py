"""Reading one file: every refusal has a place, and nothing but a refusal comes out."""

from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from millpond.config.yaml_source import (
    FILE_BYTES_MAX,
    Place,
    find_place,
    key_text,
    parse_value,
    read,
)
from millpond.errors import ConfigError

OWN = frozenset({"name", "buffer", "logging", "service"})


def write(tmp_path: Path, content: str | bytes) -> Path:
    path = tmp_path / "pond.yaml"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def test_values_and_places(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        """\ufeff# A byte order mark before.
name: 'yes'
buffer:
  slots: 3
  channels:
    rgb: {shape: [1, 2], dtype: int8}
logging:
  logger_modules:
  - csv
  - module: json
    options: {day: 2026-01-01, text: "12:30"}
policy: {on: no}
""",
    )
    source = read(path, own=OWN)
    assert source.data == {
        "name": "yes",
        "buffer": {"slots": 3, "channels": {"rgb": {"shape": [1, 2], "dtype": "int8"}}},
        "logging": {
            "logger_modules": [
                "csv",
                {"module": "json", "options": {"day": "2026-01-01", "text": "12:30"}},
            ]
        },
        "policy": {True: False},
    }
    lines = {key_text(key): place.line for key, place in source.places.items()}
    assert lines["name"] == 2
    assert lines["buffer.slots"] == 4
    assert lines["buffer.channels.rgb.shape[1]"] == 6
    assert lines["logging.logger_modules[0]"] == 9
    assert lines["logging.logger_modules[1].options.day"] == 11
    assert lines["policy"] == 12
    assert {place.file for place in source.places.values()} == {str(path)}


def test_the_nearest_place_stands_in() -> None:
    places = {(): Place("f", 1), ("a",): Place("f", 7)}
    assert find_place(places, ("a", 3, "b")) == Place("f", 7)
    assert find_place(places, ("b",)) == Place("f", 1)
    assert find_place({}, ("b",)) == Place("")


@pytest.mark.parametrize(
    ("content", "line", "key", "words"),
    [
        ("", 1, "", "empty"),
        ("# only a comment\n", 1, "", "empty"),
        ("- a", 1, "", "top level must be a mapping"),
        ("name", 1, "", "top level must be a mapping"),
        ("name: a\n---\nname: b", 2, "", "second document"),
        ("name: a\nname: b", 2, "name", "first on line 1"),
        ("buffer:\n  slots: 1\n  slots: 2", 3, "buffer.slots", "given twice"),
        ("name: [a", 1, "", "not valid YAML"),
        ("name: a\n\tbuffer: 1", 2, "", "with spaces"),
        ("name: a\nbuffer:\n  - 1\n  a: 2", 4, "", "that begins on line 3"),
        ("name: 'a", 1, "", "quoted scalar"),
        ("name: @a", 1, "", "not valid YAML"),
        ("%YAML 2.0\n---\nname: a", 1, "", "incompatible"),
        (b"name: a\x00b", 1, "", "'\\x00'"),
        (b"name: a\nbuffer: \x1b", 2, "", "control character"),
        (b"name: a\n# \xff\xfe", 2, "", "UTF-8"),
        ("name: a".encode("utf-16"), 1, "", "UTF-8"),
        (b"#" * (FILE_BYTES_MAX + 1), 1, "", "longer than"),
        ("buffer: &a {slots: 1}", 1, "buffer", "anchors (&a)"),
        ("name: &a x\nbuffer: 1", 1, "name", "anchors (&a)"),
        ("policy: &a x\nname: *a", 2, "name", "aliases (*a)"),
        ("&a {name: x}", 1, "", "anchors"),
        ("policy: &a {x: 1}\nbuffer:\n  <<: *a", 3, "buffer.<<", "base_config"),
        ("name: !!str 12", 1, "name", "tags (!!str)"),
        ("buffer: !mine {}", 1, "buffer", "tags (!mine)"),
        ("buffer:\n  a: !!python/tuple [1]", 2, "buffer.a", "tags"),
        ("buffer:\n  12: 1", 2, "buffer.12", "quotes"),
        ("buffer:\n  on: 1", 2, "buffer.on", "quotes"),
        ("buffer:\n  ? [a]\n  : 1", 2, "buffer", "one word"),
        ("buffer:\n  '': 1", 2, "buffer.", "found nothing"),
        ("policy: &a x\n*a : 1", 2, "", "one word"),
        ("logging:\n  a:\n  - x\n  - no", 4, "logging.a[1]", "true or false"),
        ("buffer: " + "[" * 5000, 1, None, "levels deep"),
        ("name: a\nbuffer: [" + "1," * 50_000 + "]", 2, "", "50000 values"),
        ("name: a\npolicy: [" + "1," * 50_000 + "]", 2, "", "50000 values"),
    ],
)
def test_what_is_refused(
    tmp_path: Path, content: str | bytes, line: int, key: str | None, words: str
) -> None:
    path = write(tmp_path, content)
    with pytest.raises(ConfigError) as refusal:
        read(path, own=OWN)
    error = refusal.value
    assert error.file == str(path)
    assert error.line == line
    assert key is None or error.key == key
    assert words in error.problem


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    for path in (tmp_path / "absent.yaml", tmp_path, Path("a\0b")):
        with pytest.raises(ConfigError, match="cannot be read") as refusal:
            read(path, own=OWN)
        assert refusal.value.file == str(path)


def test_one_value_by_the_same_rules() -> None:
    def parse(text: str) -> object:
        return parse_value(text, key="name", origin="--set")

    assert parse("3") == 3
    assert parse("") is None
    assert parse("'007'") == "007"
    assert parse("~/runs/a#b") == "~/runs/a#b"
    for text in ("no", "[1]", "a: b", "!!str x", "'open", "a\n---\nb", "\x00", "*a", "\ud800"):
        with pytest.raises(ConfigError) as refusal:
            parse(text)
        assert (refusal.value.key, refusal.value.file) == ("name", "--set")


YAML_LIKE = st.text(alphabet="ab0:-[]{}&*!?|>'\"#%,~<.=@`\\\t\n u\u2028\x85", max_size=60)
CONTENT = st.one_of(
    st.binary(max_size=200),
    st.text(max_size=100).map(lambda text: text.encode("utf-8", "surrogatepass")),
    YAML_LIKE.map(str.encode),
    YAML_LIKE.map(lambda text: f"name: {text}".encode()),
    YAML_LIKE.map(lambda text: f"policy: {text}".encode()),
)


@given(content=CONTENT)
@example(content=b"policy: !!int ''")
@example(content=b"policy: !!float x")
@example(content=b"policy: " + b"9" * 5000)
@example(content=b"policy: 0001-01-01 00:00:00 +99:99")
@example(content=b'name: "\\ud800"')
@settings(
    max_examples=600, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_nothing_but_a_config_error_comes_out(tmp_path: Path, content: bytes) -> None:
    path = write(tmp_path, content)
    refusal = None
    try:
        assert isinstance(read(path, own=OWN).data, dict)
    except ConfigError as error:
        refusal = error
    if refusal is not None:
        line_count = len(content.decode("utf-8", "replace").splitlines())
        assert refusal.file == str(path)
        assert refusal.line is not None
        assert 1 <= refusal.line <= line_count + 1
