"""Stages: the listing of a store that lists out of order, kept whole before it is merged in order."""

from typing import Any

from psycopg import AsyncConnection

from headwater.catalog.sync.listed import Listed
from headwater.catalog.sync.listings import BEFORE_ALL
from headwater.catalog.sync.scans import Scan
from headwater.catalog.sync.shards import WHOLE
from headwater.errors import Unavailable


async def stage(conn: AsyncConnection[Any], scan: Scan, listed: Listed) -> None:
    """Keep one unordered batch until the shard is listed whole. Safe to repeat."""
    await conn.execute(
        """
        INSERT INTO scan_stage (scan_id, path, size_bytes, etag, modified_at)
        SELECT DISTINCT ON (path) %s, path, size_bytes, etag, nullif(modified_at, '')::timestamptz
        FROM unnest(%s::text[], %s::bigint[], %s::text[], %s::text[]) AS batch (path, size_bytes, etag, modified_at)
        ON CONFLICT (scan_id, path) DO UPDATE
        SET size_bytes = excluded.size_bytes, etag = excluded.etag, modified_at = excluded.modified_at
        """,
        [scan.id, listed.paths, listed.sizes, listed.etags, listed.modified],
    )


async def read_stage(conn: AsyncConnection[Any], scan: Scan, *, after: str | None, limit: int) -> Listed:
    """The next batch of a staged shard, in order; `through` is None when it is the last. Raises Unavailable."""
    cursor = await conn.execute(
        """
        SELECT path, size_bytes, etag, coalesce(modified_at::text, '')
        FROM scan_stage
        WHERE scan_id = %(scan_id)s AND path > %(after)s
        ORDER BY path
        LIMIT %(limit)s
        """,
        {"scan_id": scan.id, "after": after or BEFORE_ALL, "limit": limit},
    )
    rows = await cursor.fetchall()
    cursor = await conn.execute("SELECT FROM scan_stage WHERE scan_id = %s AND path = %s", [scan.id, WHOLE])
    if await cursor.fetchone() is None:
        raise Unavailable("PostgreSQL was restarted, and the listing that was kept there is lost. It is listed again.")
    return Listed(
        paths=[row[0] for row in rows],
        sizes=[row[1] for row in rows],
        etags=[row[2] for row in rows],
        modified=[row[3] for row in rows],
        after=after,
        through=rows[-1][0] if len(rows) == limit else None,
    )
