"""Scans in parallel: ranges that are claimed, split, proven at their seams, joined, and taken from the dead."""

import asyncio
import random
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from headwater.catalog.sync import scans, shards
from headwater.errors import StoreDenied, Unavailable
from headwater.work import sync
from headwater.work.sync.splitting import find_bounds, successor
from tests.work.scripted import ScriptedStore
from tests.work.world import World, ghosts, present, wait_for

SHARE_AFTER = 6
last_bounds = shards.last_bounds


@pytest.fixture(autouse=True)
def small(monkeypatch):
    """Batches, and what is worth sharing, so small that a few keys reach them."""
    monkeypatch.setattr(sync.batches, "BATCH_KEYS", 3)
    monkeypatch.setattr(sync.lanes, "WORTH_SHARING", SHARE_AFTER)
    monkeypatch.setattr(shards, "LEAST_PIECE", 4)
    monkeypatch.setattr(shards, "_SPLIT_AGAIN_AFTER_S", 0)


async def run_all(world: World, scan_id: int, *, lanes: int = 4) -> None:
    """Every lane works whenever the scan has something for it, as if workers had room for all."""

    async def is_running() -> bool:
        async with world.connection() as conn:
            return (await scans.load_scan(conn, scan_id)).state == "running"

    async def work(lane: int) -> None:
        while await is_running():
            await sync.run_scan(world.place, scan_id, lane)

    await asyncio.gather(*(work(lane) for lane in range(lanes)))


async def ranges(world: World, scan_id: int) -> list[tuple[str | None, str | None, int]]:
    async with world.connection() as conn:
        cursor = await conn.execute(
            "SELECT after_path, until_path, listed FROM scan_shard WHERE scan_id = %s ORDER BY after_path NULLS FIRST",
            [scan_id],
        )
        return await cursor.fetchall()


async def take_turns(_: int) -> None:
    for _ in range(random.randrange(4)):
        await asyncio.sleep(0)


@pytest.fixture
def cut(monkeypatch) -> list[str]:
    """Where every scan of `many()` begins to be cut."""
    bounds = ["/1/001", "/2/030", "/3/003"]

    async def last_bounds(*_) -> list[str]:
        return bounds

    monkeypatch.setattr(shards, "last_bounds", last_bounds)
    return bounds


def many(number: int = 60) -> dict[str, bytes]:
    return {f"{n % 4}/{n:03}": b"%d" % n for n in range(number)}


async def sync_all(world: World, dataset) -> scans.Scan:
    _, scan_id = await world.request(dataset)
    await run_all(world, scan_id)
    return (await world.ended(dataset))[1]


async def test_a_long_range_is_shared_and_the_index_exact(world):
    store = ScriptedStore(many())
    dataset = await world.dataset(store)
    _, scan_id = await world.request(dataset)

    async def wait_for_help(number: int) -> None:
        async def has_come() -> bool:
            return len(await ranges(world, scan_id)) > 2

        if number == 8:
            await wait_for(has_come)

    store.on_page = wait_for_help
    await run_all(world, scan_id)
    _, scan = await world.ended(dataset)
    assert (scan.state, scan.listed, scan.created) == ("done", 60, 60)
    assert present(await world.index(dataset)) == {"/" + key for key in store.objects}
    found = await ranges(world, scan.id)
    assert len(found) > 2
    assert [left[1] for left in found[:-1]] == [right[0] for right in found[1:]]
    assert sum(listed for _, _, listed in found) == 60


async def test_ranges_that_fit_are_one_listing(world, cut):
    store = ScriptedStore(many())
    dataset = await world.dataset(store)
    for expected in (60, 0):
        scan = await sync_all(world, dataset)
        assert (scan.state, scan.listed, scan.created, scan.gone) == ("done", 60, expected, 0)
        assert [until for _, until, _ in await ranges(world, scan.id) if until in cut] == cut


async def test_the_next_scan_begins_in_the_ranges_of_the_last(world, cut, monkeypatch):
    store = ScriptedStore(many())
    dataset = await world.dataset(store)
    await sync_all(world, dataset)
    monkeypatch.setattr(shards, "last_bounds", last_bounds)
    monkeypatch.setattr(shards, "LEAST_PIECE", 1)
    del store.objects["0/004"], store.objects["3/059"]
    store.objects |= {"1/001": b"changed", "2/new": b"new"}
    _, scan_id = await world.request(dataset)
    assert {until for _, until, _ in await ranges(world, scan_id)} >= set(cut)
    await run_all(world, scan_id)
    _, scan = await world.ended(dataset)
    assert (scan.listed, scan.created, scan.changed, scan.unchanged, scan.marked) == (59, 1, 1, 57, 2)
    assert ghosts(await world.index(dataset)) == {"/0/004", "/3/059"}


async def test_one_lane_alone_finishes_what_was_cut_for_many(world):
    store = ScriptedStore(many())
    store.on_page = take_turns
    dataset = await world.dataset(store)
    await sync_all(world, dataset)
    store.on_page = None
    _, scan_id = await world.request(dataset)
    await sync.run_scan(world.place, scan_id)
    _, scan = await world.ended(dataset)
    assert (scan.state, scan.listed, scan.unchanged) == ("done", 60, 60)


async def test_few_objects_are_one_range_and_no_extra_call(world):
    store = ScriptedStore(dict.fromkeys("abcde", b"x"))
    dataset = await world.dataset(store)
    for _ in range(2):
        scan = await sync_all(world, dataset)
        assert await ranges(world, scan.id) == [(None, None, 5)]
    assert set(store.calls) == {"list 1", "list 2"}


class Skipping(ScriptedStore):
    """Begins a listing behind a folder when it is told to begin at some other key, as SeaweedFS does."""

    skips_after = ""

    async def list_pages(self, *, start_after: str | None = None, prefix: str = ""):
        if start_after is not None and start_after == self.skips_after:
            start_after += "\uffff"
        async for page in super().list_pages(start_after=start_after, prefix=prefix):
            yield page


async def test_a_range_that_begins_elsewhere_than_told_is_found_at_its_seam(world, cut):
    store = Skipping(many())
    store.on_page = take_turns
    dataset = await world.dataset(store)
    await sync_all(world, dataset)
    store.skips_after = cut[1][1:]
    store.objects |= dict.fromkeys([f"{store.skips_after}/{n}" for n in range(3)], b"x")
    scan = await sync_all(world, dataset)
    assert (scan.state, scan.listed, scan.created, scan.gone) == ("done", 63, 3, 0)
    assert present(await world.index(dataset)) == {"/" + key for key in store.objects}
    assert cut[1] not in [until for _, until, _ in await ranges(world, scan.id)]


@pytest.mark.parametrize("begins", ["in its order", "in the order of bytes"])
@pytest.mark.parametrize("seed", range(8))
async def test_a_store_in_another_order_is_noticed_in_whatever_ranges_it_is_listed(world, seed, begins, cut):
    """Whether it keeps to its own order when it is told where to begin, or leaves out what is smaller."""
    store = ScriptedStore(many())
    store.on_page = take_turns
    dataset = await world.dataset(store)
    await sync_all(world, dataset)
    shuffled = sorted(store.objects)
    random.Random(seed).shuffle(shuffled)
    place = {key: n for n, key in enumerate(shuffled)}
    store.order = lambda keys: sorted(keys, key=lambda key: place[key])
    if begins == "in its order":
        store.follows = lambda start: lambda key: start not in place or place[key] > place[start]
    scan = await sync_all(world, dataset)
    assert (scan.state, scan.listed, scan.unchanged, scan.gone) == ("done", 60, 60, 0)
    assert ghosts(await world.index(dataset)) == set()


async def test_what_an_unordered_listing_hides_from_its_ranges_is_asked_for(world, monkeypatch):
    """The first range ends at `z`, before `b` was listed; the second is not given `b`, and its seam fits."""
    store = ScriptedStore(dict.fromkeys(["a", "b", "c", "z"], b"x"))
    dataset = await world.dataset(store)
    await world.sync(dataset)

    async def last_bounds(*_) -> list[str]:
        return ["/c"]

    monkeypatch.setattr(shards, "last_bounds", last_bounds)
    store.order = lambda keys: sorted(keys, key="aczb".index)
    scan = await sync_all(world, dataset)
    assert (scan.state, scan.listed, scan.unchanged, scan.gone, scan.marked) == ("done", 4, 4, 0, 0)


async def test_a_whole_listing_that_leaves_out_what_is_there_marks_nothing(world, monkeypatch):
    monkeypatch.setattr(sync.ending, "PROVEN_CANDIDATES", 2)
    store = ScriptedStore(many())
    dataset = await world.dataset(store)
    await world.sync(dataset)
    store.order = lambda keys: sorted(key for key in keys if not key.startswith("0/00"))
    command, scan = await world.sync(dataset)
    assert (command.status, scan.state, scan.marked) == ("success", "held", 0)
    assert command.warning.startswith("The bucket's listing left out objects that are there")
    assert ghosts(await world.index(dataset)) == set()
    del store.objects["0/000"]
    monkeypatch.setattr(sync.ending, "PROVEN_CANDIDATES", 1000)
    command, scan = await world.sync(dataset)
    assert command.warning.startswith("The bucket's listing left out 2 object(s) that are there.")
    assert (scan.state, scan.gone, scan.marked) == ("done", 1, 1)
    assert ghosts(await world.index(dataset)) == {"/0/000"}


async def test_an_object_that_was_made_anew_while_it_was_listed_costs_no_second_listing(world, cut):
    store = ScriptedStore(many())
    dataset = await world.dataset(store)
    await sync_all(world, dataset)
    store.order = lambda keys: sorted(key for key in keys if key != "0/000")
    store.modified["0/000"] = datetime.now(UTC) + timedelta(minutes=1)
    command, scan = await world.sync(dataset)
    assert (command.warning, scan.state, scan.gone, scan.marked) == (None, "done", 0, 0)
    assert {until for _, until, _ in await ranges(world, scan.id)} >= set(cut)


async def test_what_may_not_be_looked_at_is_not_marked_and_told(world, cut):
    store = ScriptedStore(many())
    dataset = await world.dataset(store)
    await sync_all(world, dataset)
    del store.objects["0/000"], store.objects["1/001"]

    async def refuse(key: str) -> None:
        raise StoreDenied("No.")

    store.head = refuse
    command, scan = await world.sync(dataset)
    assert command.warning.startswith("2 item(s) were not listed and could not be looked at")
    assert (scan.state, scan.gone, scan.marked) == ("done", 0, 0)
    assert {until for _, until, _ in await ranges(world, scan.id)} >= set(cut)


async def test_many_new_items_are_settled_by_a_job(world, monkeypatch):
    monkeypatch.setattr(sync.ending, "_WORTH_SETTLING", 12)
    for number, jobs in ((11, 0), (12, 1)):
        await world.sync(await world.dataset(ScriptedStore(many(number))))
        async with world.connection() as conn:
            cursor = await conn.execute("DELETE FROM procrastinate_jobs WHERE task_name = %s", [sync.SETTLE_TASK])
        assert cursor.rowcount == jobs
    await sync.settle_items(world.place)


async def test_who_lost_its_range_commits_nothing(world):
    store = ScriptedStore(many(12), page_keys=3)
    dataset = await world.dataset(store)
    _, scan_id = await world.request(dataset)
    hangs, goes_on = asyncio.Event(), asyncio.Event()

    async def hang(number: int) -> None:
        if number == 3:
            hangs.set()
            await goes_on.wait()

    store.on_page = hang
    dead = asyncio.create_task(sync.run_scan(world.place, scan_id, 0))
    await hangs.wait()
    store.on_page = None
    await sync.run_scan(world.place, scan_id, 0)
    _, scan = await world.ended(dataset)
    assert (scan.state, scan.listed, scan.created) == ("done", 12, 12)
    before = await world.rows_written(dataset)
    goes_on.set()
    await dead
    assert await world.rows_written(dataset) == before
    assert (await world.ended(dataset))[1] == scan


async def test_one_lane_that_is_refused_ends_the_scan_for_all(world):
    store = ScriptedStore(many())
    store.on_page = take_turns
    dataset = await world.dataset(store)
    await sync_all(world, dataset)
    _, scan_id = await world.request(dataset)
    calls = 0

    async def refuse(_: int) -> None:
        nonlocal calls
        calls += 1
        await asyncio.sleep(0)
        if calls >= 9:
            raise StoreDenied("The credentials may not list (403).")

    store.on_page = refuse
    await run_all(world, scan_id)
    command, scan = await world.ended(dataset)
    assert (command.status, scan.state, scan.marked) == ("failed", "stopped", 0)
    assert command.error.startswith("The credentials may not list (403).")


async def test_a_store_that_gives_a_little_at_each_try_is_not_given_up(world):
    store = ScriptedStore(many(24))
    dataset = await world.dataset(store)

    async def throttle(number: int) -> None:
        if number == 3:
            raise Unavailable("Slow down.")

    store.on_page = throttle
    _, scan_id = await world.request(dataset)
    for _ in range(2):
        await sync.run_scan(world.place, scan_id, is_last_try=True)
        assert (await world.ended(dataset))[1].state == "running"
        async with world.connection() as conn:
            cursor = await conn.execute(
                """
                DELETE FROM procrastinate_jobs
                WHERE args ->> 'scan_id' = %s AND scheduled_at > now() + interval '50 s'
                RETURNING (args ->> 'lane')::int
                """,
                [str(scan_id)],
            )
            assert await cursor.fetchall() == [(0,)]
    store.on_page = None
    await sync.run_scan(world.place, scan_id)
    _, scan = await world.ended(dataset)
    assert (scan.state, scan.listed) == ("done", 24)


async def test_a_scan_that_was_stopped_goes_on_where_it_was(world):
    store = ScriptedStore(many())
    dataset = await world.dataset(store)
    await world.sync(dataset)
    del store.objects["0/000"]

    async def refuse(number: int) -> None:
        if number == 6:
            raise StoreDenied("No.")

    store.on_page = refuse
    command, scan = await world.sync(dataset)
    assert (command.status, scan.state) == ("failed", "stopped")
    store.on_page = None
    store.calls.clear()
    async with world.connection() as conn:
        command_id = await sync.request_sync(conn, dataset, caller_id=None, resume=True)
    assert command_id != command.id
    await sync.run_scan(world.place, scan.id)
    command, again = await world.ended(dataset)
    assert (command.id, again.id) == (command_id, scan.id)
    assert (command.status, again.state, again.listed, again.marked) == ("success", "done", 59, 1)
    assert len(store.calls) < 59 // store.page_keys
    assert ghosts(await world.index(dataset)) == {"/0/000"}


async def test_nothing_to_go_on_with_is_a_new_scan(world):
    store = ScriptedStore({"a": b"1"})
    dataset = await world.dataset(store)
    _, first = await world.sync(dataset)
    async with world.connection() as conn:
        await sync.request_sync(conn, dataset, caller_id=None, resume=True)
        last = await scans.last_scan(conn, dataset.id)
    assert last.id != first.id
    assert last.state == "running"


KEYS = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=6)


@settings(max_examples=300, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.differing_executors])
@given(keys=st.lists(KEYS | st.from_regex(r"[ab]/[01]{1,4}", fullmatch=True), min_size=2, max_size=60, unique=True),
       data=st.data())  # fmt: skip
def test_bounds_are_keys_of_the_store_in_order_and_inside_the_range(keys, data):
    keys = sorted(keys)
    low = data.draw(st.sampled_from(keys))
    high = data.draw(st.none() | st.sampled_from(keys))
    calls = 0

    async def first_key_after(text: str) -> str | None:
        nonlocal calls
        calls += 1
        return next((key for key in keys if key > text), None)

    bounds = asyncio.run(find_bounds(first_key_after, low, high, most=5))
    assert bounds == sorted(set(bounds))
    assert set(bounds) <= set(keys)
    assert len(bounds) <= 5
    assert all(bound > low and (high is None or bound < high) for bound in bounds)
    assert calls <= len(low).bit_length() + 1 + 6
    rest = [key for key in keys if key > low and (high is None or key < high)]
    if any(not key.startswith(low) for key in rest[1:]):
        assert bounds or rest[-1] == successor(low[:1])


@given(stem=KEYS)
def test_nothing_with_the_stem_lies_behind_its_successor(stem):
    behind = successor(stem)
    assert behind is None or (behind > stem + "\U0010ffff" * 3 and not behind.startswith(stem))
