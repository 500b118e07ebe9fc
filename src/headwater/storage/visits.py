"""Requests to stores as anybody's browser makes them, without credentials but those in a signed URL."""

import re
from collections.abc import Mapping

import aiohttp
from yarl import URL

from headwater.errors import FailedDependency, Unavailable
from headwater.storage.sending import Answer, advice_on, observing, refused_address

_LARGEST_BYTES = 64 * 1024
_CODE = re.compile(rb"<Code>(\w{1,60})</Code>")


async def fetch_signed(session: aiohttp.ClientSession, url: str) -> bytes:
    """The first bytes of the object. Raises FailedDependency, Unavailable, AddressRefused; never with the URL."""
    answer = await _visit(session, "GET", url, {"Range": "bytes=0-1023"})
    if answer.status in (200, 206):
        return answer.body
    if answer.status == 416:  # it is empty
        return b""
    found = _CODE.search(answer.body)
    code = found[1].decode() if found else str(answer.status)
    error = FailedDependency(
        f"The store refused a URL that was signed for it ({answer.status} {code} on a signed GET)."
    )
    error.operation, error.code = "GET", code
    raise error


async def allows_origin(session: aiohttp.ClientSession, url: str, origin: str) -> bool:
    """Whether pages of `origin` may read what is at the URL, asked as browsers ask (a CORS preflight)."""
    headers = {"Origin": origin, "Access-Control-Request-Method": "GET"}
    answer = await _visit(session, "OPTIONS", url, headers)
    origins = answer.headers.get("Access-Control-Allow-Origin", "")
    methods = answer.headers.get("Access-Control-Allow-Methods", "")
    is_method_allowed = "*" in methods or "GET" in re.split(r"[,\s]+", methods.upper())
    return answer.status < 300 and origins in ("*", origin) and is_method_allowed


async def _visit(session: aiohttp.ClientSession, method: str, url: str, headers: Mapping[str, str]) -> Answer:
    observing(method)
    try:
        async with session.request(method, URL(url, encoded=True), headers=headers, allow_redirects=False) as response:
            body = bytearray()
            async for chunk in response.content.iter_any():
                body += chunk
                if len(body) >= _LARGEST_BYTES:
                    break
            return Answer(response.status, response.headers, bytes(body))
    except (aiohttp.ClientError, TimeoutError, OSError) as error:
        if reason := refused_address(error):
            raise reason from None
        kind = type(error).__name__
        failure = Unavailable(f"The store did not answer ({kind} on a signed {method}). {advice_on(error)}")
        failure.operation, failure.code = method, kind
        raise failure from None
