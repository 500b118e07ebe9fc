"""The file in the data directory that tells where its server listens."""

import json
from pathlib import Path


def read_server_file(data_dir: Path) -> str | None:
    """The URL of the server that runs on this data directory; None when none does."""
    try:
        return json.loads((data_dir / "server.json").read_text())["url"]
    except (OSError, ValueError, KeyError):
        return None
