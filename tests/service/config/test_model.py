"""Bad configurations: each is one error with its place, before anything is started."""

import os
from pathlib import Path

import pytest

from millpond.config.load import load
from millpond.config.model import SOCKET_PATH_BYTES_MAX, Config
from millpond.errors import ConfigError

LOGGERS = "logging: {logger_modules: [csv]}\n"

# What stands below LOGGERS, the line, the key, and words of the message.
BAD = [
    # Unknown keys, with the nearest known one.
    ("bufer: {}", 2, "bufer", "did you mean 'buffer'?"),
    ("slots: 3", 2, "slots", "did you mean 'buffer.slots'?"),
    ("zzz: 3", 2, "zzz", "Known here: name, output_dir"),
    ("buffer:\n  slot: 3", 3, "buffer.slot", "did you mean 'slots'?"),
    ("buffer: {channel: {}}", 2, "buffer.channel", "did you mean 'channels'?"),
    ("service:\n  drain: 3", 3, "service.drain", "did you mean 'drain_s'?"),
    ("disk: {spill_max: lots}", 2, "disk.spill_max", "512MiB"),
    ("disk: {deadline_s: 0}", 2, "disk.deadline_s", "above 0"),
    ("disk: {size: 1GiB}", 2, "disk.size", "Known here: spill_dir"),
    ("service: {hang_s: 3}", 2, "service.hang_s", "Known here: socket"),
    ("buffer:\n  channels:\n    a: {shape: [], dtype: int8, type: 3}", 4, None, "unknown key"),
    # Words that YAML's readers differ about.
    ("name: no", 2, "name", "found no without quotes: write true or false"),
    ("name: Off", 2, "name", "put it into quotes"),
    ("name: n", 2, "name", "put it into quotes"),
    ("service: {drain_s: 12:30}", 2, "service.drain_s", "found 12:30"),
    ("service: {drain_s: 12:30:45}", 2, "service.drain_s", "base-60"),
    ("buffer: {slots: 0256}", 2, "buffer.slots", "octal"),
    ("buffer: {slots: 0o17}", 2, "buffer.slots", "octal"),
    ("buffer: {channels: {on: {shape: [], dtype: bool}}}", 2, "buffer.channels.on", "quotes"),
    # Structure.
    ("name: a\nname: b", 3, "name", "given twice, first on line 2"),
    ("logging: {}", 2, "logging", "given twice, first on line 1"),
    ("buffer: &a {slots: 3}", 2, "buffer", "anchors"),
    ("policy: &a {}\nbuffer: *a", 3, "buffer", "aliases"),
    ("name: !!str 3", 2, "name", "tags"),
    ("policy: !!python/object:a.b {}", 2, "policy", "!!python/object:a.b"),
    ("name: [", 2, "", "not valid YAML"),
    ("---\nname: a", 2, "", "second document"),
    ("\tname: a", 2, "", "spaces, not with tabs"),
    # Kinds and ranges of values.
    ("name: 12", 2, "name", "found 12; it must be a text that is not empty; put it into quotes"),
    ("name:", 2, "name", "found nothing"),
    ("name: a/b", 2, "name", "found 'a/b'; a name has letters, digits"),
    ("name: " + "a" * 65, 2, "name", "at most 64"),
    ("output_dir: ''", 2, "output_dir", "write a path"),
    ("output_dir: 3", 2, "output_dir", "found 3; it must be a path"),
    ('output_dir: "a\\0b"', 2, "output_dir", "NUL"),
    ("output_dir: " + "x" * 120, 2, "output_dir", "set service.socket to a shorter path"),
    ("base_config: nope.yaml", 2, "base_config", "there is no file"),
    ("buffer: 5", 2, "buffer", "found 5; it must be a mapping"),
    ("buffer: {slots: 0}", 2, "buffer.slots", "found 0; it must be a whole number from 1 to 65536"),
    ("buffer: {slots: 65537}", 2, "buffer.slots", "found 65537"),
    ("buffer: {slots: true}", 2, "buffer.slots", "found true; it must be a whole number"),
    ("buffer: {slots: 2.0}", 2, "buffer.slots", "found 2.0"),
    ("buffer: {slots: '256'}", 2, "buffer.slots", "found '256'"),
    ("buffer: {slots: 1_000}", 2, "buffer.slots", "found '1_000'"),
    ("buffer: {size: many}", 2, "buffer.size", "found 'many'; write a size such as 512MiB"),
    ("buffer: {size: 5}", 2, "buffer.size", "found 5; it must be a whole number from 4096"),
    ("buffer:\n  slots: 3\n  size: 1MiB", 4, "buffer.size", "give one of them"),
    ("buffer: {channels: {}}", 2, "buffer.channels", "at least one array"),
    ("buffer: {channels: {a: {shape: 3, dtype: int8}}}", 2, "buffer.channels.a.shape", "a list"),
    ("buffer: {channels: {a: {shape: [0], dtype: int8}}}", 2, "buffer.channels.a.shape", "0"),
    (
        "buffer: {channels: {a: {shape: [2.5], dtype: int8}}}",
        2,
        "buffer.channels.a.shape[0]",
        "2.5",
    ),
    ("buffer: {channels: {a: {shape: [], dtype: int}}}", 2, "buffer.channels.a.dtype", "one of"),
    ("buffer: {channels: {a: {shape: []}}}", 2, "buffer.channels.a.dtype", "is missing"),
    ("buffer: {channels: {a b: {shape: [], dtype: int8}}}", 2, "buffer.channels.a b", "'a b'"),
    ("buffer: {channels: [rgb]}", 2, "buffer.channels", "a mapping"),
    (
        "service: {drain_s: -1}",
        2,
        "service.drain_s",
        "found -1; it must be a number from 0 to 3600",
    ),
    ("service: {drain_s: .nan}", 2, "service.drain_s", "found nan"),
    ("service: {drain_s: 1e999}", 2, "service.drain_s", "found inf"),
    ("service: {drain_s: ten}", 2, "service.drain_s", "found 'ten'; it must be a number"),
    ("service: {log_format: xml}", 2, "service.log_format", "one of auto, console, json"),
    ("service: {renderers_max: 0}", 2, "service.renderers_max", "from 1 to 1024"),
    ("service: {allow_uids: 5}", 2, "service.allow_uids", "a list"),
    ("service: {allow_uids: [0, -1]}", 2, "service.allow_uids[1]", "found -1"),
    ("service: {socket: a, health_socket: a}", 2, "service.health_socket", "must differ"),
    ("service:\n  socket: /" + "x" * 107, 3, "service.socket", "has 108 bytes, at most 107"),
]

BAD_LOGGERS = [
    ("name: a", 1, "logging.logger_modules", 'write ["null"]'),
    ("\nlogging:", 2, "logging.logger_modules", "at least one logger"),
    ("logging:\n  logger_modules: []", 2, "logging.logger_modules", "at least one logger"),
    ("logging:\n  logger_modules: csv", 2, "logging.logger_modules", "write [csv]"),
    ("logging:\n  logger_modules: {csv: 1}", 2, "logging.logger_modules", "a list"),
    (
        "logging:\n  logger_modules: [csv]\n  logger_module: [csv]",
        3,
        "logging.logger_module",
        "'logger_modules'?",
    ),
    ("logging: {logger_modules:\n  [null]}", 2, "logging.logger_modules[0]", "found nothing here"),
    (
        "logging: {logger_modules:\n  [5]}",
        2,
        "logging.logger_modules[0]",
        "found 5; write a module",
    ),
    ("logging: {logger_modules:\n  ['']}", 2, "logging.logger_modules[0].module", "found ''"),
    ("logging: {logger_modules: [{name: a}]}", 1, "logging.logger_modules[0].module", "missing"),
    (
        "logging: {logger_modules: [a,\n  a]}",
        2,
        "logging.logger_modules[1].name",
        "another 'name:'",
    ),
    ("logging: {logger_modules: [{module: a,\n  hang_s: 0}]}", 2, None, "from 0.1 to"),
    ("logging: {logger_modules: [{module: a,\n  when_full: wait}]}", 2, None, "drop"),
    ("logging: {logger_modules: [{module: a,\n  on_crash: ignore}]}", 2, None, "redeliver"),
    ("logging: {logger_modules: [{module: a,\n  limits: {cores: 2}}]}", 2, None, "unknown key"),
    ("logging: {logger_modules: [{module: a, max_in_window: 0}]}", 1, None, "from 1 to 1024"),
    ("logging: {logger_modules: [{module: a, start_s: 0}]}", 1, None, "above 0 and up to 3600"),
    ("logging: {logger_modules: [{module: a, options: [1]}]}", 1, None, "found [1]"),
    ("logging: {logger_modules: [{module: a, restart: {delay: 1}}]}", 1, None, "'delay_s'?"),
    (
        "logging: {logger_modules: [{module: a, restart: {delay_s: 5, delay_s_max: 1}}]}",
        1,
        "logging.logger_modules[0].restart.delay_s_max",
        "5.0",
    ),
]


@pytest.fixture(autouse=True)
def fixture_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder with a short name, since sockets' paths are bounded."""
    monkeypatch.chdir("/tmp")


@pytest.mark.parametrize(
    ("text", "line", "key", "words"),
    [(LOGGERS + text, line, key, words) for text, line, key, words in BAD] + BAD_LOGGERS,
)
def test_a_bad_configuration_is_one_error_with_its_place(
    tmp_path: Path, text: str, line: int, key: str | None, words: str
) -> None:
    path = tmp_path / "pond.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError) as refusal:
        load(path, environ={})
    error = refusal.value
    assert (error.file, error.line) == (str(path), line)
    assert key is None or error.key == key
    assert words in error.problem
    assert str(error).startswith(f"{path}:{line}: {error.key}")
    assert "\n" not in str(error)


def test_paths_follow_from_the_name() -> None:
    config = Config(name="a", logging={"logger_modules": ["csv"]})
    assert config.output_dir == Path("/tmp/runs/a")
    assert config.socket_path == Path("/tmp/runs/a/millpond.sock")
    assert config.health_socket_path == Path("/tmp/runs/a/health.sock")
    assert [logger.name for logger in config.loggers] == ["csv"]
    assert config.source == Path("/tmp/config.yaml")
    assert config.experiment == {}
    config = Config(output_dir="/o", service={"socket": "s"}, logging={"logger_modules": ["csv"]})
    assert config.output_dir == Path("/o")
    assert config.socket_path == Path("/tmp/s")
    assert config.health_socket_path == Path("/o/health.sock")


def test_the_longest_socket_path_is_allowed() -> None:
    longest = "/" + "ä" * ((SOCKET_PATH_BYTES_MAX - 1) // 2)
    assert len(os.fsencode(longest)) == SOCKET_PATH_BYTES_MAX
    config = Config(service={"socket": longest}, logging={"logger_modules": ["csv"]})
    assert str(config.socket_path) == longest


def test_others_report_problems_at_the_place_of_a_key(tmp_path: Path) -> None:
    path = tmp_path / "pond.yaml"
    path.write_text(LOGGERS + "buffer:\n  slots: 3\n")
    config = load(path, environ={})
    assert str(config.error("too many", "buffer", "slots")) == f"{path}:3: buffer.slots: too many"
    assert config.error("x", "service", "socket").line == 1
    assert config.error("x", "logging", "logger_modules", 0, "module").line == 1


def test_some_of_the_loggers_can_be_chosen() -> None:
    config = Config(logging={"logger_modules": ["csv", "json", "image"]})
    assert [logger.name for logger in config.only(["image", "csv"]).loggers] == ["csv", "image"]
    with pytest.raises(
        ConfigError, match="there is no logger 'video'; there are: csv, json, image"
    ):
        config.only(["video"])
