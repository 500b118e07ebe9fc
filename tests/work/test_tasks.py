"""The jobs as the queue runs them: which errors are tried again, and that no sync is left running for ever."""

import asyncio
from types import SimpleNamespace

import pytest
from procrastinate import App, PsycopgConnector
from psycopg import OperationalError

from headwater.catalog.notices import WEBHOOK_QUEUE
from headwater.errors import BadRequest, Unavailable
from headwater.work import tasks
from headwater.worker import QUEUES
from tests.work.scripted import ScriptedStore


@pytest.fixture(scope="module")
def app(world) -> App:
    made = App(connector=PsycopgConnector())
    tasks.register(made, world.place)
    return made


def job(attempts: int) -> SimpleNamespace:
    return SimpleNamespace(job=SimpleNamespace(attempts=attempts))


def is_tried_again(app: App, task: str, error: BaseException, attempts: int) -> bool:
    strategy = app.tasks[task].retry_strategy
    return strategy.get_retry_decision(exception=error, job=SimpleNamespace(attempts=attempts)) is not None


async def fail_with(world, error: Exception):
    store = ScriptedStore({"a": b"x"})

    async def fail(_: int) -> None:
        raise error

    store.on_page = fail
    dataset = await world.dataset(store)
    return dataset, (await world.request(dataset))[1]


@pytest.mark.parametrize("task", ["run_scan", "preprocess_items", "preprocess_links", "delete_object", "purge_dataset"])
def test_what_is_tried_again(app, task):
    for error in (Unavailable("x"), OperationalError("x"), asyncio.CancelledError()):
        assert is_tried_again(app, task, error, 0)
    for error in (BadRequest("x"), ZeroDivisionError()):
        assert not is_tried_again(app, task, error, 0)
    assert not is_tried_again(app, task, Unavailable("x"), 1_000)
    assert is_tried_again(app, task, asyncio.CancelledError(), 1_000)  # our own shutting down counts for nothing


@pytest.mark.parametrize("error", [Unavailable("The store is down."), OperationalError("The database is down.")])
async def test_a_sync_is_tried_again_until_its_last_try_ends_it(world, app, error):
    """A database that was down at the last try left the dataset syncing for ever."""
    dataset, scan_id = await fail_with(world, error)
    run = app.tasks["run_scan"].func
    with pytest.raises(type(error)):
        await run(job(0), scan_id=scan_id)
    assert (await world.ended(dataset))[1].state == "running"
    if isinstance(error, Unavailable):
        await run(job(7), scan_id=scan_id)
    else:
        with pytest.raises(OperationalError):
            await run(job(7), scan_id=scan_id)
    command, scan = await world.ended(dataset)
    assert (command.status, scan.state) == ("failed", "stopped")
    assert (await world.request(dataset))[1] != scan_id  # another may begin


async def test_a_defect_of_ours_ends_the_command_without_its_details(world, app, caplog):
    dataset, scan_id = await fail_with(world, ZeroDivisionError("secret detail"))
    with pytest.raises(ZeroDivisionError):
        await app.tasks["run_scan"].func(job(0), scan_id=scan_id)
    command, scan = await world.ended(dataset)
    assert (command.status, scan.state) == ("failed", "stopped")
    assert "secret detail" not in command.error
    assert f"scan {scan_id} failed" in caplog.text


async def test_a_scan_that_has_ended_or_gone_is_left_alone(world, app):
    store = ScriptedStore({"a": b"x"})
    dataset = await world.dataset(store)
    _, scan = await world.sync(dataset)
    store.calls.clear()
    for scan_id in (scan.id, 2**40):
        await app.tasks["run_scan"].func(job(0), scan_id=scan_id)
    assert store.calls == []


async def test_reading_files_has_a_queue_of_its_own_and_every_queue_has_workers(world):
    async with world.connection() as conn:
        cursor = await conn.execute("SELECT name, queue FROM service")
        services = dict(await cursor.fetchall())
    assert services == {"preprocessing": "preprocessing"}
    others = {"sync", "lanes", "links", "default", "columns", "exports", "imports", WEBHOOK_QUEUE}
    assert set(QUEUES) == {"preprocessing"} | others
