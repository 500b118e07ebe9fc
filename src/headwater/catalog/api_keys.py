"""API keys: tokens of an account that live long, and end when their row here goes."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from psycopg import AsyncConnection
from psycopg.rows import class_row

from headwater.catalog import accounts, audit, bots, notices, projects
from headwater.catalog.accounts import Account
from headwater.catalog.names import checked_name
from headwater.errors import NotFound, Unauthorized


@dataclass(frozen=True, slots=True)
class ApiKey:
    id: int
    account_id: int
    email: str  # of the account
    name: str
    created_at: datetime
    expires_at: datetime
    last_used_at: datetime | None  # to a few minutes


_SELECT = """
SELECT
    api_key.id, api_key.account_id, account.email, api_key.name, api_key.created_at, api_key.expires_at,
    api_key.last_used_at
FROM api_key
JOIN account ON account.id = api_key.account_id
"""


async def get_holder(conn: AsyncConnection[Any], account_id: int, key_id: int) -> Account:
    """The account that a key speaks for; its use is noted. Raises Unauthorized."""
    cursor = await conn.execute(
        "SELECT coalesce(api_key.last_used_at < now() - interval '5 minutes', true), "
        + accounts.COLUMNS
        + """
        FROM api_key
        JOIN account ON account.id = api_key.account_id
        WHERE api_key.id = %s AND account.id = %s AND api_key.expires_at > now() AND account.deleted_at IS NULL
        """,
        [key_id, account_id],
    )
    row = await cursor.fetchone()
    if row is None:
        raise revoked()
    is_to_be_noted, *account = row
    if is_to_be_noted:
        await note_use(conn, [key_id])
    return Account(*account)


def revoked() -> Unauthorized:
    return Unauthorized("This API key was revoked, or its account is no longer there.")


async def note_use(conn: AsyncConnection[Any], key_ids: Sequence[int]) -> None:
    """Somebody else who notes the use of a key at this moment does it for us."""
    await conn.execute(
        """
        UPDATE api_key
        SET last_used_at = now()
        WHERE id IN (SELECT id FROM api_key WHERE id = ANY(%s) FOR NO KEY UPDATE SKIP LOCKED)
        """,
        [list(key_ids)],
    )


async def find_holder(conn: AsyncConnection[Any], caller: Account, email: str) -> Account:
    """Whose keys the caller may make: the caller's own, and those of bots of the caller's projects.

    Raises Forbidden for a bot of a project where the caller may not; NotFound, in the same words for all others.
    """
    if email.strip().lower() == caller.email.lower():
        return caller
    account = await accounts.find_account(conn, email)
    project_id = None if account is None else await bots.project_of(conn, account)
    refusal = NotFound(
        f"Keys are made for yourself ({caller.email}) and for bots of your projects, and {email[:80]} is neither."
    )
    if account is None or project_id is None:
        raise refusal
    try:
        await projects.get_project(conn, caller, project_id, "manage_bots")
    except NotFound:
        raise refusal from None
    return account


async def create_key(
    conn: AsyncConnection[Any], caller: Account, holder: Account, *, name: str, expires_at: datetime
) -> ApiKey:
    """The row of a key that is still to be signed. Raises BadRequest."""
    cursor = await conn.execute(
        "INSERT INTO api_key (account_id, name, expires_at) VALUES (%s, %s, %s) RETURNING id",
        [holder.id, checked_name(name, "key"), expires_at],
    )
    row = await cursor.fetchone()
    assert row is not None
    key = await _load_key(conn, row[0])
    await _note(conn, caller, "key.created", key)
    return key


async def list_keys(conn: AsyncConnection[Any], holder: Account) -> list[ApiKey]:
    cursor = conn.cursor(row_factory=class_row(ApiKey))
    await cursor.execute(_SELECT + "WHERE account.id = %s ORDER BY api_key.id", [holder.id])
    return await cursor.fetchall()


async def get_key(conn: AsyncConnection[Any], caller: Account, key_id: int) -> ApiKey:
    """One that the caller may make. Raises NotFound, Forbidden."""
    try:
        key = await _load_key(conn, key_id)
        await find_holder(conn, caller, key.email)
    except NotFound:
        raise NotFound(f"No API key with id {key_id:024x}.") from None
    return key


async def _load_key(conn: AsyncConnection[Any], key_id: int) -> ApiKey:
    cursor = conn.cursor(row_factory=class_row(ApiKey))
    await cursor.execute(_SELECT + "WHERE api_key.id = %s", [key_id])
    key = await cursor.fetchone()
    if key is None:
        raise NotFound(f"No API key with id {key_id:024x}.")
    return key


async def rename_key(conn: AsyncConnection[Any], key: ApiKey, name: str) -> ApiKey:
    """Raises BadRequest."""
    await conn.execute("UPDATE api_key SET name = %s WHERE id = %s", [checked_name(name, "key"), key.id])
    return await _load_key(conn, key.id)


async def revoke_key(conn: AsyncConnection[Any], caller: Account, key: ApiKey) -> None:
    """It is refused from the commit on."""
    await conn.execute("DELETE FROM api_key WHERE id = %s", [key.id])
    await _note(conn, caller, "key.revoked", key)


async def tell_of_keys_left(
    conn: AsyncConnection[Any], organization_id: int, email: str, *, project_id: int | None = None
) -> None:
    """Call it for somebody who was put out: who has made a bot's keys may still have them, so owners hear of it."""
    cursor = await conn.execute(
        """
        SELECT bot.email, project.name, count(*)
        FROM audit
        JOIN account AS bot ON bot.email = audit.details ->> 'account'
        JOIN project ON project.id = bot.bot_project_id
        JOIN api_key ON api_key.account_id = bot.id AND api_key.created_at = audit.created_at -- of one transaction
        WHERE audit.organization_id = %(organization_id)s AND audit.action = 'key.created'
            AND lower(audit.actor) = lower(%(email)s) AND api_key.expires_at > now()
            AND project.id = coalesce(%(project_id)s, project.id)
        GROUP BY bot.email, project.name
        ORDER BY bot.email, project.name
        """,
        {"organization_id": organization_id, "email": email.strip(), "project_id": project_id},
    )
    left = [f"{bot} of project {project} ({count})" for bot, project, count in await cursor.fetchall()]
    if left:
        await notices.tell_owners(
            conn,
            organization_id,
            "warning",
            f"{email.strip()} may still have keys of bots",
            f"{email.strip()} is out, and has made keys that still count, for: {', '.join(left)}. Revoke them if "
            "they are not to be used any more: headwater key ls --bot EMAIL, headwater key revoke ID",
            project_id=project_id,
        )


async def _note(conn: AsyncConnection[Any], caller: Account, action: str, key: ApiKey) -> None:
    """In the log of every organisation whose doors the key opens."""
    cursor = await conn.execute("SELECT organization_id FROM member WHERE account_id = %s", [key.account_id])
    for (organization_id,) in await cursor.fetchall():
        await audit.record(
            conn,
            caller,
            action,
            key.name,
            organization_id=organization_id,
            account=key.email,
            expires_at=key.expires_at.isoformat(),
        )
