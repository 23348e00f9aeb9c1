"""What the machine cannot do is an error before the start."""

import socket
from pathlib import Path

import psutil
import pytest

from millpond.config.load import load
from millpond.config.model import Config
from millpond.errors import ConfigError
from millpond.machine_check import check_machine, memory_available_bytes

TEXT = """\
output_dir: {folder}
buffer:
  {amount}
  channels:
    rgb: {{shape: [4096], dtype: uint8}}
logging: {{logger_modules: [csv]}}
service: {{socket: /tmp/a.sock, health_socket: /tmp/b.sock}}
"""


def config(tmp_path: Path, *, folder: str = "runs/a/b", amount: str = "slots: 10") -> Config:
    path = tmp_path / "pond.yaml"
    path.write_text(TEXT.format(folder=tmp_path / folder, amount=amount))
    return load(path, environ={})


def test_a_fitting_machine_is_left_as_it_was(tmp_path: Path) -> None:
    check_machine(config(tmp_path), available_bytes=10 * 4096)
    check_machine(config(tmp_path))
    assert [path.name for path in tmp_path.iterdir()] == ["pond.yaml"]
    (tmp_path / "runs").mkdir()
    check_machine(config(tmp_path, folder="runs"))
    assert list((tmp_path / "runs").iterdir()) == []


def test_too_little_memory_says_how_much_would_fit(tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"10 slots of 4096 bytes .* 9 slots would fit"
    ) as refusal:
        check_machine(config(tmp_path), available_bytes=9 * 4096 + 5)
    assert (refusal.value.key, refusal.value.line) == ("buffer.slots", 3)
    with pytest.raises(ConfigError, match="1 MiB of memory, and 0 MiB are available") as refusal:
        check_machine(config(tmp_path, amount="size: 1MiB"), available_bytes=4096)
    assert (refusal.value.key, refusal.value.line) == ("buffer.size", 3)


def test_unknown_channels_need_no_memory_yet(tmp_path: Path) -> None:
    plain = Config(output_dir=tmp_path / "runs", logging={"logger_modules": ["csv"]})
    check_machine(plain, available_bytes=0)


@pytest.mark.parametrize("folder", ["file", "file/below", "link", "x" * 300, "/proc/none"])
def test_a_folder_that_cannot_be_written(tmp_path: Path, folder: str) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    unusable = config(tmp_path, folder=folder)
    with pytest.raises(ConfigError, match="cannot be written: ") as refusal:
        check_machine(unusable, available_bytes=2**30)
    assert (refusal.value.key, refusal.value.line) == ("output_dir", 1)
    assert {path.name for path in tmp_path.iterdir()} == {"file", "link", "pond.yaml"}


def with_sockets(tmp_path: Path, **sockets: object) -> Config:
    path = tmp_path / "pond.yaml"
    given = "".join(f"  {key}: {place}\n" for key, place in sockets.items())
    path.write_text(
        f"output_dir: {tmp_path / 'runs'}\nlogging: {{logger_modules: [csv]}}\nservice:\n{given}"
    )
    return load(path, environ={})


@pytest.mark.parametrize("key", ["socket", "health_socket"])
@pytest.mark.parametrize(
    ("place", "problem"),
    [
        ("/proc/nope/m.sock", "the socket /proc/nope/m.sock cannot be made: "),
        ("file/m.sock", "m.sock cannot be made: Not a directory"),
        ("file", "file exists and is no socket: move it away, or set service."),
        ("folder", "folder exists and is no socket"),
        ("link", "link exists and is no socket"),
    ],
)
def test_a_socket_that_cannot_be_made(tmp_path: Path, key: str, place: str, problem: str) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "folder").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    before = {path.name for path in tmp_path.iterdir()} | {"pond.yaml"}
    with pytest.raises(ConfigError) as refusal:
        check_machine(with_sockets(tmp_path, **{key: tmp_path / place}))
    assert problem in refusal.value.problem
    assert (refusal.value.key, refusal.value.line) == (f"service.{key}", 4)
    assert {path.name for path in tmp_path.iterdir()} == before


@pytest.mark.parametrize("name", ["millpond.sock", "health.sock"])
def test_a_socket_in_the_output_folder_is_told_by_the_folders_key(
    tmp_path: Path, name: str
) -> None:
    (tmp_path / "runs" / name).mkdir(parents=True)
    with pytest.raises(ConfigError, match=f"{name} exists and is no socket") as refusal:
        check_machine(with_sockets(tmp_path, drain_s=1))
    assert (refusal.value.key, refusal.value.line) == ("output_dir", 1)


def test_sockets_in_folders_to_be_made_and_those_left_over_are_good(tmp_path: Path) -> None:
    (tmp_path / "old").mkdir()
    with socket.socket(socket.AF_UNIX) as old:
        old.bind(str(tmp_path / "old" / "m.sock"))
    check_machine(
        with_sockets(
            tmp_path,
            socket=tmp_path / "old" / "m.sock",
            health_socket=tmp_path / "new" / "deep" / "h.sock",
        )
    )
    assert {path.name for path in tmp_path.iterdir()} == {"old", "pond.yaml"}
    assert [path.name for path in (tmp_path / "old").iterdir()] == ["m.sock"]


def cgroup(folder: Path, **files: object) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name.replace("memory_", "memory.")).write_text(f"{content}\n")


def available(tmp_path: Path, membership: str) -> int:
    (tmp_path / "membership").write_text(membership)
    return memory_available_bytes(membership=tmp_path / "membership", mount=tmp_path / "cgroup")


def test_the_narrowest_cgroup_counts_and_its_file_cache_does_not(tmp_path: Path) -> None:
    stat = "anon 5\ninactive_file 100"
    cgroup(tmp_path / "cgroup/a", memory_max=5000, memory_current=1000, memory_stat=stat)
    cgroup(tmp_path / "cgroup/a/b", memory_max="max", memory_current=1000)
    assert available(tmp_path, "0::/a/b\n") == 4100
    cgroup(tmp_path / "cgroup/a/b", memory_max=1500, memory_current=1000)
    assert available(tmp_path, "0::/a/b\n") == 500
    cgroup(tmp_path / "cgroup/a/b", memory_max=900, memory_current=1000)
    assert available(tmp_path, "0::/a/b\n") == 0


def test_the_first_version_of_cgroups(tmp_path: Path) -> None:
    folder = tmp_path / "cgroup/memory"
    stat = "total_inactive_file 7"
    cgroup(folder / "a", memory_limit_in_bytes=2000, memory_usage_in_bytes=500, memory_stat=stat)
    cgroup(folder, memory_limit_in_bytes=2**63 - 4096, memory_usage_in_bytes=500)
    assert available(tmp_path, "3:cpu,cpuacct:/x\n2:memory:/a\n") == 1507


def test_the_hosts_path_in_a_container_means_the_root(tmp_path: Path) -> None:
    cgroup(tmp_path / "cgroup", memory_max=3000, memory_current=1000)
    assert available(tmp_path, "0::/../../docker/abc\n") == 2000


def test_without_cgroups_the_machine_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    memory = psutil.virtual_memory()._replace(available=12345)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: memory)
    assert memory_available_bytes(membership=tmp_path / "none", mount=tmp_path) == 12345
