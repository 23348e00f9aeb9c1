"""A logger's diagnostics become lines with a level; whoever configures `logging` is left alone."""

import subprocess
import sys

import pytest

from millpond_loggers.process.diagnostics import diagnostics_of

BEGIN = """
import logging, sys
from millpond_loggers.process.diagnostics import diagnostics_of, show_diagnostics
show_diagnostics()
log = diagnostics_of("mine")
"""


def lines(code: str) -> list[str]:
    """What a process writes to standard error that does this."""
    done = subprocess.run(
        [sys.executable, "-c", BEGIN + code], capture_output=True, text=True, check=True
    )
    return done.stderr.splitlines()


def test_each_record_is_a_line_with_its_level() -> None:
    code = "log.info('loss=%d', 3); log.warning('odd'); log.error('bad'); log.debug('unseen')"
    assert lines(code) == [
        "[millpond:INFO] loss=3",
        "[millpond:WARNING] odd",
        "[millpond:ERROR] bad",
    ]


def test_a_traceback_keeps_its_level_in_every_line() -> None:
    code = "try: 1 / 0\nexcept ZeroDivisionError: log.exception('no ratio')"
    told = lines(code)
    assert told[0] == "[millpond:ERROR] no ratio"
    assert told[-1] == "[millpond:ERROR] ZeroDivisionError: division by zero"
    assert all(line.startswith("[millpond:ERROR] ") for line in told)


def test_libraries_are_heard_from_warning_on() -> None:
    code = "for n in (20, 30): logging.getLogger('PIL').log(n, 'level %d', n)"
    assert lines(code) == ["[millpond:WARNING] level 30"]


def test_a_logger_may_show_its_debug_lines() -> None:
    assert lines("log.setLevel('DEBUG'); log.debug('x')") == ["[millpond:DEBUG] x"]


def test_whoever_configures_logging_finds_nothing_in_the_way() -> None:
    code = "logging.basicConfig(format='mine %(message)s'); log.warning('x')"
    assert lines(code) == ["mine x"]


def test_a_record_that_cannot_be_written_is_no_error_of_the_caller() -> None:
    assert "TypeError" in "\n".join(lines("log.info('%d', 'x'); print('on', file=sys.stderr)"))


def test_two_loggers_have_diagnostics_of_their_own(caplog: pytest.LogCaptureFixture) -> None:
    diagnostics_of("mine").warning("first")
    diagnostics_of("yours").warning("second")
    assert [record.name for record in caplog.records] == ["millpond.mine", "millpond.yours"]
