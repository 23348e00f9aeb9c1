"""The null logger passes what can be asked of one that records nothing."""

from pathlib import Path

from millpond.testing import LoggerConformance


class TestNull(LoggerConformance):
    module = "millpond_loggers.null_logger"

    def read_ids(self, root: Path) -> list[str]:
        assert list(root.iterdir()) == []
        return []

    def _check_ids(self, root: Path, ids: object, **_: object) -> None:
        assert self.read_ids(root) == []
