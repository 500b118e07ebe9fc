"""Workers that are killed in the middle, and what the next one makes of it. The processes and the signals are real."""

import asyncio
import multiprocessing
import signal
from collections import Counter
from contextlib import contextmanager

import pytest

from headwater.catalog import organizations
from headwater.work import sync
from tests import samples
from tests.work import child
from tests.work.world import World, make_dataset, present

FILES = 60


@contextmanager
def worker(*arguments):
    process = multiprocessing.get_context("spawn").Process(target=child.run, args=arguments, daemon=True)
    process.start()
    try:
        yield process
    finally:
        process.kill()
        process.join()


def kill(process) -> None:
    process.kill()
    process.join()
    assert process.exitcode == -signal.SIGKILL


@pytest.mark.timeout(120)
async def test_what_a_killed_worker_left_is_finished_by_another(workplace, database_url, settings_for, tmp_path):
    root, gates = tmp_path / "bucket", tmp_path / "gates"
    for folder in (root, gates):
        folder.mkdir()
    for number in range(FILES):
        (root / f"{number:02}.jpg").write_bytes(samples.jpeg((32, 24)))
    settings = settings_for(decoders=1)
    given = {"data_dir": str(settings.data_dir), "local_roots": settings.local_roots, "decoders": 1}
    arguments = (given, database_url, gates)
    async with workplace(database_url) as place:
        async with place.pool.connection() as conn:
            owner = await organizations.get_owner(conn)
        world = World(place, owner, tmp_path, None)
        async with world.connection() as conn:
            dataset = await make_dataset(conn, root=str(root))
            await sync.request_sync(conn, dataset, caller_id=owner.id)

        async def counted(column: str) -> int:
            async with world.connection() as conn:
                cursor = await conn.execute(f"SELECT {column} FROM dataset_counter WHERE dataset_id = %s", [dataset.id])
                return (await cursor.fetchone())[0]

        async def reaches(column: str, least: int) -> None:
            async with asyncio.timeout(40):
                while await counted(column) < least:  # noqa: ASYNC110 - another process does it
                    await asyncio.sleep(0.02)

        with worker(*arguments) as first:
            await reaches("items", child.PAGE_KEYS * child.PAGES_BEFORE_THE_GATE)
            kill(first)
        assert await counted("items") == child.PAGE_KEYS * child.PAGES_BEFORE_THE_GATE
        assert (await world.ended(dataset))[1].state == "running"
        (gates / "pages").touch()
        with worker(*arguments) as second:
            await reaches("items", FILES)
            await reaches("prepared_items", 10)
            kill(second)
        prepared = await counted("prepared_items")
        assert prepared < FILES
        (gates / "decoding").touch()
        with worker(*arguments):
            await reaches("prepared_items", FILES)
            async with asyncio.timeout(20):
                while not (await world.ended(dataset))[0].has_ended:  # noqa: ASYNC110
                    await asyncio.sleep(0.02)
        command, scan = await world.ended(dataset)
        assert (command.status, command.error, scan.listed, scan.created, scan.gone) == (
            "success",
            None,
            FILES,
            FILES,
            0,
        )
        assert present(await world.index(dataset)) == {f"/{number:02}.jpg" for number in range(FILES)}
        async with world.connection() as conn:
            cursor = await conn.execute("SELECT id, thumbnail_type FROM item WHERE dataset_id = %s", [dataset.id])
            rows = await cursor.fetchall()
        assert all(kind for _, kind in rows)
        thumbnails = Counter(path.name for path in (root / ".dataloop" / "thumbnails").iterdir())
        assert thumbnails == {f"{item_id:024x}.jpg": 1 for item_id, _ in rows}
        assert await world.events(dataset) == {}
