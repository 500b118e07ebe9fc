"""Events: the outbox. What happened to items, committed with the rows it happened to, read by the dispatcher."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from psycopg import AsyncConnection
from psycopg.rows import class_row

Action = Literal["Created", "Updated", "Deleted"]
ITEMS_PER_EVENT = 1_000
CHANNEL = "headwater_event"


@dataclass(frozen=True, slots=True)
class Event:
    id: int
    dataset_id: int
    resource: str
    action: Action
    item_ids: list[int]


async def record_items(conn: AsyncConnection[Any], dataset_id: int, action: Action, item_ids: Sequence[int]) -> None:
    """One row per 1,000 items, in the caller's transaction."""
    if not item_ids:
        return
    await conn.execute(
        """
        INSERT INTO event (dataset_id, resource, action, item_ids)
        SELECT %(dataset_id)s, 'Item', %(action)s, array_agg(id ORDER BY n)
        FROM unnest(%(ids)s::bigint[]) WITH ORDINALITY AS given (id, n)
        GROUP BY (n - 1) / %(each)s
        """,
        {"dataset_id": dataset_id, "action": action, "ids": list(item_ids), "each": ITEMS_PER_EVENT},
    )
    await announce(conn)


async def announce(conn: AsyncConnection[Any]) -> None:
    """Wake the dispatchers when this transaction commits."""
    await conn.execute("SELECT pg_notify(%s, '')", [CHANNEL])


async def take_events(conn: AsyncConnection[Any], *, limit: int) -> list[Event]:
    """Remove and return the oldest events that no other dispatcher holds; they come back if we do not commit."""
    cursor = conn.cursor(row_factory=class_row(Event))
    await cursor.execute(
        """
        DELETE FROM event
        WHERE id IN (SELECT id FROM event ORDER BY id LIMIT %s FOR UPDATE SKIP LOCKED)
        RETURNING id, dataset_id, resource, action, item_ids
        """,
        [limit],
    )
    return sorted(await cursor.fetchall(), key=lambda event: event.id)
