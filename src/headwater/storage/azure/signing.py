"""Credentials of Azure Blob Storage, and what each does to a request.

The signature of shared keys is ours: the library has it only inside its own pipeline. Sources: the pages "Authorize
with Shared Key" and "Create a service SAS" of the Blob Storage REST API; `tests/storage/test_azure_credentials.py`
compares it with the library's.
"""

import base64
import hashlib
import hmac
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.utils import formatdate
from urllib.parse import urlsplit

from azure.storage.blob import BlobSasPermissions, UserDelegationKey, generate_blob_sas

from headwater.storage.azure.requests import SERVICE_VERSION, Container, absolute_key, blob_url, url_of
from headwater.storage.requests import Request

_LONGEST_SIGNATURE_S = 6 * 24 * 3600  # within the seven days of a key that is lent
_SIGNED_HEADERS = (
    "content-encoding",
    "content-language",
    "content-length",
    "content-md5",
    "content-type",
    "date",
    "if-modified-since",
    "if-match",
    "if-none-match",
    "if-unmodified-since",
    "range",
)


@dataclass(frozen=True, slots=True)
class AccountKey:
    """May do everything in the account."""

    key: str = field(repr=False)  # base64


@dataclass(frozen=True, slots=True)
class SharedAccessSignature:
    """May do what the token says, until it says."""

    token: str = field(repr=False)  # as it stands in a query, without '?'


@dataclass(frozen=True, slots=True)
class AccessToken:
    """Of Microsoft Entra ID: may do what the roles of its service principal allow."""

    token: str = field(repr=False)


AzureCredentials = AccountKey | SharedAccessSignature | AccessToken


def signed(container: Container, request: Request, credentials: AzureCredentials) -> tuple[str, dict[str, str]]:
    """The URL and the headers to send with the request."""
    return signed_at(url_of(container, request), container.account, request, credentials)


def signed_at(url: str, account: str, request: Request, credentials: AzureCredentials) -> tuple[str, dict[str, str]]:
    """The same for any service of the account; `url` is percent-encoded and has the request's query."""
    headers = {**request.headers, "x-ms-version": SERVICE_VERSION}
    if request.body:
        headers["Content-MD5"] = _checksum(request.body)
    match credentials:
        case SharedAccessSignature(token):
            return url + ("&" if "?" in url else "?") + token, headers
        case AccessToken(token):
            return url, headers | {"Authorization": f"Bearer {token}"}
        case AccountKey(key):
            headers["x-ms-date"] = formatdate(usegmt=True)
            signature = _signature(key, _text_to_sign(account, request, url, headers))
            return url, headers | {"Authorization": f"SharedKey {account}:{signature}"}


def signed_url(
    container: Container,
    key: str,
    signer: AccountKey | UserDelegationKey,
    *,
    expires_s: int,
    permission: BlobSasPermissions | None = None,
    content_disposition: str | None = None,
    content_type: str | None = None,
) -> str:
    """A URL that lets whoever has it read the object, or do what the permission says.

    For six days at most, and not longer than the key lasts that was lent for it.
    """
    url = blob_url(container, key)
    ends_at = datetime.now(UTC) + timedelta(seconds=max(1, min(expires_s, _LONGEST_SIGNATURE_S)))
    if isinstance(signer, UserDelegationKey) and signer.signed_expiry:
        ends_at = min(ends_at, datetime.fromisoformat(signer.signed_expiry))
    token = generate_blob_sas(
        container.account,
        container.name,
        absolute_key(container, key),
        account_key=signer.key if isinstance(signer, AccountKey) else None,
        user_delegation_key=None if isinstance(signer, AccountKey) else signer,
        permission=permission or BlobSasPermissions(read=True),
        expiry=ends_at,
        protocol="https" if url.startswith("https:") else None,
        content_disposition=content_disposition,
        content_type=content_type,
    )
    return f"{url}?{token}"


def _text_to_sign(account: str, request: Request, url: str, headers: Mapping[str, str]) -> str:
    given = {name.lower(): text for name, text in headers.items()}
    if request.body:
        given["content-length"] = str(len(request.body))
    lines = [request.method, *(given.get(name, "") for name in _SIGNED_HEADERS)]
    lines += [f"{name}:{given[name]}" for name in sorted(given) if name.startswith("x-ms-")]
    lines.append(f"/{account}{urlsplit(url).path}")
    lines += sorted(f"{name.lower()}:{text}" for name, text in request.query.items())
    return "\n".join(lines)


def _checksum(body: bytes) -> str:
    """The store compares it with what it received."""
    return base64.b64encode(hashlib.md5(body, usedforsecurity=False).digest()).decode()


def _signature(key: str, text: str) -> str:
    return base64.b64encode(hmac.digest(base64.b64decode(key), text.encode(), "sha256")).decode()
