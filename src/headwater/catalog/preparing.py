"""What preprocessing found out about items, saved."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from psycopg import AsyncConnection
from psycopg.types.json import Jsonb

from headwater.catalog.datasets import CounterChange, count
from headwater.catalog.items import DERIVED_KEYS


@dataclass(frozen=True, slots=True)
class PreparedItem:
    """What preprocessing found out about one item, for the content `etag` tells of."""

    item_id: int
    etag: str
    etl_state: int
    etl: dict[str, Any]
    mime_type: str
    width_px: int | None = None
    height_px: int | None = None
    channels: int | None = None
    exif: dict[str, Any] | None = None
    thumbnail_type: str | None = None
    video: dict[str, Any] = field(default_factory=dict[str, Any])  # ffmpeg, fps, duration, as the SDK reads them
    link: dict[str, Any] | None = None  # of a linked item: the link, and what was found at its end


async def save_prepared(conn: AsyncConnection[Any], dataset_id: int, prepared: Sequence[PreparedItem]) -> int:
    """Returns how many were saved: an item whose content changed meanwhile is left to its next event. Repeatable."""
    derived = [
        {"etl": item.etl}
        | ({} if item.channels is None else {"channels": item.channels})
        | ({} if item.exif is None else {"exif": item.exif})
        | item.video
        for item in prepared
    ]
    cursor = await conn.execute(
        """
        WITH found AS (
            SELECT *
            FROM unnest(
                %(ids)s::bigint[], %(etags)s::text[], %(states)s::smallint[], %(derived)s::jsonb[],
                %(mime_types)s::text[], %(widths)s::integer[], %(heights)s::integer[], %(thumbnails)s::text[],
                %(links)s::jsonb[]
            ) AS given (id, etag, etl_state, derived, mime_type, width_px, height_px, thumbnail_type, link)
        ), before AS (
            SELECT item.id, item.etl_state
            FROM item
            JOIN found ON found.id = item.id AND found.etag = item.etag
            WHERE item.dataset_id = %(dataset_id)s
            ORDER BY item.id
            FOR UPDATE OF item
        ), saved AS (
            UPDATE item
            SET etl_state = found.etl_state, mime_type = found.mime_type, width_px = found.width_px,
                height_px = found.height_px, thumbnail_type = found.thumbnail_type, updated_at = now(),
                link = coalesce(found.link, item.link),
                system_metadata = coalesce(item.system_metadata, '{}') - %(keys)s::text[] || found.derived
            FROM found
            JOIN before ON before.id = found.id
            WHERE item.dataset_id = %(dataset_id)s AND item.id = found.id
            RETURNING before.etl_state AS etl_before, item.etl_state AS etl_after
        )
        SELECT
            count(*),
            count(*) FILTER (WHERE etl_after = 1) - count(*) FILTER (WHERE etl_before = 1),
            count(*) FILTER (WHERE etl_after = 2) - count(*) FILTER (WHERE etl_before = 2)
        FROM saved
        """,
        {
            "dataset_id": dataset_id,
            "ids": [item.item_id for item in prepared],
            "etags": [item.etag for item in prepared],
            "states": [item.etl_state for item in prepared],
            "derived": [Jsonb(value) for value in derived],
            "mime_types": [item.mime_type for item in prepared],
            "widths": [item.width_px for item in prepared],
            "heights": [item.height_px for item in prepared],
            "thumbnails": [item.thumbnail_type for item in prepared],
            "links": [None if item.link is None else Jsonb(item.link) for item in prepared],
            "keys": DERIVED_KEYS,
        },
    )
    row = await cursor.fetchone()
    assert row is not None
    saved, done, failed = row
    await count(conn, dataset_id, CounterChange(prepared_items=done, failed_items=failed))
    return saved


async def summarize_etl(conn: AsyncConnection[Any], dataset_id: int, *, limit: int = 20) -> list[tuple[str, str]]:
    """(path, why) of items that could not be read; for reports."""
    cursor = await conn.execute(
        """
        SELECT path, coalesce(system_metadata #>> '{etl,message}', 'unknown')
        FROM item
        WHERE dataset_id = %s AND etl_state = 2
        ORDER BY path
        LIMIT %s
        """,
        [dataset_id, limit],
    )
    return await cursor.fetchall()
