"""Items as long-lived datasets have them, made by DuckDB from a few hash functions: the same for every run.

They go to PostgreSQL by COPY, as the rows that syncs, uploads and preprocessing leave behind; the table they come from
stays at hand, so that what we answer can be compared with what another engine says of the same items. Twenty fields of
user metadata are skewed as people's are: few values take most of the rows, most fields are missing somewhere, one is
there once in a thousand items, some are unique.
"""

import io
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import duckdb
import psycopg
from psycopg import AsyncConnection
from pyarrow import csv

from bench.ground import Ground, say
from headwater.catalog import datasets, organizations, projects
from headwater.catalog.datasets import Dataset

FOLDER_ITEMS = 500
_CHUNK_ITEMS = 50_000
_FIRST_ID = 10_000_000_000  # behind the ids of folders

# `u(k)` is uniform in [0, 1) and belongs to the row and to k; `zipf(k, n)` is 0 … n - 1, the small ones most often.
_MACROS = """
CREATE MACRO u(n, k) AS (hash(n, k) >> 11)::DOUBLE / 9007199254740992;
CREATE MACRO zipf(n, k, many) AS floor(pow(many, u(n, k)))::INTEGER - 1;
"""

_MADE = f"""
CREATE TABLE made AS
WITH placed AS (
    -- Seven of ten came in the order of their paths, the others later, all over the folders.
    SELECT
        n, CASE WHEN n < 0.7 * $items THEN n ELSE floor(u(n, 1) * $items)::BIGINT END // {FOLDER_ITEMS} AS folder,
        CASE
            WHEN u(n, 2) < 0.70 THEN 'image/jpeg' WHEN u(n, 2) < 0.90 THEN 'image/png'
            WHEN u(n, 2) < 0.96 THEN 'video/mp4' WHEN u(n, 2) < 0.99 THEN 'application/json' ELSE 'application/pdf'
        END AS mimetype
    FROM range($items) AS numbers (n)
)
SELECT
    n, {_FIRST_ID} + n AS id, folder, mimetype,
    '/region-' || folder % 10 || '/2025-' || lpad((1 + folder // 10 % 12)::VARCHAR, 2, '0')
        || '/session-' || lpad(folder::VARCHAR, 6, '0') AS dir,
    dir || '/frame_' || lpad(n::VARCHAR, 9, '0') || CASE mimetype
        WHEN 'image/jpeg' THEN '.jpg' WHEN 'image/png' THEN '.png' WHEN 'video/mp4' THEN '.mp4'
        WHEN 'application/json' THEN '.json' ELSE '.pdf' END AS filename,
    floor(exp(9 + 7 * u(n, 3)))::BIGINT AS size,
    TIMESTAMP '2024-01-01' + to_milliseconds(n // 1000 * (63072000000 // ($items // 1000))) AS created,
    CASE WHEN u(n, 4) < 0.8 THEN created ELSE created + to_milliseconds(floor(u(n, 5) * 2592000000)::BIGINT) END
        AS updated,
    CASE WHEN mimetype LIKE 'image/%' THEN [640, 1280, 1920, 3840, 4000][1 + zipf(n, 6, 5)] END AS width,
    width * 3 // 4 AS height,
    u(n, 7) < 0.3 AS is_uploaded,
    CASE WHEN u(n, 8) < 0.97 THEN 1 WHEN u(n, 8) < 0.98 THEN 2 ELSE 0 END AS etl_state,
    CASE WHEN u(n, 9) < 0.8 THEN 'train' ELSE 'test' END AS split,
    'site-' || zipf(n, 10, 10) AS site,
    'camera-' || zipf(n, 11, 100) AS camera,
    CASE WHEN u(n, 12) < 0.9 THEN 'campaign-' || zipf(n, 13, 1000) END AS campaign,
    'customer-' || zipf(n, 14, 50000) AS customer,
    u(n, 15) < 0.05 AS blurry,
    CASE WHEN u(n, 16) < 0.6 THEN u(n, 17) < 0.5 END AS reviewed,
    floor(u(n, 18) * 1000000000)::BIGINT / 1000 AS speed,
    CASE WHEN u(n, 19) < 0.95 THEN pow(u(n, 20), 3) END AS score,
    floor(u(n, 21) * 1000000)::INTEGER AS frame,
    (100 - zipf(n, 22, 101))::INTEGER AS battery,
    zipf(n, 23, 12) AS attempts,
    CASE WHEN u(n, 24) < 0.2 THEN 'seen by ' || zipf(n, 25, 300) || ' near ' || zipf(n, 26, 5000) END AS note,
    [x FOR x IN ['tag-' || zipf(n, 27, 200), CASE WHEN u(n, 28) < 0.5 THEN 'tag-' || zipf(n, 29, 200) END,
        CASE WHEN u(n, 30) < 0.2 THEN 'tag-' || zipf(n, 31, 200) END] IF x IS NOT NULL] AS tags,
    CASE WHEN u(n, 32) < 0.85 THEN
        ['clear', 'rain', 'fog', 'snow', 'night', 'dusk', 'storm', 'dust'][1 + zipf(n, 33, 8)] END AS weather,
    CASE WHEN weather IS NOT NULL THEN round(u(n, 34) * 60 - 20, 1) END AS temperature,
    strftime(created - to_milliseconds(floor(u(n, 35) * 864000000)::BIGINT), '%Y-%m-%dT%H:%M:%S.%gZ') AS captured,
    CASE WHEN u(n, 36) < 0.001 THEN 'incident-' || zipf(n, 37, 50) END AS incident,
    CASE WHEN u(n, 38) < 0.01 THEN 'batch-' || zipf(n, 39, 20) END AS relabelled,
    CASE WHEN u(n, 40) < 0.3 THEN zipf(n, 41, 40) END AS objects,
    'ext-' || lpad(to_hex(hash(n, 42)), 16, '0') AS external,
    md5(external) AS etag
FROM placed
ORDER BY n
"""

# The SDK's name of each field -> the column of `made`.
COLUMNS = {
    "id": "id",
    "filename": "filename",
    "dir": "dir",
    "createdAt": "created",
    "updatedAt": "updated",
    "metadata.system.size": "size",
    "metadata.system.mimetype": "mimetype",
    "metadata.system.width": "width",
    "metadata.system.height": "height",
    "metadata.user.split": "split",
    "metadata.user.site": "site",
    "metadata.user.camera": "camera",
    "metadata.user.campaign": "campaign",
    "metadata.user.customer": "customer",
    "metadata.user.blurry": "blurry",
    "metadata.user.reviewed": "reviewed",
    "metadata.user.speed": "speed",
    "metadata.user.score": "score",
    "metadata.user.frame": "frame",
    "metadata.user.battery": "battery",
    "metadata.user.attempts": "attempts",
    "metadata.user.note": "note",
    "metadata.user.tags": "tags",
    "metadata.user.weather.kind": "weather",
    "metadata.user.weather.temperature": "temperature",
    "metadata.user.capturedAt": "captured",
    "metadata.user.incident": "incident",
    "metadata.user.relabelled": "relabelled",
    "metadata.user.objects": "objects",
    "metadata.user.external": "external",
}

# JSON without the keys of what is not there.
METADATA_JSON = """
json_merge_patch('{}', to_json({
    'split': split, 'site': site, 'camera': camera, 'campaign': campaign, 'customer': customer, 'blurry': blurry,
    'reviewed': reviewed, 'speed': speed, 'score': score, 'frame': frame, 'battery': battery, 'attempts': attempts,
    'note': note, 'tags': tags, 'weather': CASE WHEN weather IS NOT NULL THEN
        {'kind': weather, 'temperature': temperature} END,
    'capturedAt': captured, 'incident': incident, 'relabelled': relabelled, 'objects': objects, 'external': external
}))
"""
_ROWS = f"""
SELECT
    made.id, folder_id, filename, size, etag, created, created, updated, mimetype, width,
    height, etl_state, CASE WHEN width IS NOT NULL AND etl_state = 1 THEN 'image/jpeg' END, CASE etl_state
        WHEN 1 THEN '{{"etl": {{"state": "done"}}, "channels": 3}}'
        WHEN 2 THEN '{{"etl": {{"state": "failed", "error": "decoder-crashed"}}}}' END,
    {METADATA_JSON}, CASE WHEN is_uploaded THEN $owner END
FROM made
JOIN folder_number ON folder_number.folder = made.folder
WHERE n >= $first AND n < $until
ORDER BY n
"""
_COPY = """
COPY item (
    dataset_id, id, folder_id, path, size_bytes, etag, modified_at, created_at, updated_at, mime_type, width_px,
    height_px, etl_state, thumbnail_type, system_metadata, user_metadata, creator_id
) FROM STDIN (FORMAT csv)
"""


@contextmanager
def made(items: int, file: Path | None = None) -> Generator[duckdb.DuckDBPyConnection]:
    """A connection to a database with the table `made`, whose columns COLUMNS names; in memory without a file."""
    with duckdb.connect(str(file or ":memory:")) as db:
        db.execute("SET threads = 2")
        db.execute(_MACROS)
        say(f"making {items:,} items")
        db.execute(_MADE, {"items": items})
        yield db


def fill(ground: Ground, db: duckdb.DuckDBPyConnection, dataset: Dataset) -> None:
    """Give an empty dataset these items, vacuumed, and the right counters. No object is there, and nobody is told."""
    (items,) = db.execute("SELECT count(*) FROM made").fetchone() or (0,)
    with psycopg.connect(ground.database_url, autocommit=True) as conn:
        (owner_id,) = conn.execute("SELECT creator_id FROM dataset WHERE id = %s", [dataset.id]).fetchone() or (0,)
        _make_folders(conn, db, dataset.id)
        say(f"copying {items:,} items to PostgreSQL")
        middle = items // _CHUNK_ITEMS // 2 * _CHUNK_ITEMS
        with ThreadPoolExecutor(2) as threads:
            halves = [
                threads.submit(_copy, ground, db.cursor(), dataset.id, owner_id, first, until)
                for first, until in ((0, middle), (middle, items))
            ]
        for half in halves:
            half.result()
        conn.execute("SELECT setval('item_id_seq', %s)", [_FIRST_ID + items])
        conn.execute(
            """
            UPDATE dataset_counter
            SET (items, bytes, prepared_items, failed_items) = (
                SELECT count(*), sum(size_bytes), count(*) FILTER (WHERE etl_state = 1),
                    count(*) FILTER (WHERE etl_state = 2)
                FROM item
                WHERE item.dataset_id = dataset_counter.dataset_id
            )
            WHERE dataset_id = %s
            """,
            [dataset.id],
        )
        row = conn.execute("SELECT items FROM dataset_counter WHERE dataset_id = %s", [dataset.id]).fetchone()
        assert row == (items,), f"{row} of {items:,} items were copied"
        say("vacuuming")
        conn.execute("VACUUM ANALYZE item, folder")
        conn.execute("CHECKPOINT")


async def own_dataset(ground: Ground, name: str) -> Dataset:
    """A new one of our own storage, in a project of its own."""
    async with await AsyncConnection.connect(ground.database_url) as conn:
        owner = await organizations.get_owner(conn)
        project = await projects.create_project(conn, owner, name)
        return await datasets.create_dataset(conn, owner, project_id=project.id, driver_id=None, name=name)


def _make_folders(conn: psycopg.Connection[Any], db: duckdb.DuckDBPyConnection, dataset_id: int) -> None:
    """Those of the items and all above them; `folder_number` is what each is called in both databases."""
    paths = [path for (path,) in db.execute("SELECT DISTINCT dir FROM made").fetchall()]
    levels = [{"/"}]
    for depth in range(1, max(path.count("/") for path in paths) + 1):
        parts = [path.split("/") for path in paths]
        levels.append({"/".join(names[: depth + 1]) for names in parts if len(names) > depth})
    with conn.transaction():
        for level in levels:
            conn.execute(
                """
                INSERT INTO folder (dataset_id, path, parent_id)
                SELECT %(dataset)s, given.path, parent.id
                FROM unnest(%(paths)s::text[]) AS given (path)
                LEFT JOIN folder AS parent
                    ON parent.dataset_id = %(dataset)s
                    AND parent.path = coalesce(nullif(regexp_replace(given.path, '/[^/]+$', ''), ''), '/')
                    AND given.path <> '/'
                ORDER BY given.path
                """,
                {"dataset": dataset_id, "paths": sorted(level)},
            )
    ids = conn.execute("SELECT path, id FROM folder WHERE dataset_id = %s", [dataset_id]).fetchall()
    db.execute("CREATE OR REPLACE TABLE made_folder (path VARCHAR, id BIGINT)")
    db.execute(
        "INSERT INTO made_folder SELECT unnest($paths), unnest($ids)",
        {"paths": [path for path, _ in ids], "ids": [number for _, number in ids]},
    )
    db.execute(
        """
        CREATE OR REPLACE TABLE folder_number AS
        SELECT DISTINCT made.folder, made_folder.id AS folder_id
        FROM made
        JOIN made_folder ON made_folder.path = made.dir
        """
    )


def _copy(
    ground: Ground, db: duckdb.DuckDBPyConnection, dataset_id: int, owner_id: int, first: int, until: int
) -> None:
    with psycopg.connect(ground.database_url, autocommit=True) as conn:
        for start in range(first, until, _CHUNK_ITEMS):
            chunk = {"first": start, "until": min(until, start + _CHUNK_ITEMS), "owner": owner_id}
            rows = db.sql(f"SELECT {dataset_id}, rows.* FROM ({_ROWS}) AS rows", params=chunk).to_arrow_table()
            text = io.BytesIO()
            csv.write_csv(rows, text, csv.WriteOptions(include_header=False))
            with conn.cursor().copy(_COPY) as copy:
                copy.write(text.getbuffer())
            if start // _CHUNK_ITEMS % 20 == 19:
                say(f"{until - start:,} items of this half are left")
