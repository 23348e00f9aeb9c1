"""How a command ends."""

import pytest
import typer

from millpond.cli_exit import EXIT_CONFIG, fail


def test_a_failure_is_one_line_on_stderr_and_an_exit_code(capsys: pytest.CaptureFixture[str]):
    with pytest.raises(typer.Exit) as ended:
        fail("no such key", EXIT_CONFIG)
    assert ended.value.exit_code == 78
    assert capsys.readouterr() == ("", "millpond: no such key\n")
