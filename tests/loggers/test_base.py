"""The base class: what it takes note of, and what it refuses."""

from typing import Any

import pytest
from loggers.memory_buffer import MemoryBuffer
from pydantic import ValidationError

from millpond.errors import ConfigError
from millpond_loggers.base import BaseLogger, Options

BUFFER = MemoryBuffer({"loss": ((), "float32")})


class FormatOptions(Options):
    format: str = "png"
    quality: int = 90


class FormatLogger(BaseLogger):
    Options = FormatOptions


def config(**options: Any) -> dict[str, Any]:
    return {"policy": {"n": 1}, "logger": {"name": "mine", "module": "m", "options": options}}


def test_a_logger_takes_note_of_what_it_is_given() -> None:
    given = config()
    logger = FormatLogger("runs/demo", BUFFER, given)
    assert logger.root_dir == "runs/demo"
    assert logger.buffer is BUFFER
    assert logger.config is given
    assert logger.name == "mine"
    assert (logger.instance, logger.instances) == (1, 1)
    assert logger.logger.name == "millpond.mine"
    assert (logger.extra, logger.libraries, logger.keeps_slots) == (None, (), False)


def test_a_logger_knows_which_of_its_processes_it_is() -> None:
    own = {"name": "mine", "options": {}, "instance": 2, "instances": 3}
    logger = BaseLogger("", BUFFER, {"logger": own})
    assert (logger.instance, logger.instances) == (2, 3)


def test_options_have_their_defaults_and_are_checked() -> None:
    assert FormatLogger("", BUFFER, config()).options == FormatOptions(format="png", quality=90)
    options = FormatLogger("", BUFFER, config(quality=10)).options
    assert isinstance(options, FormatOptions)
    assert options.quality == 10
    with pytest.raises(ConfigError, match="quality"):
        FormatLogger("", BUFFER, config(quality="much"))


@pytest.mark.parametrize("logger", [BaseLogger, FormatLogger])
def test_an_unknown_option_is_refused_by_its_name(logger: type[BaseLogger]) -> None:
    with pytest.raises(ConfigError, match="option 'qualty' is unknown"):
        logger("", BUFFER, config(qualty=10))


def test_options_cannot_be_changed_later() -> None:
    options = FormatLogger("", BUFFER, config()).options
    with pytest.raises(ValidationError, match="frozen"):
        options.quality = 10


def test_a_logger_made_by_hand_needs_no_name_and_no_options() -> None:
    logger = FormatLogger("", BUFFER, {})
    assert logger.name == "FormatLogger"
    assert logger.options == FormatOptions()


@pytest.mark.parametrize("item", [{"id": "1", "render_args": {}, "result_ix": 0}, None])
def test_a_logger_without_log_of_its_own_says_so(item: dict[str, Any] | None) -> None:
    with pytest.raises(NotImplementedError, match=r"FormatLogger has no log\(item\)"):
        FormatLogger("", BUFFER, {}).log(item)
