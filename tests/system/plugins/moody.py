"""Does what the id of a result says: raises, dies, or prints."""

import os
import sys


class Moody:
    def __init__(self, root_dir, result_buffer, config):
        mood = config["logger"]["options"].get("start", "well")
        if mood == "die":
            os._exit(7)
        if mood == "raise":
            raise RuntimeError("no files today")

    def flush(self):
        pass

    def log(self, item):
        mood = item["id"].partition("-")[0]
        if mood == "raise":
            raise ValueError(f"do not like {item['id']}")
        if mood == "die":
            os._exit(3)
        if mood == "say":
            print(item["render_args"]["text"], flush=True)
            print("to the other stream", file=sys.stderr, flush=True)

    def end(self):
        pass


Logger = Moody
