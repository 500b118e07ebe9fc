"""Roles of AWS: credentials that STS lends for an hour, renewed before they end.

Source: the AWS Security Token Service API reference, AssumeRole and GetCallerIdentity (version 2011-06-15).
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from urllib.parse import urlencode

import aiohttp
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from multidict import CIMultiDictProxy
from typing_extensions import override

from headwater.errors import FailedDependency, HeadwaterError, StoreDenied, Unavailable
from headwater.storage.requests import Refused, Request
from headwater.storage.s3.refusals import element_text, read_refusal
from headwater.storage.s3.requests import S3Credentials, check_region
from headwater.storage.sending import Dialect, Sender

_LIFE_S = 3600  # the most that STS lends to a role assumed by a role
_RENEW_BEFORE = timedelta(minutes=5)


@dataclass(frozen=True, slots=True)
class RoleChain:
    """Roles to assume one by the other; the last one is the one that reads the bucket."""

    arns: Sequence[str]
    external_id: str | None


class AssumedRole:
    """A credentials provider; one renewal at a time, however many ask."""

    def __init__(
        self,
        session: aiohttp.ClientSession,
        base: S3Credentials,
        roles: RoleChain,
        *,
        region: str,
        endpoint: str | None = None,
        backoff_s: float = 0.25,
    ) -> None:
        self._session = session
        self._base = base
        self._roles = roles
        self._dialect = _StsDialect(region, endpoint)
        self._backoff_s = backoff_s
        self._lent: S3Credentials | None = None
        self._renew_at = datetime.min.replace(tzinfo=UTC)
        self._turn = asyncio.Lock()

    async def __call__(self, anew: bool) -> S3Credentials:
        """Raises StoreDenied when a role may not be assumed."""
        refused = self._lent if anew else None
        async with self._turn:
            is_fresh = datetime.now(UTC) < self._renew_at
            if self._lent is None or not is_fresh or self._lent is refused:
                await self._renew()
            assert self._lent is not None
            return self._lent

    async def _renew(self) -> None:
        lent = self._base
        for arn in self._roles.arns:
            lent = await self._assume(arn, lent)
        self._lent = lent

    async def _assume(self, arn: str, by: S3Credentials) -> S3Credentials:
        form = {"RoleArn": arn, "RoleSessionName": "headwater", "DurationSeconds": str(_LIFE_S)}
        if self._roles.external_id:
            form["ExternalId"] = self._roles.external_id
        text = await _ask(self._session, self._dialect, by, "AssumeRole", form, self._backoff_s)
        key, secret = element_text(text, "AccessKeyId"), element_text(text, "SecretAccessKey")
        token, ends_at = element_text(text, "SessionToken", 16_384), element_text(text, "Expiration")
        if not (key and secret and token and ends_at):
            raise Unavailable("AWS STS answered AssumeRole without credentials. Try again later.")
        ends = datetime.fromisoformat(ends_at)
        self._renew_at = ends - _RENEW_BEFORE
        return S3Credentials(key, secret, token, ends)


async def caller_arn(
    session: aiohttp.ClientSession, credentials: S3Credentials, *, region: str, endpoint: str | None = None
) -> str:
    """Whom AWS takes the credentials for. Raises StoreDenied, Unavailable."""
    text = await _ask(session, _StsDialect(region, endpoint), credentials, "GetCallerIdentity", {}, 0.25)
    arn = element_text(text, "Arn")
    if arn is None:
        raise Unavailable("AWS STS answered GetCallerIdentity without a name. Try again later.")
    return arn


async def _ask(
    session: aiohttp.ClientSession,
    dialect: "_StsDialect",
    credentials: S3Credentials,
    action: str,
    form: dict[str, str],
    backoff_s: float,
) -> str:
    async def given(_anew: bool) -> S3Credentials:
        return credentials

    sender = Sender(dialect, given, session, backoff_s=backoff_s)
    body = urlencode({"Action": action, "Version": "2011-06-15"} | form).encode()
    headers = {"Content-Type": "application/x-www-form-urlencoded; charset=utf-8"}
    answer = await sender.send(Request(action, "POST", headers=headers, body=body))
    return answer.body.decode(errors="replace")


class _StsDialect(Dialect[S3Credentials]):
    def __init__(self, region: str, endpoint: str | None) -> None:
        """Raises BadRequest."""
        check_region(region)
        suffix = ".cn" if region.startswith("cn-") else ""
        self._url = f"{endpoint.rstrip('/')}/" if endpoint else f"https://sts.{region}.amazonaws.com{suffix}/"
        self._region = region

    def sign(self, request: Request, credentials: S3Credentials) -> tuple[str, dict[str, str]]:
        unsigned = AWSRequest(request.method, self._url, headers=dict(request.headers), data=request.body)
        given = Credentials(credentials.access_key_id, credentials.secret_access_key, credentials.session_token)
        SigV4Auth(given, "sts", self._region).add_auth(unsigned)
        return self._url, dict(unsigned.headers.items())

    @override
    def read_refusal(self, status: int, headers: CIMultiDictProxy[str], body: bytes) -> Refused:
        return read_refusal(status, body, None)

    @override
    def late_refusal(self, body: bytes) -> Refused | None:
        return None

    def explain(self, request: Request, refused: Refused) -> HeadwaterError:
        said = f"({refused} on {request.operation})"
        if refused.code == "AccessDenied":
            return StoreDenied(
                f"The role may not be assumed {said}. Check its ARN, that its trust policy names the one who asks, "
                "and that the external id is the same on both sides."
            )
        if refused.is_transient:
            return Unavailable(f"AWS STS is busy or failing {said}. Try again later.")
        if refused.status in (400, 401, 403):
            return StoreDenied(f"AWS does not accept the key that is to assume the role {said}. Renew it.")
        return FailedDependency(f"AWS STS refused {said}.")

    def describe(self) -> str:
        return f"AWS STS at {self._url}"
