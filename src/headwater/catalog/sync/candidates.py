"""Candidates: items that a scan did not find where its listing should have had them, before the verdict on them."""

from typing import Any

from psycopg import AsyncConnection

from headwater.catalog.sync.scans import Scan


async def sample_candidates(conn: AsyncConnection[Any], scan: Scan, *, limit: int) -> dict[int, str]:
    """Paths by item id: all of them, or so many taken at random. Those that were written since are none any more."""
    cursor = await conn.execute(
        """
        SELECT item.id, item.path
        FROM (SELECT item_id FROM scan_candidate WHERE scan_id = %s ORDER BY random() LIMIT %s) AS candidate
        JOIN item ON item.dataset_id = %s AND item.id = candidate.item_id
        WHERE item.missing_since IS NULL AND item.changed_at < %s
        """,
        [scan.id, limit, scan.dataset_id, scan.started_at],
    )
    return dict(await cursor.fetchall())


async def drop_candidates(conn: AsyncConnection[Any], scan: Scan, item_ids: list[int]) -> None:
    """These are not gone. Call it with the scan locked."""
    if not item_ids:
        return
    cursor = await conn.execute(
        "DELETE FROM scan_candidate WHERE scan_id = %s AND item_id = ANY(%s)", [scan.id, item_ids]
    )
    await conn.execute("UPDATE scan SET gone = gone - %s WHERE id = %s", [cursor.rowcount, scan.id])
