"""The dispatcher: turns events into jobs of the services whose triggers match. Any number may run side by side."""

import asyncio
from typing import Any

from psycopg import AsyncConnection, OperationalError

from headwater import queue
from headwater.catalog import events, selections, triggers
from headwater.db.pool import Pool
from headwater.wire.query import parse_items_query

ITEMS_PER_JOB = 100
_EVENTS_AT_ONCE = 20
_LOOK_ANYWAY_S = 5.0  # a notification can be lost, a row cannot


async def dispatch_forever(pool: Pool) -> None:
    """Until cancelled. A database that goes away and comes back is waited for."""
    while True:
        try:
            async with pool.connection() as listener:
                await listener.set_autocommit(True)
                await listener.execute("LISTEN " + events.CHANNEL)
                try:
                    await _dispatch_and_listen(pool, listener)
                finally:
                    await listener.execute("UNLISTEN *")
                    await listener.set_autocommit(False)
        except OperationalError:
            await asyncio.sleep(_LOOK_ANYWAY_S)


async def _dispatch_and_listen(pool: Pool, listener: AsyncConnection[Any]) -> None:
    while True:
        while await dispatch(pool):
            pass
        async for _ in listener.notifies(timeout=_LOOK_ANYWAY_S, stop_after=1):
            pass


async def dispatch(pool: Pool) -> int:
    """Turn some events into jobs, in one transaction. Returns how many events."""
    async with pool.connection() as conn:
        taken = await events.take_events(conn, limit=_EVENTS_AT_ONCE)
        for event in taken:
            for trigger in await triggers.find_triggers(conn, event):
                await _defer_jobs(conn, event, trigger)
    return len(taken)


async def _defer_jobs(conn: AsyncConnection[Any], event: events.Event, trigger: triggers.Trigger) -> None:
    item_ids = event.item_ids
    if trigger.filter:
        wanted = parse_items_query({"filter": trigger.filter}).files
        item_ids = await selections.matching(conn, event.dataset_id, item_ids, wanted) if wanted else []
    jobs = [
        {"dataset_id": event.dataset_id, "item_ids": item_ids[start : start + ITEMS_PER_JOB]}
        for start in range(0, len(item_ids), ITEMS_PER_JOB)
    ]
    if jobs:
        await queue.defer_each(conn, trigger.task, jobs, queue=trigger.queue)
