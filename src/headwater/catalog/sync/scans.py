"""Scans: one run of a sync, and its key ranges (shards) with their cursors."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from psycopg import AsyncConnection
from psycopg.rows import class_row

State = Literal["running", "held", "done", "stopped"]

_LOCK_CLASS = 0x5CA2  # advisory locks of single scans


@dataclass(frozen=True, slots=True)
class Scan:
    id: int
    dataset_id: int
    command_id: int
    state: State
    started_at: datetime
    ended_at: datetime | None
    confirm_missing: bool
    present: int  # items the index had when it began
    listed: int
    created: int
    changed: int
    returned: int
    kept_deleted: int
    skipped: int
    gone: int
    marked: int
    skipped_examples: list[list[str]]

    @property
    def unchanged(self) -> int:
        return max(0, self.listed - self.created - self.changed - self.returned - self.kept_deleted)


@dataclass(frozen=True, slots=True)
class Shard:
    number: int
    after_path: str | None
    until_path: str | None
    cursor_path: str | None
    done: bool
    staged: bool


async def start_scan(conn: AsyncConnection[Any], *, dataset_id: int, command_id: int, confirm_missing: bool) -> int:
    """Its id, with one shard over the whole range. Violates `scan_one_at_a_time` while another one runs."""
    cursor = await conn.execute(
        """
        WITH started AS (
            INSERT INTO scan (dataset_id, command_id, confirm_missing, present)
            SELECT dataset_id, %s, %s, items - missing_items - hidden_items
            FROM dataset_counter
            WHERE dataset_id = %s
            RETURNING id
        ), cut AS (
            INSERT INTO scan_shard (scan_id, number) SELECT id, 0 FROM started
        )
        SELECT id FROM started
        """,
        [command_id, confirm_missing, dataset_id],
    )
    row = await cursor.fetchone()
    assert row is not None
    return row[0]


async def running_command(conn: AsyncConnection[Any], dataset_id: int) -> int | None:
    """The command of the scan that runs for this dataset. Locks the dataset, so that only one is started."""
    await conn.execute("SELECT FROM dataset WHERE id = %s FOR NO KEY UPDATE", [dataset_id])
    cursor = await conn.execute("SELECT command_id FROM scan WHERE dataset_id = %s AND state = 'running'", [dataset_id])
    row = await cursor.fetchone()
    return None if row is None else row[0]


@asynccontextmanager
async def working_on(conn: AsyncConnection[Any], scan_id: int) -> AsyncGenerator[None]:
    """Nobody else works on this scan meanwhile; waits for whoever does.

    The lock is the session's, not a transaction's, because a scan may take hours: give it a connection of its own.
    """
    lock = [_LOCK_CLASS, scan_id % 2**31]
    try:
        await conn.set_autocommit(True)
        await conn.execute("SELECT pg_advisory_lock(%s, %s::int)", lock)
        yield
    finally:
        try:
            await conn.execute("SELECT pg_advisory_unlock(%s, %s::int)", lock)
            await conn.set_autocommit(False)
        except BaseException:
            await conn.close()  # or it would keep the lock for ever
            raise


_COLUMNS = """
SELECT
    id, dataset_id, command_id, state, started_at, ended_at, confirm_missing, present, listed, created, changed,
    returned, kept_deleted, skipped, gone, marked, skipped_examples
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


async def last_scan(conn: AsyncConnection[Any], dataset_id: int) -> Scan | None:
    cursor = conn.cursor(row_factory=class_row(Scan))
    await cursor.execute(_COLUMNS + "WHERE dataset_id = %s ORDER BY id DESC LIMIT 1", [dataset_id])
    return await cursor.fetchone()


async def reached(conn: AsyncConnection[Any], scan_id: int) -> str | None:
    """The last path that was committed; None before the first batch."""
    cursor = await conn.execute("SELECT max(cursor_path) FROM scan_shard WHERE scan_id = %s", [scan_id])
    row = await cursor.fetchone()
    return row[0] if row else None


async def open_shards(conn: AsyncConnection[Any], scan_id: int) -> list[Shard]:
    """Those not listed to their end."""
    cursor = conn.cursor(row_factory=class_row(Shard))
    await cursor.execute(
        """
        SELECT number, after_path, until_path, cursor_path, done, staged
        FROM scan_shard
        WHERE scan_id = %s AND NOT done
        ORDER BY number
        """,
        [scan_id],
    )
    return await cursor.fetchall()


async def end_scan(conn: AsyncConnection[Any], scan: Scan, state: State, *, marked: int = 0) -> None:
    """Forget what was only needed while it ran."""
    await conn.execute(
        "UPDATE scan SET state = %s, marked = %s, ended_at = clock_timestamp() WHERE id = %s AND state = 'running'",
        [state, marked, scan.id],
    )
    await conn.execute("DELETE FROM scan_candidate WHERE scan_id = %s", [scan.id])
    await conn.execute("DELETE FROM scan_stage WHERE scan_id = %s", [scan.id])
    if state in ("done", "held"):
        await conn.execute(
            "DELETE FROM tombstone WHERE dataset_id = %s AND object_deleted_at < %s",
            [scan.dataset_id, scan.started_at],
        )
