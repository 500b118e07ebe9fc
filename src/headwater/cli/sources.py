"""Sources: what people write for a bucket or a folder, and the credentials that go with it."""

import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import unquote, urlsplit

from headwater.cli.environment import ClientEnvironment
from headwater.errors import BadRequest

_SCHEME = re.compile(r"[a-z][a-z0-9+.-]+://", re.IGNORECASE)
_RIGHT = "Write s3://BUCKET/FOLDER, file:///FOLDER or the path of a folder."


@dataclass(frozen=True, slots=True)
class S3Access:
    key: str
    secret: str = field(repr=False)
    session_token: str | None = field(repr=False)
    endpoint: str | None
    region: str | None


@dataclass(frozen=True, slots=True)
class Bucket:
    name: str
    folder: str  # without slashes at its ends; '' is the whole bucket

    @property
    def label(self) -> str:
        return self.folder.rpartition("/")[2] or self.name

    def __str__(self) -> str:
        return f"s3://{self.name}/{self.folder}".rstrip("/")


@dataclass(frozen=True, slots=True)
class Folder:
    path: Path  # absolute, on the server's machine

    @property
    def label(self) -> str:
        return self.path.name or "root"

    def __str__(self) -> str:
        return str(self.path)


Source = Bucket | Folder


def parse_source(text: str) -> Source:
    """Raises BadRequest."""
    if not text.strip():
        raise BadRequest(f"The source is empty. {_RIGHT}")
    if not _SCHEME.match(text):
        return Folder(Path(os.path.abspath(Path(text).expanduser())))  # noqa: PTH100 - Path keeps '..'
    parts = urlsplit(text)
    if parts.scheme == "file":
        if parts.netloc not in ("", "localhost") or not parts.path:
            raise BadRequest(f"{text}: a file URL names no host and an absolute path: file:///srv/pictures")
        return Folder(Path(os.path.abspath(unquote(parts.path))))  # noqa: PTH100 - Path keeps '..'
    if parts.scheme == "s3":
        return _bucket(text)
    raise BadRequest(f"Sources of the kind {parts.scheme}:// are not supported yet. {_RIGHT}")


def _bucket(text: str) -> Bucket:
    """Keys are exact: what looks like a query, a fragment or an escape is part of the folder's name."""
    name, _, folder = text[len("s3://") :].partition("/")
    if not re.fullmatch(r"[A-Za-z0-9._-]+", name):
        raise BadRequest(f"{text} names no bucket. {_RIGHT}")
    return Bucket(name, folder.strip("/"))


def s3_access(
    key: str | None, secret: str | None, session_token: str | None, endpoint: str | None, region: str | None
) -> S3Access:
    """What was given, over what the environment has. Raises BadRequest when there are no keys.

    Keys come as a pair: a key given by option is not put together with a secret from the environment.
    """
    found = ClientEnvironment()
    if key is None and secret is None:
        key = found.s3_key
        secret = found.s3_secret.get_secret_value() if found.s3_secret else None
        if session_token is None and found.s3_session_token is not None:
            session_token = found.s3_session_token.get_secret_value()
    if not key or not secret:
        raise BadRequest(
            "An S3 source needs both its keys: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or give --key and "
            "--secret."
        )
    return S3Access(
        key=key,
        secret=secret,
        session_token=session_token,
        endpoint=(endpoint or found.s3_endpoint or "").rstrip("/") or None,
        region=region or found.s3_region,
    )
