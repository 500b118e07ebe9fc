"""Credentials of Azure from what people paste: an account key, a SAS, a connection string, a service principal.

Options are those of the SDK: key is the account's name; secret is its key, a SAS, or the client secret of the service
principal that clientId and tenantId name. Source of the token request: "OAuth 2.0 client credentials flow" of the
Microsoft identity platform.
"""

import asyncio
import base64
import binascii
import json
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal
from urllib.parse import parse_qs, urlencode, urlsplit

import aiohttp
from multidict import CIMultiDictProxy

from headwater.errors import BadRequest, FailedDependency, HeadwaterError, StoreDenied, Unavailable
from headwater.storage.azure.requests import check_account
from headwater.storage.azure.signing import AccessToken, AccountKey, AzureCredentials, SharedAccessSignature
from headwater.storage.requests import Refused, Request
from headwater.storage.sending import CredentialsProvider, Dialect, Sender

AUTHORITY = "https://login.microsoftonline.com"
_SCOPE = "https://storage.azure.com/.default"
_RENEW_BEFORE_S = 5 * 60
_UUID = re.compile(r"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
_DOMAIN = re.compile(r"(?=.{4,253}\Z)(?:[a-zA-Z0-9](?:[a-zA-Z0-9-]{0,61}[a-zA-Z0-9])?\.)+[a-zA-Z]{2,63}")
_QUERY = re.compile(r"[A-Za-z0-9%&=._~+/:,;@!$'()*-]+")
_CODE = re.compile(rb"AADSTS(\d{1,10})\b")
_WHAT_IS_WRONG = {
    "AADSTS7000215": "its client secret is wrong. Give the secret's value, not its id",
    "AADSTS7000222": "its client secret has expired. Make a new one under Certificates & secrets",
    "AADSTS700016": "there is no application with that clientId in the tenant. Check clientId and tenantId",
    "AADSTS90002": "there is no such tenant. Check tenantId",
    "AADSTS7000112": "the application is disabled. Enable it in Microsoft Entra ID",
}

SecretKind = Literal["account key", "SAS", "service principal"]


@dataclass(frozen=True, slots=True)
class Principal:
    tenant_id: str
    client_id: str
    client_secret: str = field(repr=False)


def kind_of_secret(options: Mapping[str, str]) -> SecretKind:
    """Raises BadRequest for options that are none of the three."""
    match _read(options):
        case AccountKey():
            return "account key"
        case SharedAccessSignature():
            return "SAS"
        case Principal():
            return "service principal"


def check_options(options: Mapping[str, str]) -> None:
    """For the time when an integration is made. Raises BadRequest, never with a secret in its words."""
    read = _read(options)
    if isinstance(read, SharedAccessSignature):
        _check_end(read)


def provider_of(
    options: Mapping[str, str], session: aiohttp.ClientSession, *, authority: str = AUTHORITY, backoff_s: float = 0.25
) -> CredentialsProvider[AzureCredentials]:
    """`session` asks for tokens; `authority` (`http(s)://host[:port]`) gives them. Raises BadRequest."""
    read = _read(options)
    if isinstance(read, Principal):
        return TokenOfPrincipal(session, read, authority=authority, backoff_s=backoff_s)

    async def given(_anew: bool) -> AzureCredentials:
        return read

    return given


def _read(options: Mapping[str, str]) -> AccountKey | SharedAccessSignature | Principal:
    account, secret = options.get("key", ""), options.get("secret", "").strip()
    check_account(account)
    client_id, tenant_id = options.get("clientId", ""), options.get("tenantId", "")
    if client_id or tenant_id:
        return _principal(client_id, tenant_id, secret)
    if "AccountName=" in secret or "SharedAccessSignature=" in secret or "AccountKey=" in secret:
        secret = _secret_in_connection_string(secret, account)
    return _sas(secret, account) if "sig=" in secret else _account_key(secret)


def _principal(client_id: str, tenant_id: str, secret: str) -> Principal:
    if not _UUID.fullmatch(client_id):
        raise BadRequest("The clientId of a service principal is a UUID: the application (client) ID in Entra ID.")
    if not (_UUID.fullmatch(tenant_id) or _DOMAIN.fullmatch(tenant_id)):
        raise BadRequest("The tenantId of a service principal is a UUID or a domain: the directory (tenant) ID.")
    if not secret:
        raise BadRequest("A service principal needs the value of its client secret as secret.")
    return Principal(tenant_id, client_id, secret)


def _secret_in_connection_string(text: str, account: str) -> str:
    parts = {name: value for name, _, value in (part.partition("=") for part in text.split(";"))}
    suffix = parts.get("EndpointSuffix", "core.windows.net")
    endpoint = parts.get("BlobEndpoint", f"https://{account}.blob.core.windows.net").rstrip("/")
    if parts.get("AccountName", account) != account or not endpoint.startswith(f"https://{account}."):
        raise BadRequest(
            "The secret is a connection string of another account or of an emulator. Give the account's name as key "
            "and its key alone as secret; an endpoint of its own belongs to the driver."
        )
    if suffix != "core.windows.net" or not endpoint.endswith(".blob.core.windows.net"):
        raise BadRequest(
            "The secret is a connection string for another cloud. Give its AccountKey alone as secret, and the "
            "account's blob endpoint to the driver."
        )
    return parts.get("AccountKey") or parts.get("SharedAccessSignature", "")


def _sas(text: str, account: str) -> SharedAccessSignature:
    if text.startswith(("https://", "http://")):
        if not text.split("://", 1)[1].startswith(f"{account}."):
            raise BadRequest("The secret is a SAS URL of another account. Give its account's name as key.")
        text = urlsplit(text).query
    token = text.removeprefix("?")
    if not _QUERY.fullmatch(token) or "sig=" not in token:
        raise BadRequest("The SAS is not whole: give all that comes after '?' in a SAS URL, as it stands there.")
    if _values(token).get("sr") == "b":
        raise BadRequest("The SAS is for a single blob. Make one for the container or for the account.")
    return SharedAccessSignature(token)


def _check_end(sas: SharedAccessSignature) -> None:
    end = _values(sas.token).get("se")
    if end is None:
        return  # a stored access policy may tell
    try:
        moment = datetime.fromisoformat(end)
    except ValueError:
        raise BadRequest("The SAS does not tell its end (se) as a time. Make a new one.") from None
    if moment.replace(tzinfo=moment.tzinfo or UTC) <= datetime.now(UTC):
        raise BadRequest(f"The SAS expired at {moment:%Y-%m-%d %H:%M} UTC. Make a new one.")


def _values(token: str) -> dict[str, str]:
    return {name: values[-1] for name, values in parse_qs(token).items()}


def _account_key(text: str) -> AccountKey:
    try:
        is_key = len(base64.b64decode(text, validate=True)) >= 16
    except (binascii.Error, ValueError):
        is_key = False
    if not is_key:
        raise BadRequest(
            "The secret is neither an account key (88 letters, of base64) nor a SAS (it contains sig=). For a service "
            "principal give clientId and tenantId, too."
        )
    return AccountKey(text)


class TokenOfPrincipal:
    """A credentials provider: a token for an hour, renewed before it ends; one renewal at a time."""

    def __init__(
        self, session: aiohttp.ClientSession, principal: Principal, *, authority: str, backoff_s: float
    ) -> None:
        async def none_needed(_anew: bool) -> None:
            return None

        dialect = _TokenDialect(f"{authority.rstrip('/')}/{principal.tenant_id}/oauth2/v2.0/token")
        self._sender = Sender(dialect, none_needed, session, backoff_s=backoff_s)
        self._principal = principal
        self._lent: AccessToken | None = None
        self._renew_at_s = 0.0
        self._turn = asyncio.Lock()

    async def __call__(self, anew: bool) -> AccessToken:
        """Raises StoreDenied when the principal is refused, Unavailable."""
        refused = self._lent if anew else None
        async with self._turn:
            if self._lent is None or self._lent is refused or time.monotonic() >= self._renew_at_s:
                await self._renew()
            assert self._lent is not None
            return self._lent

    async def _renew(self) -> None:
        asked_s = time.monotonic()
        told = _json((await self._sender.send(_token_request(self._principal))).body)
        token, life_s = told.get("access_token"), told.get("expires_in")
        if not isinstance(token, str) or not token.isprintable() or not str(life_s).isdigit():
            raise Unavailable("Microsoft Entra ID answered without a token. Try again later.")
        self._lent = AccessToken(token)
        self._renew_at_s = asked_s + max(int(str(life_s)) - _RENEW_BEFORE_S, 0)


def _token_request(principal: Principal) -> Request:
    form = {
        "grant_type": "client_credentials",
        "client_id": principal.client_id,
        "client_secret": principal.client_secret,
        "scope": _SCOPE,
    }
    headers = {"Content-Type": "application/x-www-form-urlencoded"}
    return Request("token", "POST", headers=headers, body=urlencode(form).encode())


class _TokenDialect(Dialect[None]):
    def __init__(self, url: str) -> None:
        self._url = url

    def sign(self, request: Request, credentials: None) -> tuple[str, dict[str, str]]:  # noqa: ARG002
        return self._url, dict(request.headers)

    def read_refusal(self, status: int, headers: CIMultiDictProxy[str], body: bytes) -> Refused:  # noqa: ARG002
        found = _CODE.search(body)
        return Refused(status, f"AADSTS{found[1].decode()}" if found else "")

    def late_refusal(self, body: bytes) -> Refused | None:  # noqa: ARG002
        return None

    def explain(self, request: Request, refused: Refused) -> HeadwaterError:
        said = f"({refused} on {request.operation})"
        if refused.is_transient:
            return Unavailable(f"Microsoft Entra ID is busy or failing {said}. Try again later.")
        if refused.status in (400, 401, 403):
            wrong = _WHAT_IS_WRONG.get(refused.code, "check tenantId, clientId and secret")
            return StoreDenied(f"Microsoft Entra ID does not accept the service principal {said}: {wrong}.")
        return FailedDependency(f"Microsoft Entra ID refused the request for a token {said}.")

    def describe(self) -> str:
        return f"Microsoft Entra ID at {self._url}"


def _json(body: bytes) -> dict[str, Any]:
    try:
        told = json.loads(body)
    except ValueError:
        return {}
    return told if isinstance(told, dict) else {}
