"""Reading files that are to be sent: only what was found there, or a sentence."""

import os
from pathlib import Path
from typing import Any

import orjson

from headwater.errors import BadRequest, HeadwaterError
from headwater.transfer.scanning import Found, printable

LARGEST_METADATA_BYTES = 1024 * 1024


def read_piece(found: Found, start: int, size_bytes: int) -> bytes:
    """Raises OSError, BadRequest when the file is not the one that was found any more."""
    with Path(found.file).open("rb", buffering=0) as file:
        _check(found, file.fileno())
        file.seek(start)
        pieces: list[bytes] = []
        left = size_bytes
        while left and (piece := file.read(left)):
            pieces.append(piece)
            left -= len(piece)
        _check(found, file.fileno())
    if left:
        raise BadRequest("It ends earlier than it says.")
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)


def _check(found: Found, file: int) -> None:
    status = os.fstat(file)
    if (status.st_size, status.st_mtime_ns) != (found.size_bytes, found.mtime_ns):
        raise BadRequest("It changed while it was read. Upload it again when it is finished.")


def read_metadata(file: str) -> dict[str, Any]:
    """User metadata: one JSON object. Raises BadRequest."""
    try:
        if Path(file).stat().st_size > LARGEST_METADATA_BYTES:
            raise BadRequest(
                f"{printable(file)} is larger than {LARGEST_METADATA_BYTES:,} bytes, the most that metadata may be."
            )
        metadata = orjson.loads(Path(file).read_bytes())
    except OSError as error:
        raise BadRequest(f"{printable(file)} cannot be read: {error.strerror}.") from None
    except orjson.JSONDecodeError as error:
        raise BadRequest(f'{printable(file)} is not JSON ({error}). Write an object such as {{"camera": 3}}.') from None
    if not isinstance(metadata, dict):
        raise BadRequest(f'{printable(file)} holds no JSON object. Write one such as {{"camera": 3}}.')
    return metadata


def why(error: OSError | HeadwaterError) -> str:
    """The reason of one file's failure."""
    if isinstance(error, OSError):
        return f"{error.strerror or error}."
    return str(error)
