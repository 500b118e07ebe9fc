"""One database, one workplace and its stores for all tests of work."""

from collections.abc import AsyncIterator, Callable, Iterator

import pytest
from psycopg_pool import AsyncConnectionPool

from headwater.catalog import organizations
from headwater.settings import Settings
from headwater.workplace import load_vault, open_workplace
from tests import servers
from tests.work.faults import lane_pool
from tests.work.scripted import FaultyConnection, FaultyCursor
from tests.work.world import World


@pytest.fixture(scope="session")
async def world(
    new_database: Callable[[], str],
    settings_for: Callable[..., Settings],
    tmp_path_factory: pytest.TempPathFactory,
) -> AsyncIterator[World]:
    settings = settings_for(decoders=1)
    async with open_workplace(settings, new_database(), name="work", max_connections=20) as place:
        async with place.pool.connection() as conn:
            owner = await organizations.get_owner(conn)
        yield World(place, owner, tmp_path_factory.mktemp("folders"), load_vault(settings).local)


@pytest.fixture(scope="session")
def azurite(tmp_path_factory: pytest.TempPathFactory) -> Iterator[servers.AzureServer]:
    with servers.azurite(tmp_path_factory.mktemp("azurite")) as server:
        yield server


@pytest.fixture(scope="session")
def gcs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[servers.GcsServer]:
    with servers.fake_gcs(tmp_path_factory.mktemp("gcs")) as server:
        yield server


@pytest.fixture(scope="session")
async def faulty(world: World) -> AsyncIterator[World]:
    """The same world through connections whose statements and commits may be made to fail."""

    async def configure(conn: FaultyConnection) -> None:
        await conn.set_autocommit(True)
        await conn.execute("SET TIME ZONE 'UTC'")
        await conn.set_autocommit(False)

    async with AsyncConnectionPool(
        world.place.pool.conninfo,
        connection_class=FaultyConnection,
        kwargs={"cursor_factory": FaultyCursor},
        configure=configure,
        min_size=1,
        max_size=8,
        open=False,
    ) as pool:
        yield world.on(pool)


@pytest.fixture(scope="session")
async def lanes(world: World) -> AsyncIterator[World]:
    """The same world through connections that know which worker uses them, to let one die or hang."""
    async with lane_pool(world.place.pool.conninfo) as pool:
        yield world.on(pool)


@pytest.fixture
def small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    """A batch after each page of a few keys, so that a handful of objects has seams."""
    monkeypatch.setattr("headwater.work.sync.batches.BATCH_KEYS", 4)
