"""Folders that many make at once."""

import asyncio
import random

from psycopg import AsyncConnection

from headwater.catalog.folders import ensure_folders, parent_of

DATASETS = range(-12, 0)  # nobody else's


async def test_folders_made_side_by_side_in_any_order_are_one_tree(shared_database_url):
    """Nobody waits for ever, what is rolled back is not there, and every parent is the one folder of its path."""

    async def make(seed: int) -> None:
        chance = random.Random(seed)
        async with await AsyncConnection.connect(shared_database_url) as conn:
            for dataset_id in DATASETS:
                count = chance.randrange(1, 30)
                wanted = {"/" + "/".join(chance.choices("abcd", k=chance.randrange(1, 6))) for _ in range(count)}
                assert wanted <= (await ensure_folders(conn, dataset_id, wanted)).keys()
                await asyncio.sleep(0)
                await (conn.rollback() if chance.random() < 0.2 else conn.commit())

    async with asyncio.timeout(60):
        await asyncio.gather(*(make(seed) for seed in range(8)))
    async with await AsyncConnection.connect(shared_database_url) as conn:
        cursor = await conn.execute("DELETE FROM folder WHERE dataset_id < 0 RETURNING dataset_id, path, id, parent_id")
        rows = await cursor.fetchall()
    ids = {(dataset_id, path): folder_id for dataset_id, path, folder_id, _ in rows}
    assert len(rows) == len(ids) > 100
    for dataset_id, path, _, parent_id in rows:
        assert parent_id == (None if parent_of(path) is None else ids[dataset_id, parent_of(path)])


async def test_a_path_of_a_thousand_folders(conn):
    path = "/" + "/".join("a" * 500)
    found = await ensure_folders(conn, -1, [path])
    assert len(found) == 501
    slashes = "/" * 1000
    more = await ensure_folders(conn, -1, [slashes, path])
    assert (more[path], len(await ensure_folders(conn, -1, more))) == (found[path], 1500)
