"""Amazon SNS delivers to a hook once its subscription is confirmed: by fetching the address that it gives."""

import logging
import re

import aiohttp
from yarl import URL

from headwater.errors import BadRequest, Unavailable
from headwater.net.urls import read_url

_HOST = re.compile(r"sns\.[a-z0-9-]+\.amazonaws\.com(\.cn)?")
_TIMEOUT = aiohttp.ClientTimeout(total=10)

_log = logging.getLogger(__name__)


async def confirm_subscription(session: aiohttp.ClientSession, url: str, *, endpoint: str | None) -> None:
    """`endpoint`: where else than at Amazon that may be. Raises BadRequest for an address of others, or Unavailable."""
    if not _is_theirs(url, endpoint):
        raise BadRequest(
            "The subscription's SubscribeURL is not one of Amazon SNS (https://sns.REGION.amazonaws.com), so it is not "
            "fetched."
        )
    try:
        wanted = URL(str(read_url(url)), encoded=True)
        async with session.get(wanted, timeout=_TIMEOUT, allow_redirects=False) as answer:
            status = answer.status
    except (aiohttp.ClientError, TimeoutError):
        raise Unavailable("Amazon SNS does not answer the confirmation of its subscription. Send it again.") from None
    _log.info("confirmed a subscription of SNS: %s", status)
    if status >= 400:
        raise Unavailable(f"Amazon SNS answered the confirmation of its subscription with {status}. Send it again.")


def _is_theirs(url: str, endpoint: str | None) -> bool:
    try:
        read = read_url(url)
    except BadRequest:
        return False
    if endpoint is None:
        return (read.scheme, read.port) == ("https", 443) and _HOST.fullmatch(read.host) is not None
    theirs = read_url(endpoint)
    return (read.scheme, read.authority) == (theirs.scheme, theirs.authority)
