"""Connections to PostgreSQL."""

from typing import Any

from psycopg import AsyncConnection, sql
from psycopg.rows import TupleRow
from psycopg_pool import AsyncConnectionPool

Pool = AsyncConnectionPool[AsyncConnection[TupleRow]]


# A machine that is cut off tells nobody. Each side takes a silent other for gone after some 25 s, instead of the hours
# that systems wait: PostgreSQL, which keeps its locks for it till then, and we, who wait for an answer. Over
# a socket of the same machine nothing of this counts.
_SILENT_AFTER_S, _ASK_EVERY_S, _ASK_TIMES, _UNHEARD_MS = 10, 5, 3, 25_000

_CONFIGURATION = sql.SQL(
    """
    SET TIME ZONE 'UTC';
    SET tcp_keepalives_idle = {};
    SET tcp_keepalives_interval = {};
    SET tcp_keepalives_count = {};
    SET tcp_user_timeout = {};
    """
).format(_SILENT_AFTER_S, _ASK_EVERY_S, _ASK_TIMES, _UNHEARD_MS)
_PARAMETERS = {
    "keepalives_idle": _SILENT_AFTER_S,
    "keepalives_interval": _ASK_EVERY_S,
    "keepalives_count": _ASK_TIMES,
    "tcp_user_timeout": _UNHEARD_MS,
    "connect_timeout": 10,
}


async def _configure(conn: AsyncConnection[Any]) -> None:
    await conn.execute(_CONFIGURATION)
    await conn.commit()


def make_pool(url: str, *, max_size: int, name: str, min_size: int = 1) -> Pool:
    """A pool that is not open yet; `async with` opens it."""
    return AsyncConnectionPool(
        url,
        min_size=min_size,
        max_size=max_size,
        name=name,
        configure=_configure,
        kwargs=_PARAMETERS | {"application_name": name},
        check=AsyncConnectionPool.check_connection,
        open=False,
    )
