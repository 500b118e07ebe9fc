"""Requests to Google Cloud Storage: where each goes and what goes along; nothing is sent here.

The JSON API, version 1: https://cloud.google.com/storage/docs/json_api/v1; parts are of the XML API alone. An
path, so every `/` in it is encoded; a name is percent-encoded once, here, and never touched again.
"""

import base64
import hashlib
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import quote

import orjson
from google.auth.crypt.base import Signer

from headwater.errors import BadRequest
from headwater.storage.requests import Request, is_shortened

LIST, GET, INSERT, DELETE = "objects.list", "objects.get", "objects.insert", "objects.delete"
_OF_XML = frozenset(  # operations of the XML API, which alone has parts
    {
        "CreateMultipartUpload",
        "UploadPart",
        "ListParts",
        "CompleteMultipartUpload",
        "AbortMultipartUpload",
        "ListMultipartUploads",
    }
)
OBJECT_FIELDS = "name,size,md5Hash,generation,timeCreated,contentType"
_CLASSES = ("STANDARD", "NEARLINE", "COLDLINE", "ARCHIVE")
_GOOGLE = "https://storage.googleapis.com"
_UNKNOWN_TYPE = "application/octet-stream"


@dataclass(frozen=True, slots=True)
class UrlSigner:
    """A service account that can sign URLs by a key of its own."""

    email: str
    signer: Signer = field(repr=False)


@dataclass(frozen=True, slots=True)
class GcsCredentials:
    access_token: str = field(repr=False)
    url_signer: UrlSigner | None = None


@dataclass(frozen=True, slots=True)
class GcsBucket:
    name: str
    prefix: str  # '' or ending with a slash
    endpoint: str | None = None  # None: Google itself

    @property
    def url(self) -> str:
        return (self.endpoint or _GOOGLE).rstrip("/")


def absolute_key(bucket: GcsBucket, key: str) -> str:
    """Raises BadRequest for a name that no object can have."""
    name = bucket.prefix + key
    if not name:
        raise BadRequest("The object's key is empty. Name an object.")
    try:
        name.encode()
    except UnicodeEncodeError as error:
        raise BadRequest(f"The key {name!r} is not valid Unicode text.") from error
    return name


def url_of(bucket: GcsBucket, request: Request) -> str:
    objects = f"/storage/v1/b/{quoted(bucket.name)}/o"
    match request:
        case Request(operation=operation) if operation in _OF_XML:
            path = _xml_path(bucket, request.key)
        case Request(operation="objects.insert"):
            path = "/upload" + objects
        case Request(key=None):
            path = objects
        case Request(key=key):
            path = f"{objects}/{quoted(absolute_key(bucket, str(key)))}"
    query = "&".join(f"{quoted(name)}={quoted(text)}" for name, text in request.query.items())
    return bucket.url + path + (f"?{query}" if query else "")


def _xml_path(bucket: GcsBucket, key: str | None) -> str:
    if key is None:
        return f"/{quoted(bucket.name)}"
    name = absolute_key(bucket, key)
    # What is on the way may shorten a path with `..`, but not a name without slashes.
    safe = "" if is_shortened(name) else "/"
    return f"/{quoted(bucket.name)}/{quote(name, safe=safe)}"


def quoted(text: str) -> str:
    return quote(text, safe="", errors="surrogateescape")


def media_request(key: str, start: int, end: int | None, *, generation: str | None = None) -> Request:
    """The bytes as they are stored: without `gzip`, Google would unpack what was stored packed."""
    headers = {"Accept-Encoding": "gzip"}
    if start != 0 or end is not None:
        headers["Range"] = f"bytes={start}-{'' if end is None else end - 1}"
    query = {"alt": "media"} if generation is None else {"alt": "media", "ifGenerationMatch": generation}
    return Request(GET, "GET", key, query, headers)


def insert_request(bucket: GcsBucket, key: str, body: bytes, content_type: str, storage_class: str | None) -> Request:
    """Metadata and bytes in one request. The MD5 makes Google refuse bytes that were damaged on their way."""
    resource = resource_of(bucket, key, content_type, storage_class) | {"md5Hash": md5_of(body)}
    boundary = secrets.token_hex(16).encode()
    parts = [
        b"--" + boundary,
        b"Content-Type: application/json; charset=UTF-8\r\n",
        orjson.dumps(resource),
        b"--" + boundary,
        b"Content-Type: " + resource["contentType"].encode() + b"\r\n",
        body,
        b"--" + boundary + b"--\r\n",
    ]
    headers = {"Content-Type": f"multipart/related; boundary={boundary.decode()}"}
    query = {"uploadType": "multipart", "fields": OBJECT_FIELDS}
    return Request(INSERT, "POST", key, query, headers, b"\r\n".join(parts))


def resource_of(bucket: GcsBucket, key: str, content_type: str, storage_class: str | None) -> dict[str, str]:
    """What an object is created with."""
    is_header = content_type.isascii() and content_type.isprintable()
    resource = {"name": absolute_key(bucket, key), "contentType": content_type if is_header else _UNKNOWN_TYPE}
    return resource | ({"storageClass": storage_class} if storage_class else {})


def checked_class(name: str | None) -> str | None:
    """As Google writes it; None leaves it to the bucket. Raises BadRequest."""
    if name and name.upper() not in _CLASSES:
        raise BadRequest(f"Google Cloud Storage has no storage class {name[:40]!r}. It has {', '.join(_CLASSES)}.")
    return name.upper() if name else None


def md5_of(body: bytes) -> str:
    return encoded(hashlib.md5(body, usedforsecurity=False).digest())


def encoded(digest: bytes) -> str:
    return base64.b64encode(digest).decode()


def etag_of(resource: Mapping[str, str]) -> str:
    """What tells one content from another: the MD5, or the generation of an object that has none.

    Google's own etag changes with the metadata, too. Objects that were composed of others have no MD5.
    """
    return resource.get("md5Hash") or resource.get("generation") or ""
