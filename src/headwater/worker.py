"""The worker: runs jobs and dispatches events until it is told to stop. Any number may run, on any machines."""

import asyncio
import os
import signal
import socket
from collections.abc import Coroutine
from typing import Any

from procrastinate import App

from headwater import queue
from headwater.catalog.notices import WEBHOOK_QUEUE
from headwater.db.pool import Pool
from headwater.settings import Settings
from headwater.work import columns, queues, schedules, sync, tasks, upstream, watching
from headwater.work.dispatch import dispatch_forever
from headwater.work.preprocess import LINKS_QUEUE
from headwater.workplace import open_workplace

# How many jobs of each queue run at once. What people wait for never stands behind millions of files to be read.
QUEUES = {
    "sync": 4,
    "lanes": 3,  # more of them for syncs that are long, all together
    "preprocessing": 3,  # two keep the decoders busy while one commits
    LINKS_QUEUE: 4,  # other servers are waited for
    "default": 3,
    "exports": 2,  # which may take hours, too
    columns.QUEUE: 1,  # a core is enough for them
    "imports": 2,  # CSV files, which may take hours
    WEBHOOK_QUEUE: 8,  # they wait for others, most of the time
}
_FINISH_WITHIN_S = 5.0
_LOOK_FOR_DEAD_S = 3.0


async def run_worker(settings: Settings, database_url: str) -> None:
    """Until SIGTERM or SIGINT; a job that does not end soon then is given back to the queue."""
    name = f"headwater-worker-{os.getpid()}"
    async with open_workplace(settings, database_url, name=name, max_connections=30) as place:
        app = queue.worker_app(place.pool)
        tasks.register(app, place)
        async with app.open_async(place.pool):
            await _work_until_told(
                app,
                [
                    dispatch_forever(place.pool),
                    schedules.run_forever(place.pool),
                    queues.read_forever(place),
                    upstream.follow_forever(place),
                    columns.look_forever(place.pool, least_items=settings.column_index_items),
                    watching.watch_forever(
                        place.pool, stall_after_s=settings.stall_after_s, notice_days=settings.notice_days
                    ),
                    _adopt_forever(app, place.pool),
                ],
            )


async def _work_until_told(app: App, beside: list[Coroutine[Any, Any, None]]) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    running = [asyncio.create_task(work) for work in beside]
    running += [asyncio.create_task(_run_jobs(app, name, concurrency=most)) for name, most in QUEUES.items()]
    stopped = asyncio.create_task(stop.wait())
    done, _ = await asyncio.wait([*running, stopped], return_when=asyncio.FIRST_COMPLETED)
    await _end(running)
    stopped.cancel()
    for task in done - {stopped}:
        task.result()  # raises what ended it


async def _end(running: list[asyncio.Task[None]]) -> None:
    """Cancelled more than once where it takes that: a connection that is lost at that moment swallows it."""
    while left := [task for task in running if not task.done()]:
        for task in left:
            task.cancel()
        await asyncio.wait(left, timeout=_FINISH_WITHIN_S + 1)
    await asyncio.gather(*running, return_exceptions=True)


async def _run_jobs(app: App, queue_name: str, *, concurrency: int) -> None:
    await app.run_worker_async(
        queues=[queue_name],
        name=f"{socket.gethostname()}:{os.getpid()}:{queue_name}",
        concurrency=concurrency,
        install_signal_handlers=False,
        delete_jobs="successful",
        shutdown_graceful_timeout=_FINISH_WITHIN_S,
        update_heartbeat_interval=queue.HEARTBEAT_S,
        stalled_worker_timeout=queue.DEAD_AFTER_S,
        fetch_job_polling_interval=5,
    )


async def _adopt_forever(app: App, pool: Pool) -> None:
    """Give jobs of workers that died to those that live."""
    while True:
        await queue.adopt_dead_workers_jobs(app)
        await sync.revive_lanes(pool)
        await asyncio.sleep(_LOOK_FOR_DEAD_S)
