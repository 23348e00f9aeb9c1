"""Loading whole configurations: precedence, 3DB's files, and our own example."""

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import BaseModel, TypeAdapter

from millpond.config.load import load
from millpond.config.model import EXPERIMENT_SECTIONS, Config, LoggerConfig
from millpond.config.section import ByteCount
from millpond.errors import ConfigError

EXAMPLE = Path(__file__).parents[3] / "config.example.yaml"

EXPERIMENT_BASE = """\
inference:
  module: 'torchvision.models'
  label_map: './resources/imagenet_mapping.json'
  class: 'resnet18'
  output_shape: [1000]
  normalization:
    mean: [0.485, 0.456, 0.406]
    std: [0.229, 0.224, 0.225]
  resolution: [224, 224]
  args:
    pretrained: True
evaluation:
  module: 'threedb.evaluators.classification'
  args:
    classmap_path: './resources/ycb_to_IN.json'
    topk: 1
render_args:
  engine: 'threedb.rendering.render_blender'
  resolution: 256
  samples: 32
  with_uv: yes
  with_depth: off
policy:
  module: "threedb.policies.random_search"
  samples: 5
"""
EXPERIMENT = """\
base_config: base.yaml
policy:
  module: "threedb.policies.grid_search"
  samples_per_dim: 15
controls:
- module: threedb.controls.blender.denoiser
- &camera
  module: threedb.controls.blender.camera
  view_point_x: (-.5, .5)
  zoom_factor: 1
- <<: *camera
  zoom_factor: (0.7, 1.3) # near and far
logging:
  logger_modules:
    - 'threedb.result_logging.image_logger'
    - 'threedb.result_logging.json_logger'
"""


@pytest.fixture(autouse=True)
def fixture_folder(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A folder with a short name, since sockets' paths are bounded."""
    with tempfile.TemporaryDirectory(prefix="pond", dir="/tmp") as folder:
        monkeypatch.chdir(folder)
        yield
        monkeypatch.undo()


def write(text: str, name: str = "pond.yaml") -> str:
    Path(name).write_text(text)
    return name


def test_a_3db_experiment_loads_unchanged() -> None:
    write(EXPERIMENT_BASE, "base.yaml")
    path = write(EXPERIMENT, "camera zoom.yaml")
    config = load(path, environ={})
    # As 3DB itself merges them.
    assert config.experiment == {**yaml.safe_load(EXPERIMENT_BASE), **yaml.safe_load(EXPERIMENT)}
    assert config.inference["args"] == {"pretrained": True}
    assert config.controls[2]["zoom_factor"] == "(0.7, 1.3)"
    assert config.render_args["with_uv"] is True
    assert [logger.name for logger in config.loggers] == ["image", "json"]
    assert config.name == "camera-zoom"
    assert config.output_dir == Path.cwd() / "runs/camera-zoom"
    assert config.source == Path.cwd() / path


def test_set_wins_over_the_environment_and_that_over_the_file() -> None:
    path = write(
        "name: file\nservice: {drain_s: 1, renderers_max: 2}\nlogging: {logger_modules: [csv]}"
    )
    environ = {"MILLPOND_SERVICE__DRAIN_S": "2", "MILLPOND_NAME": "env", "HOME": "/"}
    config = load(path, overrides=["service.drain_s=3"], environ=environ)
    assert config.service.drain_s == 3
    assert config.service.renderers_max == 2
    assert config.name == "env"
    assert config.experiment["name"] == "env"


def test_an_empty_section_can_be_overridden() -> None:
    path = write("service:\nbuffer: {slots: 9}\nlogging: {logger_modules: [csv]}")
    config = load(path, overrides=["service.drain_s=3", "buffer.size=1MiB"], environ={})
    assert config.service.drain_s == 3
    assert (config.buffer.slots, config.buffer.size) == (256, 2**20)


def test_a_bad_override_is_reported_as_such() -> None:
    path = write("logging: {logger_modules: [csv]}")
    with pytest.raises(ConfigError) as refusal:
        load(path, overrides=["service.drain_s=x"], environ={})
    error = refusal.value
    assert (error.file, error.line) == ("--set service.drain_s=x", None)
    assert error.key == "service.drain_s"
    with pytest.raises(ConfigError, match=r"^MILLPOND_BUFFER__SLOTS: buffer.slots: found 0;"):
        load(path, environ={"MILLPOND_BUFFER__SLOTS": "0"})


def test_a_problem_in_the_base_is_reported_there() -> None:
    write("service:\n  drain_s: x\n", "base.yaml")
    path = write("base_config: base.yaml\nlogging: {logger_modules: [csv]}")
    with pytest.raises(ConfigError, match=r"^base.yaml:2: service.drain_s: found 'x'"):
        load(path, environ={})


def test_the_example_loads() -> None:
    config = load(EXAMPLE, environ={})
    assert [logger.name for logger in config.loggers] == ["csv", "json", "image"]
    assert [str(channel) for channel in config.buffer.declared or ()] == [
        "rgb (3, 256, 256) float32",
        "segmentation (1, 256, 256) int32",
        "is_correct () bool",
        "loss () float32",
    ]


def test_the_example_shows_every_key_with_its_default() -> None:
    """Where a value is no default, its line says that it is an example."""
    lines = EXAMPLE.read_text().splitlines()
    config = load(EXAMPLE, environ={})
    shown = dict(config.experiment)
    long_form = shown["logging"]["logger_modules"][-1]
    default = Config(logging={"logger_modules": ["csv"]})
    assert set(shown) | set(EXPERIMENT_SECTIONS) == set(Config.model_fields)
    for section in EXPERIMENT_SECTIONS:
        assert any(line.startswith(f"# {section}:") for line in lines)
    differing = [*_compare(shown, default), *_compare(long_form, LoggerConfig(module="csv"))]
    examples = {line.split(":")[0].strip(" -") for line in lines if "n example" in line}
    assert set(differing) - {"module"} <= examples


def _compare(shown: dict[str, Any], default: BaseModel) -> list[str]:
    """The keys whose values are not the defaults; fails when a key is missing."""
    differing = []
    fields = set(type(default).model_fields) - set(EXPERIMENT_SECTIONS)
    assert set(shown) == fields
    for name in fields:
        value = getattr(default, name)
        if isinstance(value, BaseModel):
            differing += _compare(shown[name], value)
        elif isinstance(shown[name], str) and isinstance(value, int):  # A size: 4GiB.
            differing += [name] * (TypeAdapter(ByteCount).validate_python(shown[name]) != value)
        elif shown[name] != (list(value) if isinstance(value, tuple) else value):
            differing.append(name)
    return differing
