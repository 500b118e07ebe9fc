"""Requests to S3: where each goes and how it is signed; nothing is sent here.

What is signed must be sent letter by letter, so a URL is percent-encoded once, here, and never touched again.
"""

import re
from dataclasses import dataclass, field
from datetime import datetime
from urllib.parse import quote

from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from headwater.errors import BadRequest
from headwater.storage.requests import Request


@dataclass(frozen=True, slots=True)
class S3Credentials:
    access_key_id: str
    secret_access_key: str = field(repr=False)
    session_token: str | None = field(default=None, repr=False)
    ends_at: datetime | None = None  # where it is known; only with a session token


_REGION = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")


def check_region(region: str) -> str:
    """Raises BadRequest for what cannot be one: it becomes part of a host's name."""
    if not _REGION.fullmatch(region):
        raise BadRequest(f"{region[:60]!r} is not the name of a region, as eu-west-1 is one: letters, digits, hyphens.")
    return region


@dataclass(frozen=True, slots=True)
class Bucket:
    name: str
    prefix: str  # '' or ending with a slash
    region: str
    endpoint: str | None  # None: AWS itself

    def __post_init__(self) -> None:
        """Raises BadRequest."""
        check_region(self.region)

    @property
    def url(self) -> str:
        if self.endpoint is not None:
            return f"{self.endpoint.rstrip('/')}/{quote(self.name)}"
        host = f"s3.{self.region}.amazonaws.com{'.cn' if self.region.startswith('cn-') else ''}"
        # A dot in the name would not match the wildcard in the certificate.
        return f"https://{host}/{self.name}" if "." in self.name else f"https://{self.name}.{host}"


def absolute_key(bucket: Bucket, request: Request) -> str:
    return bucket.prefix + (request.key or "")


def signed(bucket: Bucket, request: Request, credentials: S3Credentials) -> tuple[str, dict[str, str]]:
    """The URL and the headers to send with the request."""
    url = url_of(bucket, request)
    if request.query:
        url += "?" + "&".join(f"{name}={_quoted(text)}" for name, text in request.query.items())
    unsigned = AWSRequest(request.method, url, headers=dict(request.headers), data=request.body)
    S3SigV4Auth(_for_botocore(credentials), "s3", bucket.region).add_auth(unsigned)
    return url, dict(unsigned.headers.items())


def url_of(bucket: Bucket, request: Request) -> str:
    if request.key is None:
        return bucket.url
    key = absolute_key(bucket, request)
    if not key:
        raise BadRequest("The object's key is empty. Name an object.")
    try:
        return f"{bucket.url}/{quote(key, safe='/')}"
    except UnicodeEncodeError as error:
        raise BadRequest(f"The key {key!r} is not valid Unicode text.") from error


def _quoted(text: str) -> str:
    return quote(text, safe="", errors="surrogateescape")


def _for_botocore(credentials: S3Credentials) -> Credentials:
    return Credentials(credentials.access_key_id, credentials.secret_access_key, credentials.session_token)
