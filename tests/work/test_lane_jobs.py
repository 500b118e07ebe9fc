"""The jobs of a scan's lanes: none of an earlier run meddles, and no scan is left without one."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from procrastinate import App

from headwater import queue
from headwater.catalog.sync import scans, shards
from headwater.errors import StoreDenied, Unavailable
from headwater.work import sync
from tests.work.scripted import ScriptedStore
from tests.work.test_lanes import SHARE_AFTER, many, small  # noqa: F401 - a fixture
from tests.work.world import World, present, wait_for


@pytest.fixture
async def app(world: World) -> AsyncIterator[App]:
    app = queue.worker_app(world.place.pool)
    app.connector._async_pool = world.place.pool  # as `open_async` does, which would close it, too
    return app


async def jobs(world: World, scan_id: int) -> list[tuple[int, str]]:
    """(lane, status) of each job of a scan."""
    async with world.connection() as conn:
        cursor = await conn.execute(
            """
            SELECT (args ->> 'lane')::integer, status::text FROM procrastinate_jobs
            WHERE task_name = %s AND args ->> 'scan_id' = %s
            ORDER BY 1, 2
            """,
            [sync.TASK, str(scan_id)],
        )
        return await cursor.fetchall()


async def set_doing(world: World, scan_id: int) -> None:
    """As if a worker that died had taken them all."""
    async with world.connection() as conn:
        await conn.execute(
            "UPDATE procrastinate_jobs SET status = 'doing' WHERE task_name = %s AND args ->> 'scan_id' = %s",
            [sync.TASK, str(scan_id)],
        )


async def asked_for(world: World, dataset, **given) -> tuple[int, int]:
    async with world.connection() as conn:
        command_id = await sync.request_sync(conn, dataset, caller_id=None, **given)
        return command_id, (await scans.last_scan(conn, dataset.id)).id


async def test_a_lane_of_an_earlier_run_leaves_the_next_one_alone(world):
    """One hung while the scan was stopped and resumed: it claims nothing, and ends nothing."""
    store = ScriptedStore(many())
    dataset = await world.dataset(store)
    _, scan_id = await world.request(dataset)
    shares, goes_on = asyncio.Event(), asyncio.Event()
    first_key_after = store.first_key_after

    async def hang(key: str) -> str | None:
        shares.set()
        await goes_on.wait()
        return await first_key_after(key)

    async def refuse_once_shared(number: int) -> None:
        if number > SHARE_AFTER // store.page_keys:  # so that no batch holds the range
            await shares.wait()
            raise StoreDenied("No.")

    store.first_key_after = hang
    store.on_page = refuse_once_shared
    first = asyncio.create_task(sync.run_scan(world.place, scan_id, 0))

    async def is_worth_sharing() -> bool:
        return (await world.ended(dataset))[1].listed >= SHARE_AFTER

    await wait_for(is_worth_sharing)
    stale = asyncio.create_task(sync.run_scan(world.place, scan_id, 1))
    await first
    assert (await world.ended(dataset))[1].state == "stopped"
    store.on_page = None
    command_id, again = await asked_for(world, dataset, resume=True)
    assert again == scan_id
    goes_on.set()
    await stale
    command, scan = await world.ended(dataset)
    assert (command.id, command.has_ended, scan.state) == (command_id, False, "running")
    await sync.run_scan(world.place, scan_id, 0)
    command, scan = await world.ended(dataset)
    assert (command.status, scan.state, scan.listed) == ("success", "done", 60)
    assert present(await world.index(dataset)) == {"/" + key for key in store.objects}


async def test_who_ends_a_run_late_ends_no_later_one(world):
    store = ScriptedStore(many())
    dataset = await world.dataset(store)
    _, scan_id = await asked_for(world, dataset)
    async with world.connection() as conn:
        earlier = await scans.load_scan(conn, scan_id)
        await scans.end_scan(conn, earlier, "stopped")
    await asked_for(world, dataset, resume=True)
    async with world.connection() as conn:
        claimed = await shards.claim_shard(conn, scan_id, 0)
        await scans.end_scan(conn, earlier, "stopped")
        assert await shards.hold_shard(conn, scan_id, claimed)
        assert (await scans.load_scan(conn, scan_id)).state == "running"


async def test_a_dead_lane_whose_next_job_waits_already_is_in_nobodys_way(world, app):
    dataset = await world.dataset(ScriptedStore(many()))
    command_id, scan_id = await asked_for(world, dataset)
    await set_doing(world, scan_id)
    async with world.connection() as conn:
        await sync.requests.defer_lane(conn, scan_id, command_id, 0)
    assert await jobs(world, scan_id) == [(0, "doing"), (0, "todo")]
    await queue.adopt_dead_workers_jobs(app)
    assert await jobs(world, scan_id) == [(0, "todo")]


async def test_help_is_called_of_lanes_that_have_no_job(world):
    """A job that runs and one that waits cannot both be tried again."""
    store = ScriptedStore(many())
    dataset = await world.dataset(store)
    command_id, scan_id = await asked_for(world, dataset)
    async with world.connection() as conn:
        await sync.requests.defer_lane(conn, scan_id, command_id, 3)
    await set_doing(world, scan_id)
    await sync.run_scan(world.place, scan_id, 0)
    assert await jobs(world, scan_id) == [
        (0, "doing"), (1, "todo"), (2, "todo"), (3, "doing"), (4, "todo"), (5, "todo"), (6, "todo"), (7, "todo"),
    ]  # fmt: skip


async def test_a_scan_whose_jobs_are_lost_is_given_new_ones(world):
    """Somebody who was thought dead may end a job that runs elsewhere by now."""
    store = ScriptedStore(many())
    dataset = await world.dataset(store)
    _, scan_id = await world.request(dataset)
    await sync.revive_lanes(world.place.pool)
    assert await jobs(world, scan_id) == [(0, "todo")]
    async with world.connection() as conn:
        await shards.claim_shard(conn, scan_id, 5)
    for _ in range(2):
        await sync.revive_lanes(world.place.pool)
        assert await jobs(world, scan_id) == [(0, "todo"), (5, "todo")]
    await set_doing(world, scan_id)
    await sync.revive_lanes(world.place.pool)
    assert await jobs(world, scan_id) == [(0, "doing"), (5, "doing")]
    await sync.run_scan(world.place, scan_id, 5)
    await sync.revive_lanes(world.place.pool)
    assert (await world.ended(dataset))[1].state == "done"


async def test_a_staged_listing_that_postgresql_lost_is_listed_anew(world):
    """The stage is unlogged: a crash of PostgreSQL empties it, and connections are new before anybody notices."""
    store = ScriptedStore(many())
    store.order = lambda keys: sorted(keys, reverse=True)
    dataset = await world.dataset(store)
    await world.sync(dataset)
    lost = False

    async def lose(number: int) -> None:
        nonlocal lost
        async with world.connection() as conn:
            cursor = await conn.execute("SELECT count(*) FROM scan_stage")
            if not lost and (await cursor.fetchone())[0] > 20:
                lost = True
                await conn.execute("TRUNCATE scan_stage")

    store.on_page = lose
    _, scan_id = await world.request(dataset)
    with pytest.raises(Unavailable, match="PostgreSQL was restarted"):
        await sync.run_scan(world.place, scan_id)
    assert lost
    await sync.run_scan(world.place, scan_id)
    _, scan = await world.ended(dataset)
    assert (scan.state, scan.listed, scan.gone) == ("done", 60, 0)
    assert present(await world.index(dataset)) == {"/" + key for key in store.objects}


async def test_a_job_of_an_earlier_run_does_nothing_in_the_next(world):
    """One that was tried seven times would end the next run at its first hitch."""
    store = ScriptedStore({"a": b"x"})
    dataset = await world.dataset(store)
    earlier, scan_id = await asked_for(world, dataset)
    async with world.connection() as conn:
        await scans.end_scan(conn, await scans.load_scan(conn, scan_id), "stopped")
    now, _ = await asked_for(world, dataset, resume=True)
    await sync.run_scan(world.place, scan_id, command_id=earlier)
    assert store.calls == []
    await sync.run_scan(world.place, scan_id, command_id=now)
    assert (await world.ended(dataset))[1].state == "done"


async def test_a_confirmation_begins_anew(world):
    """What a scan without one notes of what is missing ends at the brake's limit."""
    dataset = await world.dataset(ScriptedStore({"a": b"x"}))
    _, scan_id = await asked_for(world, dataset)
    async with world.connection() as conn:
        await scans.end_scan(conn, await scans.load_scan(conn, scan_id), "stopped")
    _, again = await asked_for(world, dataset, resume=True, confirm_missing=True)
    assert again != scan_id
    assert (await world.ended(dataset))[1].confirm_missing


async def test_a_sync_that_waits_for_a_worker_is_aborted_at_once(world):
    store = ScriptedStore({"a": b"x"})
    dataset = await world.dataset(store)
    command_id, scan_id = await asked_for(world, dataset)
    async with world.connection() as conn:
        await sync.abort_before_it_begins(conn, command_id)
    command, scan = await world.ended(dataset)
    assert (command.status, scan.state) == ("aborted", "stopped")
    await sync.run_scan(world.place, scan_id, command_id=command_id)
    assert store.calls == []
    _, again = await asked_for(world, dataset, resume=True)
    assert again == scan_id
