"""Sidecars of synced buckets: read when they are new or changed, and given to their items, whichever came first.

A sidecar that cannot be read is a state of its own item, never a job that hangs.
"""

import asyncio
import json
from collections.abc import Sequence
from typing import Any

from psycopg import AsyncConnection

from headwater import queue
from headwater.catalog import preparing, sidecars
from headwater.catalog.items import ETL_DONE, ETL_FAILED, ETL_WAITING, Item
from headwater.catalog.preparing import PreparedItem
from headwater.catalog.sidecars import ReadSidecar
from headwater.errors import BadRequest, HeadwaterError, StoreMissing, Unavailable
from headwater.storage.stores import Store
from headwater.wire.items import check_metadata, merged
from headwater.work.workplace import Workplace

MARK_TASK = "mark_sidecars"
LARGEST_BYTES = 1_000_000  # of the file
_MIME_TYPE = "application/json"
_PIECE_ITEMS = 5_000
_READS_AT_ONCE = 16


def is_ours(item: Item) -> bool:
    """Whether an item is a sidecar, in a dataset whose rules know them."""
    return sidecars.is_named_so(item.path) and item.origin_dataset_id is None


async def settle(place: Workplace, dataset_id: int, found: Sequence[Item]) -> Unavailable | None:
    """Read the sidecars among items of one dataset that wait for it, and give metadata to the items of all of them.

    Safe to repeat. Returns why some must be tried again; the others are done with.
    """
    ours = [item for item in found if is_ours(item)]
    waiting = [item for item in ours if item.etl_state == ETL_WAITING and item.missing_since is None]
    failure = await _read_all(place, dataset_id, waiting) if waiting else None
    # What was read is committed before anybody asks who speaks of whom: of a sidecar and an item that arrive side by
    # side, the later one sees the other.
    paths = [item.path for item in found] + [sidecars.target_of(item.path) for item in ours]
    async with place.pool.connection() as conn:
        await sidecars.give(conn, dataset_id, paths)
    if shown := [item.id for item in ours if not item.hidden]:
        async with place.pool.connection() as conn:
            await sidecars.hide(conn, dataset_id, shown)
    return failure


async def _read_all(place: Workplace, dataset_id: int, waiting: Sequence[Item]) -> Unavailable | None:
    """What kept some from being read; each of the others has its state. Some at a time, for they may be large."""
    failure = None
    async with place.places.of_dataset(dataset_id) as store:
        for start in range(0, len(waiting), _READS_AT_ONCE):
            together = waiting[start : start + _READS_AT_ONCE]
            found = await asyncio.gather(*(_look(store, item) for item in together))
            failure = next((one for one in found if isinstance(one, Unavailable)), failure)
            read = [one for one in found if isinstance(one, ReadSidecar)]
            async with place.pool.connection() as conn:
                # Its locks are of all rows together, in the order of everybody.
                await preparing.save_prepared(conn, dataset_id, _states(together, found))
                await sidecars.keep(conn, dataset_id, read)
    return failure


async def _look(store: Store, item: Item) -> ReadSidecar | HeadwaterError | None:
    """What it holds, or why that is not known; None for an object that has changed: its next event tells."""
    try:
        content = await _read(store, item)
    except HeadwaterError as error:
        return error
    return None if content is None else ReadSidecar(item.id, item.etag, content)


def _states(looked: Sequence[Item], found: Sequence[ReadSidecar | HeadwaterError | None]) -> list[PreparedItem]:
    """Of those that need not be tried again."""
    prepared: list[PreparedItem] = []
    for item, one in zip(looked, found, strict=True):
        if isinstance(one, ReadSidecar):
            prepared.append(_prepared(item, {"state": "done", "sidecarOf": sidecars.target_of(item.path)}))
        elif one is not None and not isinstance(one, Unavailable):
            prepared.append(_prepared(item, {"state": "failed", "reason": _reason(one), "message": str(one)}))
    return prepared


def _reason(error: Exception) -> str:
    if isinstance(error, StoreMissing):
        return "object-missing"
    return "sidecar-unreadable" if isinstance(error, BadRequest) else "denied"


def _prepared(item: Item, etl: dict[str, Any]) -> PreparedItem:
    state = ETL_FAILED if etl["state"] == "failed" else ETL_DONE
    return PreparedItem(item_id=item.id, etag=item.etag, etl_state=state, etl=etl, mime_type=_MIME_TYPE)


async def _read(store: Store, item: Item) -> dict[str, Any] | None:
    """None for an object that has changed: its next event tells. Raises BadRequest for what is no metadata."""
    if item.size_bytes > LARGEST_BYTES:
        raise BadRequest(f"The sidecar is {item.size_bytes:,} bytes long; {LARGEST_BYTES:,} are the most.")
    if item.size_bytes == 0:
        raise BadRequest("The sidecar is empty; it has to hold a JSON object.")
    async with store.get(item.key) as reader:
        if reader.info.etag and reader.info.etag != item.etag:
            return None
        text = await reader.read()
    return _parsed(text)


def _parsed(text: bytes) -> dict[str, Any]:
    """Raises BadRequest."""
    try:
        content = json.loads(text.decode("utf-8-sig"))
    except UnicodeDecodeError:
        raise BadRequest("The sidecar is not UTF-8.") from None
    except (ValueError, RecursionError):
        raise BadRequest("The sidecar is not JSON.") from None
    if not isinstance(content, dict):
        raise BadRequest('The sidecar holds no JSON object such as {"camera": 3}.')
    check_metadata(content, "the sidecar")
    return merged({}, content)


async def request_marking(conn: AsyncConnection[Any], dataset_id: int) -> None:
    """A job, in the caller's transaction, that hides the sidecars that are there, or shows them, as the rules say."""
    await queue.defer(conn, MARK_TASK, dataset_id=dataset_id)


async def mark_sidecars(place: Workplace, dataset_id: int) -> None:
    """Piece by piece. Safe to repeat, and to run beside a change of the rules: each change has a job of its own."""
    after_id: int | None = 0
    while after_id is not None:
        async with place.pool.connection() as conn:
            is_on = await sidecars.are_on(conn, dataset_id)
            after_id = await sidecars.mark_next(conn, dataset_id, after_id=after_id, limit=_PIECE_ITEMS, is_on=is_on)
