"""Brings a database's schema up to date: ours (migrations/*.sql, in order of their names) and the job queue's."""

from importlib import resources
from pathlib import Path
from typing import Any

from procrastinate.schema import SchemaManager
from psycopg import AsyncConnection, sql

_LOCK = 0x4EAD_0001  # any number of our own: two servers that start at once take turns


async def migrate(conn: AsyncConnection[Any]) -> list[str]:
    """Apply what is missing, all in the caller's transaction. Returns the names applied. Safe to repeat."""
    await conn.execute("SELECT pg_advisory_xact_lock(%s)", [_LOCK])
    await conn.execute(
        """
        CREATE TABLE IF NOT EXISTS schema_migration (
            name text PRIMARY KEY,
            applied_at timestamptz NOT NULL DEFAULT now()
        )
        """
    )
    cursor = await conn.execute("SELECT name FROM schema_migration")
    applied = {name for (name,) in await cursor.fetchall()}
    missing = [(name, text) for name, text in _scripts(queue_is_new=not applied) if name not in applied]
    for name, text in missing:
        if text:
            await conn.execute(sql.SQL(text))  # pyright: ignore[reportArgumentType] our own files
        await conn.execute("INSERT INTO schema_migration (name) VALUES (%s)", [name])
    return [name for name, text in missing if text]


def _scripts(*, queue_is_new: bool) -> list[tuple[str, str]]:
    """(name, SQL) in order. A new database gets the queue's schema whole, so its earlier steps are only noted."""
    ours = resources.files("headwater.db") / "migrations"
    scripts = [(file.name, file.read_text()) for file in ours.iterdir() if file.name.endswith(".sql")]
    steps = sorted(Path(SchemaManager.get_migrations_path()).glob("*.sql"))
    queue = [(f"procrastinate/{step.name}", "" if queue_is_new else step.read_text()) for step in steps]
    whole = [("procrastinate", SchemaManager.get_schema() if queue_is_new else "")]
    return whole + queue + sorted(scripts)
