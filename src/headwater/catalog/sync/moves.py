"""Moves: an object that went from one path and came at another is one item that keeps what was known of it.

Only what is certain counts: one item that a scan did not find and one that it found as new, with the same size and the
same etag of their content, and no third one with these. Cost follows the two sets, never the dataset.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from psycopg import AsyncConnection

from headwater.catalog import events
from headwater.catalog.datasets import CounterChange, count
from headwater.catalog.items import ETL_DONE, ETL_FAILED, Deleted
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
    if scan.first_item_id is None or not scan.gone or not scan.created:
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
    """Note with each candidate which new item it has become."""
    await conn.execute(
        """
        WITH ghost AS (
            SELECT etag, size_bytes, min(item.id) AS id
            FROM scan_candidate
            JOIN item ON item.dataset_id = %(dataset_id)s AND item.id = scan_candidate.item_id
            WHERE scan_candidate.scan_id = %(scan_id)s AND item.missing_since IS NULL
                AND item.changed_at < %(started_at)s AND NOT item.hidden AND item.object_key IS NULL
                AND item.size_bytes > 0 AND item.etag <> '' AND item.etag NOT LIKE 'W/%%'
            GROUP BY etag, size_bytes
            HAVING count(*) = 1
        ), arrival AS (
            SELECT etag, size_bytes, min(id) AS id, bool_and(is_plain) AS is_plain
            FROM (
                SELECT id, etag, size_bytes, creator_id IS NULL AND missing_since IS NULL AND NOT hidden
                    AND coalesce(user_metadata, '{}') = '{}' AND coalesce(description, '') = '' AS is_plain
                FROM item
                WHERE dataset_id = %(dataset_id)s AND id >= %(first_item_id)s
            ) AS new
            GROUP BY etag, size_bytes
            HAVING count(*) = 1
        )
        UPDATE scan_candidate
        SET moved_to_id = arrival.id
        FROM ghost
        JOIN arrival ON arrival.etag = ghost.etag AND arrival.size_bytes = ghost.size_bytes AND arrival.is_plain
        WHERE scan_candidate.scan_id = %(scan_id)s AND scan_candidate.item_id = ghost.id
            AND EXISTS (
                SELECT
                FROM dataset
                JOIN driver ON driver.id = dataset.driver_id
                WHERE dataset.id = %(dataset_id)s AND driver.kind = ANY(%(kinds)s)
            )
        """,
        {
            "dataset_id": scan.dataset_id,
            "scan_id": scan.id,
            "started_at": scan.started_at,
            "first_item_id": scan.first_item_id,
            "kinds": _DRIVER_KINDS,
        },
    )


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
    cursor = await conn.execute(
        """
        WITH locked AS MATERIALIZED (
            SELECT id, path, folder_id, object_key, size_bytes, etag, modified_at, changed_at, mime_type, etl_state,
                thumbnail_type, missing_since, user_metadata, description
            FROM item
            WHERE dataset_id = %(dataset_id)s AND id = ANY(%(kept)s::bigint[] || %(gone)s::bigint[])
            ORDER BY id
            FOR UPDATE
        )
        SELECT kept.id, gone.folder_id, gone.modified_at, gone.changed_at, gone.mime_type, gone.etl_state,
            gone.id, gone.path, gone.object_key, gone.size_bytes, gone.thumbnail_type
        FROM unnest(%(kept)s::bigint[], %(gone)s::bigint[]) AS pair (kept_id, gone_id)
        JOIN locked AS kept ON kept.id = pair.kept_id
        JOIN locked AS gone ON gone.id = pair.gone_id
        WHERE kept.etag = gone.etag AND kept.size_bytes = gone.size_bytes
            AND kept.missing_since IS NULL AND gone.missing_since IS NULL
            AND coalesce(gone.user_metadata, '{}') = '{}' AND coalesce(gone.description, '') = ''
        ORDER BY kept.id
        """,
        {"dataset_id": dataset_id, "kept": [kept for kept, _ in pairs], "gone": [gone for _, gone in pairs]},
    )
    rows = await cursor.fetchall()
    joined = {row[0]: Deleted(*row[6:]) for row in rows}
    states = [row[5] for row in rows]
    change.items -= len(rows)
    change.bytes -= sum(gone.size_bytes for gone in joined.values())
    change.prepared_items -= states.count(ETL_DONE)
    change.failed_items -= states.count(ETL_FAILED)
    await conn.execute(
        "DELETE FROM item WHERE dataset_id = %s AND id = ANY(%s)", [dataset_id, [gone.id for gone in joined.values()]]
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
            "paths": [gone.path for gone in joined.values()],
            "folder_ids": [row[1] for row in rows],
            "modified": [row[2] for row in rows],
            "changed": [row[3] for row in rows],
            "mime_types": [row[4] for row in rows],
            "states": states,
        },
    )
    return joined
