"""The logger of the benchmarks: does a reader's work on each result, and notes when."""

import json
import time
from pathlib import Path

from peers.job import touch


class Touch:
    def __init__(self, root_dir, result_buffer, config):
        self.buffer = result_buffer
        self.read = config["logger"]["options"]["read"]
        self.path = Path(root_dir) / f"{config['logger']['name']}.touch.json"
        self.count = 0
        self.last_s = 0.0
        self.latencies_s = []

    def log(self, item):
        if self.read != "nothing":
            touch(self.buffer[item["result_ix"]].values(), self.read)
        sent_s = item["render_args"].get("sent_s")
        if sent_s is not None:
            self.latencies_s.append(time.monotonic() - sent_s)
        self.count += 1

    def flush(self):
        self.last_s = time.monotonic()

    def end(self):
        record = {"count": self.count, "last_s": self.last_s, "latencies_s": self.latencies_s}
        self.path.write_text(json.dumps(record))


Logger = Touch
