"""Column indexes are kept up: begun where a dataset has outgrown its rows, and built where items were touched."""

import asyncio
import logging
from contextlib import suppress
from typing import Any

from psycopg import AsyncConnection, OperationalError
from psycopg.errors import SerializationFailure, UniqueViolation
from psycopg_pool import PoolTimeout

from headwater import queue
from headwater.catalog.columns import building, covering, upkeep
from headwater.catalog.columns.building import Built, Dictionaries, Outgrown
from headwater.db.pool import Pool
from headwater.errors import Unavailable
from headwater.ids import to_wire
from headwater.work.workplace import Workplace

TASK, QUEUE = "build_columns", "columns"
_LOOK_EVERY_S = 10.0
_ASK_READY_TIMES, _ASK_READY_S = 50, 0.1
_TRIES = 5  # of one segment, when others build it at the same time
_log = logging.getLogger(__name__)


async def request_build(conn: AsyncConnection[Any], dataset_id: int, *, at_once: bool = False) -> None:
    """A job, in the caller's transaction, that builds what is due; `at_once`: all that is not as its items are."""
    lock = f"columns:{dataset_id}"
    await queue.defer(
        conn,
        TASK,
        queue=QUEUE,
        lock=lock,
        queueing_lock=f"{lock}:all" if at_once else lock,
        dataset_id=dataset_id,
        at_once=at_once,
    )


async def look_forever(pool: Pool, *, least_items: int) -> None:
    """Begin and build indexes where that is due. Any number of these may run side by side."""
    while True:
        try:
            await look(pool, least_items=least_items)
        except (OperationalError, PoolTimeout) as error:
            _log.warning("Column indexes wait for the database: %s", type(error).__name__)
        except Exception:  # noqa: BLE001 - a defect of ours here stops no other work
            _log.exception("The look for column indexes failed")
        await asyncio.sleep(_LOOK_EVERY_S)


async def look(pool: Pool, *, least_items: int) -> None:
    """One look, by one worker at a time: the others skip theirs."""
    async with pool.connection() as conn:
        if not await upkeep.try_look(conn):
            return
        await upkeep.begin_where_due(conn, least_items=least_items)
        for dataset_id in await upkeep.find_due(conn):
            await request_build(conn, dataset_id)


async def build_columns(place: Workplace, dataset_id: int, *, at_once: bool = False) -> None:
    """What is due of a dataset's index, a segment at a time. Safe to repeat, and to run twice side by side.

    What was built stays built wherever it ends.
    """
    if not await _is_ready(place.pool, dataset_id):
        return
    async with place.pool.connection() as conn:
        is_new = await covering.seek_paths_once(conn, dataset_id)
        await covering.cover_columns(conn, dataset_id)  # a newer version may have more of them
    async with place.pool.connection() as conn:
        due = await upkeep.due_segments(conn, dataset_id, at_once=at_once or is_new)
    dictionaries: Dictionaries = {}
    while due:
        for segment in due:
            built = await _build(place.pool, dataset_id, segment, dictionaries)
            if built is None:  # the index was dropped
                return
            async with place.pool.connection() as conn:
                await covering.cover_found(conn, dataset_id, built.found)
        async with place.pool.connection() as conn:
            due = await upkeep.due_segments(conn, dataset_id, at_leisure=0)
    async with place.pool.connection() as conn:
        await upkeep.note_error(conn, dataset_id, None)


async def _is_ready(pool: Pool, dataset_id: int) -> bool:
    """False: it has no index, or there are transactions that may not know of it; the next look asks again."""
    for _ in range(_ASK_READY_TIMES):
        async with pool.connection() as conn:
            if await upkeep.make_ready(conn, dataset_id):
                return True
        await asyncio.sleep(_ASK_READY_S)
    return False


async def _build(pool: Pool, dataset_id: int, segment: int, dictionaries: Dictionaries) -> Built | None:
    """Raises Unavailable when others build the dataset all the time."""
    for _ in range(_TRIES):
        try:
            async with pool.connection() as conn:
                return await building.build_segment(conn, dataset_id, segment, dictionaries)
        except Outgrown as outgrown:
            await _change_encodings(pool, dataset_id, outgrown)
        except (SerializationFailure, UniqueViolation):
            pass  # another build came in between
        dictionaries.clear()
    raise Unavailable(f"The columns of dataset {to_wire(dataset_id)} are being built by others at the same time.")


async def _change_encodings(pool: Pool, dataset_id: int, outgrown: Outgrown) -> None:
    for path, kind in outgrown.paths:
        with suppress(SerializationFailure):
            async with pool.connection() as conn:
                await building.change_encoding(conn, dataset_id, path, kind)


async def give_up(place: Workplace, dataset_id: int, error: str) -> None:
    """Until the next look. Queries go on with what is built."""
    async with place.pool.connection() as conn:
        await upkeep.note_error(conn, dataset_id, error)
