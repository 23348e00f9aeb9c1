"""A logger that somebody wrote for 3DB: it counts, writes into its tensors, and never flushes."""

from pathlib import Path

from threedb.result_logging.base_logger import BaseLogger


class MeanLogger(BaseLogger):
    def __init__(self, root_dir, result_buffer, config):
        super().__init__(root_dir, result_buffer, config)
        self.regid = self.buffer.register()
        self.handle = (Path(root_dir) / "means.txt").open("a")

    def log(self, item):
        rgb = self.buffer[item["result_ix"]]["rgb"]
        rgb.mul_(255)
        names = [".".join(key) for key in item["render_args"]]
        self.handle.write(f"{item['id']} {rgb.mean().item():.3f} {','.join(names)}\n")
        self.buffer.free(item["result_ix"], self.regid)

    def end(self):
        self.handle.write("end\n")
        self.handle.close()


Logger = MeanLogger
