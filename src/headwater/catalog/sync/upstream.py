"""Automatic upstream: which datasets follow the events of a driver, and how these events are switched."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from psycopg import AsyncConnection
from psycopg.rows import class_row

from headwater.catalog.sync.rules import SyncRules, rules_of

# A folder that is renamed piece by piece, or a great deletion, asks for many scans: they come this far apart.
_BETWEEN_SCANS_S = 600


@dataclass(frozen=True, slots=True)
class Follower:
    """A dataset that follows the events of its driver."""

    dataset_id: int
    project_id: int
    name: str
    prefix: str  # its driver's
    stored_rules: dict[str, Any]

    @property
    def rules(self) -> SyncRules:
        return rules_of(self.stored_rules)


async def followers_of(conn: AsyncConnection[Any], driver_id: int) -> list[Follower]:
    """In the order of ids."""
    cursor = conn.cursor(row_factory=class_row(Follower))
    await cursor.execute(
        """
        SELECT dataset.id AS dataset_id, dataset.project_id, dataset.name, driver.prefix,
            dataset.sync_rules AS stored_rules
        FROM dataset
        JOIN driver ON driver.id = dataset.driver_id
        WHERE dataset.driver_id = %s AND dataset.auto_sync AND dataset.deleted_at IS NULL
            AND dataset.origin IS NULL
        ORDER BY dataset.id
        """,
        [driver_id],
    )
    return await cursor.fetchall()


@dataclass(frozen=True, slots=True)
class DriverEvents:
    """What is known of a driver's events; that of one that never had any is all default."""

    driver_id: int
    is_on: bool = False
    generation: int = 1
    push_account: str | None = None
    changed_at: datetime | None = None
    last_event_at: datetime | None = None
    last_happened_at: datetime | None = None
    received: int = 0
    ignored: int = 0
    looked_at: int = 0
    applied: int = 0
    dropped: int = 0
    failures: int = 0
    not_before: datetime | None = None
    error: str | None = None
    waiting: int = 0  # hints
    waiting_since: datetime | None = None
    failing: int = 0  # of the waiting ones: those that could not be applied
    hint_error: str | None = None  # of one of them


async def load_events(conn: AsyncConnection[Any], driver_id: int) -> DriverEvents:
    """Reads every waiting hint of the driver."""
    cursor = conn.cursor(row_factory=class_row(DriverEvents))
    await cursor.execute(
        """
        SELECT
            driver_events.driver_id, is_on, generation, push_account, changed_at, last_event_at, last_happened_at,
            received, ignored, looked_at, applied, dropped, failures, nullif(not_before, '-infinity') AS not_before,
            error, waiting, waiting_since, failing, hint_error
        FROM driver_events
        CROSS JOIN LATERAL (
            SELECT count(*) AS waiting, min(received_at) AS waiting_since, count(hint.error) AS failing,
                min(hint.error) AS hint_error
            FROM hint
            WHERE hint.driver_id = driver_events.driver_id
        ) AS inbox
        WHERE driver_events.driver_id = %s
        """,
        [driver_id],
    )
    return await cursor.fetchone() or DriverEvents(driver_id)


@dataclass(frozen=True, slots=True)
class Door:
    """What the hook of a driver has to know of it."""

    generation: int
    push_account: str | None


async def find_door(conn: AsyncConnection[Any], driver_id: int) -> Door | None:
    """None while the driver's events are off, or there is no such driver."""
    cursor = conn.cursor(row_factory=class_row(Door))
    await cursor.execute(
        "SELECT generation, push_account FROM driver_events WHERE driver_id = %s AND is_on", [driver_id]
    )
    return await cursor.fetchone()


async def switch(conn: AsyncConnection[Any], driver_id: int, *, on: bool) -> None:
    """Off: nothing is taken in, and what waited is forgotten. Safe to repeat."""
    await conn.execute(
        """
        INSERT INTO driver_events (driver_id, is_on)
        VALUES (%(driver_id)s, %(on)s)
        ON CONFLICT (driver_id) DO UPDATE
        SET is_on = excluded.is_on, changed_at = now(), failures = 0, error = NULL, not_before = '-infinity'
        WHERE driver_events.is_on <> excluded.is_on
        """,
        {"driver_id": driver_id, "on": on},
    )
    if not on:
        await conn.execute("DELETE FROM hint WHERE driver_id = %s", [driver_id])


async def rotate(conn: AsyncConnection[Any], driver_id: int) -> None:
    """The hook's address changes; the one before is refused from now on."""
    await conn.execute(
        """
        INSERT INTO driver_events (driver_id, generation)
        VALUES (%s, 2)
        ON CONFLICT (driver_id) DO UPDATE SET generation = driver_events.generation + 1, changed_at = now()
        """,
        [driver_id],
    )


async def set_push_account(conn: AsyncConnection[Any], driver_id: int, account: str | None) -> None:
    """None: a push by any account of Google's will do."""
    await conn.execute(
        """
        INSERT INTO driver_events (driver_id, push_account)
        VALUES (%s, %s)
        ON CONFLICT (driver_id) DO UPDATE SET push_account = excluded.push_account, changed_at = now()
        """,
        [driver_id, account],
    )


async def set_auto_sync(conn: AsyncConnection[Any], dataset_id: int, *, on: bool) -> None:
    await conn.execute("UPDATE dataset SET auto_sync = %s, updated_at = now() WHERE id = %s", [on, dataset_id])


async def want_scans(conn: AsyncConnection[Any], driver_id: int) -> None:
    """Of every dataset that follows the driver: something happened that no hint tells of."""
    for follower in await followers_of(conn, driver_id):
        await want_scan(conn, follower.dataset_id)


async def want_scan(conn: AsyncConnection[Any], dataset_id: int) -> None:
    """Let a scan start that sees what happened until now: soon, but not right after another one."""
    await conn.execute(
        """
        UPDATE dataset
        SET scan_wanted_at = greatest(
            now(), (SELECT max(started_at) FROM scan WHERE dataset_id = %(id)s) + make_interval(secs => %(between_s)s)
        )
        WHERE id = %(id)s AND scan_wanted_at IS NULL
        """,
        {"id": dataset_id, "between_s": _BETWEEN_SCANS_S},
    )


async def take_wanted_scans(conn: AsyncConnection[Any]) -> Sequence[int]:
    """Datasets whose wanted scan is to start now; the caller starts it in the same transaction."""
    cursor = await conn.execute(
        """
        UPDATE dataset
        SET scan_wanted_at = NULL
        WHERE id IN (
            SELECT id
            FROM dataset
            WHERE scan_wanted_at <= clock_timestamp()
                AND NOT EXISTS (SELECT FROM scan WHERE scan.dataset_id = dataset.id AND scan.state = 'running')
            ORDER BY id
            FOR NO KEY UPDATE SKIP LOCKED
        )
        RETURNING id, deleted_at IS NULL
        """
    )
    return [dataset_id for dataset_id, is_there in await cursor.fetchall() if is_there]


async def lock_follower(conn: AsyncConnection[Any], dataset_id: int) -> bool:
    """False for one that was deleted; until the end of the transaction its last rows do not go."""
    cursor = await conn.execute("SELECT FROM dataset WHERE id = %s AND deleted_at IS NULL FOR KEY SHARE", [dataset_id])
    return await cursor.fetchone() is not None


async def was_told(conn: AsyncConnection[Any], dataset_id: int, kind: str) -> bool:
    """Whether members had such a notice within the last hour."""
    cursor = await conn.execute(
        "SELECT FROM notice WHERE dataset_id = %s AND kind = %s AND created_at > now() - interval '1 hour' LIMIT 1",
        [dataset_id, kind],
    )
    return await cursor.fetchone() is not None


async def note_removals(conn: AsyncConnection[Any], dataset_id: int, items: int) -> None:
    """So many went missing by events just now."""
    await conn.execute(
        """
        INSERT INTO upstream_removal AS known (dataset_id, minute, items)
        VALUES (%s, date_trunc('minute', now()), %s)
        ON CONFLICT (dataset_id, minute) DO UPDATE SET items = known.items + excluded.items
        """,
        [dataset_id, items],
    )
    await conn.execute(
        "DELETE FROM upstream_removal WHERE dataset_id = %s AND minute < now() - interval '1 hour'", [dataset_id]
    )


async def lock_removals(conn: AsyncConnection[Any], dataset_id: int) -> tuple[int, int]:
    """(items present, items that went missing by events within the last hour); nobody else lets more go meanwhile."""
    await conn.execute("SELECT pg_advisory_xact_lock(%s, %s::int)", [_LOCK_CLASS, dataset_id % 2**31])
    cursor = await conn.execute(
        """
        SELECT items - missing_items - hidden_items, (
            SELECT coalesce(sum(upstream_removal.items), 0)::bigint
            FROM upstream_removal
            WHERE dataset_id = %(id)s AND minute > now() - interval '1 hour'
        )
        FROM dataset_counter
        WHERE dataset_id = %(id)s
        """,
        {"id": dataset_id},
    )
    return await cursor.fetchone() or (0, 0)


_LOCK_CLASS = 0x6B01  # who marks removals of a dataset by events
