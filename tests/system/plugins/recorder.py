"""Keeps a list of its own of the ids that it was given, flushed before they are released."""

from pathlib import Path


class Recorder:
    def __init__(self, root_dir, result_buffer, config):
        self.buffer = result_buffer
        name = config["logger"]["name"]
        self.file = (Path(root_dir) / f"{name}.ids").open("a")

    def log(self, item):
        loss = self.buffer[item["result_ix"]]["loss"]
        assert float(loss) == item["render_args"].get("loss", float(loss))
        self.file.write(item["id"] + "\n")

    def flush(self):
        self.file.flush()

    def end(self):
        self.file.close()


Logger = Recorder
