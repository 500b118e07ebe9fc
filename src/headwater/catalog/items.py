"""Items: one row per object in a dataset, with the rules for finding, adding, changing and removing them."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from psycopg import AsyncConnection
from psycopg.rows import class_row
from psycopg.sql import SQL, Composed
from psycopg.types.json import Jsonb

from headwater.catalog import events, query
from headwater.catalog.datasets import CounterChange, count
from headwater.catalog.fields import DIR_FIELDS
from headwater.catalog.folders import Folder, ensure_folders, folder_of, load_folders
from headwater.errors import NotFound
from headwater.mime_types import guess_mime_type

ETL_WAITING, ETL_DONE, ETL_FAILED = 0, 1, 2

# The folder of our own derived files at the root of every bucket; what lies in it is never shown by default.
HIDDEN_FOLDER = "/.dataloop"
# What `system_metadata` holds of an object's bytes; gone when these change.
DERIVED_KEYS = ["exif", "channels", "etl"]
_LOCK_CLASS = 0x17E0  # advisory locks of single paths


@dataclass(frozen=True, slots=True)
class Item:
    id: int
    dataset_id: int
    project_id: int
    path: str
    object_key: str | None
    size_bytes: int
    etag: str
    modified_at: datetime | None
    created_at: datetime
    updated_at: datetime
    missing_since: datetime | None
    trashed_at: datetime | None
    creator: str | None
    updated_by: str | None
    width_px: int | None
    height_px: int | None
    etl_state: int
    hidden: bool
    thumbnail_type: str | None
    mime_type: str | None
    description: str | None
    user_metadata: dict[str, Any] | None
    system_metadata: dict[str, Any] | None
    origin_dataset_id: int | None  # of a clone: in whose storage its object and its thumbnail lie
    thumbnail_id: int | None  # the number in its thumbnail's name; None: its own id
    link: dict[str, Any] | None  # what a linked item leads to
    metadata_edited_at: datetime | None

    @property
    def key(self) -> str:
        """Where its object is, below the prefix of the dataset's driver."""
        return self.path[1:] if self.object_key is None else self.object_key


@dataclass(frozen=True, slots=True)
class Written:
    """An object that has just been written to the store, or is known to be there."""

    path: str
    object_key: str | None
    size_bytes: int
    etag: str
    modified_at: datetime | None
    mime_type: str | None
    description: str | None = None
    user_metadata: dict[str, Any] | None = None
    system_metadata: dict[str, Any] | None = None
    link: dict[str, Any] | None = None  # of catalog/links.py: the object is only a file that names another


SELECT_ITEM = """
SELECT
    item.id, item.dataset_id, dataset.project_id, item.path, item.object_key, item.size_bytes, item.etag,
    item.modified_at, item.created_at, item.updated_at, item.missing_since, item.trashed_at, creator.email AS creator,
    updater.email AS updated_by, item.width_px, item.height_px, item.etl_state, item.hidden, item.thumbnail_type,
    item.mime_type, item.description, item.user_metadata, item.system_metadata, item.origin_dataset_id,
    item.thumbnail_id, item.link, item.metadata_edited_at
FROM item
JOIN dataset ON dataset.id = item.dataset_id AND dataset.deleted_at IS NULL
LEFT JOIN account AS creator ON creator.id = item.creator_id
LEFT JOIN account AS updater ON updater.id = item.updated_by_id
"""


async def find_item(conn: AsyncConnection[Any], item_id: int) -> Item | None:
    """Whether the caller may see it is a question to its dataset."""
    cursor = conn.cursor(row_factory=class_row(Item))
    await cursor.execute(SELECT_ITEM + "WHERE item.id = %s", [item_id])
    return await cursor.fetchone()


async def get_item(conn: AsyncConnection[Any], item_id: int) -> Item:
    """Raises NotFound. Whether the caller may see it is a question to its dataset."""
    item = await find_item(conn, item_id)
    if item is None:
        raise NotFound(f"No item with id {item_id:024x}.")
    return item


async def lock_item(conn: AsyncConnection[Any], item_id: int) -> Item:
    """As it is now, and nobody else changes it before this transaction ends. Raises NotFound."""
    cursor = conn.cursor(row_factory=class_row(Item))
    await cursor.execute(SELECT_ITEM + "WHERE item.id = %s FOR UPDATE OF item", [item_id])
    item = await cursor.fetchone()
    if item is None:
        raise NotFound(f"No item with id {item_id:024x}.")
    return item


async def find_item_at(conn: AsyncConnection[Any], dataset_id: int, path: str) -> Item | None:
    cursor = conn.cursor(row_factory=class_row(Item))
    await cursor.execute(SELECT_ITEM + "WHERE item.dataset_id = %s AND item.path = %s", [dataset_id, path])
    return await cursor.fetchone()


async def load_items(conn: AsyncConnection[Any], dataset_id: int, item_ids: Sequence[int]) -> list[Item]:
    """Those that are still there, in the order of ids."""
    cursor = conn.cursor(row_factory=class_row(Item))
    await cursor.execute(
        SELECT_ITEM + "WHERE item.dataset_id = %s AND item.id = ANY(%s) ORDER BY item.id",
        [dataset_id, list(item_ids)],
    )
    return await cursor.fetchall()


@dataclass(frozen=True, slots=True)
class Found:
    rows: Sequence[Item | Folder]
    has_next: bool


async def find_page(
    conn: AsyncConnection[Any], dataset_id: int, files: query.Tree | None, dirs: query.Tree | None, page: query.Page
) -> Found:
    """One page of what a query asks for: files, folders, or both (then in the order of ids)."""
    if page.page_size == 0:
        return Found([], has_next=False)
    if files is not None and dirs is not None:
        rows: Sequence[Item | Folder] = await _find_both(conn, dataset_id, files, dirs, page)
    elif dirs is not None:
        where, parameters = query.compile_filter(dirs, dataset_id=dataset_id, fields=DIR_FIELDS)
        order, limits = query.compile_page(page, DIR_FIELDS, lookahead=1)
        columns = SQL("SELECT id, dataset_id, path, parent_id, created_at FROM folder WHERE ")
        folder_cursor = conn.cursor(row_factory=class_row(Folder))
        await folder_cursor.execute(columns + where + SQL(" ") + order, parameters | limits, prepare=False)
        rows = await folder_cursor.fetchall()
    elif files is not None:
        where, parameters = query.compile_filter(files, dataset_id=dataset_id)
        order, limits = query.compile_page(page, lookahead=1)
        cursor = conn.cursor(row_factory=class_row(Item))
        await cursor.execute(
            SQL(SELECT_ITEM) + SQL("WHERE ") + where + SQL(" ") + order, parameters | limits, prepare=False
        )
        rows = await cursor.fetchall()
    else:
        rows = []
    return Found(rows[: page.page_size], has_next=len(rows) > page.page_size)


async def _find_both(
    conn: AsyncConnection[Any], dataset_id: int, files: query.Tree, dirs: query.Tree, page: query.Page
) -> list[Item | Folder]:
    """Files and folders share their ids, so the page lies among the first ids of both."""
    first = page.page * page.page_size
    through = first + page.page_size + 1
    file_where, file_parameters = query.compile_filter(files, dataset_id=dataset_id)
    dir_where, dir_parameters = query.compile_filter(dirs, dataset_id=dataset_id, fields=DIR_FIELDS)
    file_ids = await conn.execute(
        SQL("SELECT id FROM item WHERE ") + file_where + SQL(" ORDER BY id LIMIT %(through)s"),
        file_parameters | {"through": through},
    )
    ids = [row_id for (row_id,) in await file_ids.fetchall()]
    dir_ids = await conn.execute(
        SQL("SELECT id FROM folder WHERE ") + dir_where + SQL(" ORDER BY id LIMIT %(through)s"),
        dir_parameters | {"through": through},
    )
    ids += [row_id for (row_id,) in await dir_ids.fetchall()]
    ids = sorted(ids)[first:through]
    rows: list[Item | Folder] = [*await load_items(conn, dataset_id, ids), *await load_folders(conn, dataset_id, ids)]
    return sorted(rows, key=lambda row: row.id)


async def count_found(
    conn: AsyncConnection[Any], dataset_id: int, files: query.Tree | None, dirs: query.Tree | None
) -> int:
    """Exact. Reads what it counts: ask the dataset's counters where they know."""
    total = 0
    if files is not None:
        where, parameters = query.compile_filter(files, dataset_id=dataset_id)
        total += await _count(conn, SQL("SELECT count(*) FROM item WHERE ") + where, parameters)
    if dirs is not None:
        where, parameters = query.compile_filter(dirs, dataset_id=dataset_id, fields=DIR_FIELDS)
        total += await _count(conn, SQL("SELECT count(*) FROM folder WHERE ") + where, parameters)
    return total


async def _count(conn: AsyncConnection[Any], statement: Composed, parameters: dict[str, object]) -> int:
    row = await (await conn.execute(statement, parameters, prepare=False)).fetchone()
    assert row is not None
    return row[0]


async def lock_path(conn: AsyncConnection[Any], dataset_id: int, path: str) -> None:
    """Until the end of the transaction nobody else writes or deletes the object at this path.

    The object is written under this lock and before the row, so that a row always tells of the last object written.
    """
    await lock_paths(conn, dataset_id, [path])


async def lock_paths(conn: AsyncConnection[Any], dataset_id: int, paths: Sequence[str]) -> None:
    """`lock_path` of many, in an order that is the same for everybody. Call it once a transaction, at most 1,000."""
    await conn.execute(
        """
        SELECT pg_advisory_xact_lock(%s, number)
        FROM (
            SELECT DISTINCT hashtext(name) AS number FROM unnest(%s::text[]) AS given (name) ORDER BY number
        ) AS numbers
        """,
        [_LOCK_CLASS, [f"{dataset_id}:{path}" for path in paths]],
    )


async def try_lock_paths(conn: AsyncConnection[Any], dataset_id: int, paths: Sequence[str]) -> set[str]:
    """`lock_path` of those that nobody holds at this moment: these are returned. Waits for nobody; at most 1,000."""
    cursor = await conn.execute(
        """
        SELECT path, pg_try_advisory_xact_lock(%s, hashtext(%s || ':' || path))
        FROM unnest(%s::text[]) AS given (path)
        """,
        [_LOCK_CLASS, str(dataset_id), list(paths)],
    )
    return {path for path, is_ours in await cursor.fetchall() if is_ours}


async def put_item(
    conn: AsyncConnection[Any], dataset_id: int, written: Written, *, creator_id: int | None
) -> tuple[Item, bool]:
    """Add the item, or give the one at this path its new content. Returns it, and whether it is new.

    Call it under `lock_path`; without a creator it was found in the bucket. A new content forgets what was derived of
    the old one; metadata that is not given stays. Raises NotFound when the dataset was deleted meanwhile.
    """
    folder = folder_of(written.path)
    folder_id = (await ensure_folders(conn, dataset_id, [folder]))[folder]
    before = await _lock_item_at(conn, dataset_id, written.path)
    item_id = await _write_item(conn, dataset_id, folder_id, written, creator_id, replaces=before is not None)
    if item_id is None:  # a scan, which does not ask for the path's lock, was quicker
        before = await _lock_item_at(conn, dataset_id, written.path)
        item_id = await _write_item(conn, dataset_id, folder_id, written, creator_id, replaces=before is not None)
    if item_id is None:
        raise NotFound("The dataset was deleted meanwhile.")
    await conn.execute("DELETE FROM tombstone WHERE dataset_id = %s AND path = %s", [dataset_id, written.path])
    hidden = _is_hidden(written.path)
    if not hidden:
        await events.record_items(conn, dataset_id, "Created" if before is None else "Updated", [item_id])
    added = CounterChange() if before is None else _uncounted(before)
    added.items += 1
    added.bytes += written.size_bytes
    added.hidden_items += hidden
    await count(conn, dataset_id, added)
    return await get_item(conn, item_id), before is None


def _is_hidden(path: str) -> bool:
    return path.startswith(HIDDEN_FOLDER + "/")


async def _write_item(
    conn: AsyncConnection[Any],
    dataset_id: int,
    folder_id: int,
    written: Written,
    creator_id: int | None,
    *,
    replaces: bool,
) -> int | None:
    """The row's id; None when there is a row and it `replaces` none."""
    cursor = await conn.execute(
        """
        INSERT INTO item (
            dataset_id, folder_id, path, object_key, size_bytes, etag, modified_at, mime_type, hidden, description,
            user_metadata, system_metadata, link, creator_id, updated_by_id, changed_at
        )
        VALUES (
            %(dataset_id)s, %(folder_id)s, %(path)s, %(object_key)s, %(size_bytes)s, %(etag)s, %(modified_at)s,
            %(mime_type)s, %(hidden)s, %(description)s, %(user_metadata)s, %(system_metadata)s, %(link)s,
            %(creator_id)s, %(creator_id)s,
            -- Never before the start of a scan that runs, though the clock may have been put back since.
            greatest(
                clock_timestamp(),
                (SELECT started_at FROM scan WHERE dataset_id = %(dataset_id)s AND state = 'running')
            )
        )
        ON CONFLICT (dataset_id, path) DO UPDATE
        SET object_key = excluded.object_key, size_bytes = excluded.size_bytes, etag = excluded.etag,
            modified_at = excluded.modified_at, mime_type = excluded.mime_type,
            description = coalesce(excluded.description, item.description),
            user_metadata = coalesce(excluded.user_metadata, item.user_metadata),
            system_metadata = coalesce(item.system_metadata - %(derived)s::text[], '{}')
                || coalesce(excluded.system_metadata, '{}'),
            link = excluded.link, width_px = NULL, height_px = NULL, thumbnail_type = NULL, etl_state = 0,
            missing_since = NULL,
            trashed_at = NULL, changed_at = excluded.changed_at, updated_at = now(),
            updated_by_id = excluded.updated_by_id
        WHERE %(replaces)s
        RETURNING id
        """,
        _row_of(written)
        | {
            "dataset_id": dataset_id,
            "folder_id": folder_id,
            "hidden": _is_hidden(written.path),
            "derived": DERIVED_KEYS,
            "creator_id": creator_id,
            "replaces": replaces,
        },
    )
    row = await cursor.fetchone()
    return None if row is None else row[0]


def _row_of(written: Written) -> dict[str, Any]:
    """The columns that an object says itself."""
    return {
        "path": written.path,
        "object_key": written.object_key,
        "size_bytes": written.size_bytes,
        "etag": written.etag,
        "modified_at": written.modified_at,
        "mime_type": written.mime_type or guess_mime_type(written.path),
        "description": written.description,
        "user_metadata": None if written.user_metadata is None else Jsonb(written.user_metadata),
        "system_metadata": None if written.system_metadata is None else Jsonb(written.system_metadata),
        "link": None if written.link is None else Jsonb(written.link),
    }


async def _lock_item_at(conn: AsyncConnection[Any], dataset_id: int, path: str) -> Item | None:
    """As it is now: preprocessing and scans, which do not ask for the path's lock, wait for this transaction."""
    cursor = conn.cursor(row_factory=class_row(Item))
    await cursor.execute(
        SELECT_ITEM + "WHERE item.dataset_id = %s AND item.path = %s FOR UPDATE OF item", [dataset_id, path]
    )
    return await cursor.fetchone()


def _uncounted(item: Item) -> CounterChange:
    """Takes what this row counts off its dataset's counters."""
    return CounterChange(
        items=-1,
        hidden_items=-int(item.hidden),
        missing_items=-int(item.missing_since is not None),
        trashed_items=-int(item.trashed_at is not None),
        bytes=-item.size_bytes,
        prepared_items=-int(item.etl_state == ETL_DONE),
        failed_items=-int(item.etl_state == ETL_FAILED),
    )


async def update_item(
    conn: AsyncConnection[Any],
    item: Item,
    *,
    user_metadata: dict[str, Any],
    system_metadata: dict[str, Any],
    description: str | None,
    updated_by_id: int,
) -> Item:
    """Set what users may set, on an item of `lock_item`. No event of content: an Updated event is for new bytes."""
    await conn.execute(
        """
        UPDATE item
        SET user_metadata = %s, system_metadata = %s, description = %s, updated_at = now(), updated_by_id = %s
        WHERE dataset_id = %s AND id = %s
        """,
        [
            Jsonb(user_metadata),
            Jsonb(system_metadata),
            description,
            updated_by_id,
            item.dataset_id,
            item.id,
        ],
    )
    return await get_item(conn, item.id)
