"""The logger of the benchmarks: reads a result as it is told, and notes when.

Options: ``read`` is ``nothing`` (only decodes the job), ``element`` (one of every channel) or
``lines`` (every cache line of every channel).
"""

import json
import time
from pathlib import Path

LINE_BYTES = 64


class Touch:
    def __init__(self, root_dir, result_buffer, config):
        self.buffer = result_buffer
        self.name = config["logger"]["name"]
        self.read = config["logger"]["options"]["read"]
        self.path = Path(root_dir) / f"{self.name}.touch.json"
        self.count = 0
        self.second_s = self.last_s = 0.0
        self.latencies_s = []

    def log(self, item):
        if self.read != "nothing":
            for array in self.buffer[item["result_ix"]].values():
                if self.read == "element":
                    array.flat[0]
                else:
                    array.reshape(-1)[:: max(1, LINE_BYTES // array.itemsize)].max()
        now_s = time.monotonic()
        sent_s = item["render_args"].get("sent_s")
        if sent_s is not None:
            self.latencies_s.append(now_s - sent_s)
        self.count += 1
        if self.count == 2:  # The first one is to warm up.
            self.second_s = now_s
        self.last_s = now_s

    def end(self):
        cpu_s = time.process_time()
        record = {
            "count": self.count,
            "second_s": self.second_s,
            "last_s": self.last_s,
            "cpu_s": cpu_s,
            "latencies_s": sorted(self.latencies_s),
        }
        self.path.write_text(json.dumps(record))


Logger = Touch
