"""Scans in lanes, with splits and seams: one worker dies or hangs at any of its calls, and the end is the same."""

import asyncio
from collections import Counter

import pytest

from headwater.catalog.sync import rules, shards
from headwater.work import sync
from tests.work.faults import KINDS, Lane, LaneStore, Turns, at_every_call, hanging_at_every_call
from tests.work.world import World, ghosts, present

BEFORE = dict.fromkeys(("a", "a/b", "b/1", "b/2", "b/3", "c/1", "c/2", "d", "e", "f"), b"1")
AFTER = dict.fromkeys(("a", "a/b", "b/1", "b/3", "b/4", "c/2", "e", "f", "g"), b"1") | {"a": b"2", "e": b"22"}
CREATED, CHANGED, GONE = {"/b/4", "/g"}, {"/a", "/e"}, {"/b/2", "/c/1", "/d"}
HOLDS = [3, 0, 2, 0, 0, 4, 1] * 3  # so that each lane has something to do


@pytest.fixture(autouse=True)
def narrow(monkeypatch):
    """So small that ten keys are several ranges of several batches."""
    monkeypatch.setattr(sync.batches, "BATCH_KEYS", 2)
    monkeypatch.setattr(sync.lanes, "WORTH_SHARING", 2)
    monkeypatch.setattr(sync.lanes, "_ABORT_POLL_S", 3600)
    monkeypatch.setattr(shards, "LEAST_PIECE", 3)
    monkeypatch.setattr(shards, "_SPLIT_AGAIN_AFTER_S", 0)
    monkeypatch.setattr(rules, "BRAKE_ITEMS", len(GONE))


async def changed_bucket(world: World):
    store = LaneStore(dict(BEFORE), page_keys=2)
    dataset = await world.dataset(store)
    await world.sync(dataset)
    store.objects = dict(AFTER)
    async with world.connection() as conn:
        await conn.execute("DELETE FROM event WHERE dataset_id = %s", [dataset.id])
    return dataset, store


async def request_in_ranges(world: World, dataset) -> int:
    """A scan that begins with a few ranges, as if the one before had found them worth it."""
    _, scan_id = await world.request(dataset)
    async with world.connection() as conn:
        assert await shards.split_shard(conn, scan_id, 0, ["/b/1", "/c/2"]) == 2
    return scan_id


async def finish(world: World, dataset, scan_id: int) -> None:
    """The jobs of all lanes, once more where it takes that."""
    for number in [*range(sync.requests.LANES)] * 2:
        await sync.run_scan(world.place, scan_id, number)
        if (await world.ended(dataset))[0].has_ended:
            return
    raise AssertionError("the sync comes to no end")


async def check(world: World, dataset, store: LaneStore) -> None:
    found = await world.index(dataset)
    assert present(found) == {"/" + key for key in AFTER}
    assert {path: found[path][0] for path in present(found)} == {"/" + key: store.etag_of(key) for key in AFTER}
    assert ghosts(found) == GONE
    ids = {path: (await world.item(dataset, path)).id for path in CREATED | CHANGED}
    wanted = Counter(("Created" if path in CREATED else "Updated", ids[path]) for path in CREATED | CHANGED)
    assert await world.events(dataset) == wanted
    command, scan = await world.ended(dataset)
    assert (command.status, scan.state) == ("success", "done")
    assert (scan.listed, scan.created, scan.changed, scan.returned) == (len(AFTER), 2, 2, 0)
    assert (scan.kept_deleted, scan.gone, scan.marked) == (0, 3, 3)
    async with world.connection() as conn:
        cursor = await conn.execute("SELECT bool_and(done), sum(listed) FROM scan_shard WHERE scan_id = %s", [scan.id])
        assert await cursor.fetchone() == (True, len(AFTER))


@pytest.mark.parametrize("which", [0, 1])
@pytest.mark.parametrize("kind", KINDS)
async def test_a_lane_that_dies_at_any_call_is_finished_by_another(world, lanes, kind, which):
    async def history(mortal: Lane) -> None:
        dataset, store = await changed_bucket(world)
        scan_id = await request_in_ranges(world, dataset)
        mortal.turns = turns = Turns(HOLDS)
        workers = [Lane(turns=turns), Lane(turns=turns)]
        workers[which] = mortal
        await asyncio.gather(
            *(lane.live(sync.run_scan(lanes.place, scan_id, number)) for number, lane in enumerate(workers))
        )
        await finish(world, dataset, scan_id)
        await check(world, dataset, store)

    assert await at_every_call(kind, history) > 1


@pytest.mark.parametrize("kind", ["store", "commit unheard"])
async def test_a_lane_that_hangs_at_any_call_commits_nothing_once_others_have_ended(world, lanes, kind):
    async def history(hanging: Lane) -> None:
        dataset, store = await changed_bucket(world)
        scan_id = await request_in_ranges(world, dataset)
        first = asyncio.create_task(hanging.live(sync.run_scan(lanes.place, scan_id)))
        held = asyncio.create_task(hanging.is_held.wait())
        await asyncio.wait([first, held], return_when=asyncio.FIRST_COMPLETED)
        held.cancel()
        await finish(world, dataset, scan_id)
        before = await world.rows_written(dataset), await world.ended(dataset)
        hanging.goes_on.set()
        await first
        assert (await world.rows_written(dataset), await world.ended(dataset)) == before
        await check(world, dataset, store)

    assert await hanging_at_every_call(kind, history) > 1


@pytest.mark.parametrize("kind", ["store", "commit unheard"])
async def test_a_lane_that_comes_back_while_another_has_its_range_commits_nothing(world, lanes, kind):
    """Taken for dead, it had only been away for a while: the batches of both would count twice."""

    async def until_held(lane: Lane, work: asyncio.Task) -> None:
        held = asyncio.create_task(lane.is_held.wait())
        await asyncio.wait([work, held], return_when=asyncio.FIRST_COMPLETED)
        held.cancel()

    async def history(hanging: Lane) -> None:
        dataset, store = await changed_bucket(world)
        scan_id = await request_in_ranges(world, dataset)
        first = asyncio.create_task(hanging.live(sync.run_scan(lanes.place, scan_id)))
        await until_held(hanging, first)
        successor = Lane("commit unheard", 4, hangs=True)
        second = asyncio.create_task(successor.live(sync.run_scan(lanes.place, scan_id)))
        await until_held(successor, second)
        hanging.goes_on.set()
        await first
        successor.goes_on.set()
        await second
        await finish(world, dataset, scan_id)
        await check(world, dataset, store)

    assert await hanging_at_every_call(kind, history) > 1
