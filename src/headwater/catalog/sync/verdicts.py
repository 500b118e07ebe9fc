"""Verdicts: what becomes of the items that a whole listing did not have."""

from dataclasses import dataclass
from typing import Any

from psycopg import AsyncConnection

from headwater.catalog.datasets import CounterChange, count
from headwater.catalog.sync.rules import SyncRules
from headwater.catalog.sync.scans import Scan


@dataclass(frozen=True, slots=True)
class Verdict:
    """What becomes of the items that a whole listing did not have."""

    marked: int
    held: int  # not marked: the brake asks for a confirmation


async def judge_missing(conn: AsyncConnection[Any], scan: Scan, rules: SyncRules) -> Verdict:
    """Make the candidates ghosts, unless the brake holds. Call it once every shard was listed to its proven end."""
    is_empty = scan.listed == 0 and scan.gone > 0
    if not scan.confirm_missing and (is_empty or scan.gone > rules.brake_limit(scan.present)):
        return Verdict(marked=0, held=scan.gone)
    cursor = await conn.execute(
        """
        UPDATE item
        SET missing_since = now(), updated_at = now()
        FROM scan_candidate
        WHERE scan_candidate.scan_id = %s AND item.dataset_id = %s AND item.id = scan_candidate.item_id
            AND item.missing_since IS NULL AND item.changed_at < %s
        """,
        [scan.id, scan.dataset_id, scan.started_at],
    )
    await count(conn, scan.dataset_id, CounterChange(missing_items=cursor.rowcount))
    return Verdict(marked=cursor.rowcount, held=0)
