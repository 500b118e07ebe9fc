"""The audit log: who changed members, integrations, drivers, and who deleted or exported what."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from psycopg import AsyncConnection
from psycopg.rows import class_row
from psycopg.types.json import Jsonb

from headwater.catalog.accounts import Account


@dataclass(frozen=True, slots=True)
class Entry:
    id: int
    project_id: int | None
    actor: str
    action: str
    target: str
    details: dict[str, Any]
    created_at: datetime


async def record(
    conn: AsyncConnection[Any],
    caller: Account,
    action: str,
    target: str,
    *,
    organization_id: int,
    project_id: int | None = None,
    **details: Any,
) -> None:
    """One line, in the transaction of the change itself. `action` is noun.verb; no detail is ever a secret."""
    await conn.execute(
        """
        INSERT INTO audit (organization_id, project_id, actor, action, target, details)
        VALUES (%s, %s, %s, %s, %s, %s)
        """,
        [organization_id, project_id, caller.email, action, target, Jsonb(details)],
    )


async def list_entries(
    conn: AsyncConnection[Any], organization_id: int, *, before_id: int | None = None, limit: int = 100
) -> list[Entry]:
    """The latest first; `before_id` goes on behind the last one of the page before."""
    cursor = conn.cursor(row_factory=class_row(Entry))
    await cursor.execute(
        """
        SELECT id, project_id, actor, action, target, details, created_at
        FROM audit
        WHERE organization_id = %(organization_id)s AND (%(before_id)s::bigint IS NULL OR id < %(before_id)s)
        ORDER BY id DESC
        LIMIT %(limit)s
        """,
        {"organization_id": organization_id, "before_id": before_id, "limit": limit},
    )
    return await cursor.fetchall()
