"""Real stores to test against: SeaweedFS, moto and a folder, each empty for each test."""

import asyncio
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from headwater.storage.opening import open_local, open_s3
from headwater.storage.requests import Request
from headwater.storage.s3.requests import S3Credentials
from headwater.storage.sending import CredentialsProvider
from headwater.storage.stores import Store
from tests import servers

PAGE_KEYS = 3


@pytest.fixture(scope="session")
def seaweedfs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[servers.S3Server]:
    with servers.seaweedfs(tmp_path_factory.mktemp("seaweedfs")) as server:
        yield server


@pytest.fixture(scope="session")
def moto() -> Iterator[servers.S3Server]:
    with servers.moto() as server:
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


async def make_bucket(store: Store) -> None:
    sender = store._sender
    await sender.send(Request("CreateBucket", "PUT"))


@pytest.fixture
async def s3_on(request: pytest.FixtureRequest) -> AsyncIterator[Callable[[str], Awaitable[Place]]]:
    places: list[Place] = []

    async def make(kind: str) -> Place:
        place = s3_place(kind, request.getfixturevalue(kind), f"cams-{secrets.token_hex(6)}")
        places.append(place)
        await make_bucket(place.store())
        return place

    yield make
    for place in places:
        await asyncio.gather(*(store.close() for store in place.opened))


@pytest.fixture(params=["local", "seaweedfs", "moto"])
async def place(request: pytest.FixtureRequest, tmp_path: Path, s3_on) -> Place:
    if request.param == "local":
        return Place("local", lambda **arguments: open_local(root=tmp_path, **arguments))
    return await s3_on(request.param)


@pytest.fixture
async def store(place: Place) -> Store:  # aiohttp's session wants the running loop
    return place.store()
