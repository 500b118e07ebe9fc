"""Connections to PostgreSQL."""

from typing import Any

from psycopg import AsyncConnection
from psycopg.rows import TupleRow
from psycopg_pool import AsyncConnectionPool

Pool = AsyncConnectionPool[AsyncConnection[TupleRow]]


async def _configure(conn: AsyncConnection[Any]) -> None:
    await conn.execute("SET TIME ZONE 'UTC'")
    await conn.commit()


def make_pool(url: str, *, max_size: int, name: str, min_size: int = 1) -> Pool:
    """A pool that is not open yet; `async with` opens it."""
    return AsyncConnectionPool(
        url,
        min_size=min_size,
        max_size=max_size,
        name=name,
        configure=_configure,
        kwargs={"application_name": name},
        check=AsyncConnectionPool.check_connection,
        open=False,
    )
