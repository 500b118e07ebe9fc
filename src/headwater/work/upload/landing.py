"""Rows for objects that lie in the store: of one upload or a thousand, in one transaction."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from psycopg import AsyncConnection

from headwater.catalog import items, quotas
from headwater.catalog.accounts import Account
from headwater.catalog.datasets import Dataset
from headwater.catalog.items import Item, Written
from headwater.storage.stores import ObjectInfo
from headwater.work.deletion import drop_replaced
from headwater.work.workplace import Workplace

Mode = Literal["skip", "overwrite"]
Outcome = Literal["created", "overwrite", "skip"]


@dataclass(frozen=True, slots=True)
class Landed:
    """A file whose bytes lie in the store and which is to be an item.

    In our own storage it lies at `own_key`, a key that nobody else uses; in a bucket where its path says. A link that
    has no object has neither.
    """

    path: str  # of `checked_path`
    mode: Mode
    own_key: str | None
    info: ObjectInfo  # as the store tells it, not as a client does
    description: str | None = None
    user_metadata: dict[str, Any] | None = None
    system_metadata: dict[str, Any] | None = None
    mime_type: str | None = None  # None: by its name
    link: dict[str, Any] | None = None  # `Link.to_json()` of catalog/links.py
    hold_id: int | None = None  # its place in the quota, if one was held


@dataclass(frozen=True, slots=True)
class Uploaded:
    item: Item
    outcome: Outcome
    received_bytes: int


async def commit_written(
    place: Workplace, dataset: Dataset, caller: Account | None, files: Sequence[Landed]
) -> list[Uploaded]:
    """Items of up to 1,000 files, in their order; all of them, or none and the reason: QuotaExceeded, NotFound.

    Paths must differ. With mode `skip` an item that is there stays as it is, unless the object it tells of is no more:
    in a bucket it has been replaced by ours. Objects of our own storage that became no item are removed.
    """
    async with place.pool.connection() as conn:
        done = await land(conn, dataset, caller, files)
    unused = unused_keys(files, done)
    if unused:
        async with place.places.of_dataset(dataset.id) as store:
            for key in unused:
                await store.delete(key)
    return done


async def land(
    conn: AsyncConnection[Any], dataset: Dataset, caller: Account | None, files: Sequence[Landed]
) -> list[Uploaded]:
    """`commit_written` in the caller's transaction, who removes `unused_keys` once it has committed."""
    await items.lock_paths(conn, dataset.id, [file.path for file in files])
    return [await _commit_one(conn, dataset, caller, file) for file in files]


def unused_keys(files: Sequence[Landed], done: Sequence[Uploaded]) -> list[str]:
    """Objects of our own storage that became no item."""
    return [file.own_key for file, one in zip(files, done, strict=True) if one.outcome == "skip" and file.own_key]


async def _commit_one(conn: AsyncConnection[Any], dataset: Dataset, caller: Account | None, file: Landed) -> Uploaded:
    before = await items.find_item_at(conn, dataset.id, file.path)
    if before is None:
        await quotas.use_place(conn, dataset.id, file.hold_id)
    elif file.hold_id is not None:
        await quotas.release_place(conn, file.hold_id)
    if (
        before is not None
        and file.mode == "skip"
        and before.missing_since is None
        and (file.own_key is not None or before.etag == file.info.etag)
    ):
        return Uploaded(before, "skip", file.info.size_bytes)
    written = Written(
        path=file.path,
        object_key=file.own_key,
        size_bytes=file.info.size_bytes,
        etag=file.info.etag,
        modified_at=file.info.modified_at,
        mime_type=file.mime_type,
        description=file.description,
        user_metadata=file.user_metadata,
        system_metadata=file.system_metadata,
    )
    item, is_new = await items.put_item(conn, dataset.id, written, creator_id=None if caller is None else caller.id)
    if before is not None:
        await drop_replaced(conn, before)
    return Uploaded(item, "created" if is_new else "overwrite", file.info.size_bytes)
