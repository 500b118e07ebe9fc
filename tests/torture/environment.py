"""A database with the ledger's triggers, and batches so small that a handful of keys reaches every seam."""

import asyncio
from collections.abc import Generator
from contextlib import AsyncExitStack, contextmanager
from pathlib import Path

import pytest
from psycopg import AsyncConnection

from headwater.catalog import organizations
from headwater.catalog.sync import rules, shards
from headwater.settings import Settings
from headwater.work import sync
from headwater.workplace import load_vault, open_workplace
from tests.torture import ledger
from tests.torture.machine import BATCH_KEYS, BRAKE_ITEMS, Environment
from tests.work.faults import lane_pool
from tests.work.world import World


@contextmanager
def open_environment(settings: Settings, database_url: str, folders: Path) -> Generator[Environment]:
    """On a migrated database of its own, in an event loop of its own."""
    loop = asyncio.new_event_loop()
    stack = AsyncExitStack()
    with pytest.MonkeyPatch.context() as patch:
        _narrow(patch)
        try:
            yield loop.run_until_complete(_open(stack, settings, database_url, folders, loop))
        finally:
            loop.run_until_complete(stack.aclose())
            loop.run_until_complete(loop.shutdown_asyncgens())
            loop.close()


def _narrow(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(sync.batches, "BATCH_KEYS", BATCH_KEYS)
    patch.setattr(sync.lanes, "WORTH_SHARING", BATCH_KEYS)
    patch.setattr(sync.lanes, "_ABORT_POLL_S", 3600)  # it asks once, at its start: calls are counted, not timed
    patch.setattr(shards, "LEAST_PIECE", BATCH_KEYS)
    patch.setattr(shards, "_SPLIT_AGAIN_AFTER_S", 0)
    patch.setattr(rules, "BRAKE_ITEMS", BRAKE_ITEMS)


async def _open(
    stack: AsyncExitStack, settings: Settings, database_url: str, folders: Path, loop: asyncio.AbstractEventLoop
) -> Environment:
    async with await AsyncConnection.connect(database_url) as conn:
        await ledger.install(conn)
    place = await stack.enter_async_context(open_workplace(settings, database_url, name="torture", max_connections=20))
    pool = await stack.enter_async_context(lane_pool(place.pool.conninfo))
    async with place.pool.connection() as conn:
        owner = await organizations.get_owner(conn)
    world = World(place, owner, folders, load_vault(settings).local)
    return Environment(loop, world, world.on(pool))
