"""Opens stores; each must be closed."""

from pathlib import Path

import aiohttp

from headwater.storage.azure.requests import Container
from headwater.storage.azure.signing import AzureCredentials
from headwater.storage.azure.store import AzureStore, access_tier
from headwater.storage.gcs.requests import GcsBucket, GcsCredentials, checked_class
from headwater.storage.gcs.store import GcsStore
from headwater.storage.local.files import Root
from headwater.storage.local.store import LocalStore
from headwater.storage.s3.requests import Bucket, S3Credentials
from headwater.storage.s3.store import S3Store
from headwater.storage.sending import ATTEMPTS, CredentialsProvider
from headwater.storage.stores import PAGE_KEYS, Store, prefix_of

AZURE_PAGE_KEYS = 5000  # as many as Azure gives
_CONNECTIONS = 64  # of one store


def open_s3(
    *,
    bucket: str,
    prefix: str = "",
    region: str,
    endpoint: str | None = None,
    credentials: CredentialsProvider[S3Credentials],
    storage_class: str | None = None,
    connector: aiohttp.BaseConnector | None = None,
    page_keys: int = PAGE_KEYS,
    backoff_s: float = 0.25,
    attempts: int = ATTEMPTS,
) -> Store:
    """A bucket at `endpoint` (`http(s)://host[:port]`), or at AWS. Call it inside the running event loop.

    `connector` decides where connections may go, and stays the caller's to close. `page_keys` above 1,000 is
    refused by some servers. `backoff_s` is the wait before the first repetition; it doubles each time.
    """
    place = Bucket(bucket, prefix_of(prefix), region, endpoint)
    return S3Store(
        place,
        credentials,
        open_session(connector),
        backoff_s=backoff_s,
        attempts=attempts,
        page_keys=page_keys,
        storage_class=storage_class,
    )


def open_azure(
    *,
    account: str,
    container: str,
    prefix: str = "",
    endpoint: str | None = None,
    credentials: CredentialsProvider[AzureCredentials],
    storage_class: str | None = None,
    connector: aiohttp.BaseConnector | None = None,
    page_keys: int = AZURE_PAGE_KEYS,
    backoff_s: float = 0.25,
    attempts: int = ATTEMPTS,
) -> Store:
    """A container at `endpoint` (`http(s)://host[:port]`), or at Azure. Call it inside the running event loop.

    With an endpoint, the account is taken from its host if that begins with it, and put into the path if not.
    Raises BadRequest for an account, container or storage class (hot, cool, cold) that cannot be.
    """
    place = Container(account, container, prefix_of(prefix), endpoint)
    tier = access_tier(storage_class)
    return AzureStore(
        place,
        credentials,
        open_session(connector),
        backoff_s=backoff_s,
        attempts=attempts,
        page_keys=page_keys,
        tier=tier,
    )


def open_gcs(
    *,
    bucket: str,
    prefix: str = "",
    endpoint: str | None = None,
    credentials: CredentialsProvider[GcsCredentials],
    storage_class: str | None = None,
    connector: aiohttp.BaseConnector | None = None,
    page_keys: int = PAGE_KEYS,
    backoff_s: float = 0.25,
    attempts: int = ATTEMPTS,
) -> Store:
    """A bucket at Google Cloud Storage, or at an emulator (`http(s)://host[:port]`). Call it inside the event loop.

    Google gives 1,000 keys a page at most. Raises BadRequest for a storage class that cannot be.
    """
    checked = checked_class(storage_class)
    return GcsStore(
        GcsBucket(bucket, prefix_of(prefix), endpoint),
        credentials,
        open_session(connector),
        backoff_s=backoff_s,
        attempts=attempts,
        page_keys=page_keys,
        storage_class=checked,
    )


def open_session(connector: aiohttp.BaseConnector | None) -> aiohttp.ClientSession:
    """For the requests of one store, answered byte by byte as they come."""
    return aiohttp.ClientSession(
        connector=connector or aiohttp.TCPConnector(limit=_CONNECTIONS),
        connector_owner=connector is None,
        timeout=aiohttp.ClientTimeout(total=None, sock_connect=10, sock_read=60),
        headers={"User-Agent": "headwater", "Accept-Encoding": "identity"},
        skip_auto_headers=["Content-Type"],
        cookie_jar=aiohttp.DummyCookieJar(),
        auto_decompress=False,
    )


def open_local(*, root: Path, prefix: str = "", page_keys: int = PAGE_KEYS, is_near: bool = False) -> Store:
    """The folder `prefix` inside `root`, or all of `root`. Both must exist when the store is used.

    Near is what no network lies before: files are opened without a thread, and read so where they are in memory. It
    costs a fifth, and a disk that hangs would hold up the event loop.
    """
    return LocalStore(Root(root, prefix_of(prefix)), page_keys=page_keys, is_near=is_near)
