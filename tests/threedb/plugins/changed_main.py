"""Runs 3DB's own ``main`` with the two imports changed as a page says: PAGE ARGUMENTS..."""

import importlib.util
import re
import sys
from pathlib import Path

page = Path(sys.argv.pop(1)).read_text()
change = re.search(r"^```diff\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)[1].splitlines()
path = Path(importlib.util.find_spec("threedb").origin).with_name("main.py")
source = path.read_text()
old = [line[1:] for line in change if line.startswith("-")]
new = [line[1:] for line in change if line.startswith("+")]
for line in old:
    assert source.count(f"{line}\n") == 1, f"3DB's main has no line {line!r}"
    source = source.replace(f"{line}\n", "\n".join(new) + "\n")
    new = []
sys.argv[0] = str(path)
exec(compile(source, path, "exec"), {"__name__": "__main__"})
