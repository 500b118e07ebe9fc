"""Starting a scan, or going on with one, and the jobs that work on it."""

from typing import Any

from psycopg import AsyncConnection

from headwater import queue
from headwater.catalog import commands, datasets
from headwater.catalog.sync import lanes, scans, shards
from headwater.db.pool import Pool

TASK = "run_scan"
KIND = "SyncDataset"
LANES = 8  # of one scan, on all workers together

_QUEUE = "sync"  # for the first lane of each scan, so that a long scan leaves room for the others
_MORE_LANES_QUEUE = "lanes"


async def request_sync(
    conn: AsyncConnection[Any],
    dataset: datasets.Dataset,
    *,
    caller_id: int | None,
    confirm_missing: bool = False,
    resume: bool = False,
) -> int:
    """Start a scan, or return the one that runs: the id of its command. Its job commits with it.

    With `resume` a scan that was stopped goes on where it was; without one, or after one that ended, another begins.
    So it does with a confirmation, because a scan without one notes only so many of what is missing.
    """
    running = await scans.running_command(conn, dataset.id)
    if running is not None:
        return running
    command_id = await commands.start_command(
        conn,
        project_id=dataset.project_id,
        dataset_id=dataset.id,
        kind=KIND,
        spec={"datasetId": f"{dataset.id:024x}"},
        creator_id=caller_id,
    )
    scan_id = None
    if resume and not confirm_missing:
        scan_id = await scans.resume_scan(conn, dataset_id=dataset.id, command_id=command_id)
    if scan_id is None:
        bounds = await shards.last_bounds(conn, dataset.id)
        scan_id = await scans.start_scan(
            conn, dataset_id=dataset.id, command_id=command_id, confirm_missing=confirm_missing, bounds=bounds
        )
    await defer_lane(conn, scan_id, command_id, 0)
    for lane in range(1, min(LANES, await shards.count_open(conn, scan_id))):
        await defer_lane(conn, scan_id, command_id, lane)
    return command_id


async def revive_lanes(pool: Pool) -> None:
    """Give lanes new jobs whose own are lost. Safe to repeat and side by side.

    A worker that was thought dead comes back and ends its job, which another works on by now: if that one fails, there
    is no job to try again, and its range is nobody else's.
    """
    async with pool.connection() as conn:
        lost = await lanes.find_lost(conn, LANES)
    for scan_id in {found for found, _, _ in lost}:
        async with pool.connection() as conn:
            await scans.lock_scan(conn, scan_id)
            for found, command_id, lane in await lanes.find_lost(conn, LANES):
                if found == scan_id:
                    await defer_lane(conn, scan_id, command_id, lane)


async def defer_lane(conn: AsyncConnection[Any], scan_id: int, command_id: int, lane: int, *, after_s: int = 0) -> None:
    """A job that works on the scan, unless one of that lane waits already. Those of one lane never run side by side."""
    name = lanes.job_name(command_id, lane)
    await queue.defer(
        conn,
        TASK,
        queue=_MORE_LANES_QUEUE if lane else _QUEUE,
        lock=name,
        queueing_lock=name,
        after_s=after_s,
        scan_id=scan_id,
        command_id=command_id,
        lane=lane,
    )
