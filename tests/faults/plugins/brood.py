"""At a result whose id ends with "riot" it starts processes that stay, and floods its output."""

import os
import subprocess
import sys
import threading
import time
from pathlib import Path

# A grandchild in a session of its own, whose parent is gone, and which holds all pipes.
FAR_AWAY = """
import os, time
if os.fork() == 0:
    os.setsid()
    time.sleep(600)
os._exit(0)
"""


class Brood:
    def __init__(self, root_dir, result_buffer, config):
        self.options = config["logger"]["options"]
        self.flooded = Path(root_dir) / "flooded"
        self.children = []

    def log(self, item):
        if not item["id"].endswith("riot"):
            return
        for _ in range(self.options.get("children", 0)):
            self.children.append(subprocess.Popen(["sleep", "600"]))
        for _ in range(self.options.get("grandchildren", 0)):
            subprocess.run([sys.executable, "-S", "-c", FAR_AWAY], check=False)
        if self.options.get("flood_bytes_per_s"):
            threading.Thread(target=self.flood, daemon=True).start()

    def flood(self):
        data = (b"x" * 99 + b"\n") * 600
        written, start_s = 0, time.monotonic()
        while True:
            written += os.write(1, data)
            passed_s = time.monotonic() - start_s
            time.sleep(max(0.0, written / self.options["flood_bytes_per_s"] - passed_s))
            if written % (100 * len(data)) == 0:
                self.flooded.write_text(f"{written / passed_s / 1e6:.0f}")

    def end(self):
        pass


Logger = Brood
