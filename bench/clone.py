"""A clone of 1,000,000 items of our own storage, from the request to the committed end of its command.

The floor is one bare `INSERT … SELECT` of the same rows into a table with the same indexes: without folders, quotas,
clashes, progress and a way to go on after a crash. The clone's process is this one, so its memory is watched here.
"""

import time
from collections.abc import Iterator
from typing import Any

import psutil
import uvloop
from psycopg import AsyncConnection

from bench.ground import Ground, installed, say, temporary_folder
from bench.report import Figure
from headwater.catalog import cloning as catalog
from headwater.catalog import commands, datasets, organizations, projects
from headwater.catalog.datasets import Dataset
from headwater.work import cloning
from headwater.work.cloning import Options
from headwater.workplace import open_workplace

ITEMS = 1_000_000
_FOLDER_ITEMS = 1_000
_MOST_S = 60
_MOST_GROWTH_MIB = 32


def measure() -> Iterator[Figure]:
    with temporary_folder() as folder, installed(folder) as ground:
        yield from uvloop.run(_measure(ground))


async def _measure(ground: Ground) -> list[Figure]:
    async with open_workplace(ground.settings, ground.database_url, name="bench", max_connections=4) as place:
        async with place.pool.connection() as conn:
            source = await _fill(conn)
        async with await AsyncConnection.connect(ground.database_url, autocommit=True) as conn:
            floor_s = [await _time_floor(conn, source)]
        process = psutil.Process()
        began = time.perf_counter()
        async with place.pool.connection() as conn:
            target = await _target(conn, source)
            owner = await organizations.get_owner(conn)
            asked = await cloning.request_clone(conn, owner, [source], {}, target, Options())
        before = process.memory_info().rss
        await cloning.clone_items(place, **asked.job)
        took_s = time.perf_counter() - began
        growth_mib = (process.memory_info().rss - before) / 2**20
        async with place.pool.connection() as conn:
            command = await commands.load_command(conn, asked.command_id)
            assert command.status == "success", command.error
            assert command.spec["clone"]["cloned"] == ITEMS, command.spec
        async with await AsyncConnection.connect(ground.database_url, autocommit=True) as conn:
            floor_s.append(await _time_floor(conn, source))
    say(f"clone: {ITEMS:,} items took {took_s:.1f} s; bare inserts {floor_s[0]:.1f} and {floor_s[1]:.1f} s")
    return [
        Figure(
            "clone",
            value=ITEMS / took_s,
            floor=ITEMS / min(floor_s),
            unit="items/s",
            target=0.4,
            must_hold=took_s <= _MOST_S,
            details={"took_s": took_s, "floor_s": floor_s, "most_s": _MOST_S},
        ),
        Figure("clone.memory", growth_mib, _MOST_GROWTH_MIB, "MiB", 1, is_limit=True),
    ]


async def _fill(conn: AsyncConnection[Any]) -> Dataset:
    """Items as an upload and preprocessing leave them; their objects are not needed, because nobody touches them."""
    say(f"clone: making {ITEMS:,} items")
    owner = await organizations.get_owner(conn)
    project = await projects.create_project(conn, owner, "bench")
    made = await datasets.create_dataset(conn, owner, project_id=project.id, driver_id=None, name="source")
    await conn.execute(
        """
        WITH root AS (
            INSERT INTO folder (dataset_id, path, parent_id) VALUES (%(dataset)s, '/', NULL) RETURNING id
        ), folders AS (
            INSERT INTO folder (dataset_id, path, parent_id)
            SELECT %(dataset)s, '/' || n, root.id
            FROM root, generate_series(0, %(items)s / %(each)s - 1) AS n
            RETURNING id, path
        )
        INSERT INTO item (
            dataset_id, folder_id, path, object_key, size_bytes, etag, modified_at, mime_type, width_px, height_px,
            etl_state, thumbnail_type, system_metadata, user_metadata, creator_id
        )
        SELECT %(dataset)s, folders.id, folders.path || '/photo-' || n || '.jpg', 'objects/' || md5(folders.path || n),
            2000000 + n, md5(n || folders.path), now(), 'image/jpeg', 4000, 3000, 1, 'image/jpeg',
            '{"etl": {"state": "done"}, "channels": 3}', jsonb_build_object('camera', n %% 7), %(owner)s
        FROM folders, generate_series(1, %(each)s) AS n
        """,
        {"dataset": made.id, "items": ITEMS, "each": _FOLDER_ITEMS, "owner": owner.id},
    )
    await conn.execute(
        """
        UPDATE dataset_counter
        SET (items, bytes, prepared_items) = (SELECT count(*), sum(size_bytes), count(*) FROM item)
        WHERE dataset_id = %s
        """,
        [made.id],
    )
    await conn.commit()
    await conn.set_autocommit(True)
    await conn.execute("VACUUM ANALYZE item")
    await conn.execute("CHECKPOINT")
    await conn.set_autocommit(False)
    return await datasets.load_dataset(conn, made.id)


async def _target(conn: AsyncConnection[Any], source: Dataset) -> Dataset:
    owner = await organizations.get_owner(conn)
    made = await datasets.create_dataset(
        conn, owner, project_id=source.project_id, driver_id=None, name=f"clone of {source.name}"
    )
    await catalog.note_origin(conn, made.id, "clone", [source.id])
    return await datasets.load_dataset(conn, made.id)


async def _time_floor(conn: AsyncConnection[Any], source: Dataset) -> float:
    """Seconds of the same rows as the clone has them, in one statement."""
    await conn.execute("CREATE TABLE floor (LIKE item INCLUDING ALL)")
    began = time.perf_counter()
    await conn.execute(
        """
        INSERT INTO floor (
            dataset_id, folder_id, path, object_key, size_bytes, etag, modified_at, mime_type, width_px, height_px,
            etl_state, thumbnail_type, system_metadata, user_metadata, creator_id, origin_dataset_id, thumbnail_id
        )
        SELECT 0, folder_id, path, object_key, size_bytes, etag, modified_at, mime_type, width_px, height_px,
            etl_state, thumbnail_type, system_metadata, user_metadata, creator_id, dataset_id, id
        FROM item
        WHERE dataset_id = %s
        """,
        [source.id],
    )
    took_s = time.perf_counter() - began
    await conn.execute("DROP TABLE floor")
    return took_s
