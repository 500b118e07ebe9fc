"""Takes what is only for show out of a package-lock.json: no address is left in it. `tools/strip_lock.py FILE`."""

import json
import sys
from pathlib import Path

file = Path(sys.argv[1])
lock = json.loads(file.read_text())
for package in lock["packages"].values():
    for name in ("deprecated", "funding", "license"):
        package.pop(name, None)
file.write_text(json.dumps(lock, indent=2) + "\n")
