"""Arrivals: rows of objects that a bucket was seen to have: new ones, changed ones, and ghosts that are back.

What differs is found by those who looked: listings.py and changes.py.
"""

from collections.abc import Sequence
from typing import Any, LiteralString

from psycopg import AsyncConnection
from psycopg.errors import UniqueViolation

from headwater.catalog import events, sidecars
from headwater.catalog.datasets import CounterChange
from headwater.catalog.folders import ensure_folders, folder_of
from headwater.catalog.sync.listed import SEPARATOR, Listed, array, column
from headwater.catalog.sync.seen import Seen
from headwater.mime_types import guess_mime_type


async def add_items(
    conn: AsyncConnection[Any], seen: Seen, listed: Listed, positions: list[int], change: CounterChange
) -> None:
    """Insert what is new, with its folders and its Created events; an upload that was quicker keeps its row."""
    paths = [listed.paths[position] for position in positions]
    folders = [folder_of(path) for path in paths]
    folder_ids = await ensure_folders(conn, seen.dataset_id, folders)
    texts = {
        "paths": paths,
        "etags": [listed.etags[position] for position in positions],
        "modified": [listed.modified[position] for position in positions],
        "mime_types": [guess_mime_type(path) for path in paths],
    }
    columns = [column(name, values) for name, values in texts.items()]
    parameters: dict[str, Any] = {
        "dataset_id": seen.dataset_id,
        "folder_ids": array(folder_ids[folder] for folder in folders),
        "sizes": array(listed.sizes[position] for position in positions),
        "separator": SEPARATOR,
        "each": events.ITEMS_PER_EVENT,
        "sidecar": sidecars.NAME,
    }
    for _, values in columns:
        parameters |= values
    try:
        async with conn.transaction():
            added, added_bytes, hidden = await _insert(conn, [sql for sql, _ in columns], parameters, on_conflict="")
    except UniqueViolation:
        skip: LiteralString = "ON CONFLICT (dataset_id, path) DO NOTHING"
        added, added_bytes, hidden = await _insert(conn, [sql for sql, _ in columns], parameters, on_conflict=skip)
    change.items += added
    change.bytes += added_bytes
    change.hidden_items += hidden
    await events.announce(conn)


async def _insert(
    conn: AsyncConnection[Any],
    columns: Sequence[LiteralString],
    parameters: dict[str, Any],
    *,
    on_conflict: LiteralString,
) -> tuple[int, int, int]:
    """How many rows were added, the bytes of their objects, and how many of them are hidden sidecars.

    `ON CONFLICT` costs a third more for each row, so the first try does without.
    """
    statement: LiteralString = (
        """
        WITH added AS (
            INSERT INTO item (dataset_id, folder_id, path, size_bytes, etag, modified_at, mime_type, hidden)
            SELECT %(dataset_id)s, folder_id, path, size_bytes, etag, nullif(modified_at, '')::timestamptz, mime_type,
                (SELECT coalesce((sync_rules ->> 'sidecars')::boolean, false) FROM dataset WHERE id = %(dataset_id)s)
                AND path ~ %(sidecar)s
            FROM unnest(%(folder_ids)s::bigint[], %(sizes)s::bigint[], """
        + ", ".join(columns)
        + """) WITH ORDINALITY AS batch (folder_id, size_bytes, path, etag, modified_at, mime_type, n)
            ORDER BY n
            """
        + on_conflict
        + """
            RETURNING id, size_bytes, hidden
        ), recorded AS (
            INSERT INTO event (dataset_id, resource, action, item_ids)
            SELECT %(dataset_id)s, 'Item', 'Created', array_agg(id ORDER BY id)
            FROM (SELECT id, (row_number() OVER (ORDER BY id) - 1) / %(each)s AS bundle FROM added) AS numbered
            GROUP BY bundle
        )
        SELECT count(*), coalesce(sum(size_bytes), 0)::bigint, count(*) FILTER (WHERE hidden) FROM added
        """
    )
    cursor = await conn.execute(statement, parameters)
    row = await cursor.fetchone()
    assert row is not None
    return row


async def refresh_items(
    conn: AsyncConnection[Any],
    seen: Seen,
    listed: Listed,
    changed: list[tuple[int, int]],
    change: CounterChange,
) -> int:
    """Give changed items their new content, forget what was derived of the old one, record Updated events.

    Returns how many: an item that was written since it was compared knows better and keeps its row.
    """
    positions = [position for _, position in changed]
    cursor = await conn.execute(
        """
        WITH before AS (
            SELECT id, size_bytes, etl_state, missing_since, trashed_at
            FROM item
            WHERE dataset_id = %(dataset_id)s AND id = ANY(%(ids)s) AND changed_at < %(started_at)s
            ORDER BY id
            FOR UPDATE
        ), refreshed AS (
            UPDATE item
            SET size_bytes = new.size_bytes, etag = new.etag, modified_at = nullif(new.modified_at, '')::timestamptz,
                mime_type = new.mime_type, width_px = NULL, height_px = NULL, thumbnail_type = NULL, etl_state = 0,
                missing_since = NULL, trashed_at = NULL, link = NULL,
                system_metadata = item.system_metadata - '{exif,channels,etl,ffmpeg,fps,duration}'::text[],
                changed_at = clock_timestamp(), updated_at = now(),
                -- Clones keep the thumbnail of the old content.
                thumbnail_id = CASE
                    WHEN EXISTS (
                        SELECT FROM item AS clone
                        WHERE clone.thumbnail_id = coalesce(item.thumbnail_id, item.id) AND clone.id <> item.id
                    ) THEN nextval('item_id_seq')
                    ELSE item.thumbnail_id
                END
            FROM unnest(
                %(ids)s::bigint[], %(sizes)s::bigint[], %(etags)s::text[], %(modified)s::text[], %(mime_types)s::text[]
            ) AS new (id, size_bytes, etag, modified_at, mime_type)
            JOIN before ON before.id = new.id
            WHERE item.dataset_id = %(dataset_id)s AND item.id = new.id
            RETURNING item.id, item.size_bytes - before.size_bytes AS more_bytes, before.etl_state,
                before.missing_since IS NOT NULL AS was_missing,
                before.trashed_at IS NOT NULL AS was_trashed
        )
        SELECT
            array_agg(id ORDER BY id), coalesce(sum(more_bytes), 0)::bigint, count(*) FILTER (WHERE etl_state = 1),
            count(*) FILTER (WHERE etl_state = 2), count(*) FILTER (WHERE was_missing),
            count(*) FILTER (WHERE was_trashed)
        FROM refreshed
        """,
        {
            "dataset_id": seen.dataset_id,
            "started_at": seen.started_at,
            "ids": [item_id for item_id, _ in changed],
            "sizes": [listed.sizes[position] for position in positions],
            "etags": [listed.etags[position] for position in positions],
            "modified": [listed.modified[position] for position in positions],
            "mime_types": [guess_mime_type(listed.paths[position]) for position in positions],
        },
    )
    row = await cursor.fetchone()
    assert row is not None
    refreshed = row[0] or []
    change.bytes += row[1]
    change.prepared_items -= row[2]
    change.failed_items -= row[3]
    change.missing_items -= row[4]
    change.trashed_items -= row[5]
    await events.record_items(conn, seen.dataset_id, "Updated", refreshed)
    return len(refreshed)


async def welcome_back(conn: AsyncConnection[Any], seen: Seen, item_ids: list[int], change: CounterChange) -> int:
    """Ghosts whose object is back as it was: nothing is derived anew, unless it was not there to be read.

    Returns how many.
    """
    cursor = await conn.execute(
        """
        WITH before AS (
            SELECT id, etl_state = 2 AND system_metadata #>> '{etl,reason}' = 'object-missing' AS is_unread,
                trashed_at IS NOT NULL AS was_trashed
            FROM item
            WHERE dataset_id = %(dataset_id)s AND id = ANY(%(ids)s) AND missing_since IS NOT NULL
            ORDER BY id
            FOR UPDATE
        )
        UPDATE item
        SET missing_since = NULL, trashed_at = NULL, updated_at = now(),
            etl_state = CASE WHEN before.is_unread THEN 0 ELSE item.etl_state END
        FROM before
        WHERE item.dataset_id = %(dataset_id)s AND item.id = before.id
        RETURNING item.id, before.is_unread, before.was_trashed
        """,
        {"dataset_id": seen.dataset_id, "ids": item_ids},
    )
    returned = await cursor.fetchall()
    unread = sorted(item_id for item_id, is_unread, _ in returned if is_unread)
    change.missing_items -= len(returned)
    change.trashed_items -= sum(was_trashed for _, _, was_trashed in returned)
    change.failed_items -= len(unread)
    await events.record_items(conn, seen.dataset_id, "Updated", unread)
    return len(returned)
