"""Runs schedules: starts the syncs that are due, and tells a project of one that fails again and again.

Any number of workers may do so side by side. That a run was due is noted in the transaction that starts its sync.
"""

import asyncio
import logging
from typing import Any

from psycopg import AsyncConnection, OperationalError
from psycopg_pool import PoolTimeout

from headwater.catalog import datasets, notices
from headwater.catalog.sync import scans, schedules
from headwater.db.pool import Pool
from headwater.errors import HeadwaterError
from headwater.work import sync

_LOOK_EVERY_S = 5.0
_log = logging.getLogger(__name__)


async def run_forever(pool: Pool) -> None:
    """Until cancelled. A database that goes away and comes back is waited for."""
    while True:
        try:
            await run_once(pool)
        except (OperationalError, PoolTimeout) as error:
            _log.warning("Schedules wait for the database: %s", type(error).__name__)
        except Exception:  # noqa: BLE001 - a defect of ours here stops no other work
            _log.exception("Schedules failed")
        await asyncio.sleep(_LOOK_EVERY_S)


async def run_once(pool: Pool) -> int:
    """Everything that is due by now. Returns how many runs that were."""
    async with pool.connection() as conn:
        await schedules.keep_defaults(conn)
    async with pool.connection() as conn:
        for failing in await schedules.judge_ended(conn):
            await _tell(conn, failing)
    count = 0
    while await _run_one(pool):
        count += 1
    return count


async def _run_one(pool: Pool) -> bool:
    async with pool.connection() as conn:
        due = await schedules.take_due(conn)
        if due is None:
            return False
        running = await scans.running_command(conn, due.dataset_id)
        if running is not None:
            await schedules.note_run(conn, due, "skipped", message="A sync of this dataset was running already.")
            return True
        try:
            async with conn.transaction():
                dataset = await datasets.load_dataset(conn, due.dataset_id)
                command_id = await sync.request_sync(conn, dataset, caller_id=None)
        except HeadwaterError as error:
            await schedules.note_run(conn, due, "refused", message=str(error))
            return True
        await schedules.note_run(conn, due, "started", command_id=command_id)
    return True


async def _tell(conn: AsyncConnection[Any], failing: schedules.Failing) -> None:
    await notices.tell_project(
        conn,
        failing.project_id,
        "error",
        f"Scheduled syncs of {failing.dataset_name} keep failing",
        f"The last {schedules.FAILURES_TO_TELL} syncs of dataset {failing.dataset_name} that its schedule started "
        f"failed. The last one: {failing.error or 'it took too long.'} The schedule goes on trying.",
        dataset_id=failing.dataset_id,
    )
