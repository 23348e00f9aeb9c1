"""Writes two results in a line, and keeps the slot of the first until the second has come."""

from pathlib import Path

from millpond_loggers.base import BaseLogger


class Pairs(BaseLogger):
    keeps_slots = True

    def __init__(self, root_dir, result_buffer, config):
        super().__init__(root_dir, result_buffer, config)
        self.regid = self.buffer.register()
        self.file = (Path(root_dir) / "pairs.txt").open("a")
        self.first = None

    def log(self, item):
        if self.first is None:
            self.first = item, self.buffer[item["result_ix"]]
            return
        first, arrays = self.first
        self.first = None
        assert arrays["rgb"].shape == self.buffer[item["result_ix"]]["rgb"].shape
        del arrays
        print(f"{first['id']}+{item['id']}", file=self.file)
        self.buffer.free(first["result_ix"], self.regid)
        self.buffer.free(item["result_ix"], self.regid)

    def flush(self):
        self.file.flush()

    def end(self):
        if self.first is not None:
            print(self.first[0]["id"], file=self.file)
        self.file.close()


Logger = Pairs
