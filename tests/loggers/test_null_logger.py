"""The null logger: counts, and says how many."""

from pathlib import Path

from loggers.memory_buffer import MemoryBuffer

from millpond_loggers.null_logger import Logger, NullLogger


def test_it_counts_and_prints_the_number_once_at_the_end(tmp_path: Path, capsys) -> None:
    buffer = MemoryBuffer({"loss": ((), "float32")})
    logger = Logger(str(tmp_path), buffer, {})
    assert isinstance(logger, NullLogger)
    for number in range(3):
        logger.log(buffer.put(str(number)))
    assert logger.result_count == 3
    logger.end()
    logger.log(None)
    assert capsys.readouterr().out == "3 results\n"
    assert list(tmp_path.iterdir()) == []
    assert buffer.registered == 1
    assert buffer.freed == []
