"""3DB's dashboard shows a run of the JSON and the image logger.

What it asks of the files is asserted here, one by one; when the package ``threedboard`` is there,
it reads them itself.
"""

import json
from pathlib import Path
from urllib.parse import quote

import numpy as np
import pytest
from loggers.memory_buffer import MemoryBuffer
from PIL import Image

from millpond_loggers.image_logger import Logger as ImageLogger
from millpond_loggers.json_logger import Logger as JSONLogger

CHANNELS = {
    "rgb": ((3, 16, 16), "float32"),
    "segmentation": ((1, 16, 16), "int32"),
    "prediction": ((2,), "int64"),
    "boxes": ((4, 6), "float32"),
    "is_correct": ((), "bool"),
    "loss": ((), "float32"),
}
CLASSES = ["cube", "ball", "cone"]
RESULT_COUNT = 12
KEYS = [
    *("id", "environment", "model", "render_args"),
    *("prediction", "boxes", "is_correct", "loss", "output_type"),
]


@pytest.fixture(params=["classification", "detection"])
def run(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A run with a restart in its middle, as 3DB's configuration describes it."""
    (tmp_path / "classes.json").write_text(json.dumps(CLASSES))
    root = tmp_path / "run"
    root.mkdir()
    config = {
        "inference": {"label_map": str(tmp_path / "classes.json")},
        "evaluation": {"module": f"threedb.evaluators.{request.param}"},
    }
    buffer = MemoryBuffer(CHANNELS)
    numbers = iter(range(RESULT_COUNT))
    for stop in (RESULT_COUNT // 2, RESULT_COUNT - 1):
        loggers = [JSONLogger(str(root), buffer, config), ImageLogger(str(root), buffer, config)]
        for number in numbers:
            item = put(buffer, number)
            for logger in loggers:
                logger.log(item)
            if number == stop:
                break
        for logger in loggers:
            logger.flush()
            logger.end()
    return root


def put(buffer: MemoryBuffer, number: int) -> dict:
    boxes = np.full((4, 6), -1, np.float32)
    boxes[0] = [0.1, 0.2, 0.5, 0.6, 0.9, number % 3]
    return buffer.put(
        f"{number:06d}",
        {"CameraControl.zoom": number / 4, "OrientationControl.rotation_x": number % 5},
        rgb=number / RESULT_COUNT,
        prediction=[number % 3, 0],
        boxes=boxes,
        is_correct=number % 2,
        loss=np.nan if number == 3 else number,
        environment="studio",
        model="teapot",
    )


def strict(text: str) -> dict:
    def refuse(word: str) -> None:
        raise ValueError(f"{word} is no JSON")

    return json.loads(text, parse_constant=refuse)


def test_every_line_is_whole_and_strict_json_with_the_same_keys_in_the_same_order(
    run: Path,
) -> None:
    text = (run / "details.log").read_text()
    assert text.endswith("\n")
    lines = [strict(line) for line in text[:-1].split("\n")]
    assert len(lines) == RESULT_COUNT
    for line in lines:
        assert list(line) == KEYS
        assert list(line["render_args"]) == ["CameraControl.zoom", "OrientationControl.rotation_x"]
        assert line["is_correct"] in {True, False}
        assert isinstance(line["is_correct"], bool)
    assert lines[3]["loss"] is None
    assert lines[4]["loss"] == 4


def test_predictions_index_the_class_map_and_boxes_end_with_minus_one(run: Path) -> None:
    class_map = json.loads((run / "class_maps.json").read_text())
    assert class_map == CLASSES
    for number, text in enumerate((run / "details.log").read_text().splitlines()):
        line = strict(text)
        assert line["output_type"] in {"classes", "bboxes"}
        assert class_map[line["prediction"][0]] == CLASSES[number % 3]
        assert class_map[int(line["boxes"][0][5])] == CLASSES[number % 3]
        assert [box[0] < 0 for box in line["boxes"]] == [False, True, True, True]


def test_every_result_has_its_picture_under_its_id(run: Path) -> None:
    for text in (run / "details.log").read_text().splitlines():
        id = strict(text)["id"]
        assert quote(id) == id  # It is asked for in an address.
        with Image.open(run / "images" / f"{id}_rgb.png") as picture:
            assert (picture.format, picture.size, picture.mode) == ("PNG", (16, 16), "RGB")


def test_the_dashboards_own_reader_takes_the_run(run: Path) -> None:
    board = pytest.importorskip("threedboard.data_reader", reason="threedboard is not installed")
    reader = board.DataReader(str(run))
    reader.update_data()
    answer = strict(reader.answer)
    assert answer["class_map"] == CLASSES
    assert answer["parameters"] == [
        *(key for key in KEYS if key != "render_args"),
        "render_args.CameraControl.zoom",
        "render_args.OrientationControl.rotation_x",
    ]
    shown = [dict(zip(answer["parameters"], row, strict=True)) for row in answer["data"]]
    assert [row["id"] for row in shown] == [f"{number:06d}" for number in range(RESULT_COUNT)]
    assert [row["is_correct"] for row in shown] == [number % 2 == 1 for number in range(12)]
    assert shown[3]["loss"] is None
    assert reader.has_changed() is False
