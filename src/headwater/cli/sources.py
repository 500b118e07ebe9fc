"""Sources: what people write for a bucket or a folder, and the credentials that go with it."""

import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal
from urllib.parse import unquote, urlsplit

from headwater.cli.environment import ClientEnvironment
from headwater.errors import BadRequest

Cloud = Literal["s3", "gcs", "azureblob"]
_SCHEME = re.compile(r"[a-z][a-z0-9+.-]+://", re.IGNORECASE)
_RIGHT = (
    "Write s3://BUCKET/FOLDER, gs://BUCKET/FOLDER, az://ACCOUNT/CONTAINER/FOLDER, file:///FOLDER or the path of a "
    "folder."
)
_CLOUDS: dict[str, Cloud] = {"s3": "s3", "gs": "gcs", "az": "azureblob"}
_SCHEMES = {cloud: scheme for scheme, cloud in _CLOUDS.items()}


@dataclass(frozen=True, slots=True)
class Access:
    """What a new integration is made of, and where the store is."""

    options: dict[str, str] = field(repr=False)
    endpoint: str | None
    region: str | None


@dataclass(frozen=True, slots=True)
class Given:
    """Credentials as options of the command line; None is looked up in the environment."""

    key: str | None = None
    secret: str | None = None
    session_token: str | None = None
    key_file: Path | None = None
    endpoint: str | None = None
    region: str | None = None


@dataclass(frozen=True, slots=True)
class Bucket:
    name: str
    folder: str  # without slashes at its ends; '' is the whole bucket
    cloud: Cloud = "s3"
    account: str = ""  # of Azure

    @property
    def label(self) -> str:
        return self.folder.rpartition("/")[2] or self.name

    def __str__(self) -> str:
        place = f"{self.account}/{self.name}" if self.account else self.name
        return f"{_SCHEMES[self.cloud]}://{place}/{self.folder}".rstrip("/")


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
    if parts.scheme in _CLOUDS:
        return _bucket(text, _CLOUDS[parts.scheme])
    raise BadRequest(f"There are no sources of the kind {parts.scheme}://. {_RIGHT}")


def _bucket(text: str, cloud: Cloud) -> Bucket:
    """Keys are exact: what looks like a query, a fragment or an escape is part of the folder's name."""
    account, place = "", text.partition("://")[2]
    if cloud == "azureblob":
        account, _, place = place.partition("/")
    name, _, folder = place.partition("/")
    if not re.fullmatch(r"[A-Za-z0-9$._-]+", name) or (cloud == "azureblob" and not account.isalnum()):
        raise BadRequest(f"{text} names no bucket. {_RIGHT}")
    return Bucket(name, folder.strip("/"), cloud, account)


def access_of(source: Bucket, given: Given) -> Access:
    """What was given, over what the environment has. Raises BadRequest when there are no credentials."""
    found = ClientEnvironment()
    if source.cloud == "gcs":
        return Access(_google(given, found), endpoint_of(source, given.endpoint), given.region)
    if source.cloud == "azureblob":
        return Access(_azure(source, given, found), endpoint_of(source, given.endpoint), given.region)
    endpoint = endpoint_of(source, given.endpoint or found.s3_endpoint)
    return Access(_s3(given, found), endpoint, given.region or found.s3_region)


def endpoint_of(source: Bucket, given: str | None) -> str | None:
    """None for the cloud's own. Azure's names the account: containers of two accounts may be named alike."""
    own = f"https://{source.account}.blob.core.windows.net" if source.cloud == "azureblob" else None
    return (given or "").rstrip("/") or own


def _s3(given: Given, found: ClientEnvironment) -> dict[str, str]:
    """Keys come as a pair: a key given by option is not put together with a secret from the environment."""
    key, secret, session_token = given.key, given.secret, given.session_token
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
    return {"key": key, "secret": secret} | ({"sessionToken": session_token} if session_token else {})


def _google(given: Given, found: ClientEnvironment) -> dict[str, str]:
    file = given.key_file or found.google_key_file
    if file is None:
        raise BadRequest(
            "A Google Cloud source needs the JSON key of a service account: set GOOGLE_APPLICATION_CREDENTIALS to its "
            "file, or give --key-file."
        )
    try:
        return {"content": file.expanduser().read_text()}
    except UnicodeDecodeError:
        raise BadRequest(f"{file} is not the JSON key of a service account.") from None


def _azure(source: Bucket, given: Given, found: ClientEnvironment) -> dict[str, str]:
    secret = given.secret
    if secret is not None:
        return {"key": source.account, "secret": secret}
    if found.azure_client_id and found.azure_tenant_id and found.azure_client_secret:
        return {
            "key": source.account,
            "secret": found.azure_client_secret.get_secret_value(),
            "clientId": found.azure_client_id,
            "tenantId": found.azure_tenant_id,
        }
    known = found.azure_key or found.azure_sas
    if known is None:
        raise BadRequest(
            "An Azure source needs a secret: set AZURE_STORAGE_KEY or AZURE_STORAGE_SAS_TOKEN, or AZURE_CLIENT_ID, "
            "AZURE_TENANT_ID and AZURE_CLIENT_SECRET, or give --secret."
        )
    return {"key": source.account, "secret": known.get_secret_value()}
