"""What a file's name says about its type: a guess, until its bytes have been read."""

import mimetypes
from functools import lru_cache

UNKNOWN = "application/octet-stream"


@lru_cache(maxsize=1024)
def _of_extension(extension: str) -> str:
    # Without the machine's own tables: the same name has the same type everywhere.
    guessed, _ = _TABLE.guess_type(f"x.{extension}")
    return guessed or UNKNOWN


def guess_mime_type(path: str) -> str:
    name = path.rpartition("/")[2]
    extension = name.rpartition(".")[2]
    return _of_extension(extension.lower()) if len(extension) < len(name) else UNKNOWN


@lru_cache(maxsize=1024)
def guess_extension(mime_type: str) -> str:
    """Without its dot; '' for a type that has none."""
    return (_TABLE.guess_extension(mime_type) or "").removeprefix(".")


_TABLE = mimetypes.MimeTypes()
for _extension, _type in {
    ".webp": "image/webp",
    ".avif": "image/avif",
    ".heic": "image/heic",
    ".heif": "image/heif",
    ".parquet": "application/vnd.apache.parquet",
    ".jsonl": "application/x-ndjson",
    ".mkv": "video/x-matroska",
    ".webm": "video/webm",
    ".md": "text/markdown",
    ".yaml": "application/yaml",
    ".yml": "application/yaml",
}.items():
    _TABLE.add_type(_type, _extension)
