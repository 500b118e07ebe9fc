"""Key files of the data directory: made once, readable by their owner alone."""

import os
import secrets
from pathlib import Path


def read_or_make(path: Path) -> str:
    """The text of `path`; a file that is not there is made first, with 32 random bytes (base64url), mode 0600.

    Safe when two processes start at once: the first one's key counts.
    """
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        staged = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
        descriptor = os.open(staged, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(secrets.token_urlsafe(32) + "\n")
            file.flush()
            os.fsync(file.fileno())
        try:
            os.link(staged, path)  # fails when another process was first; a rename would not
        except FileExistsError:
            pass
        finally:
            staged.unlink()
    return path.read_text().strip()
