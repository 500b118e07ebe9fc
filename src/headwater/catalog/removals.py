"""Deletion of rows: with tombstones and counters in the same transaction; objects are the caller's next step."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from psycopg import AsyncConnection
from psycopg.rows import class_row

from headwater.catalog import annotations, tombstones
from headwater.catalog.datasets import CounterChange, count
from headwater.catalog.items import ETL_DONE, ETL_FAILED, Item


@dataclass(frozen=True, slots=True)
class Deleted:
    """A row that is no more, and what is left of it in stores."""

    id: int
    path: str
    object_key: str | None
    size_bytes: int
    thumbnail_type: str | None
    origin_dataset_id: int | None = None  # of a clone: where its object and its thumbnail lie
    thumbnail_id: int | None = None

    @property
    def thumbnail_number(self) -> int:
        return self.id if self.thumbnail_id is None else self.thumbnail_id


async def delete_items(
    conn: AsyncConnection[Any], dataset_id: int, doomed: Sequence[tuple[int, str]], *, is_object_asked: bool
) -> list[Deleted]:
    """Remove the rows of these (id, path) with their annotations, and leave tombstones: no scan brings them back.

    Returns those that were still there. Call it under `lock_paths`. The objects are the caller's next step, where they
    may be deleted at all: `is_object_asked`. Who deletes a ghost has seen no object: one that returns is not to go.
    A clone leaves no tombstone, because no scan finds an object at its path; nor does a link that has no object.
    """
    cursor = await conn.execute(
        """
        WITH doomed AS (
            SELECT item.id
            FROM item
            JOIN unnest(%(ids)s::bigint[], %(paths)s::text[]) AS given (id, path)
                ON given.id = item.id AND given.path = item.path
            WHERE item.dataset_id = %(dataset_id)s
            ORDER BY item.id
            FOR UPDATE OF item
        )
        DELETE FROM item
        USING doomed
        WHERE item.dataset_id = %(dataset_id)s AND item.id = doomed.id
        RETURNING item.id, item.path, item.object_key, item.size_bytes, item.thumbnail_type, item.origin_dataset_id,
            item.thumbnail_id, item.etag, item.etl_state, item.missing_since IS NOT NULL,
            item.trashed_at IS NOT NULL, item.hidden, item.annotations_count,
            item.object_key IS NULL AND (SELECT driver_id IS NULL FROM dataset WHERE dataset.id = item.dataset_id)
        """,
        {
            "dataset_id": dataset_id,
            "ids": [item_id for item_id, _ in doomed],
            "paths": [path for _, path in doomed],
        },
    )
    change = CounterChange()
    deleted: list[Deleted] = []
    etags: list[str] = []
    without_object: set[str] = set()
    annotated: list[int] = []
    for *facts, etag, etl_state, is_missing, is_trashed, is_hidden, number, has_no_object in await cursor.fetchall():
        gone = Deleted(*facts)
        deleted.append(gone)
        if has_no_object:
            without_object.add(gone.path)
        etags.append(tombstones.NO_OBJECT if is_missing else etag)
        change.items -= 1
        change.bytes -= gone.size_bytes
        change.hidden_items -= is_hidden
        change.missing_items -= is_missing
        change.trashed_items -= is_trashed
        change.prepared_items -= etl_state == ETL_DONE
        change.failed_items -= etl_state == ETL_FAILED
        if number:
            annotated.append(gone.id)
            change.annotations -= number
            change.annotated_items -= 1
    if deleted:
        await annotations.delete_of_items(conn, dataset_id, annotated)
        left = [
            (gone.path, gone.object_key, etag)
            for gone, etag in zip(deleted, etags, strict=True)
            if gone.origin_dataset_id is None and gone.path not in without_object
        ]
        await tombstones.put(conn, dataset_id, left, is_object_asked=is_object_asked)
        await count(conn, dataset_id, change)
    return deleted


async def delete_item(conn: AsyncConnection[Any], item: Item, *, is_object_asked: bool = False) -> Deleted | None:
    """`delete_items` of one. None when it was gone already."""
    doomed = [(item.id, item.path)]
    return next(iter(await delete_items(conn, item.dataset_id, doomed, is_object_asked=is_object_asked)), None)


async def note_object_deleted(conn: AsyncConnection[Any], dataset_id: int, path: str) -> None:
    await tombstones.note_objects_deleted(conn, dataset_id, [path])


async def first_origins(conn: AsyncConnection[Any], dataset_id: int, *, limit: int) -> tuple[int, set[int]]:
    """The last id of the oldest rows, 0 if there are none, and the datasets in whose storage their objects lie."""
    cursor = await conn.execute(
        """
        SELECT coalesce(max(id), 0), array_agg(DISTINCT coalesce(origin_dataset_id, %(dataset_id)s))
        FROM (
            SELECT id, origin_dataset_id FROM item WHERE dataset_id = %(dataset_id)s ORDER BY id LIMIT %(limit)s
        ) AS oldest
        """,
        {"dataset_id": dataset_id, "limit": limit},
    )
    row = await cursor.fetchone()
    assert row is not None
    return row[0], set(row[1] or [])


async def purge(conn: AsyncConnection[Any], dataset_id: int, last_id: int) -> list[Deleted]:
    """Remove the oldest rows of a deleted dataset: no tombstone, no event, no count."""
    cursor = conn.cursor(row_factory=class_row(Deleted))
    await cursor.execute(
        """
        DELETE FROM item
        WHERE dataset_id = %s AND id <= %s
        RETURNING id, path, object_key, size_bytes, thumbnail_type, origin_dataset_id, thumbnail_id
        """,
        [dataset_id, last_id],
    )
    return await cursor.fetchall()


async def purge_rest(conn: AsyncConnection[Any], dataset_id: int) -> None:
    """Remove what a scan has added to a deleted dataset since its rows went."""
    await conn.execute("DELETE FROM item WHERE dataset_id = %s", [dataset_id])
    await conn.execute("DELETE FROM annotation WHERE dataset_id = %s", [dataset_id])
