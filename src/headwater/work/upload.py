"""Upload: streams a file into the dataset's store; the object is written first, then its row, under one lock."""

import re
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Literal
from uuid import uuid4

from headwater import queue
from headwater.catalog import drivers, items, quotas
from headwater.catalog.accounts import Account
from headwater.catalog.datasets import Dataset
from headwater.catalog.items import HIDDEN_FOLDER, Item, Written
from headwater.catalog.sync.rules import rules_of
from headwater.errors import BadRequest
from headwater.mime_types import guess_mime_type
from headwater.storage.stores import LARGEST_KEY_BYTES, Store, Upload
from headwater.work.checks import TEST_KEY
from headwater.work.deletion import DELETE_OBJECT_TASK
from headwater.work.selection import Selection
from headwater.work.workplace import Workplace

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")  # the latter: what is no Unicode text

Mode = Literal["skip", "overwrite"]
Outcome = Literal["created", "overwrite", "skip"]


@dataclass(frozen=True, slots=True)
class Announced:
    """What comes before the bytes of a file."""

    path: str
    mode: Mode
    description: str | None = None
    user_metadata: dict[str, Any] | None = None
    system_metadata: dict[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Uploaded:
    item: Item
    outcome: Outcome
    received_bytes: int


def checked_path(path: str) -> str:
    """An item's path as it is kept: one slash in front. Raises BadRequest for what no store could hold."""
    path = "/" + path.lstrip("/")
    segments = path[1:].split("/")
    if _CONTROL.search(path) or "" in segments or "." in segments or ".." in segments:
        raise BadRequest(
            f"{path[:200]!r} cannot be an item's path. A path is /folder/name.ext, without empty, '.' or '..' parts "
            "and without control characters."
        )
    if len(path.encode()) - 1 > LARGEST_KEY_BYTES:
        raise BadRequest(f"The path is {len(path.encode()) - 1} bytes long; buckets take {LARGEST_KEY_BYTES}.")
    if path.startswith((f"{HIDDEN_FOLDER}/thumbnails/", f"/{TEST_KEY}")):
        raise BadRequest(f"{path[:200]!r} is where Headwater keeps its own files. Choose another folder.")
    return path


async def upload_file(
    place: Workplace, dataset: Dataset, caller: Account, announced: Announced, chunks: AsyncIterator[bytes]
) -> Uploaded:
    """With mode `skip` an item that exists stays as it is, and the bytes are read and dropped.

    Nothing is left behind when the bytes end early: the caller's iterator must raise then. An item that is new and has
    no room is refused before its bytes are read: QuotaExceeded.
    """
    if dataset.readonly:
        raise BadRequest(f"Dataset {dataset.name!r} is read-only.")
    if not Selection.of(rules_of(dataset.sync_rules)).keeps(announced.path):
        raise BadRequest(
            f"{announced.path} is left out by the sync rules of dataset {dataset.name!r}: the next sync would take it "
            f"for gone. Choose another path, or change the rules: headwater sync-rules {dataset.name}"
        )
    await _check_bucket_is_written(place, dataset)
    async with place.pool.connection() as conn:
        existing = await items.find_item_at(conn, dataset.id, announced.path)
    if existing is not None and _is_kept(existing, announced.mode):
        return Uploaded(existing, "skip", await _drain(chunks))
    async with (
        _held_place(place, dataset, is_new=existing is None) as hold_id,
        place.places.of_dataset(dataset.id) as store,
    ):
        key = announced.path[1:] if dataset.driver_id is not None else f"objects/{uuid4().hex}"
        upload = await store.begin_upload(key, content_type=guess_mime_type(announced.path))
        async with upload:
            received_bytes = 0
            async for chunk in chunks:
                received_bytes += len(chunk)
                await upload.write(chunk)
            await upload.seal()
            own_key = None if dataset.driver_id is not None else key
            item, outcome = await _commit(place, store, dataset, caller, announced, upload, own_key, hold_id)
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


async def _check_bucket_is_written(place: Workplace, dataset: Dataset) -> None:
    """Raises BadRequest."""
    if dataset.driver_id is None:
        return
    async with place.pool.connection() as conn:
        driver = await drivers.get_driver(conn, dataset.driver_id)
    if driver.read_only:
        raise BadRequest(
            f"Driver {driver.name!r} of dataset {dataset.name!r} only reads its bucket, so nothing can be uploaded. "
            "Upload to another dataset, or put the file into the bucket and sync."
        )


def _is_kept(existing: Item, mode: Mode) -> bool:
    """A ghost has no bytes to keep: an upload brings it back."""
    return mode == "skip" and existing.missing_since is None


async def _drain(chunks: AsyncIterator[bytes]) -> int:
    return sum([len(chunk) async for chunk in chunks])


async def _commit(
    place: Workplace,
    store: Store,
    dataset: Dataset,
    caller: Account,
    announced: Announced,
    upload: Upload,
    own_key: str | None,
    hold_id: int | None,
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
            if before is not None and _is_kept(before, announced.mode):
                return before, "skip"
            info = await upload.finish()
            written = Written(
                path=announced.path,
                object_key=own_key,
                size_bytes=info.size_bytes,
                etag=info.etag,
                modified_at=info.modified_at,
                mime_type=None,
                description=announced.description,
                user_metadata=announced.user_metadata,
                system_metadata=announced.system_metadata,
            )
            item, is_new = await items.put_item(conn, dataset.id, written, creator_id=caller.id)
            if before is not None and before.object_key is not None:
                await queue.defer(
                    conn,
                    DELETE_OBJECT_TASK,
                    dataset_id=dataset.id,
                    path=announced.path,
                    object_key=before.object_key,
                    thumbnail=None,
                    delete_object=True,
                )
    except BaseException:
        # Of our own storage nobody would ever find it again; in a bucket the next sync makes it an item.
        if own_key is not None:
            await _drop_unused(place, store, dataset, announced.path, upload, own_key)
        raise
    return item, "created" if is_new else "overwrite"


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
