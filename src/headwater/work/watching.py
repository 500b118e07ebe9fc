"""Watching over commands and notices: what hangs says so, and what is old goes. Any number of workers may watch."""

import asyncio
import logging
from contextlib import suppress
from datetime import timedelta

from psycopg import OperationalError
from psycopg_pool import PoolTimeout

from headwater.catalog import commands, notices
from headwater.catalog.sync import scans
from headwater.db.pool import Pool

_LOOK_EVERY_S = 5.0
_CLEAN_EVERY_S = 3600.0
_log = logging.getLogger(__name__)


async def watch_forever(pool: Pool, *, stall_after_s: float, notice_days: int) -> None:
    """Until cancelled; a database that is away is waited for."""
    clean_at = 0.0
    while True:
        try:
            await note_stalls(pool, stall_after_s=stall_after_s)
            if asyncio.get_running_loop().time() >= clean_at:
                await remove_old_notices(pool, notice_days=notice_days)
                clean_at = asyncio.get_running_loop().time() + _CLEAN_EVERY_S
        except (OperationalError, PoolTimeout):
            _log.warning("Commands are not watched: the database does not answer; trying again")
        await asyncio.sleep(min(_LOOK_EVERY_S, stall_after_s / 4))


async def note_stalls(pool: Pool, *, stall_after_s: float) -> None:
    async with pool.connection() as conn:
        for command_id in await commands.mark_stalled(conn, after=timedelta(seconds=stall_after_s)):
            _log.warning("Command %s makes no progress", command_id)


async def remove_old_notices(pool: Pool, *, notice_days: int) -> None:
    """In pieces."""
    removed = 1
    while removed:
        async with pool.connection() as conn:
            removed = await notices.remove_old(conn, older_than=timedelta(days=notice_days))


async def note_trouble(pool: Pool, scan_id: int, error: Exception) -> None:
    """Why a sync waits, for whoever looks while it does. A database that is down cannot be told of itself."""
    with suppress(OperationalError, PoolTimeout):
        async with pool.connection() as conn:
            scan = await scans.load_scan(conn, scan_id)
            if scan is not None:
                await commands.note_trouble(conn, scan.command_id, str(error))
