"""Ghosts: items whose object the bucket no longer has. They keep all that is known of them, or lie in the trash.

Nothing here touches a bucket: a ghost that is forgotten is a row that goes, and its object, if it comes back, is new.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from psycopg import AsyncConnection
from psycopg.rows import class_row
from psycopg.sql import SQL, Composable, Composed

from headwater.catalog import annotations
from headwater.catalog.datasets import CounterChange, count
from headwater.catalog.items import ETL_DONE, ETL_FAILED, lock_paths
from headwater.catalog.removals import Deleted

TRASH_DAYS = 30  # then what lies in it is forgotten
_LAST = chr(0x10FFFF)  # behind every character of a path

Where = Literal["flagged", "trash"]


@dataclass(frozen=True, slots=True)
class Ghost:
    id: int
    path: str
    size_bytes: int
    missing_since: datetime
    trashed_at: datetime | None
    thumbnail_type: str | None


@dataclass(frozen=True, slots=True)
class Choice:
    """Some of the ghosts of a dataset: those that meet all that is given here."""

    where: Where | None = None  # None: both
    folder: str | None = None  # paths that begin so
    since: datetime | None = None  # missing since then or later
    until: datetime | None = None  # missing since then or before
    paths: Sequence[str] | None = None  # these, and all below those that end with a slash
    ids: Sequence[int] | None = None

    def condition(self, dataset_id: int) -> tuple[Composed, dict[str, Any]]:
        """What stands behind WHERE in a query FROM item, and its parameters."""
        parts: list[Composable] = [SQL("item.dataset_id = %(dataset_id)s AND item.missing_since IS NOT NULL")]
        parameters: dict[str, Any] = {"dataset_id": dataset_id}
        if self.where is not None:
            parts.append(SQL("item.trashed_at IS NULL" if self.where == "flagged" else "item.trashed_at IS NOT NULL"))
        if self.folder:
            parts.append(SQL("item.path >= %(folder)s AND item.path <= %(folder_end)s"))
            parameters |= {"folder": self.folder, "folder_end": self.folder + _LAST}
        if self.since is not None:
            parts.append(SQL("item.missing_since >= %(since)s"))
            parameters["since"] = self.since
        if self.until is not None:
            parts.append(SQL("item.missing_since <= %(until)s"))
            parameters["until"] = self.until
        chosen: list[SQL] = []
        if self.paths is not None:
            chosen.append(SQL("item.path = ANY(%(paths)s::text[])"))
            chosen.append(
                SQL("EXISTS (SELECT FROM unnest(%(folders)s::text[]) AS folder WHERE starts_with(item.path, folder))")
            )
            parameters["paths"] = [path for path in self.paths if not path.endswith("/")]
            parameters["folders"] = [path for path in self.paths if path.endswith("/")]
        if self.ids is not None:
            chosen.append(SQL("item.id = ANY(%(ids)s::bigint[])"))
            parameters["ids"] = list(self.ids)
        if chosen:
            parts.append(SQL("({})").format(SQL(" OR ").join(chosen)))
        return SQL(" AND ").join(parts), parameters


_COLUMNS = SQL("SELECT id, path, size_bytes, missing_since, trashed_at, thumbnail_type FROM item WHERE ")


async def list_ghosts(
    conn: AsyncConnection[Any], dataset_id: int, choice: Choice, *, after: str = "", limit: int
) -> list[Ghost]:
    """Those behind the path `after`, in the order of paths."""
    condition, parameters = choice.condition(dataset_id)
    cursor = conn.cursor(row_factory=class_row(Ghost))
    await cursor.execute(
        _COLUMNS + condition + SQL(" AND item.path > %(after)s ORDER BY item.path LIMIT %(limit)s"),
        parameters | {"after": after, "limit": limit},
        prepare=False,
    )
    return await cursor.fetchall()


async def count_ghosts(conn: AsyncConnection[Any], dataset_id: int, choice: Choice) -> int:
    """Reads what it counts."""
    condition, parameters = choice.condition(dataset_id)
    cursor = await conn.execute(SQL("SELECT count(*) FROM item WHERE ") + condition, parameters, prepare=False)
    row = await cursor.fetchone()
    assert row is not None
    return row[0]


async def time_of_request(conn: AsyncConnection[Any]) -> datetime:
    """When this transaction began, by the clock that ghosts are dated with."""
    cursor = await conn.execute("SELECT now()")
    row = await cursor.fetchone()
    assert row is not None
    return row[0]


async def set_trashed(conn: AsyncConnection[Any], dataset_id: int, ghosts: Sequence[Ghost], *, trashed: bool) -> int:
    """Put them into the trash, or take them out of it. Returns how many of them still were ghosts elsewhere."""
    cursor = await conn.execute(
        """
        WITH chosen AS (
            SELECT id
            FROM item
            WHERE dataset_id = %(dataset_id)s AND id = ANY(%(ids)s)
                AND missing_since IS NOT NULL AND (trashed_at IS NULL) = %(trashed)s
                AND NOT (hidden AND %(trashed)s) -- a sidecar is out of sight already
            ORDER BY id
            FOR UPDATE
        )
        UPDATE item
        SET trashed_at = CASE WHEN %(trashed)s THEN now() END, updated_at = now()
        FROM chosen
        WHERE item.dataset_id = %(dataset_id)s AND item.id = chosen.id
        """,
        {"dataset_id": dataset_id, "ids": [ghost.id for ghost in ghosts], "trashed": trashed},
    )
    await count(conn, dataset_id, CounterChange(trashed_items=cursor.rowcount if trashed else -cursor.rowcount))
    return cursor.rowcount


async def forget(conn: AsyncConnection[Any], dataset_id: int, ghosts: Sequence[Ghost]) -> list[Deleted]:
    """Remove their rows for good, with their annotations. Returns those that still were ghosts, where they were.

    They leave no tombstone.

    What is derived of them is the caller's to remove. At most 1,000 in one transaction.
    """
    await lock_paths(conn, dataset_id, [ghost.path for ghost in ghosts])  # an upload may be bringing one back
    cursor = await conn.execute(
        """
        WITH doomed AS (
            SELECT item.id
            FROM item
            JOIN unnest(%(ids)s::bigint[], %(trashed)s::boolean[]) AS given (id, trashed)
                ON given.id = item.id AND given.trashed = (item.trashed_at IS NOT NULL)
            WHERE item.dataset_id = %(dataset_id)s AND item.missing_since IS NOT NULL
            ORDER BY item.id
            FOR UPDATE OF item
        )
        DELETE FROM item
        USING doomed
        WHERE item.dataset_id = %(dataset_id)s AND item.id = doomed.id
        RETURNING item.id, item.path, item.object_key, item.size_bytes, item.thumbnail_type, item.etl_state,
            item.trashed_at IS NOT NULL, item.hidden, item.annotations_count
        """,
        {
            "dataset_id": dataset_id,
            "ids": [ghost.id for ghost in ghosts],
            "trashed": [ghost.trashed_at is not None for ghost in ghosts],
        },
    )
    change = CounterChange()
    gone: list[Deleted] = []
    annotated: list[int] = []
    for *facts, etl_state, was_trashed, was_hidden, number in await cursor.fetchall():
        one = Deleted(*facts)
        gone.append(one)
        change.items -= 1
        change.missing_items -= 1
        change.bytes -= one.size_bytes
        change.trashed_items -= was_trashed
        change.hidden_items -= was_hidden
        change.prepared_items -= etl_state == ETL_DONE
        change.failed_items -= etl_state == ETL_FAILED
        if number:
            annotated.append(one.id)
            change.annotations -= number
            change.annotated_items -= 1
    await annotations.delete_of_items(conn, dataset_id, annotated)
    await count(conn, dataset_id, change)
    return gone


async def datasets_with_trash(conn: AsyncConnection[Any]) -> list[int]:
    """Those with something in it that is to be forgotten by now."""
    cursor = await conn.execute(
        """
        SELECT dataset_id
        FROM dataset_counter
        JOIN dataset ON dataset.id = dataset_counter.dataset_id AND dataset.deleted_at IS NULL
        WHERE trashed_items > 0
        ORDER BY dataset_id
        """
    )
    return [dataset_id for (dataset_id,) in await cursor.fetchall()]


async def list_expired(conn: AsyncConnection[Any], dataset_id: int, *, limit: int) -> list[Ghost]:
    """Those that lie in the trash for so long that they are to be forgotten."""
    cursor = conn.cursor(row_factory=class_row(Ghost))
    await cursor.execute(
        """
        SELECT id, path, size_bytes, missing_since, trashed_at, thumbnail_type
        FROM item
        WHERE dataset_id = %s AND trashed_at < now() - make_interval(days => %s)
        ORDER BY trashed_at
        LIMIT %s
        """,
        [dataset_id, TRASH_DAYS, limit],
    )
    return await cursor.fetchall()
