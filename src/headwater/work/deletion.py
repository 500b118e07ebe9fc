"""Deletion: an item's row goes at once; its object only where the driver allows it, by a job that may be repeated."""

import asyncio
from typing import Any

from psycopg import AsyncConnection

from headwater import queue
from headwater.catalog import datasets, drivers, folders, items, projects
from headwater.catalog.items import Item
from headwater.errors import FailedDependency
from headwater.storage.stores import Store
from headwater.work.preprocess import thumbnail_key
from headwater.work.workplace import Workplace

DELETE_OBJECT_TASK = "delete_object"
PURGE_TASK = "purge_dataset"
_PURGE_ROWS = 1_000


async def delete_item(conn: AsyncConnection[Any], item: Item) -> bool:
    """The row, in the caller's transaction, and a job for what is to go from the store. False: it was gone already."""
    await items.lock_path(conn, item.dataset_id, item.path)
    now = await items.find_item(conn, item.id)  # an upload may have given it another object since
    if now is None or not await items.delete_item(conn, now):
        return False
    await queue.defer(
        conn,
        DELETE_OBJECT_TASK,
        dataset_id=item.dataset_id,
        path=item.path,
        object_key=now.object_key,
        thumbnail=thumbnail_key(item.id, now.thumbnail_type) if now.thumbnail_type else None,
        delete_object=await _may_delete_object(conn, item.dataset_id),
    )
    return True


async def _may_delete_object(conn: AsyncConnection[Any], dataset_id: int) -> bool:
    """Our own storage is ours; in a bucket the driver decides, and before it the organisation."""
    driver_id = await datasets.driver_of(conn, dataset_id)
    return driver_id is None or (await drivers.get_driver(conn, driver_id)).allow_delete


async def delete_object(
    place: Workplace,
    *,
    dataset_id: int,
    path: str,
    object_key: str | None,
    thumbnail: str | None,
    delete_object: bool,
) -> None:
    """Remove an item's thumbnail, and its object if nothing was written to the path since. Safe to repeat."""
    if thumbnail is not None:
        async with place.places.of_derived(dataset_id) as derived:
            await _delete_ours(derived, thumbnail)
    if not delete_object:
        return
    async with place.places.of_dataset(dataset_id) as store:
        if object_key is not None:
            await store.delete(object_key)  # a key of its own: nobody else writes there
        async with place.pool.connection() as conn:
            await items.lock_path(conn, dataset_id, path)
            if not await items.is_deleted_here(conn, dataset_id, path):
                return
            if not await _may_delete_object(conn, dataset_id):  # it was allowed when it was asked for
                return
            if object_key is None:
                await store.delete(path[1:])
            await items.note_object_deleted(conn, dataset_id, path)


async def _delete_ours(store: Store, key: str) -> None:
    """A derived file we may not delete is left behind: the user's rights count more than our tidiness."""
    try:
        await store.delete(key)
    except FailedDependency:
        return


async def purge_dataset(place: Workplace, dataset_id: int) -> None:
    """Remove the rows and derived files of a deleted dataset, in pieces; objects of buckets stay. Safe to repeat."""
    async with place.pool.connection() as conn:
        doomed = await datasets.find_deleted(conn, dataset_id)
    if doomed is None:
        return
    async with place.places.of_derived(dataset_id) as store:
        while True:
            async with place.pool.connection() as conn:
                bundle = await items.first_keys(conn, dataset_id, limit=_PURGE_ROWS)
            if not bundle:
                break
            keys = [thumbnail_key(item_id, kind) for item_id, kind, _ in bundle if kind is not None]
            if doomed.driver_id is None:
                keys += [key for _, _, key in bundle if key is not None]
            await _delete_all(store, keys)
            async with place.pool.connection() as conn:
                await items.purge(conn, dataset_id, [item_id for item_id, _, _ in bundle])
    async with place.pool.connection() as conn:
        await datasets.forget_dataset(conn, dataset_id)  # no scan commits a batch after this
        await items.purge_rest(conn, dataset_id)
        await folders.purge(conn, dataset_id)
        await projects.forget_project(conn, doomed.project_id)


async def _delete_all(store: Store, keys: list[str], *, at_once: int = 16) -> None:
    slots = asyncio.Semaphore(at_once)

    async def delete(key: str) -> None:
        async with slots:
            await _delete_ours(store, key)

    async with asyncio.TaskGroup() as group:
        for key in keys:
            group.create_task(delete(key))
