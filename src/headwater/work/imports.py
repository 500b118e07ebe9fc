"""Imports: objects that lie in a dataset's bucket become items one by one, without being copied.

An import looks at the bucket as an event of it does, and follows the same rules; and it is somebody's explicit wish, so
that it also brings back what was deleted here.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from psycopg import AsyncConnection

from headwater.catalog import drivers, items, tombstones
from headwater.catalog.accounts import Account
from headwater.catalog.datasets import Dataset
from headwater.catalog.drivers import Driver
from headwater.catalog.items import Item
from headwater.catalog.sync import changes, ghosts, upstream
from headwater.catalog.sync.changes import Looked
from headwater.catalog.sync.rules import SyncRules, rules_of
from headwater.errors import BadRequest, HeadwaterError, NotFound, StoreMissing, Unavailable
from headwater.storage.stores import ObjectInfo, Store
from headwater.wire import imports as wire
from headwater.work.selection import Selection
from headwater.work.sync.batches import is_no_item
from headwater.work.upload import Outcome
from headwater.work.workplace import Workplace

_HEADS_AT_ONCE = 32
_TRIES = 5  # while others write to the same paths
_PAUSE_S = 0.2


@dataclass(frozen=True, slots=True)
class Imported:
    item: Item
    outcome: Outcome


async def import_objects(
    place: Workplace, dataset: Dataset, caller: Account, storage_ids: Sequence[str]
) -> list[Imported | HeadwaterError]:
    """An item of each object, in the order asked; or why there is none. May be repeated. At most 1,000.

    Raises BadRequest for a dataset that nothing can be imported into, Unavailable while its bucket is away.
    """
    async with place.pool.connection() as conn:
        driver = await _driver_of(conn, dataset)
    rules = rules_of(dataset.sync_rules)
    done: dict[str, Imported | HeadwaterError] = {}
    for attempt in range(_TRIES):
        left = [text for text in dict.fromkeys(storage_ids) if text not in done]
        if not left:
            break
        await asyncio.sleep(_PAUSE_S * attempt)
        async with place.pool.connection() as conn:
            began_at = await ghosts.time_of_request(conn)
        found = await _look(place, dataset, driver, rules, left)
        done |= {text: one for text, one in found.items() if isinstance(one, HeadwaterError)}
        infos = {text: one for text, one in found.items() if isinstance(one, ObjectInfo)}
        async with place.pool.connection() as conn:
            done |= await _apply(conn, dataset, caller, rules, began_at, infos)
    busy = Unavailable("Somebody else writes or deletes this object at this moment. Try again.")
    return [done.get(text, busy) for text in storage_ids]


async def _driver_of(conn: AsyncConnection[Any], dataset: Dataset) -> Driver:
    """Raises BadRequest."""
    if dataset.readonly:
        raise BadRequest(f"Dataset {dataset.name!r} is read-only.")
    if dataset.driver_id is None:
        raise BadRequest(
            f"Dataset {dataset.name!r} is in Headwater's own storage: it has no bucket to import objects from. Upload "
            "the files, or create a dataset on a storage driver."
        )
    if dataset.origin is not None:
        raise BadRequest(
            f"Dataset {dataset.name!r} is a {dataset.origin['kind']} of other datasets; objects are imported into "
            "those, and cloned."
        )
    return await drivers.get_driver(conn, dataset.driver_id)


async def _look(
    place: Workplace, dataset: Dataset, driver: Driver, rules: SyncRules, storage_ids: Sequence[str]
) -> dict[str, ObjectInfo | HeadwaterError]:
    """What the bucket has of each. Raises Unavailable, StoreDenied and the like where all would end so."""
    found: dict[str, ObjectInfo | HeadwaterError] = {}
    waiting = iter(storage_ids)
    selection = Selection.of(rules)

    async def look(store: Store) -> None:
        for text in waiting:
            try:
                info = await _find(store, dataset, driver, text)
                _check_is_item(dataset, selection, info)
            except Unavailable:
                raise
            except HeadwaterError as error:
                found[text] = error
            else:
                found[text] = info

    async with place.places.of_dataset(dataset.id) as store:
        looks = [asyncio.create_task(look(store)) for _ in range(min(_HEADS_AT_ONCE, len(storage_ids)))]
        try:
            await asyncio.gather(*looks)
        finally:
            for task in looks:
                task.cancel()
    return found


async def _find(store: Store, dataset: Dataset, driver: Driver, storage_id: str) -> ObjectInfo:
    """Raises NotFound."""
    for key in wire.keys(storage_id, bucket=driver.root, prefix=driver.prefix):
        if len(key.encode("utf-8", "replace")) > wire.LARGEST_KEY_BYTES or "\0" in key:
            continue
        try:
            return await store.head(key)
        except (StoreMissing, BadRequest):  # no such object, or a key that this store cannot have
            continue
    where = f"folder {driver.prefix!r} of {driver.root!r}" if driver.prefix else repr(driver.root)
    raise NotFound(
        f"There is no object {storage_id[:300]!r} in {where}, where the items of dataset {dataset.name!r} lie. Objects "
        "of other buckets or folders are imported into a dataset on a driver of theirs."
    )


def _check_is_item(dataset: Dataset, selection: Selection, info: ObjectInfo) -> None:
    """Raises BadRequest."""
    if is_no_item(info.key, info.size_bytes):
        raise BadRequest(f"{info.key[:300]!r} is the mark of a folder or a file of Headwater's own, and never an item.")
    if not selection.keeps("/" + info.key):
        raise BadRequest(
            f"/{info.key} is left out by the sync rules of dataset {dataset.name!r}: the next sync would take it for "
            f"gone. Change the rules first: headwater sync-rules {dataset.name}"
        )


async def _apply(
    conn: AsyncConnection[Any],
    dataset: Dataset,
    caller: Account,
    rules: SyncRules,
    began_at: datetime,
    infos: dict[str, ObjectInfo],
) -> dict[str, Imported | HeadwaterError]:
    """Rows for what was found, in one transaction. What others write to meanwhile is left out of the answer."""
    if not infos:
        return {}
    if not await upstream.lock_follower(conn, dataset.id):
        raise NotFound("The dataset was deleted meanwhile.")
    by_path = {"/" + info.key: info for info in infos.values()}
    paths = sorted(by_path)
    await items.lock_paths(conn, dataset.id, paths)
    await tombstones.lift(conn, dataset.id, paths, seen_at=began_at)
    before = await changes.known_contents(conn, dataset.id, paths)
    known = await items.find_items_at(conn, dataset.id, paths)
    found = changes.listed(
        paths,
        [by_path[path].size_bytes for path in paths],
        [by_path[path].etag for path in paths],
        ["" if (at := by_path[path].modified_at) is None else at.isoformat() for path in paths],
    )
    applied = await changes.apply_looked(conn, Looked(dataset.id, began_at, found, gone=[]), rules)
    await items.note_creator(conn, dataset.id, [path for path in paths if path not in known], caller.id)
    now = await items.find_items_at(conn, dataset.id, paths)
    done: dict[str, Imported | HeadwaterError] = {}
    for text, info in infos.items():
        path = "/" + info.key
        if path in applied.without_room and applied.refused is not None:
            done[text] = applied.refused
        elif path in now and path not in applied.unsettled:
            outcome: Outcome = "created"
            if path in known:
                outcome = "skip" if before.get(path) == f"{info.size_bytes}:{info.etag}" else "overwrite"
            done[text] = Imported(now[path], outcome)
    return done
