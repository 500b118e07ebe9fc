"""Sends requests to S3 and repeats them while that can help; every error that leaves is one of ours."""

import asyncio
import io
import logging
import random
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

import aiohttp
from multidict import CIMultiDictProxy
from yarl import URL

from headwater.errors import HeadwaterError, Unavailable
from headwater.storage.s3_refusals import Refused, explain, place_of, read_refusal
from headwater.storage.s3_requests import Bucket, Request, S3Credentials, signed, signed_url

_ATTEMPTS = 5
_REQUEST_DEADLINE_S = 60
_SLOWEST_UPLOAD_BYTES_S = 128 * 1024
_LARGEST_ERROR_BYTES = 64 * 1024
_INLINE_HASH_BYTES = 256 * 1024  # hashing more than this would hold up the event loop for a millisecond

CredentialsProvider = Callable[[bool], Awaitable[S3Credentials]]
"""Gives credentials that are valid now; True asks for new ones, because S3 called the last ones expired."""


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    headers: CIMultiDictProxy[str]
    body: bytes


class Sender:
    def __init__(
        self,
        bucket: Bucket,
        credentials: CredentialsProvider,
        session: aiohttp.ClientSession,
        *,
        backoff_s: float,
    ) -> None:
        self.bucket = bucket
        self._credentials = credentials
        self._session = session
        self._backoff_s = backoff_s
        # At level DEBUG botocore logs what it signs, session tokens included.
        logging.getLogger("botocore.auth").setLevel(logging.INFO)

    async def send(self, request: Request) -> Answer:
        """The whole answer; reading it counts as part of the attempt."""
        async with self._answered(request, is_read_whole=True) as (response, body):
            return Answer(response.status, response.headers, body)

    @asynccontextmanager
    async def open(self, request: Request) -> AsyncGenerator[aiohttp.ClientResponse]:
        """The answer with its body still to be read."""
        async with self._answered(request, is_read_whole=False) as (response, _):
            yield response

    async def sign(self, request: Request, *, expires_s: int) -> str:
        """A URL that carries out the request for whoever has it."""
        return signed_url(self.bucket, request, await self._credentials(False), expires_s=expires_s)

    @asynccontextmanager
    async def _answered(
        self, request: Request, *, is_read_whole: bool
    ) -> AsyncGenerator[tuple[aiohttp.ClientResponse, bytes]]:
        response, body = await self._try_repeatedly(request, is_read_whole=is_read_whole)
        async with response:
            yield response, body

    async def _try_repeatedly(self, request: Request, *, is_read_whole: bool) -> tuple[aiohttp.ClientResponse, bytes]:
        refresh = False
        failures: list[str] = []
        while True:
            try:
                return await self._try_once(request, refresh=refresh, is_read_whole=is_read_whole)
            except Refused as refused:
                is_expired = refused.may_be_expired and not refresh
                if not (is_expired or refused.is_transient) or len(failures) + 1 >= _ATTEMPTS:
                    raise explain(self.bucket, request, refused) from None
                failures.append(str(refused))
                if is_expired:
                    refresh = True
                    continue
            except (aiohttp.ClientError, TimeoutError, OSError) as error:
                if reason := _refused_address(error):
                    raise reason from error
                failures.append(type(error).__name__)
                if len(failures) >= _ATTEMPTS:
                    # Not `from error`: aiohttp's error may hold the headers, and these a session token.
                    raise self._unreachable(request, failures[-1]) from None
            await asyncio.sleep(self._backoff_s * 2 ** len(failures) * random.uniform(0.5, 1))  # noqa: S311

    async def _try_once(
        self, request: Request, *, refresh: bool, is_read_whole: bool
    ) -> tuple[aiohttp.ClientResponse, bytes]:
        url, headers = await self._signed(request, await self._credentials(refresh))
        async with asyncio.timeout(_REQUEST_DEADLINE_S + len(request.body) / _SLOWEST_UPLOAD_BYTES_S):
            response = await self._session.request(
                request.method,
                URL(url, encoded=True),
                headers=headers,
                data=io.BytesIO(request.body) if request.body else None,
                allow_redirects=False,
            )
            try:
                await _raise_refusal(response)
                body = await response.read() if is_read_whole else b""
                _raise_late_refusal(body)
                return response, body  # noqa: TRY300 - an else would not be covered by the except
            except BaseException:
                response.close()
                raise

    async def _signed(self, request: Request, credentials: S3Credentials) -> tuple[str, dict[str, str]]:
        if len(request.body) > _INLINE_HASH_BYTES:
            return await asyncio.to_thread(signed, self.bucket, request, credentials)
        return signed(self.bucket, request, credentials)

    def _unreachable(self, request: Request, failure: str) -> Unavailable:
        return Unavailable(
            f'{place_of(self.bucket)} did not answer for bucket "{self.bucket.name}" ({failure} on '
            f"{request.operation}, {_ATTEMPTS} tries). Try again later, or check the endpoint."
        )


async def _raise_refusal(response: aiohttp.ClientResponse) -> None:
    if response.status >= 300:
        body = await response.content.read(_LARGEST_ERROR_BYTES)
        raise read_refusal(response.status, body, response.headers.get("x-amz-bucket-region"))


def _raise_late_refusal(body: bytes) -> None:
    """S3 may begin with 200 and find out later that it cannot complete a multipart upload."""
    if b"<Error>" in body[:300]:
        raise read_refusal(200, body, None)


def _refused_address(error: BaseException) -> HeadwaterError | None:
    """Our own refusal to connect, which aiohttp wraps."""
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, HeadwaterError):
        cause = getattr(cause, "os_error", None) or cause.__cause__
    return cause
