"""Opens stores; each must be closed."""

from pathlib import Path

import aiohttp

from headwater.storage.local import LocalStore
from headwater.storage.local_files import Root
from headwater.storage.s3 import S3Store
from headwater.storage.s3_requests import Bucket
from headwater.storage.s3_sending import CredentialsProvider, Sender
from headwater.storage.stores import PAGE_KEYS, Store, prefix_of

_CONNECTIONS = 64  # of one store


def open_s3(
    *,
    bucket: str,
    prefix: str = "",
    region: str,
    endpoint: str | None = None,
    credentials: CredentialsProvider,
    connector: aiohttp.BaseConnector | None = None,
    page_keys: int = PAGE_KEYS,
    backoff_s: float = 0.25,
) -> Store:
    """A bucket at `endpoint` (`http(s)://host[:port]`), or at AWS. Call it inside the running event loop.

    `connector` decides where connections may go, and stays the caller's to close. `page_keys` above 1,000 is
    refused by some servers. `backoff_s` is the wait before the first repetition; it doubles each time.
    """
    session = aiohttp.ClientSession(
        connector=connector or aiohttp.TCPConnector(limit=_CONNECTIONS),
        connector_owner=connector is None,
        timeout=aiohttp.ClientTimeout(total=None, sock_connect=10, sock_read=60),
        headers={"User-Agent": "headwater", "Accept-Encoding": "identity"},
        skip_auto_headers=["Content-Type"],
        cookie_jar=aiohttp.DummyCookieJar(),
        auto_decompress=False,
    )
    place = Bucket(bucket, prefix_of(prefix), region, endpoint)
    return S3Store(Sender(place, credentials, session, backoff_s=backoff_s), session, page_keys=page_keys)


def open_local(*, root: Path, prefix: str = "", page_keys: int = PAGE_KEYS) -> Store:
    """The folder `prefix` inside `root`, or all of `root`. Both must exist when the store is used."""
    return LocalStore(Root(root, prefix_of(prefix)), page_keys=page_keys)
