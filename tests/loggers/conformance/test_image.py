"""The image logger passes the suite that every logger should pass."""

from pathlib import Path
from typing import ClassVar

from PIL import Image

from millpond.testing import LoggerConformance
from millpond_loggers.files.names import file_name


class TestImage(LoggerConformance):
    module = "millpond_loggers.image_logger"
    is_ordered = False
    is_split = True

    def read_ids(self, root: Path) -> list[str]:
        folder = root / "images"
        names = [path.name for path in folder.rglob("*_rgb.png")]
        for path in folder.rglob("*.png"):
            with Image.open(path) as image:
                image.load()
                assert image.size == (8, 8)
        others = [path.name.partition("_segmentation.")[0] for path in folder.rglob("*_seg*")]
        assert sorted(others) == sorted(name.removesuffix("_rgb.png") for name in names)
        return [name.removesuffix("_rgb.png") for name in names]

    def written_id(self, id: str) -> str:
        return file_name(id, "")


class TestImageWithThreads(TestImage):
    options: ClassVar = {
        "threads": 2,
        "subfolders": 2,
        "encoding": {"segmentation": "palette"},
    }
    result_count = 2_000
