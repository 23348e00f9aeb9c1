"""The video logger passes the suite that every logger should pass."""

import json
from pathlib import Path
from typing import ClassVar

import av

from millpond.testing import LoggerConformance


class TestVideo(LoggerConformance):
    module = "millpond_loggers.video_logger"
    is_split = True

    def read_ids(self, root: Path) -> list[str]:
        """The ids of the frames that can be decoded, in the order of the list."""
        folder = root / "videos"
        counts = {}
        for path in folder.glob("*.mp4"):
            with av.open(str(path)) as video:
                counts[path.name] = sum(1 for _ in video.decode(video=0))
        ids = []
        listed = dict.fromkeys(counts, 0)
        for path in sorted(folder.glob("frames*.jsonl")):
            for line in path.read_bytes().split(b"\n")[:-1]:
                frame = json.loads(line)
                # A file that was cut has fewer frames than the list says.
                if frame["frame"] < counts.get(frame["file"], 0):
                    assert frame["frame"] == listed[frame["file"]]
                    listed[frame["file"]] += 1
                    ids.append(frame["id"])
        assert listed == counts, "a frame that is in no list"
        return ids


class TestVideoOfGroups(TestVideo):
    """Many short ones: they begin and end all the time."""

    options: ClassVar = {"group_by": ["zoom"], "frames_max": 7, "open_max": 3}
    result_count = 500
