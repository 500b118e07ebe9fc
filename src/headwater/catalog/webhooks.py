"""Webhooks: servers of people's own that a project's notices are sent to, and how each delivery went."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, LiteralString
from urllib.parse import urlsplit

from psycopg import AsyncConnection
from psycopg.errors import UniqueViolation
from psycopg.rows import class_row

from headwater import queue
from headwater.catalog import notices, secrets
from headwater.catalog.accounts import Account
from headwater.catalog.notices import DELIVER_TASK, LEVELS, WEBHOOK_QUEUE, Level, Notice
from headwater.catalog.outcomes import KINDS
from headwater.errors import BadRequest, Conflict, NotFound
from headwater.net.addresses import check_endpoint
from headwater.net.urls import read_url
from headwater.vault.vaults import Kept, Place

MOST_OF_A_PROJECT = 20
# Waits after each failed attempt, as the Standard Webhooks specification proposes: three days in all.
WAITS_S = (5, 300, 1_800, 7_200, 18_000, 36_000, 50_400, 72_000, 86_400)
_GIVE_UP_AFTER = timedelta(seconds=sum(WAITS_S))
_LONGEST_URL = 2_000
_LONGEST_NAME = 100
TEST_KIND = "webhook.test"
ALL_KINDS = ("note", *KINDS, *notices.UPSTREAM_KINDS)


@dataclass(frozen=True, slots=True)
class Webhook:
    id: int
    project_id: int
    name: str
    url: str
    levels: list[Level]
    kinds: list[str]  # none: all
    active: bool
    inactive_reason: str | None  # why we switched it off
    secret_id: int
    previous_until: datetime | None  # the secret before the last rotation signs, too, until then
    delivered_at: datetime | None
    creator: str
    created_at: datetime
    updated_at: datetime

    @property
    def host(self) -> str:
        """What may be told to everybody: the rest of the URL may hold a token."""
        return urlsplit(self.url).hostname or ""


@dataclass(frozen=True, slots=True)
class Delivery:
    id: int
    webhook_id: int
    notice_id: int | None  # None: a test
    kind: str
    title: str
    status: str
    attempts: int
    round: int
    http_status: int | None  # of the last attempt; None: there was no answer
    error: str | None
    duration_ms: int | None
    attempted_at: datetime | None
    next_attempt_at: datetime | None
    created_at: datetime


@dataclass(frozen=True, slots=True)
class Attempt:
    """How one went: without an error, it was delivered."""

    duration_ms: int
    http_status: int | None = None
    error: str | None = None

    @property
    def is_gone(self) -> bool:
        """The receiver wants nothing more."""
        return self.http_status == 410


@dataclass(frozen=True, slots=True)
class Due:
    """Everything that an attempt needs; the vault opens what is kept."""

    delivery: Delivery
    webhook: Webhook
    notice: Notice | None
    kept: Kept


def owner_of(webhook_id: int) -> str:
    """As the vault knows it."""
    return f"webhook:{webhook_id}"


def check_url(url: str, *, allow_private: bool) -> None:
    """Raises BadRequest."""
    if len(url) > _LONGEST_URL or not url.isascii() or any(character <= " " for character in url):
        raise BadRequest(f"A webhook's URL has at most {_LONGEST_URL} ASCII characters and no spaces.")
    try:
        read = read_url(url)
        check_endpoint(f"{read.scheme}://{read.authority}", allow_private=allow_private)
    except BadRequest as error:
        raise BadRequest(f"This webhook cannot be used: {error}") from None


def check_name(name: str) -> str:
    """Raises BadRequest."""
    name = name.strip()
    if not name or len(name) > _LONGEST_NAME or not name.isprintable():
        raise BadRequest(f"A webhook's name has 1 to {_LONGEST_NAME} printable characters.")
    return name


def check_choice(levels: Sequence[str], kinds: Sequence[str]) -> None:
    """Raises BadRequest."""
    if not levels or not set(levels) <= set(LEVELS):
        raise BadRequest(f"Levels are one or more of: {', '.join(LEVELS)}.")
    if not set(kinds) <= set(ALL_KINDS):
        raise BadRequest(f"Kinds are some of these, or none for all: {', '.join(ALL_KINDS)}.")


async def new_id(conn: AsyncConnection[Any]) -> int:
    """A secret is sealed for its owner, so the owner's id is there first."""
    cursor = await conn.execute("SELECT nextval(pg_get_serial_sequence('webhook', 'id'))")
    row = await cursor.fetchone()
    assert row is not None
    return row[0]


_COLUMNS: LiteralString = """
    webhook.id, webhook.project_id, webhook.name, webhook.url, webhook.levels, webhook.kinds, webhook.active,
    webhook.inactive_reason, webhook.secret_id, webhook.previous_until, webhook.delivered_at, account.email AS creator,
    webhook.created_at, webhook.updated_at
"""
_SELECT: LiteralString = "SELECT " + _COLUMNS + " FROM webhook JOIN account ON account.id = webhook.creator_id "


async def list_webhooks(conn: AsyncConnection[Any], project_id: int) -> list[Webhook]:
    """In the order they were made."""
    cursor = conn.cursor(row_factory=class_row(Webhook))
    await cursor.execute(_SELECT + "WHERE webhook.project_id = %s ORDER BY webhook.id", [project_id])
    return await cursor.fetchall()


async def get_webhook(conn: AsyncConnection[Any], project_id: int, webhook_id: int) -> Webhook:
    """Raises NotFound."""
    cursor = conn.cursor(row_factory=class_row(Webhook))
    await cursor.execute(_SELECT + "WHERE webhook.project_id = %s AND webhook.id = %s", [project_id, webhook_id])
    found = await cursor.fetchone()
    if found is None:
        raise NotFound(f"No webhook with id {webhook_id:024x} in this project.")
    return found


async def require_room(conn: AsyncConnection[Any], project_id: int, name: str) -> None:
    """Raises Conflict when the name is taken, or there are enough."""
    found = await list_webhooks(conn, project_id)
    if any(webhook.name == name for webhook in found):
        raise _taken(name)
    if len(found) >= MOST_OF_A_PROJECT:
        raise Conflict(f"The project has {MOST_OF_A_PROJECT} webhooks, and may not have more. Remove one first.")


def _taken(name: str) -> Conflict:
    return Conflict(f"The project has a webhook named {name!r} already. Choose another name, or change that one.")


async def insert_webhook(
    conn: AsyncConnection[Any],
    creator: Account,
    project_id: int,
    webhook_id: int,
    *,
    name: str,
    url: str,
    levels: Sequence[str],
    kinds: Sequence[str],
    active: bool,
    secret_id: int,
) -> Webhook:
    """Raises Conflict."""
    try:
        async with conn.transaction():
            await conn.execute(
                """
                INSERT INTO webhook (id, project_id, name, url, levels, kinds, active, secret_id, creator_id)
                VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s)
                """,
                [webhook_id, project_id, name, url, list(levels), list(kinds), active, secret_id, creator.id],
            )
    except UniqueViolation:
        raise _taken(name) from None
    return await get_webhook(conn, project_id, webhook_id)


async def change_webhook(
    conn: AsyncConnection[Any],
    found: Webhook,
    *,
    name: str,
    url: str,
    levels: Sequence[str],
    kinds: Sequence[str],
    active: bool,
) -> Webhook:
    """Whoever switches it on again says with that that the reason is gone. Raises Conflict."""
    try:
        async with conn.transaction():
            await conn.execute(
                """
                UPDATE webhook
                SET name = %(name)s, url = %(url)s, levels = %(levels)s, kinds = %(kinds)s, active = %(active)s,
                    inactive_reason = CASE WHEN %(active)s THEN NULL ELSE inactive_reason END, updated_at = now()
                WHERE id = %(id)s
                """,
                {
                    "name": name,
                    "url": url,
                    "levels": list(levels),
                    "kinds": list(kinds),
                    "active": active,
                    "id": found.id,
                },
            )
    except UniqueViolation:
        raise _taken(name) from None
    if not active:
        await _cancel_waiting(conn, found.id)
    return await get_webhook(conn, found.project_id, found.id)


async def delete_webhook(conn: AsyncConnection[Any], found: Webhook) -> Place | None:
    """With its deliveries and its secret; returns where that has to be destroyed, too."""
    await conn.execute("DELETE FROM webhook WHERE id = %s", [found.id])
    return await secrets.delete(conn, found.secret_id)


async def kept_secret(conn: AsyncConnection[Any], found: Webhook) -> Kept:
    """Raises VaultError."""
    return await secrets.get_kept(conn, found.secret_id, owner_of(found.id))


async def replace_secret(
    conn: AsyncConnection[Any],
    webhook_id: int,
    before_id: int,
    secret_id: int,
    *,
    previous_until: datetime | None = None,
) -> bool:
    """Returns whether the webhook still had the one before. Without `previous_until`, that stays as it is."""
    cursor = await conn.execute(
        """
        UPDATE webhook
        SET secret_id = %s, previous_until = coalesce(%s, previous_until)
        WHERE id = %s AND secret_id = %s
        """,
        [secret_id, previous_until, webhook_id, before_id],
    )
    return cursor.rowcount == 1


_SELECT_DELIVERY: LiteralString = """
SELECT
    delivery.id, delivery.webhook_id, delivery.notice_id, coalesce(notice.kind, 'webhook.test') AS kind,
    coalesce(notice.title, 'Test') AS title, delivery.status, delivery.attempts, delivery.round, delivery.http_status,
    delivery.error, delivery.duration_ms, delivery.attempted_at, delivery.next_attempt_at, delivery.created_at
FROM webhook_delivery AS delivery
LEFT JOIN notice ON notice.id = delivery.notice_id
"""


async def list_deliveries(
    conn: AsyncConnection[Any], found: Webhook, *, before_id: int | None = None, limit: int = 100
) -> list[Delivery]:
    """The latest first; `before_id` goes on behind the last one of the page before."""
    cursor = conn.cursor(row_factory=class_row(Delivery))
    await cursor.execute(
        _SELECT_DELIVERY
        + """
        WHERE delivery.webhook_id = %(webhook_id)s AND (%(before_id)s::bigint IS NULL OR delivery.id < %(before_id)s)
        ORDER BY delivery.id DESC
        LIMIT %(limit)s
        """,
        {"webhook_id": found.id, "before_id": before_id, "limit": limit},
    )
    return await cursor.fetchall()


async def get_delivery(conn: AsyncConnection[Any], webhook_id: int, delivery_id: int) -> Delivery:
    """Raises NotFound."""
    cursor = conn.cursor(row_factory=class_row(Delivery))
    await cursor.execute(
        _SELECT_DELIVERY + "WHERE delivery.webhook_id = %s AND delivery.id = %s", [webhook_id, delivery_id]
    )
    delivery = await cursor.fetchone()
    if delivery is None:
        raise NotFound(f"No delivery with id {delivery_id:024x} of this webhook.")
    return delivery


async def new_test(conn: AsyncConnection[Any], found: Webhook) -> Delivery:
    cursor = await conn.execute("INSERT INTO webhook_delivery (webhook_id) VALUES (%s) RETURNING id", [found.id])
    row = await cursor.fetchone()
    assert row is not None
    return await get_delivery(conn, found.id, row[0])


async def deliver_again(conn: AsyncConnection[Any], found: Webhook, delivery_id: int) -> Delivery:
    """With the same message id, now and with all its attempts. Raises NotFound, Conflict."""
    delivery = await get_delivery(conn, found.id, delivery_id)
    if delivery.notice_id is None:
        raise Conflict("This was a test. Send another one instead.")
    if not found.active:
        raise Conflict(f"The webhook {found.name!r} is switched off. Switch it on first.")
    await conn.execute(
        """
        UPDATE webhook_delivery
        SET status = 'waiting', attempts = 0, round = round + 1, next_attempt_at = now()
        WHERE id = %s
        """,
        [delivery_id],
    )
    again = await get_delivery(conn, found.id, delivery_id)
    await _defer(conn, again, after_s=0)
    return again


async def _defer(conn: AsyncConnection[Any], delivery: Delivery, *, after_s: int) -> None:
    await queue.defer(
        conn, DELIVER_TASK, queue=WEBHOOK_QUEUE, after_s=after_s, delivery_id=delivery.id, number=delivery.round
    )


async def find_due(conn: AsyncConnection[Any], delivery_id: int, *, number: int | None = None) -> Due | None:
    """`number`: of its round. None for what waits no more, or belongs to a webhook that is switched off.

    Raises VaultError.
    """
    cursor = conn.cursor(row_factory=class_row(Delivery))
    await cursor.execute(_SELECT_DELIVERY + "WHERE delivery.id = %s AND delivery.status = 'waiting'", [delivery_id])
    delivery = await cursor.fetchone()
    if delivery is None or number not in (None, delivery.round):
        return None
    hooks = conn.cursor(row_factory=class_row(Webhook))
    await hooks.execute(_SELECT + "WHERE webhook.id = %s", [delivery.webhook_id])
    found = await hooks.fetchone()
    if found is None or not (found.active or delivery.notice_id is None):
        return None
    notice = None if delivery.notice_id is None else await notices.load_notice(conn, delivery.notice_id)
    return Due(delivery, found, notice, await kept_secret(conn, found))


async def note_attempt(conn: AsyncConnection[Any], due: Due, attempt: Attempt) -> None:
    """Write down how it went; the next attempt commits with that. After the last one the webhook is switched off.

    A test has one attempt. Nothing happens to a delivery that was asked for again meanwhile.
    """
    delivery = due.delivery
    is_done = attempt.error is None
    is_last = is_done or attempt.is_gone or due.notice is None or delivery.attempts >= len(WAITS_S)
    wait_s = None if is_last else WAITS_S[delivery.attempts]
    cursor = await conn.execute(
        """
        UPDATE webhook_delivery
        SET status = %(status)s, attempts = attempts + 1, http_status = %(http_status)s, error = %(error)s,
            duration_ms = %(duration_ms)s, attempted_at = now(), next_attempt_at = now() + %(wait)s
        WHERE id = %(id)s AND round = %(round)s AND status = 'waiting'
        """,
        {
            "status": "delivered" if is_done else "failed" if is_last else "waiting",
            "http_status": attempt.http_status,
            "error": attempt.error,
            "duration_ms": attempt.duration_ms,
            "wait": None if wait_s is None else timedelta(seconds=wait_s),
            "id": delivery.id,
            "round": delivery.round,
        },
    )
    if not cursor.rowcount:
        return
    if is_done:
        await conn.execute("UPDATE webhook SET delivered_at = now() WHERE id = %s", [due.webhook.id])
    elif wait_s is not None:
        await _defer(conn, delivery, after_s=wait_s)
    elif due.notice is not None:
        await _switch_off(conn, due.webhook, attempt)


async def _switch_off(conn: AsyncConnection[Any], found: Webhook, attempt: Attempt) -> None:
    """Unless others of its deliveries arrived in the meantime: then only this one is refused."""
    reason = (
        "its receiver answered 410 Gone: it wants nothing more"
        if attempt.is_gone
        else f"nothing could be delivered for three days; the last time: {attempt.error}"
    )
    cursor = await conn.execute(
        """
        UPDATE webhook
        SET active = false, inactive_reason = %(reason)s, updated_at = now()
        WHERE id = %(id)s AND active
            AND (%(is_gone)s OR delivered_at IS NULL OR delivered_at < now() - %(give_up_after)s)
        """,
        {"reason": reason, "id": found.id, "is_gone": attempt.is_gone, "give_up_after": _GIVE_UP_AFTER},
    )
    if not cursor.rowcount:
        return
    await _cancel_waiting(conn, found.id)
    await notices.tell_project(
        conn,
        found.project_id,
        "error",
        f"Webhook {found.name} was switched off",
        f"To {found.host}: {reason}. When it is mended: headwater webhooks update PROJECT {found.name!r} --on",
    )


async def _cancel_waiting(conn: AsyncConnection[Any], webhook_id: int) -> None:
    await conn.execute(
        """
        UPDATE webhook_delivery
        SET status = 'canceled', next_attempt_at = NULL
        WHERE webhook_id = %s AND status = 'waiting' AND notice_id IS NOT NULL
        """,
        [webhook_id],
    )
