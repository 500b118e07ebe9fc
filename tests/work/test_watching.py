"""Watching: what hangs says so by itself and why, until it goes on; what is old goes."""

import asyncio

from headwater.catalog import commands, notices
from headwater.errors import Unavailable
from headwater.work import watching
from tests.work.scripted import ScriptedStore
from tests.work.world import make_dataset


async def test_a_worker_notices_by_itself_what_hangs_and_removes_old_notices(world):
    pool = world.place.pool
    async with pool.connection() as conn:
        dataset = await make_dataset(conn)
        await notices.tell_project(conn, dataset.project_id, "info", "old", "It was so.")
        await conn.execute(
            "UPDATE notice SET created_at = now() - interval '40 days' WHERE project_id = %s", [dataset.project_id]
        )
        command_id = await commands.start_command(
            conn, project_id=dataset.project_id, dataset_id=dataset.id, kind="X", spec={}, creator_id=None
        )
        await commands.note_progress(conn, command_id, progress_percent=1, spec={})

    async def told():
        async with pool.connection() as conn:
            found = await notices.list_notices(conn, world.owner, notices.Choice(project_id=dataset.project_id))
            return [notice.kind for notice in found]

    watcher = asyncio.create_task(watching.watch_forever(pool, stall_after_s=0.05, notice_days=30))
    try:
        while await told() != ["command.stalled"]:  # noqa: ASYNC110 - the database tells, no event does
            await asyncio.sleep(0.02)
    finally:
        watcher.cancel()
    async with pool.connection() as conn:
        assert "stalledSince" in (await commands.load_command(conn, command_id)).spec
        await commands.end_command(conn, command_id, "success")


async def test_a_sync_whose_store_is_down_says_what_it_waits_for(world):
    dataset = await world.dataset(ScriptedStore({"a": b"x"}))
    _, scan_id = await world.request(dataset)
    await watching.note_trouble(world.place.pool, scan_id, Unavailable("The bucket answers 503."))
    async with world.place.pool.connection() as conn:
        found = [one for one in await commands.list_commands(conn, world.owner) if one.dataset_id == dataset.id]
    assert found[0].spec["trouble"] == "The bucket answers 503."
