"""Fetches what people's URLs lead to, and nothing inside our network: the one way in which links are read.

Each URL is read once (`urls.py`) and written anew; the address that is being connected decides (`addresses.py`), for
each redirect again. Nothing that identifies us is sent: no cookie, no password, no proxy of the environment. Errors
tell what happened in our own words, never what the other side answered.
"""

import asyncio
import re
import ssl
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Literal

import aiohttp
from aiohttp.abc import AbstractResolver
from multidict import CIMultiDictProxy
from yarl import URL

from headwater.errors import BadRequest, FailedDependency, RangeNotSatisfiable
from headwater.net.addresses import AddressRefused, Guard, InnerHost
from headwater.net.urls import HttpUrl, read_url

_MOST_REDIRECTS = 5
_LARGEST_BYTES = 10**13  # of one file; who says more has none
_CONNECT_S = 5
_SILENCE_S = 20  # the longest wait for the next bytes
_HEADERS = {"User-Agent": "headwater", "Accept": "*/*", "Accept-Encoding": "identity"}
_CONTENT_RANGE = re.compile(r"bytes (\d{1,18})-(\d{1,18})/(\d{1,18}|\*)")
_REDIRECTS = frozenset([301, 302, 303, 307, 308])
_PARTIAL = 206
_HEADERS_S = 30  # from the connection to the end of the headers, which may drip in
_NO_BYTE = "The range holds no byte of the file."
_WAY_OUT = "If that is intended, the operator of this server names it: HEADWATER_LINK_INNER_HOSTS=HOST:PORT"
_NETWORK_ERRORS = (aiohttp.ClientError, OSError, ValueError)  # TimeoutError is an OSError
_MIME_TYPE = re.compile(r"[a-z0-9][a-z0-9!#$&^_.+-]{0,126}/[a-z0-9][a-z0-9!#$&^_.+-]{0,126}")

Reason = Literal[
    "not-found",  # 404, 410
    "denied",  # 401, 403 and other refusals
    "unavailable",  # 408, 429, 5xx: later it may answer
    "timeout",
    "no-host",  # its name is unknown
    "no-connection",
    "tls",
    "broken",  # what it answers is no HTTP, or ends early
    "too-large",
    "refused",  # it leads where we do not go
]
SILENT: frozenset[Reason] = frozenset(["timeout", "no-connection"])  # it takes long to find out
PASSING: frozenset[Reason] = frozenset(["unavailable", "timeout", "no-connection", "broken"])


class FetchFailed(FailedDependency):
    """`reason` is one word for programs, the text a sentence for people; `host` is where it failed, maybe after
    redirects, if it was the network that failed.
    """

    def __init__(self, reason: Reason, message: str, host: str | None = None) -> None:
        super().__init__(message)
        self.reason: Reason = reason
        self.host = host

    @property
    def is_passing(self) -> bool:
        """Whether the same fetch may do better in a while."""
        return self.reason in PASSING


@dataclass(frozen=True, slots=True)
class Answer:
    """What a URL leads to; `chunks` are the bytes that were asked for and can be read once."""

    url: HttpUrl  # where they come from, after all redirects
    start: int
    end: int | None  # not included; None where the other side does not say how long it is
    size_bytes: int | None  # of the whole; None where it does not say
    mime_type: str | None  # as it says
    is_range: bool  # whether it sent that range only, or everything and we cut it
    chunks: AsyncIterator[bytes] = field(repr=False)

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self.chunks

    async def read(self) -> bytes:
        return b"".join([chunk async for chunk in self.chunks])


class Fetcher:
    """Make it inside the event loop; to be closed.

    `inner_hosts` may be reached although they are inner; `own_url` is where this server itself is reached.
    """

    def __init__(
        self,
        *,
        inner_hosts: Sequence[InnerHost] = (),
        own_url: str | None = None,
        resolver: AbstractResolver | None = None,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self._guard = Guard(inner_hosts, way_out=_WAY_OUT)
        self._own = _authority_of(own_url)
        self._tls = tls
        self._session = aiohttp.ClientSession(
            connector=self._guard.open_connector(resolver),
            headers=_HEADERS,
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            trust_env=False,
        )

    async def close(self) -> None:
        await self._session.close()

    def check_url(self, url: str) -> None:
        """Raises BadRequest for what could never be fetched. Asks nobody: a name is looked up when it is fetched."""
        self._checked(read_url(url))

    def _checked(self, url: HttpUrl) -> HttpUrl:
        self._guard.check(url)
        if (url.host, url.port) == self._own:
            raise AddressRefused("The URL leads to this server itself. Link the item by its id instead.")
        return url

    @asynccontextmanager
    async def open(
        self,
        url: str,
        *,
        start: int = 0,
        end: int | None = None,
        most_bytes: int | None = None,
        within_s: float | None = None,
    ) -> AsyncGenerator[Answer]:
        """Bytes from `start` up to, not including, `end`; a negative `start` asks for that many at the end.

        A server that knows no ranges is read from its beginning, and cut. More than `most_bytes` are refused, and all
        must have come `within_s`. Raises FetchFailed, and RangeNotSatisfiable.
        """
        deadline = None if within_s is None else asyncio.get_running_loop().time() + within_s
        response, arrived = await self._follow(url, start, end, deadline)
        async with response:
            yield _answer(response, arrived, start, end, most_bytes)

    async def _follow(
        self, url: str, start: int, end: int | None, deadline: float | None
    ) -> tuple[aiohttp.ClientResponse, HttpUrl]:
        """The first answer that is no redirect, to be closed. Raises FetchFailed."""
        headers = _range_header(start, end)
        target = _allowed(self._checked, read_url, url)
        for _ in range(_MOST_REDIRECTS + 1):
            response = await self._ask(target, headers, deadline)
            location = response.headers.get("Location")
            if response.status not in _REDIRECTS or location is None:
                return response, target
            response.close()  # its body is of no interest, however long
            following = _allowed(self._checked, target.joined, location)
            if target.scheme == "https" and following.scheme == "http":
                raise FetchFailed("refused", f"{target.authority} redirects from https to http, which is not followed.")
            target = following
        raise FetchFailed("refused", f"{host_of(url)} redirects more than {_MOST_REDIRECTS} times.")

    async def _ask(self, target: HttpUrl, headers: dict[str, str], deadline: float | None) -> aiohttp.ClientResponse:
        try:
            async with asyncio.timeout(_HEADERS_S):
                return await self._session.get(
                    URL(str(target), encoded=True),
                    headers=headers,
                    allow_redirects=False,
                    timeout=_timeout(deadline),
                    ssl=self._tls or True,
                )
        except _NETWORK_ERRORS as error:
            raise _explained(error, target.authority) from None


def _allowed(checked: Callable[[HttpUrl], HttpUrl], read: Callable[[str], HttpUrl], text: str) -> HttpUrl:
    """Raises FetchFailed."""
    try:
        return checked(read(text))
    except BadRequest as error:
        raise FetchFailed("refused", str(error)) from None


def _authority_of(url: str | None) -> tuple[str, int] | None:
    if url is None:
        return None
    try:
        own = read_url(url)
    except BadRequest:  # an operator may reach it in ways that nobody else can
        return None
    return own.host, own.port


def host_of(url: str) -> str:
    """The host alone, with its port: the rest of a URL may hold a token. Raises BadRequest."""
    return read_url(url).authority


def _timeout(deadline: float | None) -> aiohttp.ClientTimeout:
    total = None if deadline is None else max(0.001, deadline - asyncio.get_running_loop().time())
    return aiohttp.ClientTimeout(total=total, connect=_CONNECT_S * 2, sock_connect=_CONNECT_S, sock_read=_SILENCE_S)


def _range_header(start: int, end: int | None) -> dict[str, str]:
    if start < 0:
        return {"Range": f"bytes={start}"}
    if start == 0 and end is None:
        return {}
    return {"Range": f"bytes={start}-{'' if end is None else end - 1}"}


def _answer(
    response: aiohttp.ClientResponse, url: HttpUrl, start: int, end: int | None, most_bytes: int | None
) -> Answer:
    """Raises FetchFailed, RangeNotSatisfiable."""
    host = url.authority
    _check_status(response.status, host)
    if response.headers.get("Content-Encoding", "identity").lower() not in ("", "identity"):
        raise FetchFailed("broken", f"{host} sends its answer compressed, though it was asked not to.")
    is_range = response.status == _PARTIAL
    if is_range:
        first, last, size_bytes = _content_range(response.headers, host)
        if start >= 0 and first != start:
            raise FetchFailed("broken", f"{host} answers with another range than it was asked for.")
        start, skipped = first, 0
        end = last if end is None else min(end, last)
    else:
        size_bytes = response.content_length
        start, end = _cut(start, end, size_bytes, host)
        skipped = start
    if (size_bytes or 0) > _LARGEST_BYTES:
        raise FetchFailed("broken", f"{host} says that the file has {size_bytes:,} bytes, which no file has.")
    expected = None if end is None else end - start
    if most_bytes is not None and (expected or 0) > most_bytes:
        raise _too_large(host, most_bytes)
    return Answer(
        url=url,
        start=start,
        end=end,
        size_bytes=size_bytes,
        mime_type=_mime_type(response.headers),
        is_range=is_range,
        chunks=_chunks(response, host, skipped, expected, most_bytes),
    )


def _check_status(status: int, host: str) -> None:
    """Raises FetchFailed unless there are bytes to come; RangeNotSatisfiable."""
    if status in (200, 203, _PARTIAL):
        return
    if status == 416:
        raise RangeNotSatisfiable(_NO_BYTE)
    said = f"{host} answers {status}"
    if status in (404, 410):
        raise FetchFailed("not-found", f"{said}: there is no such file any more.")
    if status in (408, 425, 429) or status >= 500:
        raise FetchFailed("unavailable", f"{said}. It may do better later.")
    if 400 <= status < 500:
        raise FetchFailed("denied", f"{said}: it does not give the file to everybody.")
    raise FetchFailed("broken", f"{said}, which is no file.")


def _content_range(headers: CIMultiDictProxy[str], host: str) -> tuple[int, int, int | None]:
    """(first, end, size of the whole), the end not included."""
    match = _CONTENT_RANGE.fullmatch(headers.get("Content-Range", "").strip().lower())
    if match is None or int(match[1]) > int(match[2]):
        raise FetchFailed("broken", f"{host} sends a range and does not say which.")
    return int(match[1]), int(match[2]) + 1, None if match[3] == "*" else int(match[3])


def _cut(start: int, end: int | None, size_bytes: int | None, host: str) -> tuple[int, int | None]:
    """The range within a whole of that size. Raises RangeNotSatisfiable."""
    if size_bytes is None:
        if start < 0:
            raise FetchFailed("broken", f"{host} knows neither ranges nor the size of the file.")
        return start, end
    if start < 0:
        start = max(0, size_bytes + start)
    end = size_bytes if end is None else min(end, size_bytes)
    if start > end or (start == end and size_bytes > 0):
        raise RangeNotSatisfiable(_NO_BYTE)
    return start, end


def _mime_type(headers: CIMultiDictProxy[str]) -> str | None:
    said = headers.get("Content-Type", "").partition(";")[0].strip().lower()
    return said if _MIME_TYPE.fullmatch(said) else None


async def _chunks(
    response: aiohttp.ClientResponse, host: str, skipped: int, expected: int | None, most_bytes: int | None
) -> AsyncIterator[bytes]:
    """Without the first `skipped` bytes, and as many as are `expected`, no more. Raises FetchFailed."""
    received = 0
    try:
        async for chunk in response.content.iter_any():
            dropped = min(skipped, len(chunk))
            skipped -= dropped
            left = None if expected is None else dropped + expected - received
            wanted = chunk[dropped:left]
            received += len(wanted)
            if most_bytes is not None and received > most_bytes:
                raise _too_large(host, most_bytes)
            if wanted:
                yield wanted
            if received == expected:
                return
    except _NETWORK_ERRORS as error:
        raise _explained(error, host) from None
    if expected is not None and received < expected:
        raise FetchFailed("broken", f"{host} broke off after {received:,} of {expected:,} bytes.")


def _too_large(host: str, most_bytes: int) -> FetchFailed:
    return FetchFailed("too-large", f"{host} sends more than {most_bytes:,} bytes, which is more than is read of it.")


def _explained(error: Exception, host: str) -> FetchFailed:
    reason: Reason
    match error:
        case TimeoutError():
            reason, said = "timeout", f"{host} does not answer in time."
        case AddressRefused() | aiohttp.ClientConnectorError(os_error=AddressRefused()):
            reason, said = "refused", f"{host} leads to an inner address. {_WAY_OUT}"
        case aiohttp.ClientConnectorCertificateError():
            said = f"The certificate of {host} is not valid for it, has expired, or is of an unknown authority."
            reason = "tls"
        case aiohttp.ClientSSLError():
            reason, said = "tls", f"{host} does not speak https."
        case aiohttp.ClientConnectorDNSError():
            reason, said = "no-host", f"There is no host {host}, or its name cannot be resolved."
        case aiohttp.ClientConnectorError():
            reason, said = "no-connection", f"{host} accepts no connection."
        case _:
            said = f"{host} broke off its answer or does not speak HTTP ({type(error).__name__})."
            reason = "broken"
    return FetchFailed(reason, said, host)
