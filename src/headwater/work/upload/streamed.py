"""Streams a file into the dataset's store; the object becomes visible and its row commits under one lock."""

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

from headwater.catalog import items, quotas
from headwater.catalog.accounts import Account
from headwater.catalog.datasets import Dataset
from headwater.catalog.items import Item, Written
from headwater.mime_types import guess_mime_type
from headwater.storage.stores import ObjectInfo, Store, Upload
from headwater.work.deletion import drop_replaced
from headwater.work.upload.kinds import KIND_BYTES, Kind, read_kind
from headwater.work.upload.landing import Mode, Outcome, Uploaded, is_kept
from headwater.work.upload.looking import find_strangers
from headwater.work.upload.paths import check_writable
from headwater.work.workplace import Workplace


@dataclass(frozen=True, slots=True)
class Announced:
    """What comes before the bytes of a file."""

    path: str
    mode: Mode
    description: str | None = None
    user_metadata: dict[str, Any] | None = None
    system_metadata: dict[str, Any] | None = None


async def upload_file(
    place: Workplace, dataset: Dataset, caller: Account, announced: Announced, chunks: AsyncIterator[bytes]
) -> Uploaded:
    """With mode `skip` an item that exists stays as it is, and the bytes are read and dropped.

    So does an object that lies in the bucket without an item: it becomes the item.
    Nothing is left behind when the bytes end early: the caller's iterator must raise then. An item that is new and has
    no room is refused before its bytes are read: QuotaExceeded.
    """
    (await check_writable(place, dataset)).check(announced.path)
    async with place.pool.connection() as conn:
        existing = await items.find_item_at(conn, dataset.id, announced.path)
    if existing is not None and is_kept(existing, announced.mode):
        return Uploaded(existing, "skip", await _drain(chunks))
    async with (
        _held_place(place, dataset, is_new=existing is None) as hold_id,
        place.places.of_dataset(dataset.id) as store,
    ):
        key = announced.path[1:] if dataset.driver_id is not None else f"objects/{uuid4().hex}"
        upload = await store.begin_upload(key, content_type=guess_mime_type(announced.path))
        async with upload:
            received_bytes = 0
            start = bytearray()  # tells what kind of file it is
            async for chunk in chunks:
                received_bytes += len(chunk)
                if len(start) < KIND_BYTES:
                    start += chunk[: KIND_BYTES - len(start)]
                await upload.write(chunk)
            kind = await read_kind(place, caller, announced.path, bytes(start))
            await upload.seal()
            own_key = None if dataset.driver_id is not None else key
            item, outcome = await _commit(
                place, store, dataset, caller, announced, kind, upload, own_key, hold_id, received_bytes
            )
    return Uploaded(item, outcome, received_bytes)


@asynccontextmanager
async def _held_place(place: Workplace, dataset: Dataset, *, is_new: bool) -> AsyncGenerator[int | None]:
    """Room for the item, until its row commits or the upload fails. Raises QuotaExceeded."""
    hold_id = None
    if is_new:
        async with place.pool.connection() as conn:
            hold_id = await quotas.hold_place(conn, dataset.id)
    try:
        yield hold_id
    except BaseException:
        if hold_id is not None:
            async with place.pool.connection() as conn:
                await quotas.release_place(conn, hold_id)
        raise


async def _drain(chunks: AsyncIterator[bytes]) -> int:
    return sum([len(chunk) async for chunk in chunks])


async def _commit(
    place: Workplace,
    store: Store,
    dataset: Dataset,
    caller: Account,
    announced: Announced,
    kind: Kind,
    upload: Upload,
    own_key: str | None,
    hold_id: int | None,
    received_bytes: int,
) -> tuple[Item, Outcome]:
    """Make the object visible and commit its row, under the path's lock."""
    try:
        async with place.pool.connection() as conn:
            await items.lock_path(conn, dataset.id, announced.path)
            before = await items.find_item_at(conn, dataset.id, announced.path)
            if before is None:
                await quotas.use_place(conn, dataset.id, hold_id)
            elif hold_id is not None:
                await quotas.release_place(conn, hold_id)
            if before is not None and is_kept(before, announced.mode):
                return before, "skip"
            strangers = await find_strangers(conn, store, dataset, [announced.path] if announced.mode == "skip" else [])
            stranger = strangers.get(announced.path)
            info = stranger or await upload.finish()
            written = _written(announced, kind, own_key, info)
            if stranger is not None and stranger.size_bytes != received_bytes:
                written = written.bare()
            item, is_new = await items.put_item(conn, dataset.id, written, creator_id=caller.id)
            await drop_replaced(conn, [] if before is None else [before])
    except BaseException:
        # Of our own storage nobody would ever find it again; in a bucket the next sync makes it an item.
        if own_key is not None:
            await _drop_unused(place, store, dataset, announced.path, upload, own_key)
        raise
    if stranger is not None:
        return item, "skip"
    return item, "created" if is_new else "overwrite"


def _written(announced: Announced, kind: Kind, own_key: str | None, info: ObjectInfo) -> Written:
    return Written(
        path=announced.path,
        object_key=own_key,
        size_bytes=info.size_bytes,
        etag=info.etag,
        modified_at=info.modified_at,
        mime_type=kind.mime_type,
        description=announced.description,
        user_metadata=announced.user_metadata,
        system_metadata=announced.system_metadata,
        link=kind.link,
    )


async def _drop_unused(
    place: Workplace, store: Store, dataset: Dataset, path: str, upload: Upload, own_key: str
) -> None:
    """Remove an object that has no row; a commit that we only did not hear of keeps it."""
    await upload.abort()  # when we were cancelled, `finish` may still be at work
    async with place.pool.connection() as conn:
        await items.lock_path(conn, dataset.id, path)
        item = await items.find_item_at(conn, dataset.id, path)
        if item is None or item.object_key != own_key:
            await store.delete(own_key)
