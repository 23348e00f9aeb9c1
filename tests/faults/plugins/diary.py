"""Writes down every id that it was given, and every one that it was told to flush.

What it does besides, its options and the last part of an id say: crash, hang, raise, be slow.
"""

import ctypes
import os
import threading
import time
from pathlib import Path


class Diary:
    def __init__(self, root_dir, result_buffer, config):
        own = config["logger"]
        self.options = own["options"]
        self.buffer = result_buffer
        self.regid = result_buffer.register()
        self.got = _open(Path(root_dir) / f"{own['name']}.got")
        self.kept = _open(Path(root_dir) / f"{own['name']}.kept")
        self.slow_file = self.options.get("slow_file")  # It is slow only while that is there.
        self.batch = []
        self.late = []

    def log(self, item):
        number = int(item["id"].split("-")[1])
        os.write(self.got, f"{item['id']}\n".encode())
        self.misbehave(item["id"].rpartition("-")[2])
        arrays = self.buffer[item["result_ix"]]
        if float(arrays["loss"]) != number or not (arrays["rgb"] == number % 251).all():
            raise AssertionError(f"{item['id']} has the arrays of another one")
        if not self.slow_file or Path(self.slow_file).exists():
            time.sleep(self.options.get("slow_s", 0.0))
        self.free(item["result_ix"])
        self.batch.append(item["id"])

    def misbehave(self, mood):
        if mood not in self.options.get("moods", ()):
            return
        if mood == "raise":
            raise ValueError("this one is not liked")
        if mood == "segv":
            ctypes.string_at(0)
        if mood == "kill":
            os._exit(9)
        if mood == "loop":
            while True:
                pass
        if mood == "lock":
            lock = threading.Lock()
            lock.acquire()
            lock.acquire()

    def free(self, result_ix):
        how = self.options.get("free", "once")
        if how == "double":
            for _ in range(3):
                self.buffer.free(result_ix, self.regid)
            self.buffer.free(result_ix + 1, self.regid)
            self.buffer.free(10**6, 77)
        elif how == "late":
            self.late.append(result_ix)
            for late in self.late[:-5]:
                self.buffer.free(late, self.regid)
        elif how == "once":
            self.buffer.free(result_ix, self.regid)

    def flush(self):
        os.fsync(self.got)
        os.write(self.kept, "".join(f"{id}\n" for id in self.batch).encode())
        os.fsync(self.kept)
        self.batch.clear()

    def end(self):
        pass


def _open(path):
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)


Logger = Diary
