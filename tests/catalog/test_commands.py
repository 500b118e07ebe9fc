"""Commands: progress that never goes back, one end, an abort that is heard."""

import psycopg
import pytest

from headwater.catalog import commands, datasets
from headwater.errors import NotFound
from tests.work.world import make_dataset


@pytest.fixture
async def dataset(conn):
    return await make_dataset(conn)


@pytest.fixture
async def command_id(conn, dataset):
    return await commands.start_command(
        conn, project_id=dataset.project_id, dataset_id=dataset.id, kind="X", spec={"a": 1, "b": 1}, creator_id=None
    )


async def test_progress_never_goes_back_and_what_is_known_is_merged(conn, command_id):
    assert (await commands.load_command(conn, command_id)).status == "created"
    for percent, spec, expected in ((50, {"b": 2}, 50), (20, {"c": 3}, 50), (75.5, {}, 75.5)):
        assert not await commands.note_progress(conn, command_id, progress_percent=percent, spec=spec)
        command = await commands.load_command(conn, command_id)
        assert (command.status, command.progress_percent) == ("in-progress", expected)
    assert command.spec == {"a": 1, "b": 2, "c": 3}
    assert not command.has_ended


@pytest.mark.parametrize(("status", "percent"), [("success", 100), ("failed", 30), ("aborted", 30)])
async def test_a_command_ends_once(conn, command_id, status, percent):
    await commands.note_progress(conn, command_id, progress_percent=30, spec={})
    await commands.end_command(conn, command_id, status, warning="w", error="e", spec={"b": 9})
    await commands.end_command(conn, command_id, "failed", error="late")
    await commands.request_abort(conn, command_id)
    command = await commands.load_command(conn, command_id)
    assert (command.status, command.progress_percent, command.warning, command.error) == (status, percent, "w", "e")
    assert (command.has_ended, command.abort_requested, command.spec) == (True, False, {"a": 1, "b": 9})
    # Whoever still works on it hears that it is over.
    assert await commands.note_progress(conn, command_id, progress_percent=99, spec={"late": True})
    assert await commands.load_command(conn, command_id) == command


async def test_an_abort_is_heard(conn, command_id):
    assert not await commands.is_abort_requested(conn, command_id)
    await commands.request_abort(conn, command_id)
    assert await commands.is_abort_requested(conn, command_id)
    assert await commands.note_progress(conn, command_id, progress_percent=1, spec={})


async def test_whoever_deletes_the_dataset_aborts_what_runs_on_it(conn, dataset, command_id):
    await datasets.delete_dataset(conn, dataset)
    assert await commands.is_abort_requested(conn, command_id)
    await datasets.forget_dataset(conn, dataset.id)
    assert await commands.is_abort_requested(conn, command_id)
    with pytest.raises(NotFound):
        await commands.load_command(conn, command_id)


async def test_listeners_are_told_at_the_commit(database_url):
    async with (
        await psycopg.AsyncConnection.connect(database_url, autocommit=True) as listener,
        await psycopg.AsyncConnection.connect(database_url) as conn,
    ):
        await listener.execute("LISTEN " + commands.CHANNEL)
        await commands.announce(conn, 7)
        await commands.announce_dataset(conn, 8)
        assert [told.payload async for told in listener.notifies(timeout=0.05)] == []
        await conn.commit()
        told = [told.payload async for told in listener.notifies(timeout=5, stop_after=2)]
        assert sorted(told) == ["command:7", "dataset:8"]
