"""What really lies in a store, whatever a client says of it."""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from datetime import datetime
from typing import Any, cast

from psycopg import AsyncConnection

from headwater.catalog import tombstones
from headwater.catalog.datasets import Dataset
from headwater.errors import StoreMissing, Unavailable
from headwater.storage.stores import ListingPage, ObjectInfo, Store

_WORTH_LISTING = 50  # keys: a page of a listing costs as much as some requests
_AT_ONCE = 16
_WITHIN_S = 60.0  # less than clients wait for an answer


async def find_strangers(
    conn: AsyncConnection[Any], store: Store, dataset: Dataset, paths: Sequence[str]
) -> dict[str, ObjectInfo]:
    """Objects of a bucket at these paths, which have no items: nobody has asked that they be replaced.

    No sync has brought them in yet, or an upload of ours died before its row. Not those of items that were deleted
    here. Call it under the locks of the paths.
    """
    if dataset.driver_id is None or not paths:
        return {}
    infos = await look_at(store, [path[1:] for path in paths])
    deleted = await tombstones.etags_of(conn, dataset.id, paths) if infos else {}
    return {
        path: info
        for path in paths
        if (info := infos.get(path[1:])) is not None and not (path in deleted and deleted[path] in (None, info.etag))
    }


async def look_at(store: Store, keys: Sequence[str]) -> dict[str, ObjectInfo]:
    """Those that are there; raises what the store does, and Unavailable when it takes long: locks are held meanwhile.

    Keys that lie close together are found in a listing, the others one by one.
    """
    try:
        async with asyncio.timeout(_WITHIN_S):
            return await _look_at(store, keys)
    except TimeoutError:  # some stores answer nothing of an object while it is being written
        raise Unavailable(f"The bucket did not tell within {_WITHIN_S:.0f} s what lies in it. Try again.") from None


async def _look_at(store: Store, keys: Sequence[str]) -> dict[str, ObjectInfo]:
    found = await _listed(store, sorted(keys, key=str.encode)) if len(keys) >= _WORTH_LISTING else {}
    slots = asyncio.Semaphore(_AT_ONCE)

    async def look(key: str) -> None:
        async with slots:
            try:
                found[key] = await store.head(key)
            except StoreMissing:  # of an absent bucket the next request tells, too
                return

    tasks = [asyncio.create_task(look(key)) for key in keys if key not in found]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    return found


async def _listed(store: Store, ordered: Sequence[str]) -> dict[str, ObjectInfo]:
    """What the first pages behind the first key hold of them; it proves nothing of the others."""
    wanted, found = set(ordered), dict[str, ObjectInfo]()
    folder = _shared_folder(ordered[0], ordered[-1])
    pages_left = 2 + len(ordered) // 500
    pages = cast("AsyncGenerator[ListingPage]", store.list_pages(start_after=ordered[0], prefix=folder))
    async with aclosing(pages):
        async for page in pages:
            found |= _infos(page, wanted)
            pages_left -= 1
            if not pages_left or (page.keys and page.keys[-1].encode() >= ordered[-1].encode()):
                break
    return found


def _infos(page: ListingPage, wanted: set[str]) -> dict[str, ObjectInfo]:
    return {
        key: ObjectInfo(key, size_bytes, etag, datetime.fromisoformat(modified) if modified else None, None)
        for key, size_bytes, etag, modified in zip(page.keys, page.sizes, page.etags, page.modified, strict=True)
        if key in wanted
    }


def _shared_folder(first: str, last: str) -> str:
    folder = first[: first.rfind("/") + 1]
    while not last.startswith(folder):
        folder = folder[: folder[:-1].rfind("/") + 1]
    return folder
