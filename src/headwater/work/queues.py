"""Reads the queues that clouds put the events of buckets into: another door for the hints that hooks bring.

Any number of workers may do so; each queue is read by the one that holds its lease. A message is deleted after its
hints are committed, so a crash in between brings it again.
"""

import asyncio
import logging
import os
import secrets
import socket
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import aiohttp
from psycopg import AsyncConnection, OperationalError
from psycopg_pool import PoolTimeout

from headwater.catalog import drivers, notices
from headwater.catalog.sync import event_queues, hints
from headwater.catalog.sync.event_queues import EventQueue
from headwater.errors import BadRequest, HeadwaterError, Unavailable
from headwater.storage.queues.queues import Message, Queue
from headwater.wire import bucket_events
from headwater.work.workplace import Workplace

UNREADABLE_RECEIVES = 10  # then a message that says nothing is deleted; a dead-letter queue may take it before
_MOST_QUEUES = 50  # of one worker
_LOOK_EVERY_S = 5.0
_WAIT_S = 20  # the longest that SQS waits for a message
_MANY = 10  # messages at once: all that SQS gives
_MOST_SIDE_BY_SIDE = 8
_log = logging.getLogger(__name__)


async def read_forever(place: Workplace) -> None:
    """Until cancelled; then other workers may go on at once."""
    reader = f"{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(4)}"
    connector = place.places.clouds.new_connector()
    tasks: dict[int, asyncio.Task[None]] = {}
    try:
        while True:
            with suppress(OperationalError, PoolTimeout):  # a database that is away is waited for
                for queue in await _claim(place, reader, limit=_MOST_QUEUES - len(tasks)):
                    reading = _Reading(place, reader, queue, connector)
                    tasks[queue.driver_id] = asyncio.create_task(reading.until_it_ends())
            await asyncio.sleep(_LOOK_EVERY_S)
            tasks = {driver_id: task for driver_id, task in tasks.items() if not task.done()}
    finally:
        for task in tasks.values():
            task.cancel()
        await asyncio.gather(*tasks.values(), return_exceptions=True)
        await connector.close()


async def _claim(place: Workplace, reader: str, *, limit: int) -> Sequence[EventQueue]:
    if limit <= 0:
        return []
    async with place.pool.connection() as conn:
        return await event_queues.claim(conn, reader, limit=limit)


@dataclass(frozen=True, slots=True)
class _Reading:
    """One queue that is leased to us."""

    place: Workplace
    reader: str
    queue: EventQueue
    connector: aiohttp.BaseConnector

    async def until_it_ends(self) -> None:
        """Until the lease is lost, the queue fails, or this is cancelled."""
        try:
            await self._read()
        except (OperationalError, PoolTimeout):
            pass  # the lease ends by itself
        except HeadwaterError as error:
            with suppress(OperationalError, PoolTimeout):
                await self._give_up(error, str(error))
        except asyncio.CancelledError:
            with suppress(OperationalError, PoolTimeout):
                async with self.place.pool.connection() as conn:
                    await event_queues.release(conn, self.reader, self.queue.driver_id)
            raise
        except Exception as error:  # noqa: BLE001 - a defect of ours at one queue stops no other
            _log.exception("Reading the queue of driver %s failed", self.queue.driver_id)
            with suppress(OperationalError, PoolTimeout):
                await self._give_up(error, "Headwater failed at reading this queue; its log says where.")

    async def _read(self) -> None:
        async with self.place.pool.connection() as conn:
            driver = await drivers.get_driver(conn, self.queue.driver_id)
        opened = await self.place.places.clouds.open_queue(driver, self.queue, self.connector)
        try:
            await self._read_on(opened)
        finally:
            await opened.close()

    async def _read_on(self, opened: Queue) -> None:
        """One request at a time while little comes, several when much does."""
        side_by_side = 1
        while True:
            wait_s = _WAIT_S if side_by_side == 1 else 0
            readings = [self.read_once(opened, wait_s=wait_s) for _ in range(side_by_side)]
            counts: list[int] = []
            for told in await asyncio.gather(*readings, return_exceptions=True):
                if isinstance(told, BaseException):
                    raise told
                if told is None:
                    return
                counts.append(told)
            is_busy = all(count >= _MANY for count in counts)
            side_by_side = min(2 * side_by_side, _MOST_SIDE_BY_SIDE) if is_busy else 1

    async def read_once(self, opened: Queue, *, wait_s: int) -> int | None:
        """Take in what comes within `wait_s`, then delete it: how many. None when the queue is no longer ours."""
        messages = await opened.receive(wait_s=wait_s)
        readable, unreadable, said = _sorted(messages)
        async with self.place.pool.connection() as conn:
            is_ours = await event_queues.keep(
                conn,
                self.queue,
                self.reader,
                messages=len(messages),
                unreadable=sum(message.receives <= 1 for message in unreadable),
            )
            if not is_ours:  # what was received comes again, to whoever reads now
                return None
            if readable:
                await hints.take_in(
                    conn, self.queue.driver_id, said.hints, ignored=said.ignored, needs_scan=said.needs_scan
                )
            if unreadable and await event_queues.first_unreadable(conn, self.queue):
                await self._tell_of_unreadable(conn)
        hopeless = [message for message in unreadable if message.receives >= UNREADABLE_RECEIVES]
        if done := readable + hopeless:
            await opened.delete(done)
        return len(messages)

    async def _give_up(self, error: Exception, sentence: str) -> None:
        is_passing = isinstance(error, Unavailable) or not isinstance(error, HeadwaterError)
        async with self.place.pool.connection() as conn:
            if await event_queues.note_failure(conn, self.queue, self.reader, sentence, is_passing=is_passing):
                driver = await drivers.get_driver(conn, self.queue.driver_id)
                title = f"Events of driver {driver.name} are not read"
                if not await notices.was_told(conn, driver.project_id, title):
                    message = f"{sentence} Headwater goes on trying. Meanwhile scheduled syncs find what changed."
                    await notices.tell_project(conn, driver.project_id, "error", title, message)

    async def _tell_of_unreadable(self, conn: AsyncConnection[Any]) -> None:
        driver = await drivers.get_driver(conn, self.queue.driver_id)
        await notices.tell_project(
            conn,
            driver.project_id,
            "warning",
            f"Messages in the queue of driver {driver.name} are no events",
            f"Queue {self.queue.title} has messages that say nothing of a bucket. Each is tried {UNREADABLE_RECEIVES} "
            "times and then deleted, unless the queue's own dead-letter queue takes it before. Use the queue for the "
            "events of this bucket alone.",
        )


def _sorted(messages: Sequence[Message]) -> tuple[list[Message], list[Message], bucket_events.Parsed]:
    """Those that could be read, the others, and what the first say."""
    readable: list[Message] = []
    unreadable: list[Message] = []
    said = bucket_events.Parsed()
    for message in messages:
        try:
            said.add(bucket_events.parse(message.body))
            readable.append(message)
        except BadRequest:
            unreadable.append(message)
    return readable, unreadable, said
