"""Batches: small files together in one request through the server, for datasets whose store cannot sign."""

import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import orjson


@dataclass(frozen=True, slots=True)
class BatchFile:
    path: str
    metadata: dict[str, Any] | None  # of users
    content: bytes


def batch_body(files: Sequence[BatchFile]) -> tuple[bytes, str]:
    """The body and its content type: multipart/form-data, for each file its path, then metadata, then the file."""
    boundary = secrets.token_hex(24)
    pieces: list[bytes] = []
    for file in files:
        pieces.append(_field(boundary, "path", file.path.encode()))
        if file.metadata is not None:
            pieces.append(_field(boundary, "metadata", orjson.dumps({"user": file.metadata})))
        pieces.append(_field(boundary, "file", file.content, "; filename=file"))
    pieces.append(f"--{boundary}--\r\n".encode())
    return b"".join(pieces), f"multipart/form-data; boundary={boundary}"


def _field(boundary: str, name: str, content: bytes, more: str = "") -> bytes:
    head = f"--{boundary}\r\nContent-Disposition: form-data; name={name}{more}\r\n\r\n"
    return head.encode() + content + b"\r\n"
