"""Bots: accounts of programs, made in a project. They are its developers and have keys, not passwords."""

import re
import secrets
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from psycopg import AsyncConnection
from psycopg.rows import class_row

from headwater.catalog import accounts, organizations, projects
from headwater.catalog.accounts import Account, Kind
from headwater.catalog.names import checked_name
from headwater.catalog.projects import Project
from headwater.errors import NotFound

_DOMAIN = "bots.invalid"  # RFC 2606, 2: no address there can ever be anybody's


@dataclass(frozen=True, slots=True)
class Bot:
    id: int
    email: str
    name: str
    role: str
    kind: Kind
    project_id: int
    created_at: datetime


async def create_bot(conn: AsyncConnection[Any], caller: Account, project: Project, name: str) -> Bot:
    """The bot of that name, if there is one already. Raises BadRequest."""
    name = checked_name(name, "bot")
    await conn.execute("SELECT FROM project WHERE id = %s FOR NO KEY UPDATE", [project.id])  # two at once take turns
    for bot in await list_bots(conn, project):
        if bot.name == name:
            return bot
    slug = re.sub("[^a-z0-9]+", "-", name.lower()).strip("-")[:40] or "bot"
    cursor = conn.cursor(row_factory=class_row(Account))
    await cursor.execute(
        "INSERT INTO account (email, kind, name, bot_project_id) VALUES (%s, 'bot', %s, %s) RETURNING "
        + accounts.COLUMNS,
        [f"{slug}.{secrets.token_hex(6)}@{_DOMAIN}", name, project.id],
    )
    account = await cursor.fetchone()
    assert account is not None
    await organizations.add_member(conn, project.organization_id, account, "worker")
    await projects.set_member(conn, project.id, account, "developer")
    await projects.record(conn, caller, project.id, "bot.created", account.email, name=name, project=project.name)
    return await get_bot(conn, project, account.email)


async def list_bots(conn: AsyncConnection[Any], project: Project) -> list[Bot]:
    """Those that were made in the project."""
    cursor = conn.cursor(row_factory=class_row(Bot))
    await cursor.execute(
        """
        SELECT id, email, name, 'developer' AS role, kind, bot_project_id AS project_id, created_at
        FROM account
        WHERE bot_project_id = %s AND deleted_at IS NULL
        ORDER BY id
        """,
        [project.id],
    )
    return await cursor.fetchall()


async def get_bot(conn: AsyncConnection[Any], project: Project, email: str) -> Bot:
    """Raises NotFound."""
    for bot in await list_bots(conn, project):
        if bot.email == email:
            return bot
    raise NotFound(f"No bot {email[:80]!r} in this project.")


async def project_of(conn: AsyncConnection[Any], account: Account) -> int | None:
    """Where the bot was made; None for people."""
    cursor = await conn.execute("SELECT bot_project_id FROM account WHERE id = %s", [account.id])
    row = await cursor.fetchone()
    return None if row is None else row[0]


async def delete_bot(conn: AsyncConnection[Any], caller: Account, project: Project, bot: Bot) -> None:
    """Its keys stop at once. What it made stays, under its name."""
    await conn.execute("DELETE FROM api_key WHERE account_id = %s", [bot.id])
    await conn.execute("DELETE FROM member WHERE account_id = %s", [bot.id])
    await conn.execute("DELETE FROM project_member WHERE account_id = %s", [bot.id])
    await conn.execute("UPDATE account SET deleted_at = now() WHERE id = %s", [bot.id])
    await projects.record(conn, caller, project.id, "bot.deleted", bot.email, name=bot.name, project=project.name)
