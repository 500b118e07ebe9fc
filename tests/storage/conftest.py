"""Real stores to test against: SeaweedFS, moto, Azurite, fake-gcs-server and a folder, each empty for each test."""

import asyncio
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

import pytest
from azure.storage.blob import generate_container_sas
from google.auth.crypt.rsa import RSASigner

from headwater.storage.azure.signing import AccountKey, AzureCredentials, SharedAccessSignature
from headwater.storage.gcs.requests import GcsCredentials, UrlSigner
from headwater.storage.gcs.store import GcsStore
from headwater.storage.opening import open_azure, open_gcs, open_local, open_s3
from headwater.storage.requests import Request
from headwater.storage.s3.requests import S3Credentials
from headwater.storage.sending import CredentialsProvider
from headwater.storage.stores import Store
from tests import google, servers

PAGE_KEYS = 3


@pytest.fixture(scope="session")
def seaweedfs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[servers.S3Server]:
    with servers.seaweedfs(tmp_path_factory.mktemp("seaweedfs")) as server:
        yield server


@pytest.fixture(scope="session")
def moto() -> Iterator[servers.S3Server]:
    with servers.moto() as server:
        yield server


@pytest.fixture(scope="session")
def azurite(tmp_path_factory: pytest.TempPathFactory) -> Iterator[servers.AzureServer]:
    with servers.azurite(tmp_path_factory.mktemp("azurite")) as server:
        yield server


@pytest.fixture(scope="session")
def gcs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[servers.GcsServer]:
    with servers.fake_gcs(tmp_path_factory.mktemp("gcs")) as server:
        yield server


def provider_of(keys: servers.Keys) -> CredentialsProvider:
    async def provide(_refresh: bool) -> S3Credentials:
        return S3Credentials(keys.access_key_id, keys.secret_access_key)

    return provide


@dataclass
class Place:
    """Somewhere to open stores that see the same objects."""

    kind: str
    open: Callable[..., Store]  # takes prefix and page_keys
    denied: Callable[[], Store] | None = None  # may read, but not write
    opened: list[Store] = field(default_factory=list)

    def store(self, **arguments) -> Store:
        store = self.open(**({"page_keys": PAGE_KEYS} | arguments))
        self.opened.append(store)
        return store

    async def empty_store(self, prefix: str) -> Store:
        """A store under a prefix that nobody else uses; a folder is made where prefixes are folders."""
        await self.store().put(f"{prefix}/made", b"", content_type="text/plain")
        store = self.store(prefix=prefix)
        await store.delete("made")
        return store


def s3_place(kind: str, server: servers.S3Server, bucket: str) -> Place:
    def open_as(keys: servers.Keys, **arguments) -> Store:
        return open_s3(
            **(
                {
                    "bucket": bucket,
                    "region": servers.REGION,
                    "endpoint": server.endpoint,
                    "credentials": provider_of(keys),
                    "backoff_s": 0.001,
                }
                | arguments
            )
        )

    return Place(kind, lambda **arguments: open_as(server.admin, **arguments), lambda: open_as(server.reader))


def azure_place(server: servers.AzureServer, container: str) -> Place:
    def open_as(given: AzureCredentials, **arguments) -> Store:
        async def provide(_refresh: bool) -> AzureCredentials:
            return given

        defaults = {"account": server.account, "container": container, "endpoint": server.endpoint, "backoff_s": 0.001}
        return open_azure(**(defaults | {"credentials": provide} | arguments))

    def reader() -> Store:
        end = datetime.now(UTC) + timedelta(hours=1)
        token = generate_container_sas(server.account, container, server.key, permission="rl", expiry=end)
        return open_as(SharedAccessSignature(token))

    return Place("azurite", lambda **arguments: open_as(AccountKey(server.key), **arguments), reader)


async def make_container(store: Store) -> None:
    await store._sender.send(Request("CreateContainer", "PUT", query={"restype": "container"}))


def gcs_place(server: servers.GcsServer, bucket: str) -> Place:
    signer = UrlSigner(google.EMAIL, RSASigner(google.private_key()))

    async def provide(_refresh: bool) -> GcsCredentials:
        return GcsCredentials("a-token", signer)

    def open_as_asked(**arguments) -> Store:
        given = {"bucket": bucket, "endpoint": server.endpoint, "credentials": provide, "backoff_s": 0.001}
        return open_gcs(**(given | arguments))

    return Place("gcs", open_as_asked)


async def make_bucket(store: Store) -> None:
    sender = store._sender
    await sender.send(Request("CreateBucket", "PUT"))


@pytest.fixture
async def place_on(request: pytest.FixtureRequest) -> AsyncIterator[Callable[[str], Awaitable[Place]]]:
    """A bucket of its own on the server of that kind."""
    places: list[Place] = []

    async def make(kind: str) -> Place:
        place_of, make_root = ROOTS.get(kind, (partial(s3_place, kind), make_bucket))
        place = place_of(request.getfixturevalue(kind), f"cams-{secrets.token_hex(6)}")
        places.append(place)
        await make_root(place.store())
        return place

    yield make
    for place in places:
        await asyncio.gather(*(store.close() for store in place.opened))


async def make_gcs_bucket(store: Store) -> None:
    assert isinstance(store, GcsStore)
    servers.GcsServer(store.bucket.url).make_bucket(store.bucket.name)


ROOTS = {"azurite": (azure_place, make_container), "gcs": (gcs_place, make_gcs_bucket)}


@pytest.fixture(params=["local", "seaweedfs", "moto", "azurite", "gcs"])
async def place(request: pytest.FixtureRequest, tmp_path: Path, place_on) -> Place:
    if request.param == "local":
        return Place("local", lambda **arguments: open_local(root=tmp_path, **arguments))
    return await place_on(request.param)


@pytest.fixture
async def store(place: Place) -> Store:  # aiohttp's session wants the running loop
    return place.store()
