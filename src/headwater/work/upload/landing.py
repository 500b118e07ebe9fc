"""Rows for objects that lie in the store: of one upload or a thousand, in one transaction."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from psycopg import AsyncConnection

from headwater.catalog import items, quotas
from headwater.catalog.accounts import Account
from headwater.catalog.datasets import Dataset
from headwater.catalog.items import Item, Written
from headwater.storage.stores import Doomed, ObjectInfo
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

    def in_place_of(self, stranger: ObjectInfo) -> "Landed":
        """What lies there already and stays. What was said of ours holds for it where it has its size."""
        kept = replace(self, mode="overwrite", info=stranger)
        if stranger.size_bytes == self.info.size_bytes:
            return kept
        return Landed(self.path, "overwrite", self.own_key, stranger, hold_id=self.hold_id)


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
            await store.delete_many([Doomed(key) for key in unused])
    return done


async def land(
    conn: AsyncConnection[Any], dataset: Dataset, caller: Account | None, files: Sequence[Landed]
) -> list[Uploaded]:
    """`commit_written` in the caller's transaction, who removes `unused_keys` once it has committed."""
    paths = [file.path for file in files]
    await items.lock_paths(conn, dataset.id, paths)
    before = await items.find_items_at(conn, dataset.id, paths)
    holds = [file.hold_id for file in files if file.hold_id is not None]
    await quotas.use_places(conn, dataset.id, holds, needs=len(files) - len(before))
    kept = {
        file.path: before[file.path]
        for file in files
        if file.path in before and _is_kept(dataset, before[file.path], file)
    }
    written = [_written(file) for file in files if file.path not in kept]
    creator_id = None if caller is None else caller.id
    put = await items.put_items(conn, dataset.id, written, creator_id=creator_id) if written else []
    outcomes: dict[str, tuple[Item, Outcome]] = {item.path: (item, "skip") for item in kept.values()}
    outcomes |= {item.path: (item, "created" if is_new else "overwrite") for item, is_new in put}
    await drop_replaced(conn, [item for path, item in before.items() if path not in kept])
    return [Uploaded(*outcomes[file.path], received_bytes=file.info.size_bytes) for file in files]


def is_kept(existing: Item, mode: Mode) -> bool:
    """A ghost has no bytes to keep: an upload brings it back."""
    return mode == "skip" and existing.missing_since is None


def _is_kept(dataset: Dataset, before: Item, file: Landed) -> bool:
    """In a bucket ours lies where the old one lay, if it is another."""
    return is_kept(before, file.mode) and (dataset.driver_id is None or before.etag == file.info.etag)


def _written(file: Landed) -> Written:
    return Written(
        path=file.path,
        object_key=file.own_key,
        size_bytes=file.info.size_bytes,
        etag=file.info.etag,
        modified_at=file.info.modified_at,
        mime_type=file.mime_type,
        description=file.description,
        user_metadata=file.user_metadata,
        system_metadata=file.system_metadata,
        link=file.link,
    )


def unused_keys(files: Sequence[Landed], done: Sequence[Uploaded]) -> list[str]:
    """Objects of our own storage that became no item."""
    return [file.own_key for file, one in zip(files, done, strict=True) if one.outcome == "skip" and file.own_key]
