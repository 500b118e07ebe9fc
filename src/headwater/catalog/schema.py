"""A dataset's schema: which paths its items' metadata has, which types and values, from a sample of the items.

Whatever the size of the dataset, some thousand items are read, spread over all of it: each item is as likely as any
other to be among them, whenever it came.
"""

import random
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from psycopg import AsyncConnection
from psycopg.sql import SQL, Identifier

from headwater.catalog.datasets import Dataset
from headwater.catalog.fields import ITEM_FIELDS, Field

SAMPLE_ITEMS = 3_000
_WINDOWS = 500  # ranges of ids that are looked into
_SEGMENT_BITS = 16  # ids are looked for in blocks of so many: a dataset's ids come in runs
_MOST_SEGMENTS = 2_000
_LIST_ITEMS = 30_000  # up to so many are listed to choose from
_CHUNK_ITEMS = 250
_LARGEST_DOCUMENT_BYTES = 50_000  # as it is stored; larger ones are left out of the sample
_MOST_BYTES = 8_000_000  # of JSON text that is read in all

_SHOWN = "NOT item.hidden AND item.trashed_at IS NULL"


@dataclass(frozen=True, slots=True)
class SampledItem:
    user: str | None  # JSON text
    system: str | None
    typed: Mapping[str, Any]  # full path -> value, of what lies in columns


@dataclass(frozen=True, slots=True)
class Sample:
    items: list[SampledItem]
    is_complete: bool  # these are all there are


def typed_fields() -> dict[str, Field]:
    """What of metadata.system lies in columns, by full path."""
    return {
        name: field
        for name, field in ITEM_FIELDS.named.items()
        if name.startswith("metadata.system.") and field.within is None and field.kind != "json"
    }


async def draw_sample(conn: AsyncConnection[Any], dataset: Dataset) -> Sample:
    chance = random.Random(dataset.id)  # noqa: S311 - the same sample as long as nothing changes
    ids, is_complete = await sample_ids(conn, dataset, chance)
    chance.shuffle(ids)
    fields = typed_fields()
    columns = SQL(", ").join(
        SQL("{} AS {}").format(SQL(field.sql), Identifier(f"typed_{number}"))
        for number, field in enumerate(fields.values())
    )
    statement = SQL(
        """
        SELECT
            CASE WHEN pg_column_size(item.user_metadata) <= %(largest)s THEN item.user_metadata::text END,
            CASE WHEN pg_column_size(item.system_metadata) <= %(largest)s THEN item.system_metadata::text END,
            coalesce(pg_column_size(item.user_metadata) > %(largest)s, false), {}
        FROM item
        WHERE item.dataset_id = %(dataset_id)s AND item.id = ANY(%(ids)s) AND
        """
    ).format(columns) + SQL(_SHOWN)
    found: list[SampledItem] = []
    read_bytes = 0
    for start in range(0, len(ids), _CHUNK_ITEMS):
        if read_bytes > _MOST_BYTES:
            is_complete = False
            break
        cursor = await conn.execute(
            statement,
            {
                "largest": _LARGEST_DOCUMENT_BYTES,
                "dataset_id": dataset.id,
                "ids": ids[start : start + _CHUNK_ITEMS],
            },
        )
        for user, system, is_large, *values in await cursor.fetchall():
            if is_large:
                is_complete = False
                continue
            read_bytes += len(user or "") + len(system or "")
            found.append(SampledItem(user, system, dict(zip(fields, values, strict=True))))
    return Sample(found, is_complete)


async def sample_ids(conn: AsyncConnection[Any], dataset: Dataset, chance: random.Random) -> tuple[list[int], bool]:
    """About as many as are wanted, and whether these are all."""
    if dataset.items <= _LIST_ITEMS:
        cursor = await conn.execute("SELECT id FROM item WHERE dataset_id = %s", [dataset.id])
        ids = [item_id for (item_id,) in await cursor.fetchall()]
        return (ids, True) if len(ids) <= SAMPLE_ITEMS else (chance.sample(ids, SAMPLE_ITEMS), False)
    starts, width = await _windows(conn, dataset, chance)
    cursor = await conn.execute(
        """
        SELECT DISTINCT item.id
        FROM unnest(%(starts)s::bigint[]) AS window_start (id)
        JOIN item ON item.dataset_id = %(dataset_id)s
            AND item.id >= window_start.id AND item.id < window_start.id + %(width)s
        LIMIT %(most)s
        """,
        {"starts": starts, "dataset_id": dataset.id, "width": width, "most": 4 * SAMPLE_ITEMS},
    )
    ids = sorted(item_id for (item_id,) in await cursor.fetchall())
    return ids if len(ids) <= SAMPLE_ITEMS else chance.sample(ids, SAMPLE_ITEMS), False


async def _windows(conn: AsyncConnection[Any], dataset: Dataset, chance: random.Random) -> tuple[list[int], int]:
    """Ranges of ids, as wide as each other, that hold about as many items in all as are wanted."""
    segments = await _segments(conn, dataset.id)
    size = 1 << _SEGMENT_BITS
    if len(segments) > _MOST_SEGMENTS:  # few here and few there: take the ids as evenly spread
        cursor = await conn.execute("SELECT min(id), max(id) FROM item WHERE dataset_id = %s", [dataset.id])
        row = await cursor.fetchone()
        assert row is not None
        segments, size = [0], row[1] + 1
    share = len(segments) * size / max(1, dataset.items)  # ids for each item
    width = max(1, min(size, round(SAMPLE_ITEMS / _WINDOWS * share)))
    slots = size // width
    starts = {chance.choice(segments) * size + chance.randrange(slots) * width for _ in range(_WINDOWS)}
    return sorted(starts), width


async def _segments(conn: AsyncConnection[Any], dataset_id: int) -> list[int]:
    """Which blocks of ids the dataset has items in; it takes one look at the index for each."""
    cursor = await conn.execute(
        """
        WITH RECURSIVE held (segment) AS (
            SELECT (SELECT min(id) FROM item WHERE dataset_id = %(dataset_id)s) >> %(bits)s
            UNION ALL
            SELECT (
                SELECT id FROM item
                WHERE dataset_id = %(dataset_id)s AND id >= (held.segment + 1) << %(bits)s
                ORDER BY id
                LIMIT 1
            ) >> %(bits)s
            FROM held
            WHERE held.segment IS NOT NULL
        )
        SELECT segment FROM held WHERE segment IS NOT NULL LIMIT %(most)s
        """,
        {"dataset_id": dataset_id, "bits": _SEGMENT_BITS, "most": _MOST_SEGMENTS + 1},
    )
    return [segment for (segment,) in await cursor.fetchall()]


@dataclass(frozen=True, slots=True)
class Covered:
    """What the column index knows of a path, of all items, as of its last builds."""

    items: int  # that have it
    values: int | None  # different ones, at most; None: it does not keep them


async def covered_paths(conn: AsyncConnection[Any], dataset_id: int) -> tuple[Mapping[str, Covered], int]:
    """By path, and how many items are in the index; none where there is none."""
    cursor = await conn.execute(
        """
        SELECT path.path, coalesce(chunks.present, 0),
            CASE WHEN path.encoding = 'codes' THEN (
                SELECT count(*) FROM column_value AS value
                WHERE value.dataset_id = path.dataset_id AND value.path_number = path.number
            ) END
        FROM column_path AS path
        JOIN column_index ON column_index.dataset_id = path.dataset_id AND column_index.ready_at IS NOT NULL
        LEFT JOIN (
            SELECT path_number, sum(present)::bigint AS present
            FROM column_chunk
            WHERE dataset_id = %(dataset_id)s
            GROUP BY path_number
        ) AS chunks ON chunks.path_number = path.number
        WHERE path.dataset_id = %(dataset_id)s AND NOT path.is_excluded
        """,
        {"dataset_id": dataset_id},
    )
    found = {path: Covered(items, values) for path, items, values in await cursor.fetchall()}
    cursor = await conn.execute(
        "SELECT coalesce(sum(rows), 0)::bigint FROM column_segment WHERE dataset_id = %s", [dataset_id]
    )
    rows = await cursor.fetchone()
    assert rows is not None
    return found, rows[0]
