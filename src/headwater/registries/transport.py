"""Requests to registries: bounded in time and size, never redirected, and their failures in our own words."""

import asyncio
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import aiohttp
import orjson
from multidict import CIMultiDictProxy
from yarl import URL

from headwater.errors import FailedDependency, HeadwaterError, Unavailable
from headwater.net.addresses import AddressRefused, open_connector

LARGEST_ANSWER_BYTES = 4 * 1024**2  # 1,000 names take less than 300 KB


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    headers: CIMultiDictProxy[str]
    body: bytes

    def json(self) -> Any:
        """None for what is not JSON."""
        try:
            return orjson.loads(self.body)
        except ValueError:
            return None


class Transport:
    """Everything sent through one ends within its time together."""

    def __init__(self, session: aiohttp.ClientSession, within_s: float) -> None:
        self._session = session
        self._within_s = within_s
        self._deadline = asyncio.get_running_loop().time() + within_s

    async def send(
        self, url: str, *, method: str = "GET", headers: Mapping[str, str] | None = None, body: bytes | None = None
    ) -> Answer:
        """`url` is percent-encoded already. Raises Unavailable, FailedDependency, BadRequest for an inner address.

        No error keeps what aiohttp raised: that may hold the headers, and these the password.
        """
        host = URL(url, encoded=True).authority
        try:
            async with (
                asyncio.timeout_at(self._deadline),
                self._session.request(
                    method, URL(url, encoded=True), headers=headers, data=body, allow_redirects=False
                ) as response,
            ):
                return Answer(response.status, response.headers, await _read(response, host))
        except TimeoutError:
            raise Unavailable(f"{host} did not answer within {self._within_s:g} s. Try again later.") from None
        except (aiohttp.ClientError, OSError) as error:
            raise _explained(error, host) from None


async def _read(response: aiohttp.ClientResponse, host: str) -> bytes:
    body = bytearray()
    async for piece in response.content.iter_any():
        body += piece
        if len(body) > LARGEST_ANSWER_BYTES:
            raise FailedDependency(f"{host} answers with more than a registry does. Check the registry's host.")
    return bytes(body)


def _explained(error: Exception, host: str) -> HeadwaterError:
    match error:
        case aiohttp.ClientConnectorCertificateError():
            return FailedDependency(
                f"The certificate of {host} is not valid for it, has expired, or comes from an authority that this "
                "server does not know."
            )
        case aiohttp.ClientSSLError():
            return FailedDependency(
                f"{host} does not speak https. If it is meant to speak plain http, the integration's metadata says "
                'so: {"insecure": true}.'
            )
        case aiohttp.ClientConnectorError(os_error=AddressRefused() as refused):
            return refused
        case aiohttp.ClientConnectorDNSError():
            return FailedDependency(f"There is no host {host}, or its name cannot be resolved. Check its name.")
        case aiohttp.ClientConnectorError():
            return Unavailable(f"{host} accepts no connection. Check host and port, or try again later.")
        case _:
            return Unavailable(
                f"{host} broke off its answer or does not speak HTTP ({type(error).__name__}). Check the registry's "
                "host, or try again later."
            )


@asynccontextmanager
async def open_transport(*, allow_private: bool, within_s: float) -> AsyncGenerator[Transport]:
    async with aiohttp.ClientSession(
        connector=open_connector(allow_private=allow_private),
        timeout=aiohttp.ClientTimeout(total=None),
        headers={"User-Agent": "headwater", "Accept": "application/json", "Accept-Encoding": "identity"},
        skip_auto_headers=["Content-Type"],
        cookie_jar=aiohttp.DummyCookieJar(),
        auto_decompress=False,
    ) as session:
        yield Transport(session, within_s)
