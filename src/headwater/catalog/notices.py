"""Notices: what the owners and admins of an organisation are told without having asked."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from psycopg import AsyncConnection
from psycopg.rows import class_row

from headwater.catalog.accounts import Account
from headwater.catalog.commands import CHANNEL
from headwater.errors import NotFound

Level = Literal["info", "warning", "error"]


@dataclass(frozen=True, slots=True)
class Notice:
    id: int
    organization_id: int
    project_id: int | None
    level: Level
    title: str
    message: str
    created_at: datetime


async def tell_owners(
    conn: AsyncConnection[Any],
    organization_id: int,
    level: Level,
    title: str,
    message: str,
    *,
    project_id: int | None = None,
) -> None:
    """In the transaction of what it tells of; listeners hear of it when that commits."""
    cursor = await conn.execute(
        """
        INSERT INTO notice (organization_id, project_id, level, title, message)
        VALUES (%s, %s, %s, %s, %s)
        RETURNING id
        """,
        [organization_id, project_id, level, title, message],
    )
    row = await cursor.fetchone()
    assert row is not None
    await conn.execute("SELECT pg_notify(%s, %s)", [CHANNEL, f"notice:{row[0]}"])


# For owners and admins; the operator as such reads nobody's notices.
_VISIBLE = """
SELECT
    notice.id, notice.organization_id, notice.project_id, notice.level, notice.title, notice.message,
    notice.created_at
FROM notice
JOIN member ON member.organization_id = notice.organization_id
WHERE member.account_id = %(account_id)s AND member.role IN ('owner', 'admin')
"""


async def list_notices(
    conn: AsyncConnection[Any], caller: Account, *, before_id: int | None = None, limit: int = 100
) -> list[Notice]:
    """The latest first; `before_id` goes on behind the last one of the page before."""
    cursor = conn.cursor(row_factory=class_row(Notice))
    await cursor.execute(
        _VISIBLE
        + "AND (%(before_id)s::bigint IS NULL OR notice.id < %(before_id)s) ORDER BY notice.id DESC LIMIT %(limit)s",
        {"account_id": caller.id, "before_id": before_id, "limit": limit},
    )
    return await cursor.fetchall()


async def get_notice(conn: AsyncConnection[Any], caller: Account, notice_id: int) -> Notice:
    """Raises NotFound."""
    cursor = conn.cursor(row_factory=class_row(Notice))
    await cursor.execute(_VISIBLE + "AND notice.id = %(id)s", {"account_id": caller.id, "id": notice_id})
    notice = await cursor.fetchone()
    if notice is None:
        raise NotFound(f"No notice with id {notice_id:024x}.")
    return notice
