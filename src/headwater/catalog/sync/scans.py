"""Scans: one run of a sync, from its start to its end. Its key ranges are shards."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from psycopg import AsyncConnection
from psycopg.rows import class_row

from headwater.catalog.sync.rules import SyncRules, rules_of

State = Literal["running", "held", "done", "stopped"]

WINDOW_S = 5  # over which the rate is measured


@dataclass(frozen=True, slots=True)
class Scan:
    id: int
    dataset_id: int
    command_id: int
    state: State
    started_at: datetime
    ended_at: datetime | None
    confirm_missing: bool
    stored_rules: dict[str, Any]
    first_item_id: int | None  # new items have no smaller id: since it began, or one before it that gave no verdict
    present: int  # items the index had when it began
    listed: int
    shown: int
    created: int
    changed: int
    returned: int
    kept_deleted: int
    skipped: int
    gone: int
    marked: int
    skipped_examples: list[list[str]]
    objects_per_s: float | None  # None in the first seconds

    @property
    def rules(self) -> SyncRules:
        """The dataset's when the scan began."""
        return rules_of(self.stored_rules)

    @property
    def unchanged(self) -> int:
        return max(0, self.listed - self.created - self.changed - self.returned - self.kept_deleted)


async def start_scan(
    conn: AsyncConnection[Any],
    *,
    dataset_id: int,
    command_id: int,
    confirm_missing: bool,
    bounds: Sequence[str] = (),
) -> int:
    """Its id, with the shards between these paths. Violates `scan_one_at_a_time` while another one runs."""
    await _forget_earlier(conn, dataset_id)
    cursor = await conn.execute(
        """
        WITH before AS (
            SELECT state, first_item_id FROM scan WHERE dataset_id = %(dataset_id)s ORDER BY id DESC LIMIT 1
        ), started AS (
            INSERT INTO scan (dataset_id, command_id, confirm_missing, present, rules, first_item_id)
            SELECT dataset_id, %(command_id)s, %(confirm)s, items - missing_items - hidden_items, sync_rules,
                coalesce(
                    (SELECT first_item_id FROM before WHERE state IN ('held', 'stopped')), nextval('item_id_seq')
                )
            FROM dataset_counter
            JOIN dataset ON dataset.id = dataset_counter.dataset_id
            WHERE dataset_id = %(dataset_id)s
            RETURNING id
        ), cut AS (
            INSERT INTO scan_shard (scan_id, number, after_path, until_path)
            SELECT started.id, bound.number - 1, bound.after_path, bound.until_path
            FROM started, unnest(%(after)s::text[], %(until)s::text[])
                WITH ORDINALITY AS bound (after_path, until_path, number)
        )
        SELECT id FROM started
        """,
        {
            "command_id": command_id,
            "confirm": confirm_missing,
            "dataset_id": dataset_id,
            "after": [None, *bounds],
            "until": [*bounds, None],
        },
    )
    row = await cursor.fetchone()
    assert row is not None
    return row[0]


async def _forget_earlier(conn: AsyncConnection[Any], dataset_id: int) -> None:
    """What a stopped scan had kept to be gone on with, and the ranges of all but the last whole one."""
    await conn.execute(
        """
        DELETE FROM scan_candidate
        USING scan
        WHERE scan.dataset_id = %s AND scan.state = 'stopped' AND scan_candidate.scan_id = scan.id
        """,
        [dataset_id],
    )
    await conn.execute(
        """
        DELETE FROM scan_shard
        USING scan
        WHERE scan.dataset_id = %(dataset_id)s AND scan_shard.scan_id = scan.id
            AND scan.id <> (SELECT coalesce(max(id), 0) FROM scan WHERE dataset_id = %(dataset_id)s AND state = 'done')
        """,
        {"dataset_id": dataset_id},
    )


async def resume_scan(conn: AsyncConnection[Any], *, dataset_id: int, command_id: int) -> int | None:
    """Let the last scan go on where it was stopped, for another command. None when the last one came to its end."""
    cursor = await conn.execute(
        """
        UPDATE scan
        SET state = 'running', command_id = %s, ended_at = NULL, resumed_at = clock_timestamp(),
            window_began_at = NULL, objects_per_s = NULL
        WHERE id = (SELECT max(id) FROM scan WHERE dataset_id = %s) AND state = 'stopped'
        RETURNING id
        """,
        [command_id, dataset_id],
    )
    row = await cursor.fetchone()
    return None if row is None else row[0]


async def running_command(conn: AsyncConnection[Any], dataset_id: int) -> int | None:
    """The command of the scan that runs for this dataset. Locks the dataset, so that only one is started."""
    await conn.execute("SELECT FROM dataset WHERE id = %s FOR NO KEY UPDATE", [dataset_id])
    cursor = await conn.execute("SELECT command_id FROM scan WHERE dataset_id = %s AND state = 'running'", [dataset_id])
    row = await cursor.fetchone()
    return None if row is None else row[0]


_COLUMNS = """
SELECT
    id, dataset_id, command_id, state, started_at, ended_at, confirm_missing, rules AS stored_rules, first_item_id,
    present, listed, shown, created, changed, returned, kept_deleted, skipped, gone, marked, skipped_examples,
    objects_per_s
FROM scan
"""


async def load_scan(conn: AsyncConnection[Any], scan_id: int) -> Scan | None:
    cursor = conn.cursor(row_factory=class_row(Scan))
    await cursor.execute(_COLUMNS + "WHERE id = %s", [scan_id])
    return await cursor.fetchone()


async def lock_scan(conn: AsyncConnection[Any], scan_id: int) -> Scan | None:
    """As it is now, and nobody else changes it before this transaction ends; scan first, then counters and command."""
    await conn.execute("SELECT FROM scan WHERE id = %s FOR UPDATE", [scan_id])
    return await load_scan(conn, scan_id)


async def is_running_for(conn: AsyncConnection[Any], scan: Scan) -> bool:
    """Whether it has not ended, nor goes on for another command by now."""
    cursor = await conn.execute(
        "SELECT FROM scan WHERE id = %s AND command_id = %s AND state = 'running'", [scan.id, scan.command_id]
    )
    return await cursor.fetchone() is not None


async def scan_of(conn: AsyncConnection[Any], command_id: int) -> Scan | None:
    """The scan that runs for this command."""
    cursor = conn.cursor(row_factory=class_row(Scan))
    await cursor.execute(_COLUMNS + "WHERE command_id = %s AND state = 'running'", [command_id])
    return await cursor.fetchone()


async def last_scan(conn: AsyncConnection[Any], dataset_id: int) -> Scan | None:
    cursor = conn.cursor(row_factory=class_row(Scan))
    await cursor.execute(_COLUMNS + "WHERE dataset_id = %s ORDER BY id DESC LIMIT 1", [dataset_id])
    return await cursor.fetchone()


async def end_scan(conn: AsyncConnection[Any], scan: Scan, state: State, *, marked: int = 0) -> None:
    """Nobody commits a batch of it any more. Forget what was only needed while it ran.

    A stopped one keeps its cursors and candidates: it may be gone on with. One that has ended already, or goes on for
    another command by now, is left alone.
    """
    await conn.execute("SELECT FROM scan_shard WHERE scan_id = %s AND NOT done ORDER BY number FOR UPDATE", [scan.id])
    cursor = await conn.execute(
        """
        UPDATE scan
        SET state = %s, marked = %s, ended_at = clock_timestamp()
        WHERE id = %s AND command_id = %s AND state = 'running'
        """,
        [state, marked, scan.id, scan.command_id],
    )
    if not cursor.rowcount:
        return
    await conn.execute(
        "UPDATE scan_shard SET claim = claim + 1, lane = NULL WHERE scan_id = %s AND NOT done", [scan.id]
    )
    await conn.execute("DELETE FROM scan_stage WHERE scan_id = %s", [scan.id])
    if state in ("done", "held"):
        await conn.execute("DELETE FROM scan_candidate WHERE scan_id = %s", [scan.id])
        await conn.execute(
            "DELETE FROM tombstone WHERE dataset_id = %s AND object_deleted_at < %s",
            [scan.dataset_id, scan.started_at],
        )


async def settle_items(conn: AsyncConnection[Any]) -> None:
    """Let the pages of items say that their rows are committed, or the next sync, which only reads, writes each page
    to the log.

    Nobody waits for it. Safe to repeat and to break off. The connection must be in no transaction.
    """
    await conn.set_autocommit(True)
    try:
        await conn.execute("VACUUM (TRUNCATE off) item")
    finally:
        await conn.set_autocommit(False)
