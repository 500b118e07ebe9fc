"""Moves: an object that went from one path and came at another is one item that keeps what was known of it.

Only what is certain counts: one item that a scan did not find and one that it found as new, with the same size and the
same etag of their content, and no third one with these. New is what came since the last verdict: a scan that the brake
held, or that was stopped, has its new items joined by the next one. Cost follows the two sets, never the dataset.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from psycopg import AsyncConnection
from psycopg.rows import class_row

from headwater.catalog import events
from headwater.catalog.datasets import CounterChange, count
from headwater.catalog.items import ETL_DONE, ETL_FAILED
from headwater.catalog.removals import Deleted
from headwater.catalog.sync.scans import Scan

# Whose etags tell of the content, and of nothing else: not of a time, a number, or a lease.
_DRIVER_KINDS = ["s3", "gcs"]
_PIECE_ITEMS = 1_000


@dataclass(frozen=True, slots=True)
class Followed:
    moved: int = 0
    left_over: Sequence[Deleted] = ()  # rows that are no more, of which something derived is in the store


async def follow_moves(conn: AsyncConnection[Any], scan: Scan) -> Followed:
    """Join the scan's candidates with its new items, as far as they are one to one. Call it with the scan locked."""
    if scan.first_item_id is None or not scan.gone:
        return Followed()
    if not await _has_content_etags(conn, scan.dataset_id):
        return Followed()
    await _pair(conn, scan)
    moved, left_over, change = 0, list[Deleted](), CounterChange()
    after_id = 0
    while pairs := await _next_pairs(conn, scan, after_id):
        joined = await _join(conn, scan.dataset_id, pairs, change)
        await conn.execute(
            "DELETE FROM scan_candidate WHERE scan_id = %s AND item_id = ANY(%s)", [scan.id, list(joined)]
        )
        await events.record_items(conn, scan.dataset_id, "Updated", list(joined))
        moved += len(joined)
        left_over += [gone for gone in joined.values() if gone.thumbnail_type is not None]
        after_id = pairs[-1][0]
    await count(conn, scan.dataset_id, change)
    return Followed(moved, left_over)


async def _pair(conn: AsyncConnection[Any], scan: Scan) -> None:
    """Note with each candidate which new item it has become.

    Both sets go through one grouping, and are found by their keys: nobody knows the sizes of these sets beforehand, and
    a join that was planned for few takes hours for many.
    """
    await conn.execute(
        """
        INSERT INTO scan_candidate (scan_id, item_id, moved_to_id)
        SELECT %(scan_id)s, min(id) FILTER (WHERE is_gone), min(id) FILTER (WHERE NOT is_gone)
        FROM (
            SELECT item.id, etag, size_bytes, true AS is_gone, NOT hidden AND object_key IS NULL AS is_plain
            FROM scan_candidate
            JOIN item ON item.dataset_id = %(dataset_id)s AND item.id = scan_candidate.item_id
            WHERE scan_candidate.scan_id = %(scan_id)s AND missing_since IS NULL AND changed_at < %(started_at)s
            UNION ALL
            SELECT id, etag, size_bytes, false, creator_id IS NULL AND missing_since IS NULL AND NOT hidden
                AND coalesce(user_metadata, '{}') = '{}' AND coalesce(description, '') = '' AND annotations_count = 0
            FROM item
            WHERE dataset_id = %(dataset_id)s AND id >= %(first_item_id)s AND NOT EXISTS (
                SELECT FROM scan_candidate WHERE scan_id = %(scan_id)s AND item_id = item.id
            )
        ) AS gone_or_new
        WHERE size_bytes > 0 AND etag <> '' AND etag NOT LIKE 'W/%%'
        GROUP BY etag, size_bytes
        HAVING count(*) = 2 AND count(*) FILTER (WHERE is_gone) = 1 AND bool_and(is_plain)
        ON CONFLICT (scan_id, item_id) DO UPDATE SET moved_to_id = excluded.moved_to_id
        """,
        {
            "dataset_id": scan.dataset_id,
            "scan_id": scan.id,
            "started_at": scan.started_at,
            "first_item_id": scan.first_item_id,
        },
    )


async def _has_content_etags(conn: AsyncConnection[Any], dataset_id: int) -> bool:
    cursor = await conn.execute(
        """
        SELECT driver.kind = ANY(%s)
        FROM dataset
        JOIN driver ON driver.id = dataset.driver_id
        WHERE dataset.id = %s
        """,
        [_DRIVER_KINDS, dataset_id],
    )
    row = await cursor.fetchone()
    return row is not None and row[0]


async def _next_pairs(conn: AsyncConnection[Any], scan: Scan, after_id: int) -> list[tuple[int, int]]:
    """(id that is kept, id that goes), in the order of the former."""
    cursor = await conn.execute(
        """
        SELECT item_id, moved_to_id
        FROM scan_candidate
        WHERE scan_id = %s AND item_id > %s AND moved_to_id IS NOT NULL
        ORDER BY item_id
        LIMIT %s
        """,
        [scan.id, after_id, _PIECE_ITEMS],
    )
    return await cursor.fetchall()


async def _join(
    conn: AsyncConnection[Any], dataset_id: int, pairs: Sequence[tuple[int, int]], change: CounterChange
) -> dict[int, Deleted]:
    """Let the kept ones take the places of the others, whose rows go. Returns what went, by the id that is kept.

    A pair of which somebody has written to one since stays two items. A type that was read from the bytes is better
    than one that was guessed from the name.
    """
    places = await _lock_places(conn, dataset_id, [item_id for pair in pairs for item_id in pair])
    joined = {kept: places[gone] for kept, gone in pairs if _is_still_a_pair(places.get(kept), places.get(gone))}
    states = [place.etl_state for place in joined.values()]
    change.items -= len(joined)
    change.bytes -= sum(place.size_bytes for place in joined.values())
    change.prepared_items -= states.count(ETL_DONE)
    change.failed_items -= states.count(ETL_FAILED)
    await conn.execute(
        "DELETE FROM item WHERE dataset_id = %s AND id = ANY(%s)", [dataset_id, [place.id for place in joined.values()]]
    )
    await conn.execute(
        """
        UPDATE item
        SET path = place.path, folder_id = place.folder_id, modified_at = place.modified_at,
            changed_at = place.changed_at, updated_at = now(),
            mime_type = CASE WHEN item.etl_state > place.etl_state THEN item.mime_type ELSE place.mime_type END
        FROM unnest(
            %(ids)s::bigint[], %(paths)s::text[], %(folder_ids)s::bigint[], %(modified)s::timestamptz[],
            %(changed)s::timestamptz[], %(mime_types)s::text[], %(states)s::smallint[]
        ) AS place (id, path, folder_id, modified_at, changed_at, mime_type, etl_state)
        WHERE item.dataset_id = %(dataset_id)s AND item.id = place.id
        """,
        {
            "dataset_id": dataset_id,
            "ids": list(joined),
            "paths": [place.path for place in joined.values()],
            "folder_ids": [place.folder_id for place in joined.values()],
            "modified": [place.modified_at for place in joined.values()],
            "changed": [place.changed_at for place in joined.values()],
            "mime_types": [place.mime_type for place in joined.values()],
            "states": states,
        },
    )
    return {
        kept: Deleted(place.id, place.path, None, place.size_bytes, place.thumbnail_type)
        for kept, place in joined.items()
    }


@dataclass(frozen=True, slots=True)
class _Place:
    id: int
    path: str
    folder_id: int
    size_bytes: int
    etag: str
    modified_at: datetime | None
    changed_at: datetime
    mime_type: str | None
    etl_state: int
    thumbnail_type: str | None
    is_missing: bool
    is_bare: bool  # nobody has described or annotated it


async def _lock_places(conn: AsyncConnection[Any], dataset_id: int, item_ids: list[int]) -> dict[int, _Place]:
    cursor = conn.cursor(row_factory=class_row(_Place))
    await cursor.execute(
        """
        SELECT id, path, folder_id, size_bytes, etag, modified_at, changed_at, mime_type, etl_state, thumbnail_type,
            missing_since IS NOT NULL AS is_missing,
            coalesce(user_metadata, '{}') = '{}' AND coalesce(description, '') = '' AND annotations_count = 0 AS is_bare
        FROM item
        WHERE dataset_id = %s AND id = ANY(%s)
        ORDER BY id
        FOR UPDATE
        """,
        [dataset_id, item_ids],
    )
    return {place.id: place for place in await cursor.fetchall()}


def _is_still_a_pair(kept: _Place | None, gone: _Place | None) -> bool:
    if kept is None or gone is None or kept.is_missing or gone.is_missing:
        return False
    return gone.is_bare and (kept.etag, kept.size_bytes) == (gone.etag, gone.size_bytes)
