"""News: what listeners are told when a transaction commits, in a word; they read the rows themselves."""

from typing import Any

from psycopg import AsyncConnection

CHANNEL = "headwater_progress"


async def announce(conn: AsyncConnection[Any], noun: str, number: int) -> None:
    """`command:7`, when this transaction commits."""
    await conn.execute("SELECT pg_notify(%s, %s)", [CHANNEL, f"{noun}:{number}"])
