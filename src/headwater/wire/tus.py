"""Headers of the tus protocol, version 1.0.0: https://tus.io/protocols/resumable-upload"""

import base64
import binascii
import json
from typing import Any

from headwater.errors import BadRequest
from headwater.wire.items import merged, metadata_patch

VERSION = "1.0.0"
EXTENSIONS = ("creation", "creation-with-upload", "checksum", "termination", "expiration")
ALGORITHMS = ("sha1", "sha256", "md5", "crc32")
_LONGEST_METADATA_BYTES = 1024**2  # of the user's JSON
_DIGEST_BYTES = {"sha1": 20, "sha256": 32, "md5": 16, "crc32": 4}


def parse_number(name: str, text: str | None) -> int:
    """A header that is a number of bytes. Raises BadRequest."""
    if text is None:
        raise BadRequest(f"The header {name} is missing: a number of bytes.")
    if not text.isascii() or not text.isdecimal() or len(text) > 18:
        raise BadRequest(f"The header {name} is no number of bytes: {text[:40]!r}.")
    return int(text)


def parse_metadata(header: str) -> dict[str, str]:
    """Pairs of a key and its value in base64, with commas between. Raises BadRequest."""
    found: dict[str, str] = {}
    for pair in filter(None, (part.strip() for part in header.split(","))):
        key, _, encoded = pair.partition(" ")
        try:
            found[key] = base64.b64decode(encoded.strip(), validate=True).decode()
        except (binascii.Error, UnicodeDecodeError, ValueError):
            raise BadRequest(
                f"Upload-Metadata: the value of {key[:40]!r} is not base64 of UTF-8. Write: key BASE64,key BASE64"
            ) from None
    return found


def path_of(metadata: dict[str, str]) -> str:
    """Where the file goes: `path`, or the `folder` and in it `relativePath` or `filename`. Raises BadRequest."""
    if metadata.get("path"):
        return metadata["path"]
    name = _name_of(metadata)
    return f"{metadata.get('folder', '').rstrip('/')}/{name.lstrip('/')}"


def _name_of(metadata: dict[str, str]) -> str:
    for key in ("relativePath", "filename", "name"):
        # Uppy sends "null" as the relative path of a file that was chosen alone.
        if (name := metadata.get(key, "")) and name != "null":
            return name
    raise BadRequest("Upload-Metadata names no file. Give path, or filename with a folder.")


def user_and_system(metadata: dict[str, str]) -> tuple[dict[str, Any] | None, dict[str, Any] | None]:
    """The key `metadata`, JSON as the SDK sends it; None for what is not given. Raises BadRequest."""
    text = metadata.get("metadata")
    if not text:
        return None, None
    if len(text.encode()) > _LONGEST_METADATA_BYTES:
        raise BadRequest(f"Upload-Metadata: metadata is longer than {_LONGEST_METADATA_BYTES} bytes.")
    try:
        patch = metadata_patch(json.loads(text))
    except (ValueError, RecursionError):
        raise BadRequest("Upload-Metadata: metadata is not JSON.") from None
    user = None if patch.user is None else merged({}, patch.user)
    return user, merged({}, patch.system) or None


def crc32_of(metadata: dict[str, str]) -> int | None:
    """Of the whole file, as 8 hexadecimal digits. Raises BadRequest."""
    text = metadata.get("crc32")
    if not text:
        return None
    try:
        number = int(text, 16) if len(text) == 8 else -1
    except ValueError:
        number = -1
    if number < 0:
        raise BadRequest("Upload-Metadata: crc32 has 8 hexadecimal digits.")
    return number


def parse_checksum(header: str) -> tuple[str, bytes]:
    """The algorithm and the digest. Raises BadRequest."""
    name, _, encoded = header.strip().partition(" ")
    if name not in ALGORITHMS:
        raise BadRequest(f"Upload-Checksum: {name[:20]!r} is none of {', '.join(ALGORITHMS)}.")
    try:
        digest = base64.b64decode(encoded.strip(), validate=True)
    except (binascii.Error, ValueError):
        digest = b""
    if len(digest) != _DIGEST_BYTES[name]:
        raise BadRequest(f"Upload-Checksum: what follows {name} is not its digest in base64.")
    return name, digest
