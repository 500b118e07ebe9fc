"""Queues that clouds put the events of a driver's bucket into, and which worker reads each.

A worker holds a lease on a queue while it reads; others take over what is not renewed. Two that read one queue for a
moment do no harm: what is read is deleted only after it was kept, and keeping it twice changes nothing.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from psycopg import AsyncConnection
from psycopg.rows import class_row

Kind = Literal["sqs", "azure"]

LEASE_S = 60
FAILURES_TO_TELL = 5  # of a kind that may pass by itself
_LONGEST_PAUSE_S = 300


@dataclass(frozen=True, slots=True)
class NewQueue:
    kind: Kind
    url: str | None  # sqs
    name: str | None  # azure
    endpoint: str | None  # azure, where it is not Azure itself
    active: bool = True


@dataclass(frozen=True, slots=True)
class EventQueue:
    driver_id: int
    kind: Kind
    url: str | None
    name: str | None
    endpoint: str | None
    active: bool
    changed_at: datetime
    is_leased: bool  # some worker reads it
    failures: int
    error: str | None
    read_at: datetime | None
    received_at: datetime | None
    messages: int
    unreadable: int

    @property
    def title(self) -> str:
        return self.url or self.name or ""


_COLUMNS = """
    event_queue.driver_id, event_queue.kind, event_queue.url, event_queue.name, event_queue.endpoint,
    event_queue.active, event_queue.changed_at, event_queue.leased_until > clock_timestamp() AS is_leased,
    event_queue.failures, event_queue.error, event_queue.read_at, event_queue.received_at, event_queue.messages,
    event_queue.unreadable
"""


async def find_queue(conn: AsyncConnection[Any], driver_id: int) -> EventQueue | None:
    cursor = conn.cursor(row_factory=class_row(EventQueue))
    await cursor.execute("SELECT " + _COLUMNS + " FROM event_queue WHERE driver_id = %s", [driver_id])
    return await cursor.fetchone()


async def set_queue(conn: AsyncConnection[Any], driver_id: int, new: NewQueue) -> EventQueue:
    """Whoever reads the one before stops, and failures are forgotten."""
    await conn.execute(
        """
        INSERT INTO event_queue (driver_id, kind, url, name, endpoint, active)
        VALUES (%s, %s, %s, %s, %s, %s)
        ON CONFLICT (driver_id) DO UPDATE
        SET kind = excluded.kind, url = excluded.url, name = excluded.name, endpoint = excluded.endpoint,
            active = excluded.active, changed_at = excluded.changed_at, reader = NULL, leased_until = '-infinity',
            try_after = '-infinity', failures = 0, error = NULL, is_told = false, is_unreadable_told = false
        """,
        [driver_id, new.kind, new.url, new.name, new.endpoint, new.active],
    )
    found = await find_queue(conn, driver_id)
    assert found is not None
    return found


async def forget_queue(conn: AsyncConnection[Any], driver_id: int) -> bool:
    """Whether there was one. The queue itself is not touched."""
    cursor = await conn.execute("DELETE FROM event_queue WHERE driver_id = %s", [driver_id])
    return cursor.rowcount > 0


async def claim(conn: AsyncConnection[Any], reader: str, *, limit: int) -> list[EventQueue]:
    """Queues that nobody reads, of drivers whose events are on; leased to `reader` from now on."""
    cursor = conn.cursor(row_factory=class_row(EventQueue))
    await cursor.execute(
        """
        WITH free AS (
            SELECT driver_id
            FROM event_queue
            JOIN driver_events USING (driver_id)
            WHERE active AND is_on AND leased_until < clock_timestamp() AND try_after < clock_timestamp()
            ORDER BY leased_until, driver_id
            LIMIT %(limit)s
            FOR UPDATE OF event_queue SKIP LOCKED
        )
        UPDATE event_queue
        SET reader = %(reader)s, leased_until = clock_timestamp() + %(lease_s)s * interval '1 second'
        FROM free
        WHERE event_queue.driver_id = free.driver_id
        RETURNING
        """
        + _COLUMNS,
        {"reader": reader, "limit": limit, "lease_s": LEASE_S},
    )
    return await cursor.fetchall()


async def keep(
    conn: AsyncConnection[Any], queue: EventQueue, reader: str, *, messages: int = 0, unreadable: int = 0
) -> bool:
    """Note that the queue was read, and renew the lease. False when it is no longer `reader`'s to read."""
    cursor = await conn.execute(
        """
        UPDATE event_queue
        SET leased_until = clock_timestamp() + %(lease_s)s * interval '1 second', read_at = clock_timestamp(),
            received_at = CASE WHEN %(messages)s > 0 THEN clock_timestamp() ELSE received_at END,
            messages = event_queue.messages + %(messages)s, unreadable = event_queue.unreadable + %(unreadable)s,
            failures = 0, error = NULL, is_told = false
        FROM driver_events
        WHERE event_queue.driver_id = %(driver_id)s AND reader = %(reader)s
            AND event_queue.changed_at = %(changed_at)s AND active
            AND driver_events.driver_id = event_queue.driver_id AND driver_events.is_on
        """,
        {
            "driver_id": queue.driver_id,
            "reader": reader,
            "changed_at": queue.changed_at,
            "lease_s": LEASE_S,
            "messages": messages,
            "unreadable": unreadable,
        },
    )
    return cursor.rowcount > 0


async def release(conn: AsyncConnection[Any], reader: str, driver_id: int) -> None:
    """Another may read it at once."""
    await conn.execute(
        "UPDATE event_queue SET leased_until = '-infinity' WHERE driver_id = %s AND reader = %s", [driver_id, reader]
    )


async def note_failure(
    conn: AsyncConnection[Any], queue: EventQueue, reader: str, error: str, *, is_passing: bool
) -> bool:
    """Give the queue up for a while, longer each time. Returns whether people should be told now.

    `is_passing`: it may go by itself, so they are told only when it does not.
    """
    cursor = await conn.execute(
        """
        UPDATE event_queue
        SET failures = failures + 1, error = %(error)s, leased_until = '-infinity',
            try_after = clock_timestamp() + least(%(longest_s)s, 5 * 2 ^ least(failures, 10)) * interval '1 second'
        WHERE driver_id = %(driver_id)s AND reader = %(reader)s AND changed_at = %(changed_at)s
        RETURNING NOT is_told AND failures >= %(to_tell)s
        """,
        {
            "driver_id": queue.driver_id,
            "reader": reader,
            "changed_at": queue.changed_at,
            "error": error,
            "longest_s": _LONGEST_PAUSE_S,
            "to_tell": FAILURES_TO_TELL if is_passing else 1,
        },
    )
    row = await cursor.fetchone()
    if row is None or not row[0]:
        return False
    await conn.execute("UPDATE event_queue SET is_told = true WHERE driver_id = %s", [queue.driver_id])
    return True


async def first_unreadable(conn: AsyncConnection[Any], queue: EventQueue) -> bool:
    """Whether people are still to be told that the queue has messages which are no events. True once."""
    cursor = await conn.execute(
        "UPDATE event_queue SET is_unreadable_told = true WHERE driver_id = %s AND NOT is_unreadable_told",
        [queue.driver_id],
    )
    return cursor.rowcount > 0
