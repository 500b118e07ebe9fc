"""Notices: what owners of an organisation and members of a project are told, and what each of them has read.

Notices of one command are a thread: the latest one stands for it, those before are superseded.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Literal, LiteralString

from psycopg import AsyncConnection
from psycopg.rows import class_row

from headwater import queue
from headwater.catalog import news
from headwater.catalog.accounts import Account
from headwater.catalog.rights import RULES
from headwater.errors import NotFound

Level = Literal["info", "warning", "error"]
LEVELS: tuple[Level, ...] = ("info", "warning", "error")
UPSTREAM_KINDS = ("events.held", "events.refused", "events.waiting")  # of bucket events
DELIVER_TASK = "deliver_webhook"
WEBHOOK_QUEUE = "webhooks"
_MOST_UNREAD = 1_000  # counted; more are as many
_MOST_AT_ONCE = 500  # told to one stream in one go
_REMOVED_AT_ONCE = 5_000


@dataclass(frozen=True, slots=True)
class Notice:
    id: int
    organization_id: int
    project_id: int | None
    project_name: str | None
    dataset_id: int | None
    dataset_name: str | None
    command_id: int | None
    command_kind: str | None
    kind: str
    level: Level
    title: str
    message: str
    is_current: bool  # of its command; one without command always is
    is_read: bool  # by the account that asked
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
    await news.announce(conn, "notice", row[0])


async def tell_project(
    conn: AsyncConnection[Any],
    project_id: int,
    level: Level,
    title: str,
    message: str,
    *,
    dataset_id: int | None = None,
    command_id: int | None = None,
    kind: str = "note",
) -> None:
    """Members whose role may read notices hear of it, owners and admins, and the project's webhooks.

    In the transaction of what it tells of. Nothing happens where the project has gone.
    """
    cursor = await conn.execute(
        """
        INSERT INTO notice
            (organization_id, project_id, audience, level, kind, title, message, dataset_id, dataset_name, command_id,
            command_kind)
        SELECT project.organization_id, project.id, 'project', %(level)s, %(kind)s, %(title)s, %(message)s,
            %(dataset_id)s, (SELECT name FROM dataset WHERE id = %(dataset_id)s),
            %(command_id)s, (SELECT kind FROM command WHERE id = %(command_id)s)
        FROM project
        WHERE project.id = %(project_id)s
        RETURNING id
        """,
        {
            "project_id": project_id,
            "level": level,
            "kind": kind,
            "title": title,
            "message": message,
            "dataset_id": dataset_id,
            "command_id": command_id,
        },
    )
    row = await cursor.fetchone()
    if row is None:
        return
    if command_id is not None:
        await conn.execute(
            "UPDATE notice SET superseded = true WHERE command_id = %s AND NOT superseded AND id <> %s",
            [command_id, row[0]],
        )
    await _defer_webhooks(conn, row[0])
    await news.announce(conn, "notice", row[0])


async def was_told(conn: AsyncConnection[Any], project_id: int, title: str) -> bool:
    """Whether the project had such a notice within the last hour: what comes and goes is told once."""
    cursor = await conn.execute(
        "SELECT FROM notice WHERE project_id = %s AND title = %s AND created_at > now() - interval '1 hour' LIMIT 1",
        [project_id, title],
    )
    return await cursor.fetchone() is not None


async def _defer_webhooks(conn: AsyncConnection[Any], notice_id: int) -> None:
    cursor = await conn.execute(
        """
        INSERT INTO webhook_delivery (webhook_id, notice_id, next_attempt_at)
        SELECT webhook.id, notice.id, now()
        FROM notice
        JOIN webhook ON webhook.project_id = notice.project_id
        WHERE notice.id = %s AND webhook.active AND notice.level = ANY(webhook.levels)
            AND (webhook.kinds = '{}' OR notice.kind = ANY(webhook.kinds))
        ORDER BY webhook.id
        RETURNING id, round
        """,
        [notice_id],
    )
    jobs = [{"delivery_id": delivery_id, "number": number} for delivery_id, number in await cursor.fetchall()]
    if jobs:
        await queue.defer_each(conn, DELIVER_TASK, jobs, queue=WEBHOOK_QUEUE)


# For owners and admins everything; for members of a project what it was told. The operator as such reads nothing.
_FROM: LiteralString = """
FROM notice
LEFT JOIN project ON project.id = notice.project_id
LEFT JOIN notice_read ON notice_read.notice_id = notice.id AND notice_read.account_id = %(account_id)s
WHERE (
        notice.organization_id = ANY(ARRAY(
            SELECT organization_id FROM member WHERE account_id = %(account_id)s AND role IN ('owner', 'admin')
        ))
        OR notice.audience = 'project' AND notice.project_id = ANY(ARRAY(
            SELECT project_id FROM project_member WHERE account_id = %(account_id)s AND role = ANY(%(roles)s)
        ))
    )
    AND project.deleted_at IS NULL
"""

_COLUMNS: LiteralString = """
    notice.id, notice.organization_id, notice.project_id, project.name AS project_name, notice.dataset_id,
    notice.dataset_name, notice.command_id, notice.command_kind, notice.kind, notice.level, notice.title,
    notice.message, NOT notice.superseded AS is_current, notice_read.notice_id IS NOT NULL AS is_read,
    notice.created_at
"""

_CHOSEN: LiteralString = """
    AND (%(project_id)s::bigint IS NULL OR notice.project_id = %(project_id)s)
    AND (%(organization_id)s::bigint IS NULL OR notice.organization_id = %(organization_id)s)
    AND (%(dataset_id)s::bigint IS NULL OR notice.dataset_id = %(dataset_id)s)
    AND (%(command_id)s::bigint IS NULL OR notice.command_id = %(command_id)s)
    AND (%(levels)s::text[] = '{}' OR notice.level = ANY(%(levels)s))
    AND (%(since)s::timestamptz IS NULL OR notice.created_at >= %(since)s)
    AND (NOT %(unread)s OR notice_read.notice_id IS NULL)
    AND (%(history)s OR NOT notice.superseded)
"""


@dataclass(frozen=True, slots=True)
class Choice:
    """Which notices; nothing given: the current one of every thread."""

    project_id: int | None = None
    organization_id: int | None = None
    dataset_id: int | None = None
    command_id: int | None = None
    levels: Sequence[Level] = field(default=())
    since: datetime | None = None
    unread: bool = False
    history: bool = False  # those that a later one of the same command has superseded, too

    def parameters(self, caller: Account) -> dict[str, Any]:
        return {
            "account_id": caller.id,
            "roles": list(RULES["read_notices"].in_project),
            "project_id": self.project_id,
            "organization_id": self.organization_id,
            "dataset_id": self.dataset_id,
            "command_id": self.command_id,
            "levels": list(self.levels),
            "since": self.since,
            "unread": self.unread,
            "history": self.history,
        }


_ALL = Choice()


async def list_notices(
    conn: AsyncConnection[Any],
    caller: Account,
    choice: Choice = _ALL,
    *,
    before_id: int | None = None,
    limit: int = 100,
) -> list[Notice]:
    """The latest first; `before_id` goes on behind the last one of the page before."""
    cursor = conn.cursor(row_factory=class_row(Notice))
    await cursor.execute(
        "SELECT "
        + _COLUMNS
        + _FROM
        + _CHOSEN
        + "AND (%(before_id)s::bigint IS NULL OR notice.id < %(before_id)s) ORDER BY notice.id DESC LIMIT %(limit)s",
        choice.parameters(caller) | {"before_id": before_id, "limit": limit},
    )
    return await cursor.fetchall()


async def get_notice(conn: AsyncConnection[Any], caller: Account, notice_id: int) -> Notice:
    """Raises NotFound."""
    cursor = conn.cursor(row_factory=class_row(Notice))
    await cursor.execute(
        "SELECT " + _COLUMNS + _FROM + "AND notice.id = %(id)s", _ALL.parameters(caller) | {"id": notice_id}
    )
    notice = await cursor.fetchone()
    if notice is None:
        raise NotFound(f"No notice with id {notice_id:024x}.")
    return notice


async def load_notice(conn: AsyncConnection[Any], notice_id: int) -> Notice | None:
    """For our own jobs, which act for nobody."""
    cursor = conn.cursor(row_factory=class_row(Notice))
    await cursor.execute(
        "SELECT "
        + _COLUMNS
        + """
        FROM notice
        LEFT JOIN project ON project.id = notice.project_id
        LEFT JOIN notice_read ON false
        WHERE notice.id = %s
        """,
        [notice_id],
    )
    return await cursor.fetchone()


async def count_unread(conn: AsyncConnection[Any], caller: Account, choice: Choice = _ALL) -> int:
    """How many threads, up to a thousand."""
    cursor = await conn.execute(
        "SELECT count(*) FROM (SELECT "
        + _FROM
        + _CHOSEN
        + "AND notice_read.notice_id IS NULL LIMIT %(most)s) AS unread",
        choice.parameters(caller) | {"most": _MOST_UNREAD},
    )
    row = await cursor.fetchone()
    assert row is not None
    return row[0]


async def mark_read(
    conn: AsyncConnection[Any],
    caller: Account,
    choice: Choice = _ALL,
    *,
    ids: Sequence[int] | None = None,
    until_id: int | None = None,
) -> int:
    """Those of `ids`, or those that are no later than `until_id`, or all. Returns how many had been unread.

    What commits later is unread, whatever its id: each that was seen is a row.
    """
    cursor = await conn.execute(
        "INSERT INTO notice_read (account_id, notice_id) SELECT %(account_id)s, notice.id "
        + _FROM
        + _CHOSEN
        + """
            AND notice_read.notice_id IS NULL
            AND (%(ids)s::bigint[] IS NULL OR notice.id = ANY(%(ids)s))
            AND (%(until_id)s::bigint IS NULL OR notice.id <= %(until_id)s)
        ON CONFLICT DO NOTHING
        """,
        choice.parameters(caller) | {"ids": None if ids is None else list(ids), "until_id": until_id, "history": True},
    )
    return cursor.rowcount


async def list_since(
    conn: AsyncConnection[Any], caller: Account, cursor_xid: int, *, dataset_id: int | None = None
) -> tuple[list[Notice], int]:
    """What may have committed since `cursor_xid` was given out, and the cursor to ask with next time; see `now_xid`.

    Some of it may have been returned before: who asks drops the ids it has had. Nothing is left out, in whichever
    order transactions commit: every one older than the cursor had ended when it was given out. Who was away for long
    gets the latest few hundred.
    """
    now = await now_xid(conn)
    cursor = conn.cursor(row_factory=class_row(Notice))
    await cursor.execute(
        "SELECT "
        + _COLUMNS
        + _FROM
        + _CHOSEN
        # A database that was restored from a dump has rows of transactions it has not reached yet.
        + """
            AND notice.xid >= %(cursor)s::text::xid8 AND notice.xid < pg_snapshot_xmax(pg_current_snapshot())
        ORDER BY notice.xid DESC, notice.id DESC
        LIMIT %(most)s
        """,
        Choice(dataset_id=dataset_id, history=True).parameters(caller)
        | {"cursor": str(cursor_xid), "most": _MOST_AT_ONCE},
    )
    found = await cursor.fetchall()
    return found[::-1], now


async def now_xid(conn: AsyncConnection[Any]) -> int:
    """A cursor for `list_since` of what commits from now on."""
    cursor = await conn.execute("SELECT pg_snapshot_xmin(pg_current_snapshot())::text")
    row = await cursor.fetchone()
    assert row is not None
    return int(row[0])


async def remove_old(conn: AsyncConnection[Any], *, older_than: timedelta) -> int:
    """Some of those that are older, with their deliveries. Returns how many; call it again until none is left."""
    cursor = await conn.execute(
        """
        DELETE FROM notice
        WHERE id IN (
            SELECT id FROM notice
            WHERE created_at < now() - %s
            ORDER BY created_at
            LIMIT %s
            FOR UPDATE SKIP LOCKED
        )
        """,
        [older_than, _REMOVED_AT_ONCE],
    )
    return cursor.rowcount
