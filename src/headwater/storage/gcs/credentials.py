"""Access tokens for Google Cloud: from a service account's key, from a federated identity, or lent by another account.

Each is a provider for `Sender`, and renews its token before it ends. The session decides where connections may go.

Sources: RFC 7523 (assertions), RFC 8693 (exchange), RFC 6749 (client credentials), AIP-4117 (external accounts),
https://cloud.google.com/iam/docs/reference/credentials/rest/v1/projects.serviceAccounts/generateAccessToken
"""

import asyncio
import base64
import re
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from urllib.parse import quote, quote_plus, urlencode

import aiohttp
import orjson
from google.auth import jwt

from headwater.errors import BadRequest, HeadwaterError, Unavailable
from headwater.storage.gcs.documents import Federation, ServiceAccount, check_service_account, is_email, json_of
from headwater.storage.gcs.requests import GcsCredentials, UrlSigner
from headwater.storage.gcs.tokens import TokenDialect, TokenRequest
from headwater.storage.requests import Request
from headwater.storage.sending import CredentialsProvider, Sender

_READ_WRITE = "https://www.googleapis.com/auth/devstorage.read_write"
_CLOUD_PLATFORM = "https://www.googleapis.com/auth/cloud-platform"
_JWT_BEARER = "urn:ietf:params:oauth:grant-type:jwt-bearer"
_TOKEN_EXCHANGE = "urn:ietf:params:oauth:grant-type:token-exchange"  # noqa: S105 - a name
_ACCESS_TOKEN = "urn:ietf:params:oauth:token-type:access_token"  # noqa: S105 - a name
IAM_URL = "https://iamcredentials.googleapis.com"
_ASSERTION_LIFE_S = 3600
_UNTOLD_LIFE_S = 600
_RENEW_BEFORE_S = 300
_LARGEST_ANSWER_BYTES = 256 * 1024
_ANSWER_DEADLINE_S = 60
_TOKEN = re.compile(r"[!-~]{1,65536}")


@dataclass(frozen=True, slots=True)
class Client:
    """Who asks the identity provider for a token, by the grant `client_credentials`."""

    id: str
    secret: str = field(repr=False)


def service_account(
    account: ServiceAccount,
    session: aiohttp.ClientSession,
    *,
    scope: str = _READ_WRITE,
    backoff_s: float = 0.25,
    now_s: Callable[[], float] = time.time,
) -> CredentialsProvider[GcsCredentials]:
    """Tokens for the assertion that the account signs; URLs can be signed, too."""

    async def lend() -> _Lent:
        issued_s = int(now_s())
        claims = {
            "iss": account.email,
            "scope": scope,
            "aud": account.token_uri,
            "iat": issued_s,
            "exp": issued_s + _ASSERTION_LIFE_S,
        }
        assertion = jwt.encode(account.signer, claims).decode()
        form = {"grant_type": _JWT_BEARER, "assertion": assertion}
        answer = await _ask(session, TokenRequest("the service account", account.token_uri, form=form), backoff_s)
        return _lent(answer, UrlSigner(account.email, account.signer))

    return _Renewed(lend, now_s)


def workload_identity(
    federation: Federation,
    session: aiohttp.ClientSession,
    *,
    client: Client | None = None,
    backoff_s: float = 0.25,
    now_s: Callable[[], float] = time.time,
) -> CredentialsProvider[GcsCredentials]:
    """Tokens exchanged for those of another identity provider; URLs cannot be signed."""

    async def lend() -> _Lent:
        form = {
            "grant_type": _TOKEN_EXCHANGE,
            "audience": federation.audience,
            "scope": _CLOUD_PLATFORM,
            "requested_token_type": _ACCESS_TOKEN,
            "subject_token": await _subject_token(federation, client, session, backoff_s),
            "subject_token_type": federation.subject_token_type,
        }
        exchanged = _lent(
            await _ask(session, TokenRequest("the workload identity", federation.token_url, form=form), backoff_s)
        )
        if federation.impersonation_url is None:
            return exchanged
        return await _impersonate(
            session, federation.impersonation_url, exchanged.credentials, _CLOUD_PLATFORM, backoff_s, now_s
        )

    return _Renewed(lend, now_s)


def impersonated(
    email: str,
    own: CredentialsProvider[GcsCredentials],
    session: aiohttp.ClientSession,
    *,
    iam_url: str = IAM_URL,
    backoff_s: float = 0.25,
    now_s: Callable[[], float] = time.time,
) -> CredentialsProvider[GcsCredentials]:
    """Tokens of the service account `email`, lent to `own`, which must have the scope cloud-platform.

    URLs cannot be signed. Raises BadRequest for an email that cannot be a service account's.
    """
    if not is_email(email):
        raise BadRequest("The email of the service account to act as is not an address.")
    url = f"{iam_url}/v1/projects/-/serviceAccounts/{quote(email, safe='@')}:generateAccessToken"

    async def lend() -> _Lent:
        return await _impersonate(session, url, await own(False), _READ_WRITE, backoff_s, now_s)

    return _Renewed(lend, now_s)


def own_identity(
    content: str, session: aiohttp.ClientSession, *, allow_private: bool = False, backoff_s: float = 0.25
) -> CredentialsProvider[GcsCredentials]:
    """What this server is to Google, by the service account's key of its operator; for `impersonated`."""
    account = check_service_account(content, allow_private=allow_private)
    return service_account(account, session, scope=_CLOUD_PLATFORM, backoff_s=backoff_s)


@dataclass(frozen=True, slots=True)
class _Lent:
    credentials: GcsCredentials
    life_s: float


class _Renewed:
    """A credentials provider; one renewal at a time, however many ask."""

    def __init__(self, lend: Callable[[], Awaitable[_Lent]], now_s: Callable[[], float]) -> None:
        self._lend = lend
        self._now_s = now_s
        self._lent: GcsCredentials | None = None
        self._renew_at_s = 0.0
        self._ends_at_s = 0.0
        self._turn = asyncio.Lock()

    async def __call__(self, anew: bool) -> GcsCredentials:
        refused = self._lent if anew else None
        if self._lent is not None and not anew and self._now_s() < self._renew_at_s:
            return self._lent
        async with self._turn:
            if self._lent is None or self._lent is refused or self._now_s() >= self._renew_at_s:
                await self._renew(may_keep=refused is None)
            assert self._lent is not None
            return self._lent

    async def _renew(self, *, may_keep: bool) -> None:
        asked_at_s = self._now_s()
        try:
            lent = await self._lend()
        except Unavailable:
            if may_keep and self._lent is not None and asked_at_s < self._ends_at_s:
                return
            raise
        self._lent = lent.credentials
        self._ends_at_s = asked_at_s + lent.life_s
        self._renew_at_s = asked_at_s + max(lent.life_s - _RENEW_BEFORE_S, lent.life_s / 2)


async def _subject_token(
    federation: Federation, client: Client | None, session: aiohttp.ClientSession, backoff_s: float
) -> str:
    headers = dict(federation.source_headers)
    if client is None:
        request = TokenRequest("the identity provider", federation.source_url, headers=headers)
    else:
        pair = f"{quote_plus(client.id)}:{quote_plus(client.secret)}"  # RFC 6749, 2.3.1
        headers["Authorization"] = f"Basic {base64.b64encode(pair.encode()).decode()}"
        form = {"grant_type": "client_credentials"}
        request = TokenRequest("the identity provider", federation.source_url, form=form, headers=headers)
    answer = await _ask(session, request, backoff_s)
    name = federation.source_field or ("access_token" if client else None)
    token = answer.decode(errors="replace").strip() if name is None else json_of(answer).get(name)
    if not isinstance(token, str) or not _TOKEN.fullmatch(token):
        raise Unavailable(
            "The identity provider at credential_source.url answered without a token where one was expected. "
            "Check the url and its format."
        )
    return token


async def _impersonate(
    session: aiohttp.ClientSession,
    url: str,
    by: GcsCredentials,
    scope: str,
    backoff_s: float,
    now_s: Callable[[], float],
) -> _Lent:
    json = {"scope": [scope], "lifetime": "3600s"}
    headers = {"Authorization": f"Bearer {by.access_token}"}
    answer = json_of(await _ask(session, TokenRequest("impersonation", url, json=json, headers=headers), backoff_s))
    token, ends = answer.get("accessToken"), answer.get("expireTime")
    if not isinstance(token, str) or not _TOKEN.fullmatch(token) or not isinstance(ends, str):
        raise Unavailable("Google answered the impersonation without an access token. Try again later.")
    try:
        ends_at = datetime.fromisoformat(ends)
    except ValueError:
        return _Lent(GcsCredentials(token), _UNTOLD_LIFE_S)
    return _Lent(GcsCredentials(token), (ends_at - datetime.fromtimestamp(now_s(), UTC)).total_seconds())


def _lent(answer: bytes, url_signer: UrlSigner | None = None) -> _Lent:
    document = json_of(answer)
    token, life = document.get("access_token"), document.get("expires_in", _UNTOLD_LIFE_S)
    if not isinstance(token, str) or not _TOKEN.fullmatch(token):
        raise Unavailable("Google's token endpoint answered without an access token. Try again later.")
    return _Lent(GcsCredentials(token, url_signer), float(life) if isinstance(life, int | float) else _UNTOLD_LIFE_S)


async def _ask(session: aiohttp.ClientSession, request: TokenRequest, backoff_s: float) -> bytes:
    """The answer of a token endpoint, which may be anybody's: so much of it and no more is read."""

    async def nobody(_anew: bool) -> None:
        return None

    sender = Sender(TokenDialect(request), nobody, session, backoff_s=backoff_s)
    method = "GET" if request.form is None and request.json is None else "POST"
    body = b""
    if request.form is not None:
        body = urlencode(request.form).encode()
    elif request.json is not None:
        body = orjson.dumps(request.json)
    answer = bytearray()
    try:
        async with asyncio.timeout(_ANSWER_DEADLINE_S), sender.open(Request("token", method, body=body)) as response:
            async for chunk in response.content.iter_any():
                answer += chunk
                if len(answer) > _LARGEST_ANSWER_BYTES:
                    raise Unavailable(f"{request.whose.capitalize()} got an answer that is too large for a token.")
    except (aiohttp.ClientError, TimeoutError, OSError) as error:
        if isinstance(error, HeadwaterError):  # an address that is refused is both
            raise
        raise Unavailable(f"The token endpoint of {request.whose} did not answer. Try again later.") from None
    return bytes(answer)
