"""The link: many requests at once to one server and to the store behind it, repeated while either is away."""

import asyncio
import random
import time
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self
from urllib.parse import urljoin

import aiohttp
import orjson
from multidict import CIMultiDictProxy
from yarl import URL

from headwater.errors import (
    BadRequest,
    Conflict,
    FailedDependency,
    Forbidden,
    HeadwaterError,
    NotFound,
    Unauthorized,
    Unavailable,
)

PATIENCE_S = 300.0  # a server that is updated or restarted is back by then

_ERRORS = {
    error.status: error
    for error in (BadRequest, Unauthorized, Forbidden, NotFound, Conflict, FailedDependency, Unavailable)
}
_ERRORS[410] = NotFound  # an upload that has expired
_BRIEFLY_AWAY = frozenset([408, 429, 500, 502, 503, 504])
_MOST_DEFECTS = 4  # 500: again and again it is no outage
_LONGEST_WAIT_S = 10.0
_SILENT_FOR_S = 120.0  # a commit of many files may take its time
_SLOWEST_BYTES_PER_S = 10_000
_REDIRECTS = (301, 302, 303, 307, 308)
_MOST_REDIRECTS = 5
_LOCAL = ("127.0.0.1", "localhost", "::1")  # no proxy stands between us and our own machine

Body = bytes | Callable[[], Any] | None  # a callable makes the body anew for each try


@dataclass(frozen=True, slots=True)
class Request:
    """As it was signed: sent to the letter, and without our token."""

    method: str
    url: str
    headers: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    headers: CIMultiDictProxy[str]
    body: bytes

    @property
    def is_good(self) -> bool:
        return 200 <= self.status < 300


class Link:
    """Raises Unavailable for what stays away for `patience_s`; other errors with the server's own sentence."""

    def __init__(
        self, url: str, token: str, *, renew: Callable[[], str] | None = None, patience_s: float = PATIENCE_S
    ) -> None:
        """`renew` gives another token when this one has expired."""
        self.url = url.rstrip("/")
        self._token = token
        self._renew = renew
        self._patience_s = patience_s
        self.trouble: str | None = None  # what is being waited for

    async def __aenter__(self) -> Self:
        self._near, self._far = self._session(trust_env=False), self._session(trust_env=True)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._near.close()
        await self._far.close()

    def _session(self, *, trust_env: bool) -> aiohttp.ClientSession:
        return aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0),
            trust_env=trust_env,
            auto_decompress=False,
            skip_auto_headers=("Content-Type",),  # of what a signature covers nothing may be added
            cookie_jar=aiohttp.DummyCookieJar(),
            headers={"Accept-Encoding": "identity"},
        )

    async def ask(self, method: str, path: str, body: Any = None) -> Any:
        """JSON to the API, and JSON back. Repeated, so only for what may come twice."""
        sent = None if body is None else orjson.dumps(body)
        answer = await self.call(method, path, sent, {"Content-Type": "application/json"})
        return orjson.loads(answer.body)

    async def call(
        self, method: str, path: str, body: Body = None, headers: Mapping[str, str] | None = None, size_bytes: int = 0
    ) -> Answer:
        """To a path of the API, or to a URL that it gave. Raises HeadwaterError with its sentence."""
        url = path if path.startswith(("http://", "https://")) else f"{self.url}/api/v1{path}"
        tries = self.tries()
        while True:
            given = {"Authorization": f"Bearer {self._token}", **(headers or {})}
            answer = await self._repeated(tries, Request(method, url, given), body, size_bytes)
            if answer.status != 401 or not tries.renew(self):
                break
        if answer.status >= 400:
            raise refusal(answer, self.url)
        return answer

    async def once(self, method: str, url: str, body: Body, headers: Mapping[str, str], size_bytes: int) -> Answer:
        """To a URL that the API gave, and not repeated. Raises what aiohttp raises when it breaks off."""
        request = Request(method, url, {**headers, "Authorization": f"Bearer {self._token}"})
        async with self.open(request, body, size_bytes) as response:
            return Answer(response.status, response.headers, await response.read())

    async def send(self, request: Request, body: bytes) -> Answer:
        """To a store, as it was signed. The answer may be a refusal."""
        return await self._repeated(self.tries(), request, body, len(body))

    def tries(self) -> "Tries":
        return Tries(self._patience_s)

    def renew(self) -> bool:
        """Whether there is another token now."""
        if self._renew is None:
            return False
        self._token = self._renew()
        return True

    async def _repeated(self, tries: "Tries", request: Request, body: Body, size_bytes: int) -> Answer:
        while True:
            try:
                async with self.open(request, body, size_bytes) as response:
                    answer = Answer(response.status, response.headers, await response.read())
            except (aiohttp.ClientConnectionError, aiohttp.ClientPayloadError, TimeoutError, OSError) as error:
                await self.wait(tries, request.url, error)
                continue
            if answer.status not in _BRIEFLY_AWAY or not tries.may_again(answer.status):
                self.trouble = None
                return answer
            await self._pause(tries, request.url, f"it answered {answer.status}", answer.headers.get("Retry-After"))

    @asynccontextmanager
    async def stream(
        self, path: str, headers: Mapping[str, str], tries: "Tries"
    ) -> AsyncGenerator[aiohttp.ClientResponse]:
        """The bytes behind a path of the API, from wherever it sends us; our token goes to the server alone.

        Raises HeadwaterError with the server's sentence; and what aiohttp raises when it breaks off.
        """
        url = f"{self.url}/api/v1{path}"
        for _ in range(_MOST_REDIRECTS):
            is_ours = url.startswith(f"{self.url}/")
            given = {**headers, "Authorization": f"Bearer {self._token}"} if is_ours else headers
            async with self.open(Request("GET", url, given)) as response:
                if response.status in _REDIRECTS and "Location" in response.headers:
                    url = urljoin(url, response.headers["Location"])
                    continue
                if response.status in (200, 206):
                    self.trouble = None
                    tries.begin_anew()
                    yield response
                    return
                answer = Answer(response.status, response.headers, await response.read())
            if answer.status == 401 and is_ours and tries.renew(self):
                continue
            if answer.status in _BRIEFLY_AWAY and tries.may_again(answer.status):
                raise aiohttp.ClientConnectionError(f"it answered {answer.status}")
            raise refusal(answer, self.url) if is_ours else refused(answer)
        raise FailedDependency("The server sends from one address to another without end.")

    async def wait(self, tries: "Tries", url: str, error: Exception) -> None:
        """Before the next try. Raises Unavailable when there have been enough."""
        reason = str(error) or type(error).__name__
        if not tries.may_again(None):
            raise Unavailable(
                f"{_host(url)} has not answered for {self._patience_s:.0f} s: {reason}. Run the same command again to "
                "go on."
            ) from None
        await self._pause(tries, url, reason, None)

    async def _pause(self, tries: "Tries", url: str, reason: str, retry_after: str | None) -> None:
        self.trouble = f"waiting for {_host(url)}: {reason}"
        await asyncio.sleep(tries.wait_s(retry_after))

    @asynccontextmanager
    async def open(
        self, request: Request, body: Body = None, size_bytes: int = 0
    ) -> AsyncGenerator[aiohttp.ClientResponse]:
        """One try; redirects are not followed."""
        url = URL(request.url, encoded=True)
        session = self._near if url.host in _LOCAL else self._far
        timeout = aiohttp.ClientTimeout(
            total=_SILENT_FOR_S + size_bytes / _SLOWEST_BYTES_PER_S if body is not None else None,
            sock_connect=30,
            sock_read=_SILENT_FOR_S,
        )
        async with session.request(
            request.method,
            url,
            data=body() if callable(body) else body,
            headers=request.headers,
            allow_redirects=False,
            timeout=timeout,
        ) as response:
            yield response


class Tries:
    """How long one request may be repeated."""

    def __init__(self, patience_s: float) -> None:
        self._patience_s = patience_s
        self._failed_at: float | None = None
        self._failures = 0
        self._defects = 0
        self._renewed = False

    def may_again(self, status: int | None) -> bool:
        self._failures += 1
        self._defects += status == 500  # which is no outage when it comes again and again
        now = time.monotonic()
        self._failed_at = self._failed_at or now
        return self._defects < _MOST_DEFECTS and now - self._failed_at < self._patience_s

    def begin_anew(self) -> None:
        """After something came."""
        self._failed_at, self._failures = None, 0

    def wait_s(self, retry_after: str | None) -> float:
        """Longer from time to time, and never all at once."""
        if retry_after is not None and retry_after.isdecimal():
            return min(int(retry_after), 60)
        return min(_LONGEST_WAIT_S, 0.2 * 2 ** min(self._failures, 10)) * random.uniform(0.5, 1)  # noqa: S311 - no secret

    def renew(self, link: Link) -> bool:
        """Once."""
        if self._renewed:
            return False
        self._renewed = True
        return link.renew()


def refusal(answer: Answer, host: str) -> HeadwaterError:
    try:
        message = str(orjson.loads(answer.body)["message"])
    except (ValueError, KeyError, TypeError):
        message = f"{host} answered {answer.status}. Is it a Headwater server?"
    return _ERRORS.get(answer.status, HeadwaterError)(message)


def refused(answer: Answer) -> FailedDependency:
    """By a store."""
    said = " ".join(answer.body[:300].decode(errors="replace").split())
    return FailedDependency(f"Its bucket refused it with {answer.status}. {said}".strip())


def _host(url: str) -> str:
    return URL(url, encoded=True).authority
