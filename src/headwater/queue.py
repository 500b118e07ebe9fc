"""Durable jobs: rows of procrastinate in our PostgreSQL, deferred on the caller's own connection.

A job commits with the rows that asked for it, or not at all.
"""

from collections.abc import Iterable
from contextlib import suppress
from functools import cache
from typing import Any

from procrastinate import App, PsycopgConnector
from procrastinate.exceptions import AlreadyEnqueued, ConnectorException, UniqueViolation
from procrastinate.jobs import Status
from psycopg import AsyncConnection
from psycopg_pool import AsyncConnectionPool

# A worker says every few seconds that it lives; one silent for longer is dead and its jobs run elsewhere.
HEARTBEAT_S = 2.0
DEAD_AFTER_S = 10.0


@cache
def _deferrer() -> App:
    """Its connector is never opened: each job goes in on the connection that `defer` was given."""
    return App(connector=PsycopgConnector())


async def defer(
    conn: AsyncConnection[Any],
    task: str,
    *,
    queue: str = "default",
    lock: str | None = None,
    queueing_lock: str | None = None,
    priority: int = 0,
    after_s: int = 0,
    **arguments: Any,
) -> None:
    """One job in the caller's transaction, to run `after_s` from now. Jobs of one `lock` never run side by side.

    With a `queueing_lock`, nothing is added while a job with that lock still waits.
    """
    deferrer = _deferrer().configure_task(
        task,
        allow_unknown=True,
        queue=queue,
        lock=lock,
        queueing_lock=queueing_lock,
        priority=priority,
        schedule_in={"seconds": after_s} if after_s else None,
        connection=conn,
    )
    try:
        async with conn.transaction():
            await deferrer.defer_async(**arguments)
    except AlreadyEnqueued:
        return


async def defer_each(
    conn: AsyncConnection[Any], task: str, arguments: Iterable[dict[str, Any]], *, queue: str = "default"
) -> None:
    """Many jobs of one task with one statement, in the caller's transaction."""
    deferrer = _deferrer().configure_task(task, allow_unknown=True, queue=queue, connection=conn)
    await deferrer.batch_defer_async(*arguments)


def worker_app(pool: AsyncConnectionPool[Any]) -> App:
    """An app whose connector uses `pool`; open it with `open_async(pool)`."""
    return App(connector=PsycopgConnector(pool_factory=lambda **_: pool))


async def adopt_dead_workers_jobs(app: App) -> int:
    """Put the jobs of workers that died back into the queue. Returns how many. Safe to repeat."""
    adopted = 0
    for job in await app.job_manager.get_stalled_jobs(seconds_since_heartbeat=DEAD_AFTER_S):
        with suppress(ConnectorException):  # another worker was quicker, or the dead one was only slow
            try:
                await app.job_manager.retry_job(job)
            except UniqueViolation:  # one with its queueing lock waits, and cannot run as long as this one seems to
                await app.job_manager.finish_job(job, Status.ABORTED, delete_job=True)
            adopted += 1
    return adopted
