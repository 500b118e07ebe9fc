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


def write_private(path: Path, text: str) -> None:
    """In place of what `path` held: whole or not at all, mode 0600, on disk when this returns."""
    staged = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    descriptor = os.open(staged, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "w") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        if path.exists():  # an operator who is root leaves it to the account that the server runs under
            os.chown(staged, path.stat().st_uid, path.stat().st_gid)
        staged.replace(path)
    except BaseException:
        staged.unlink(missing_ok=True)
        raise
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
