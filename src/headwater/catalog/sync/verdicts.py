"""Verdicts: what becomes of the items that a whole listing did not have."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from psycopg import AsyncConnection

from headwater.catalog.datasets import CounterChange, count
from headwater.catalog.removals import Deleted
from headwater.catalog.sync.moves import Followed, follow_moves
from headwater.catalog.sync.rules import SyncRules
from headwater.catalog.sync.scans import Scan
from headwater.catalog.sync.seen import Seen


@dataclass(frozen=True, slots=True)
class Verdict:
    """What becomes of the items that a whole listing did not have."""

    marked: int
    held: int  # not marked: the brake asks for a confirmation
    moved: int = 0  # found at another path, with all that was known of them
    left_over: Sequence[Deleted] = ()  # rows that went, of which something derived is in the store


def is_held(scan: Scan, rules: SyncRules) -> bool:
    """Whether the brake holds: an empty listing of what was not empty, or too much gone without a confirmation."""
    is_empty = scan.listed == 0 and scan.gone > 0
    return not scan.confirm_missing and (is_empty or scan.gone > rules.brake_limit(scan.present))


async def judge_missing(conn: AsyncConnection[Any], scan: Scan, rules: SyncRules) -> Verdict:
    """Make the candidates ghosts, unless the brake holds. Call it once every shard was listed to its proven end.

    What `left_over` names is the caller's to remove from the store of derived files.
    """
    if is_held(scan, rules):
        return Verdict(marked=0, held=scan.gone)
    followed = await follow_moves(conn, scan) if rules.follow_moves else Followed()
    is_trash = rules.ghosts == "trash"
    cursor = await conn.execute(
        """
        WITH gone AS (
            SELECT item.id
            FROM scan_candidate
            JOIN item ON item.dataset_id = %(dataset_id)s AND item.id = scan_candidate.item_id
            WHERE scan_candidate.scan_id = %(scan_id)s AND item.missing_since IS NULL
                AND item.changed_at < %(started_at)s
            ORDER BY item.id
            FOR UPDATE OF item
        ), marked AS (
            UPDATE item
            SET missing_since = now(), trashed_at = CASE WHEN %(is_trash)s AND NOT hidden THEN now() END,
                updated_at = now()
            FROM gone
            WHERE item.dataset_id = %(dataset_id)s AND item.id = gone.id
            RETURNING item.trashed_at
        )
        SELECT count(*), count(trashed_at) FROM marked
        """,
        {"dataset_id": scan.dataset_id, "scan_id": scan.id, "started_at": scan.started_at, "is_trash": is_trash},
    )
    row = await cursor.fetchone()
    assert row is not None
    marked, trashed = row
    await count(conn, scan.dataset_id, CounterChange(missing_items=marked, trashed_items=trashed))
    return Verdict(marked=marked, held=0, moved=followed.moved, left_over=followed.left_over)


async def mark_gone(
    conn: AsyncConnection[Any], seen: Seen, item_ids: Sequence[int], rules: SyncRules, change: CounterChange
) -> int:
    """Make ghosts of single items whose object is known to be gone. Returns how many.

    Their rows count as written now: a scan that began before may list them, and knows no better.
    """
    cursor = await conn.execute(
        """
        WITH gone AS (
            SELECT id
            FROM item
            WHERE dataset_id = %(dataset_id)s AND id = ANY(%(ids)s) AND missing_since IS NULL
                AND changed_at < %(started_at)s
            ORDER BY id
            FOR UPDATE
        )
        UPDATE item
        SET missing_since = now(), trashed_at = CASE WHEN %(is_trash)s AND NOT hidden THEN now() END,
            updated_at = now(), changed_at = clock_timestamp()
        FROM gone
        WHERE item.dataset_id = %(dataset_id)s AND item.id = gone.id
        RETURNING item.trashed_at IS NOT NULL
        """,
        {
            "dataset_id": seen.dataset_id,
            "ids": list(item_ids),
            "started_at": seen.started_at,
            "is_trash": rules.ghosts == "trash",
        },
    )
    are_trashed = [is_trashed for (is_trashed,) in await cursor.fetchall()]
    change.missing_items += len(are_trashed)
    change.trashed_items += sum(are_trashed)
    return len(are_trashed)
