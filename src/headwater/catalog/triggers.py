"""Triggers: which service is to see which items. Preprocessing is an ordinary trigger of an ordinary service."""

from dataclasses import dataclass
from typing import Any

from psycopg import AsyncConnection
from psycopg.rows import class_row

from headwater.catalog.events import Event


@dataclass(frozen=True, slots=True)
class Trigger:
    id: int
    filter: dict[str, Any]  # in the SDK's language; {} takes everything
    task: str  # of its service
    queue: str


async def find_triggers(conn: AsyncConnection[Any], event: Event) -> list[Trigger]:
    """Active ones of the event's project, and those of every project."""
    cursor = conn.cursor(row_factory=class_row(Trigger))
    await cursor.execute(
        """
        SELECT trigger.id, trigger.filter, service.task, service.queue
        FROM trigger
        JOIN service ON service.id = trigger.service_id
        JOIN dataset ON dataset.id = %(dataset_id)s AND dataset.deleted_at IS NULL
        WHERE trigger.active AND trigger.resource = %(resource)s AND %(action)s = ANY(trigger.actions)
            AND (trigger.project_id IS NULL OR trigger.project_id = dataset.project_id)
        ORDER BY trigger.id
        """,
        {"dataset_id": event.dataset_id, "resource": event.resource, "action": event.action},
    )
    return await cursor.fetchall()
