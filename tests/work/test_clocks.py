"""Clocks that step while a scan runs: nothing is taken for gone because of them.

The clock that counts is the database's. It steps here by moving what it said before: the time the scan began.
"""

import pytest
from psycopg import sql

from headwater.catalog.datasets import Dataset
from headwater.work import sync
from tests.work.scripted import ScriptedStore
from tests.work.world import World, ghosts, present

pytestmark = pytest.mark.usefixtures("small_batches")

KEYS = [f"{folder}/{number}" for folder in "abc" for number in range(6)]
BACK, ON = "+5 hours", "-5 hours"  # the clock goes back: the beginning lies ahead


async def step(world: World, dataset: Dataset, by: str) -> None:
    async with world.connection() as conn:
        await conn.execute(
            sql.SQL("UPDATE scan SET started_at = started_at + interval {} WHERE dataset_id = %s AND state = 'running'")
            .format(sql.Literal(by)),
            [dataset.id],
        )  # fmt: skip


async def synced(world: World) -> tuple[Dataset, ScriptedStore]:
    store = ScriptedStore({key: key.encode() for key in KEYS})
    dataset = await world.dataset(store)
    await world.sync(dataset)
    return dataset, store


@pytest.mark.parametrize("by", [BACK, ON])
@pytest.mark.parametrize("at_page", [0, 3])
async def test_a_clock_that_steps_during_a_scan_removes_nothing(world: World, by: str, at_page: int):
    dataset, store = await synced(world)
    _, scan_id = await world.request(dataset)

    async def on_page(number: int) -> None:
        if number == at_page:
            await step(world, dataset, by)

    store.on_page = on_page
    if not at_page:
        await step(world, dataset, by)
    await sync.run_scan(world.place, scan_id)
    _, scan = await world.ended(dataset)
    assert (scan.state, scan.gone, scan.marked) == ("done", 0, 0)
    found = await world.index(dataset)
    assert (present(found), ghosts(found)) == ({"/" + key for key in KEYS}, set())


@pytest.mark.parametrize("by", ["+0 hours", BACK, ON])
@pytest.mark.parametrize("path", ["/a/1b", "/a/1"])
async def test_what_is_uploaded_after_a_step_and_behind_the_listing_stays(world: World, by: str, path: str):
    """The page was listed before the object was there, and is merged after."""
    dataset, store = await synced(world)
    store.objects.pop(path[1:], None)
    _, scan_id = await world.request(dataset)
    await step(world, dataset, by)

    async def on_page(number: int) -> None:
        if number == 2:
            await world.upload(dataset, path, b"as the page went by")

    store.on_page = on_page
    await sync.run_scan(world.place, scan_id)
    found = await world.index(dataset)
    assert ghosts(found) == set()
    assert path in present(found)
    store.on_page = None
    await world.sync(dataset)
    assert present(await world.index(dataset)) == {"/" + key for key in store.objects}
