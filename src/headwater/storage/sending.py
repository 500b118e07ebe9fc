"""Sends requests to object stores and repeats them while that can help; every error that leaves is one of ours."""

import asyncio
import io
import random
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator
from contextlib import asynccontextmanager, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Generic, Protocol, TypeVar

import aiohttp
from aiohttp.abc import AbstractStreamWriter
from multidict import CIMultiDictProxy
from yarl import URL

from headwater.errors import HeadwaterError, Unavailable
from headwater.storage.pace import Pace
from headwater.storage.requests import Refused, Request

ATTEMPTS = 5
_REQUEST_DEADLINE_S = 60
_SLOWEST_UPLOAD_BYTES_S = 128 * 1024
_LARGEST_ERROR_BYTES = 64 * 1024
_PIECE_BYTES = 256 * 1024  # written to the socket at once
_INLINE_HASH_BYTES = 256 * 1024  # hashing more than this would hold up the event loop for a millisecond

C = TypeVar("C")
C_contra = TypeVar("C_contra", contravariant=True)
CredentialsProvider = Callable[[bool], Awaitable[C]]
"""Gives credentials that are valid now; True asks for new ones, because the store called the last ones expired."""


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    headers: CIMultiDictProxy[str]
    body: bytes


@dataclass(slots=True)
class Traffic:
    """What was sent, for those who limit or explain it."""

    operations: list[str] = field(default_factory=list)  # repetitions included
    clock_skew_s: float | None = None  # how far the store's clock is ahead of ours, by the last answer


_observer: ContextVar[Traffic | None] = ContextVar("observer", default=None)


@contextmanager
def observed() -> Generator[Traffic]:
    """Sees what the block sends to stores, and the tasks it starts."""
    traffic = Traffic()
    token = _observer.set(traffic)
    try:
        yield traffic
    finally:
        _observer.reset(token)


def observing(operation: str) -> None:
    """Say that a request is being sent."""
    if (traffic := _observer.get()) is not None:
        traffic.operations.append(operation)


class Dialect(Protocol[C_contra]):
    """How one cloud wants its requests, for one bucket, and what its refusals mean."""

    def sign(self, request: Request, credentials: C_contra) -> tuple[str, dict[str, str]]:
        """The URL, percent-encoded letter by letter as it is to be sent, and the headers."""
        ...

    def read_refusal(self, status: int, headers: CIMultiDictProxy[str], body: bytes) -> Refused: ...

    def late_refusal(self, body: bytes) -> Refused | None:
        """A failure inside an answer that began well."""
        ...

    def explain(self, request: Request, refused: Refused) -> HeadwaterError:
        """The sentence for a person, without anything the store wrote but its code."""
        ...

    def describe(self) -> str:
        """The bucket and where it is, for a sentence: `bucket "b" at https://host`."""
        ...


class _Pieces(aiohttp.BytesIOPayload):
    """A body that is sent without another copy of it: aiohttp's own copies the whole and then each small piece."""

    def __init__(self, body: bytes) -> None:
        super().__init__(io.BytesIO())
        self._body = body
        self._size = len(body)

    async def write_with_length(self, writer: AbstractStreamWriter, content_length: int | None) -> None:
        view = memoryview(self._body)[:content_length]
        for start in range(0, len(view), _PIECE_BYTES):
            await writer.write(view[start : start + _PIECE_BYTES])

    async def as_bytes(self, encoding: str = "utf-8", errors: str = "strict") -> bytes:
        del encoding, errors
        return self._body


class Sender(Generic[C]):
    def __init__(
        self,
        dialect: Dialect[C],
        credentials: CredentialsProvider[C],
        session: aiohttp.ClientSession,
        *,
        backoff_s: float,
        attempts: int = ATTEMPTS,
    ) -> None:
        self._dialect = dialect
        self.credentials = credentials
        self._session = session
        self._backoff_s = backoff_s
        self._attempts = attempts
        self.pace = Pace(backoff_s / 5)

    async def send(self, request: Request) -> Answer:
        """The whole answer; reading it counts as part of the attempt."""
        async with self._answered(request, is_read_whole=True) as (response, body):
            return Answer(response.status, response.headers, body)

    @asynccontextmanager
    async def open(self, request: Request) -> AsyncGenerator[aiohttp.ClientResponse]:
        """The answer with its body still to be read."""
        async with self._answered(request, is_read_whole=False) as (response, _):
            yield response

    @asynccontextmanager
    async def _answered(
        self, request: Request, *, is_read_whole: bool
    ) -> AsyncGenerator[tuple[aiohttp.ClientResponse, bytes]]:
        response, body = await self._try_repeatedly(request, is_read_whole=is_read_whole)
        async with response:
            yield response, body

    async def _try_repeatedly(self, request: Request, *, is_read_whole: bool) -> tuple[aiohttp.ClientResponse, bytes]:
        refresh = has_refreshed = False
        failures: list[str] = []
        rest_s = 0.0
        while True:
            began_s = await self.pace.turn(rest_s)
            observing(request.operation)
            try:
                answered = await self._try_once(request, refresh=refresh, is_read_whole=is_read_whole)
                self.pace.go_on(began_s)
                return answered  # noqa: TRY300 - an else would not be covered by the except
            except Refused as refused:
                refresh = refused.may_be_expired and not has_refreshed
                if not (refresh or refused.is_transient) or len(failures) + 1 >= self._attempts:
                    raise self._explained(request, refused) from None
                failures.append(str(refused))
                if refused.is_throttled:
                    self.pace.slow_down(began_s, refused.retry_after_s)
                if refresh:
                    has_refreshed, rest_s = True, 0.0
                    continue
            except (aiohttp.ClientError, TimeoutError, OSError) as error:
                if reason := refused_address(error):
                    raise reason from error
                failures.append(type(error).__name__)
                if len(failures) >= self._attempts:
                    # Not `from error`: aiohttp's error may hold the headers, and these a session token.
                    raise self._unreachable(request, error) from None
            rest_s = self._backoff_s * 2 ** len(failures) * random.uniform(0.5, 1)  # noqa: S311

    async def _try_once(
        self, request: Request, *, refresh: bool, is_read_whole: bool
    ) -> tuple[aiohttp.ClientResponse, bytes]:
        url, headers = await self._signed(request, await self.credentials(refresh))
        async with asyncio.timeout(_REQUEST_DEADLINE_S + len(request.body) / _SLOWEST_UPLOAD_BYTES_S):
            response = await self._session.request(
                request.method,
                URL(url, encoded=True),
                headers=headers,
                data=_Pieces(request.body) if request.body else None,
                allow_redirects=False,
            )
            if (traffic := _observer.get()) is not None:
                traffic.clock_skew_s = _skew_s(response.headers.get("Date"))
            try:
                await self._raise_refusal(response)
                body = await response.read() if is_read_whole else b""
                if late := self._dialect.late_refusal(body):
                    raise late  # noqa: TRY301 - the answer is closed where all failures meet
                return response, body  # noqa: TRY300 - an else would not be covered by the except
            except BaseException:
                response.close()
                raise

    def _explained(self, request: Request, refused: Refused) -> HeadwaterError:
        error = self._dialect.explain(request, refused)
        error.operation, error.code = request.operation, refused.code or str(refused.status)
        error.region = refused.region
        return error

    async def _signed(self, request: Request, credentials: C) -> tuple[str, dict[str, str]]:
        if len(request.body) > _INLINE_HASH_BYTES:
            return await asyncio.to_thread(self._dialect.sign, request, credentials)
        return self._dialect.sign(request, credentials)

    async def _raise_refusal(self, response: aiohttp.ClientResponse) -> None:
        if response.status >= 300:
            body = await response.content.read(_LARGEST_ERROR_BYTES)
            refused = self._dialect.read_refusal(response.status, response.headers, body)
            refused.retry_after_s = _retry_after_s(response.headers)
            raise refused

    def _unreachable(self, request: Request, failure: Exception) -> Unavailable:
        kind = type(failure).__name__
        tries = f"{self._attempts} tries" if self._attempts > 1 else "one try"
        unreachable = Unavailable(
            f"The store did not answer for {self._dialect.describe()} ({kind} on {request.operation}, {tries}). "
            f"{advice_on(failure)}"
        )
        unreachable.operation, unreachable.code = request.operation, kind
        return unreachable


def advice_on(failure: Exception) -> str:
    """What to do about a connection that failed, without anything the other side sent."""
    match failure:
        case aiohttp.ClientConnectorCertificateError():
            return (
                "Its certificate is not valid for that host, or not known here. Check the endpoint; the name of a "
                "bucket with dots must not be part of the host."
            )
        case aiohttp.ClientConnectorSSLError():
            return "It does not speak TLS there. If it speaks plain http, give the endpoint with http://."
        case aiohttp.ClientConnectorDNSError():
            return "There is no such host. Check the endpoint, and the region."
        case aiohttp.ClientResponseError() | aiohttp.ServerDisconnectedError():
            return "It does not speak HTTP there. If it speaks https, give the endpoint with https://."
        case _:
            return "Try again later, or check the endpoint."


def _skew_s(date: str | None) -> float | None:
    try:
        return (parsedate_to_datetime(date or "") - datetime.now(UTC)).total_seconds()
    except (ValueError, TypeError):  # none, or none with a time zone
        return None


def _retry_after_s(headers: CIMultiDictProxy[str]) -> float | None:
    """Seconds, or a moment by the store's own clock (RFC 9110, 10.2.3)."""
    told = headers.get("Retry-After", "")
    if told.isdecimal():
        return float(told)
    try:
        return (parsedate_to_datetime(told) - parsedate_to_datetime(headers.get("Date", ""))).total_seconds()
    except (ValueError, TypeError):
        return None


def refused_address(error: BaseException) -> HeadwaterError | None:
    """Our own refusal to connect, which aiohttp wraps."""
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, HeadwaterError):
        cause = getattr(cause, "os_error", None) or cause.__cause__
    return cause
