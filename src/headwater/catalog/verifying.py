"""Verifying: what differs between an index and listings of its stores, batch by batch; what is mended of it.

Nothing here removes an item or marks one missing.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from typing import Any, Literal, LiteralString

from psycopg import AsyncConnection
from psycopg.rows import class_row

from headwater.catalog import events, sharing
from headwater.catalog.datasets import CounterChange, count
from headwater.catalog.items import SELECT_ITEM, Item
from headwater.catalog.sync.listed import Listed
from headwater.errors import NotFound

Difference = Literal["unindexed", "missing", "changed", "returned"]
Column = Literal["path", "object_key"]

_COLUMNS: dict[Column, LiteralString] = {"path": "item.path", "object_key": "item.object_key"}


async def compare(
    conn: AsyncConnection[Any], dataset_id: int, listed: Listed, column: Column
) -> list[tuple[Difference, str]]:
    """(what differs, key as `column` has it) in the range of one ordered batch. The hidden folder is left out.

    It may be about to change, and the listing may be older than the rows: look again before believing it.
    """
    key = _COLUMNS[column]
    until: LiteralString = "" if listed.through is None else " AND " + key + " <= %(through)s"
    cursor = await conn.execute(
        """
        WITH listed AS MATERIALIZED (
            SELECT key COLLATE "C" AS key, etag COLLATE "C" AS etag, size_bytes
            FROM unnest(%(keys)s::text[], %(etags)s::text[], %(sizes)s::bigint[]) AS batch (key, etag, size_bytes)
        ), present AS MATERIALIZED (
            SELECT """
        + key
        + """ AS key, etag, size_bytes, missing_since IS NOT NULL AS is_missing
            FROM item
            WHERE dataset_id = %(dataset_id)s AND origin_dataset_id IS NULL AND """
        + key
        + " > %(after)s"
        + until
        + """
                AND (object_key IS NOT NULL OR path NOT LIKE '/.dataloop/%%')
        )
        SELECT
            CASE
                WHEN present.key IS NULL THEN 'unindexed'
                WHEN listed.key IS NULL THEN 'missing'
                WHEN present.is_missing THEN 'returned'
                ELSE 'changed'
            END,
            coalesce(listed.key, present.key)
        FROM listed
        FULL JOIN present ON present.key = listed.key
        WHERE present.key IS NULL
            OR (listed.key IS NULL AND NOT present.is_missing)
            OR (listed.key IS NOT NULL AND (
                present.is_missing
                OR listed.size_bytes <> present.size_bytes
                OR (listed.etag <> present.etag AND listed.etag <> '')
            ))
        """,
        {
            "dataset_id": dataset_id,
            "after": listed.after or "",
            "through": listed.through,
            "keys": listed.paths,
            "etags": listed.etags,
            "sizes": listed.sizes,
        },
    )
    return await cursor.fetchall()


async def without_tombstoned(conn: AsyncConnection[Any], dataset_id: int, column: Column, keys: list[str]) -> list[str]:
    """Those that nobody deleted here on purpose, or whose object went and was put there again."""
    name: LiteralString = "path" if column == "path" else "object_key"
    cursor = await conn.execute(
        "SELECT "
        + name
        + " FROM tombstone WHERE dataset_id = %s AND object_deleted_at IS NULL AND "
        + name
        + " = ANY(%s)",
        [dataset_id, keys],
    )
    deleted = {key for (key,) in await cursor.fetchall()}
    return [key for key in keys if key not in deleted]


async def without_rows(conn: AsyncConnection[Any], dataset_id: int, object_keys: list[str]) -> list[str]:
    """Those keys of our own storage that no row names, be it of this dataset or a clone."""
    known = await sharing.named_objects(conn, sharing.Where(None, dataset_id), object_keys)
    return [key for key in object_keys if key not in known]


async def item_with_key(conn: AsyncConnection[Any], dataset_id: int, object_key: str) -> Item | None:
    """The item whose object has this key in our own storage, itself and no clone."""
    cursor = conn.cursor(row_factory=class_row(Item))
    await cursor.execute(
        SELECT_ITEM + "WHERE item.dataset_id = %s AND item.object_key = %s AND item.origin_dataset_id IS NULL",
        [dataset_id, object_key],
    )
    return await cursor.fetchone()


async def standing(conn: AsyncConnection[Any], dataset_id: int) -> tuple[datetime, int]:
    """The time as the database has it, and how many items should have an object. Raises NotFound."""
    cursor = await conn.execute(
        "SELECT clock_timestamp(), items - missing_items - hidden_items FROM dataset_counter WHERE dataset_id = %s",
        [dataset_id],
    )
    row = await cursor.fetchone()
    if row is None:
        raise NotFound(f"No dataset with id {dataset_id:024x}.")
    return row[0], row[1]


# Stores that list out of order.


async def stage(conn: AsyncConnection[Any], command_id: int, listed: Listed) -> None:
    await conn.execute(
        """
        INSERT INTO verify_stage (command_id, key, size_bytes, etag, modified)
        SELECT DISTINCT ON (key) %s, key, size_bytes, etag, modified
        FROM unnest(%s::text[], %s::bigint[], %s::text[], %s::text[]) AS batch (key, size_bytes, etag, modified)
        ON CONFLICT (command_id, key) DO NOTHING
        """,
        [command_id, listed.paths, listed.sizes, listed.etags, listed.modified],
    )


async def read_stage(conn: AsyncConnection[Any], command_id: int, *, after: str | None, limit: int) -> Listed:
    """The next batch in order; `through` is None when it is the last."""
    cursor = await conn.execute(
        """
        SELECT key, size_bytes, etag, modified
        FROM verify_stage
        WHERE command_id = %s AND key > %s
        ORDER BY key
        LIMIT %s
        """,
        [command_id, after or "", limit],
    )
    rows = await cursor.fetchall()
    return Listed(
        paths=[row[0] for row in rows],
        sizes=[row[1] for row in rows],
        etags=[row[2] for row in rows],
        modified=[row[3] for row in rows],
        after=after,
        through=rows[-1][0] if len(rows) == limit else None,
    )


async def clear_stage(conn: AsyncConnection[Any], command_id: int) -> None:
    await conn.execute("DELETE FROM verify_stage WHERE command_id = %s", [command_id])


# Thumbnails.


@dataclass(frozen=True, slots=True)
class Thumbnails:
    """One batch of a listing of thumbnails: items and types, and the range of items that it proves."""

    listed: Sequence[tuple[int, str]]  # (item id, mime type), in order
    after_id: int
    through_id: int


async def compare_thumbnails(
    conn: AsyncConnection[Any], dataset_id: int, batch: Thumbnails
) -> tuple[list[int], list[tuple[int, str]]]:
    """(items of this dataset without their thumbnail, thumbnails without an item in any dataset)."""
    given = {"ids": [number for number, _ in batch.listed], "types": [kind for _, kind in batch.listed]}
    # Those of clones lie with their originals, and are compared with these.
    cursor = await conn.execute(
        """
        WITH named AS (
            SELECT id, id AS number, thumbnail_type
            FROM item
            WHERE dataset_id = %(dataset_id)s AND id > %(after_id)s AND id <= %(through_id)s
                AND thumbnail_type IS NOT NULL AND thumbnail_id IS NULL AND origin_dataset_id IS NULL
            UNION ALL
            SELECT id, thumbnail_id, thumbnail_type
            FROM item
            WHERE dataset_id = %(dataset_id)s AND thumbnail_id > %(after_id)s AND thumbnail_id <= %(through_id)s
                AND thumbnail_type IS NOT NULL AND origin_dataset_id IS NULL
        )
        SELECT named.id
        FROM named
        LEFT JOIN unnest(%(ids)s::bigint[], %(types)s::text[]) AS listed (id, type)
            ON listed.id = named.number AND listed.type = named.thumbnail_type
        WHERE listed.id IS NULL
        """,
        given | {"dataset_id": dataset_id, "after_id": batch.after_id, "through_id": batch.through_id},
    )
    missing = [number for (number,) in await cursor.fetchall()]
    return missing, await orphaned(conn, batch.listed)


async def orphaned(conn: AsyncConnection[Any], listed: Sequence[tuple[int, str]]) -> list[tuple[int, str]]:
    """Those (item id, mime type) that are the thumbnail of no item: it is no more, or has one of another type."""
    cursor = await conn.execute(
        """
        SELECT listed.id, listed.type
        FROM unnest(%s::bigint[], %s::text[]) AS listed (id, type)
        WHERE listed.id < (SELECT last_value FROM item_id_seq)
            AND NOT EXISTS (
                SELECT
                FROM item
                WHERE item.id = listed.id AND item.thumbnail_id IS NULL
                    AND (item.etl_state = 0 OR item.thumbnail_type = listed.type)
            )
            AND NOT EXISTS (
                SELECT
                FROM item
                WHERE item.thumbnail_id = listed.id AND (item.etl_state = 0 OR item.thumbnail_type = listed.type)
            )
        ORDER BY listed.id
        """,
        [[number for number, _ in listed], [kind for _, kind in listed]],
    )
    return await cursor.fetchall()


async def prepare_again(conn: AsyncConnection[Any], dataset_id: int, item_ids: Sequence[int]) -> int:
    """Forget their thumbnails and tell that they are to be read again. Returns how many."""
    cursor = await conn.execute(
        """
        WITH before AS (
            SELECT id, etl_state
            FROM item
            WHERE dataset_id = %s AND id = ANY(%s) AND etl_state <> 0 AND missing_since IS NULL
            ORDER BY id
            FOR UPDATE
        )
        UPDATE item
        SET etl_state = 0, thumbnail_type = NULL
        FROM before
        WHERE item.dataset_id = %s AND item.id = before.id
        RETURNING item.id, before.etl_state
        """,
        [dataset_id, list(item_ids), dataset_id],
    )
    changed = await cursor.fetchall()
    await events.record_items(conn, dataset_id, "Updated", sorted(number for number, _ in changed))
    done = sum(state == 1 for _, state in changed)
    await count(conn, dataset_id, CounterChange(prepared_items=-done, failed_items=done - len(changed)))
    return len(changed)


async def forgotten_by_preprocessing(
    conn: AsyncConnection[Any], dataset_id: int, task: str, *, limit: int
) -> list[tuple[int, str]]:
    """(id, path) of items that wait to be read while no event and no job is there that would have it done."""
    cursor = await conn.execute(
        """
        SELECT id, path
        FROM item
        WHERE dataset_id = %(dataset_id)s AND etl_state = 0 AND path NOT LIKE '/.dataloop/%%' AND missing_since IS NULL
            AND NOT EXISTS (SELECT FROM event WHERE event.dataset_id = %(dataset_id)s)
            AND NOT EXISTS (
                SELECT
                FROM procrastinate_jobs
                WHERE task_name = %(task)s AND status IN ('todo', 'doing')
                    AND args ->> 'dataset_id' = %(dataset_text)s
            )
            AND EXISTS (
                SELECT FROM trigger JOIN service ON service.id = trigger.service_id
                WHERE service.task = %(task)s AND trigger.active
            )
        ORDER BY id
        LIMIT %(limit)s
        """,
        {"dataset_id": dataset_id, "dataset_text": str(dataset_id), "task": task, "limit": limit},
    )
    return await cursor.fetchall()


async def tell_again(conn: AsyncConnection[Any], dataset_id: int, item_ids: Sequence[int]) -> None:
    """Have items read that wait for it."""
    await events.record_items(conn, dataset_id, "Updated", item_ids)


# Counters.


@dataclass(frozen=True, slots=True)
class Counters:
    items: int
    hidden_items: int
    missing_items: int
    trashed_items: int
    bytes: int
    prepared_items: int
    failed_items: int
    annotations: int
    annotated_items: int


_TRUTH = """
    SELECT
        count(*) AS items, count(*) FILTER (WHERE hidden) AS hidden_items,
        count(*) FILTER (WHERE missing_since IS NOT NULL) AS missing_items,
        count(*) FILTER (WHERE trashed_at IS NOT NULL) AS trashed_items,
        coalesce(sum(size_bytes), 0)::bigint AS bytes, count(*) FILTER (WHERE etl_state = 1) AS prepared_items,
        count(*) FILTER (WHERE etl_state = 2) AS failed_items,
        coalesce(sum(annotations_count), 0)::bigint AS annotations,
        count(*) FILTER (WHERE annotations_count > 0) AS annotated_items
    FROM item
    WHERE dataset_id = %(dataset_id)s
"""


async def wrong_counters(conn: AsyncConnection[Any], dataset_id: int) -> dict[str, tuple[int, int]]:
    """Name -> (what it says, what is true), of those that are wrong. In one statement, hence one moment."""
    cursor = await conn.execute(
        """
        SELECT
            counter.items, truth.items, counter.hidden_items, truth.hidden_items, counter.missing_items,
            truth.missing_items, counter.trashed_items, truth.trashed_items, counter.bytes, truth.bytes,
            counter.prepared_items, truth.prepared_items, counter.failed_items, truth.failed_items,
            counter.annotations, truth.annotations, counter.annotated_items, truth.annotated_items
        FROM dataset_counter AS counter, ("""
        + _TRUTH
        + """) AS truth
        WHERE counter.dataset_id = %(dataset_id)s
        """,
        {"dataset_id": dataset_id},
    )
    row = await cursor.fetchone()
    if row is None:
        return {}
    names = [one.name for one in fields(Counters)]
    pairs = zip(names, zip(row[::2], row[1::2], strict=True), strict=True)
    return {name: (said, true) for name, (said, true) in pairs if said != true}


async def mend_counters(conn: AsyncConnection[Any], dataset_id: int) -> None:
    """Who changes rows now adds the difference when we are done: nobody commits without the lock on the counters."""
    await conn.execute("SELECT FROM dataset_counter WHERE dataset_id = %s FOR UPDATE", [dataset_id])
    cursor = conn.cursor(row_factory=class_row(Counters))
    await cursor.execute(_TRUTH, {"dataset_id": dataset_id})
    truth = await cursor.fetchone()
    assert truth is not None
    await conn.execute(
        """
        UPDATE dataset_counter
        SET items = %s, hidden_items = %s, missing_items = %s, trashed_items = %s, bytes = %s, prepared_items = %s,
            failed_items = %s, annotations = %s, annotated_items = %s
        WHERE dataset_id = %s
        """,
        [
            truth.items,
            truth.hidden_items,
            truth.missing_items,
            truth.trashed_items,
            truth.bytes,
            truth.prepared_items,
            truth.failed_items,
            truth.annotations,
            truth.annotated_items,
            dataset_id,
        ],
    )


async def running_command(conn: AsyncConnection[Any], dataset_id: int, kind: str) -> int | None:
    """The one of this kind that has not ended. Locks the dataset, so that only one is started."""
    await conn.execute("SELECT FROM dataset WHERE id = %s FOR NO KEY UPDATE", [dataset_id])
    cursor = await conn.execute(
        "SELECT id FROM command WHERE dataset_id = %s AND kind = %s AND status IN ('created', 'in-progress')",
        [dataset_id, kind],
    )
    row = await cursor.fetchone()
    return None if row is None else row[0]
