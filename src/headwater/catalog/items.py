"""Items: one row per object in a dataset, with the rules for finding, adding, changing and removing them."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple

import orjson
from psycopg import AsyncConnection, AsyncCursor
from psycopg.abc import Buffer
from psycopg.adapt import Loader
from psycopg.rows import RowMaker, class_row
from psycopg.sql import SQL, Composed
from psycopg.types.json import Jsonb

from headwater.catalog import events
from headwater.catalog.datasets import CounterChange, count
from headwater.catalog.folders import ensure_folders, folder_of
from headwater.catalog.projects import READABLE
from headwater.errors import NotFound
from headwater.mime_types import guess_mime_type

ETL_WAITING, ETL_DONE, ETL_FAILED = 0, 1, 2

# The folder of our own derived files at the root of every bucket; what lies in it is never shown by default.
HIDDEN_FOLDER = "/.dataloop"
# What `system_metadata` holds of an object's bytes; gone when these change.
VIDEO_KEYS = ("ffmpeg", "fps", "duration")
DERIVED_KEYS = ["exif", "channels", "etl", *VIDEO_KEYS]
_LOCK_CLASS = 0x17E0  # advisory locks of single paths


class Item(NamedTuple):  # and no dataclass: a page of 1,000 takes a third less time
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
    annotations_count: int
    user_json: bytes | None = None  # in a page, instead of `user_metadata`: as the database writes it

    @property
    def thumbnail_number(self) -> int:
        """Its name among thumbnails."""
        return self.id if self.thumbnail_id is None else self.thumbnail_id

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

    def bare(self) -> "Written":
        """As a sync would find it."""
        return Written(self.path, self.object_key, self.size_bytes, self.etag, self.modified_at, None)


SELECT_ITEM = """
SELECT
    item.id, item.dataset_id, dataset.project_id, item.path, item.object_key, item.size_bytes, item.etag,
    item.modified_at, item.created_at, item.updated_at, item.missing_since, item.trashed_at, creator.email AS creator,
    updater.email AS updated_by, item.width_px, item.height_px, item.etl_state, item.hidden, item.thumbnail_type,
    item.mime_type, item.description, item.user_metadata, item.system_metadata, item.origin_dataset_id,
    item.thumbnail_id, item.link, item.metadata_edited_at, item.annotations_count
FROM item
JOIN dataset ON dataset.id = item.dataset_id AND dataset.deleted_at IS NULL
LEFT JOIN account AS creator ON creator.id = item.creator_id
LEFT JOIN account AS updater ON updater.id = item.updated_by_id
"""


async def find_item(conn: AsyncConnection[Any], item_id: int, *, reader_id: int | None = None) -> Item | None:
    """Whether the caller may see it is a question to its dataset; the reader sees sizes of linked items elsewhere."""
    cursor = conn.cursor(row_factory=class_row(Item))
    await cursor.execute(SELECT_ITEM + "WHERE item.id = %s", [item_id])
    item = await cursor.fetchone()
    return item if item is None else (await with_targets(conn, [item], reader_id))[0]


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


async def find_items_at(conn: AsyncConnection[Any], dataset_id: int, paths: Sequence[str]) -> dict[str, Item]:
    """Those that there are, by path."""
    cursor = conn.cursor(row_factory=class_row(Item))
    await cursor.execute(SELECT_ITEM + "WHERE item.dataset_id = %s AND item.path = ANY(%s)", [dataset_id, list(paths)])
    return {item.path: item for item in await cursor.fetchall()}


async def has_double_slashes(conn: AsyncConnection[Any], dataset_id: int) -> bool:
    """Whether the key of an item begins with a slash of its own."""
    cursor = await conn.execute(
        "SELECT FROM item WHERE dataset_id = %s AND path >= '//' AND path < '/0' LIMIT 1", [dataset_id]
    )
    return await cursor.fetchone() is not None


async def note_creator(conn: AsyncConnection[Any], dataset_id: int, paths: Sequence[str], creator_id: int) -> None:
    """Who brought items in that were added in this transaction."""
    await conn.execute(
        """
        UPDATE item
        SET creator_id = %(creator_id)s, updated_by_id = %(creator_id)s
        WHERE dataset_id = %(dataset_id)s AND path = ANY(%(paths)s)
        """,
        {"creator_id": creator_id, "dataset_id": dataset_id, "paths": list(paths)},
    )


async def load_items(
    conn: AsyncConnection[Any], dataset_id: int, item_ids: Sequence[int], *, reader_id: int | None = None
) -> list[Item]:
    """Those that are still there, in the order of ids."""
    cursor = conn.cursor(row_factory=class_row(Item))
    await cursor.execute(
        SELECT_ITEM + "WHERE item.dataset_id = %s AND item.id = ANY(%s) ORDER BY item.id",
        [dataset_id, list(item_ids)],
    )
    return await with_targets(conn, await cursor.fetchall(), reader_id)


async def fetch_page(
    conn: AsyncConnection[Any],
    statement: Composed,
    parameters: Mapping[str, object],
    *,
    reader_id: int | None = None,
) -> list[Item]:
    """What a statement that begins with SELECT_ITEM finds, read as fast as answers want it.

    User metadata is in `user_json`, not in `user_metadata`: reading it would take most of the time of a page, and
    answers only pass it on.
    """
    cursor = conn.cursor(row_factory=_page_row)
    cursor.adapters.register_loader("jsonb", _Unread)
    await cursor.execute(statement, parameters, prepare=False)
    return await with_targets(conn, await cursor.fetchall(), reader_id)


class _Unread(Loader):
    def load(self, data: Buffer) -> bytes:
        return bytes(data)


_LONG_NUMBER = re.compile(rb"[0-9]{19}")  # which orjson may read as a float


def _page_row(cursor: AsyncCursor[Any]) -> RowMaker[Item]:
    """Columns are in the order of the fields, but for the last one."""
    names = [column.name for column in cursor.description or []]
    user, system, link = (names.index(name) for name in ("user_metadata", "system_metadata", "link"))

    def make(values: Sequence[Any]) -> Item:
        read = [*values, values[user]]
        read[user] = None
        for place in (system, link):
            if (text := read[place]) is not None:
                read[place] = json.loads(text) if _LONG_NUMBER.search(text) else orjson.loads(text)
        return Item._make(read)

    return make


MOST_LINKS = 5  # from one linked item to the next


async def with_targets(conn: AsyncConnection[Any], found: Sequence[Item], reader_id: int | None = None) -> list[Item]:
    """Links to items tell the size of what they lead to in this moment, which is what their stream gives.

    Only where everything on the way is in the item's own project, or in one that the reader may read.
    """
    linked = {item.id: item for item in found if item.link and item.link["kind"] == "id"}
    if not linked:
        return list(found)
    cursor = await conn.execute(
        SQL("WITH RECURSIVE readable AS (")
        + READABLE
        + SQL(
            """
            ), chain AS (
                SELECT given.id, given.project_id, target.link, target.size_bytes, 1 AS depth
                FROM unnest(%(ids)s::bigint[], %(project_ids)s::bigint[], %(target_ids)s::bigint[])
                    AS given (id, project_id, target_id)
                JOIN item AS target ON target.id = given.target_id
                JOIN dataset ON dataset.id = target.dataset_id
                WHERE dataset.deleted_at IS NULL
                    AND (dataset.project_id = given.project_id OR dataset.project_id IN (TABLE readable))
                UNION ALL
                SELECT chain.id, chain.project_id, target.link, target.size_bytes, chain.depth + 1
                FROM chain
                JOIN item AS target ON target.id = (chain.link ->> 'target_id')::bigint
                JOIN dataset ON dataset.id = target.dataset_id
                WHERE chain.depth < %(most_links)s AND dataset.deleted_at IS NULL
                    AND (dataset.project_id = chain.project_id OR dataset.project_id IN (TABLE readable))
            )
            SELECT id, coalesce((link ->> 'size_bytes')::bigint, size_bytes)
            FROM chain
            WHERE link IS NULL OR link ->> 'kind' <> 'id'
            """
        ),
        {
            "ids": list(linked),
            "project_ids": [item.project_id for item in linked.values()],
            "target_ids": [(item.link or {})["target_id"] for item in linked.values()],
            "most_links": MOST_LINKS,
            "account_id": reader_id,
        },
    )
    sizes = dict(await cursor.fetchall())
    return [item._replace(link=_sized(item, sizes.get(item.id))) if item.id in linked else item for item in found]


def _sized(item: Item, size_bytes: int | None) -> dict[str, Any]:
    link = {key: value for key, value in (item.link or {}).items() if key != "size_bytes"}
    return link if size_bytes is None else link | {"size_bytes": size_bytes}


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
    """`put_items` of one."""
    (done,) = await put_items(conn, dataset_id, [written], creator_id=creator_id)
    return done


async def put_items(
    conn: AsyncConnection[Any], dataset_id: int, written: Sequence[Written], *, creator_id: int | None
) -> list[tuple[Item, bool]]:
    """Add items, or give those at these paths their new content. Returns each in its order, and whether it is new.

    Up to 1,000 with paths that differ. Call it under `lock_paths`; without a creator they were found in the bucket. A
    new content forgets what was derived of the old one; metadata that is not given stays. Raises NotFound when the
    dataset was deleted meanwhile.
    """
    done = await put_rows(conn, dataset_id, written, creator_id=creator_id)
    items = {item.path: item for item in await load_items(conn, dataset_id, [item_id for item_id, _ in done.values()])}
    if len(items) < len(written):
        raise NotFound("The dataset was deleted meanwhile.")
    return [(items[one.path], done[one.path][1]) for one in written]


async def put_rows(
    conn: AsyncConnection[Any], dataset_id: int, written: Sequence[Written], *, creator_id: int | None
) -> dict[str, tuple[int, bool]]:
    """`put_items`, but returns only their ids, by path, and whether each is new."""
    folder_ids = await ensure_folders(conn, dataset_id, {folder_of(one.path) for one in written})
    before: dict[str, Item] = {}
    ids: dict[str, int] = {}
    for _ in range(2):  # a scan, which does not ask for the paths' locks, may be quicker the first time
        if left := [one for one in written if one.path not in ids]:
            found = await _lock_items_at(conn, dataset_id, [one.path for one in left])
            before |= {item.path: item for item in found}
            replaced = [item.id for item in found]
            ids |= await _write_items(conn, dataset_id, folder_ids, left, creator_id, replaced=replaced)
    if len(ids) < len(written):
        raise NotFound("The dataset was deleted meanwhile.")
    await _tell_of(conn, dataset_id, written, ids, before)
    return {path: (item_id, path not in before) for path, item_id in ids.items()}


async def add_rows(
    conn: AsyncConnection[Any], dataset_id: int, written: Sequence[Written], *, creator_id: int | None
) -> dict[str, int]:
    """Add items where there is none. Returns the ids of those added, by path; what is there stays as it is.

    For items without an object of their own, which is why nobody's path has to be locked. Paths must differ.
    """
    folder_ids = await ensure_folders(conn, dataset_id, {folder_of(one.path) for one in written})
    ids = await _write_items(conn, dataset_id, folder_ids, written, creator_id, replaced=[])
    await _tell_of(conn, dataset_id, [one for one in written if one.path in ids], ids, {})
    return ids


async def _tell_of(
    conn: AsyncConnection[Any],
    dataset_id: int,
    written: Sequence[Written],
    ids: Mapping[str, int],
    before: Mapping[str, Item],
) -> None:
    """Events, counters, and no tombstones any more."""
    await conn.execute("DELETE FROM tombstone WHERE dataset_id = %s AND path = ANY(%s)", [dataset_id, list(ids)])
    shown = [path for path in ids if not _is_hidden(path)]
    await events.record_items(conn, dataset_id, "Created", [ids[path] for path in shown if path not in before])
    await events.record_items(conn, dataset_id, "Updated", [ids[path] for path in shown if path in before])
    change = CounterChange()
    for one in written:
        hidden = _is_hidden(one.path)
        if one.path in before:
            _uncount(before[one.path], change)
            hidden = before[one.path].hidden  # a sidecar stays hidden
        change.items += 1
        change.bytes += one.size_bytes
        change.hidden_items += hidden
    await count(conn, dataset_id, change)


def _is_hidden(path: str) -> bool:
    return path.startswith(HIDDEN_FOLDER + "/")


async def _write_items(
    conn: AsyncConnection[Any],
    dataset_id: int,
    folder_ids: Mapping[str, int],
    written: Sequence[Written],
    creator_id: int | None,
    *,
    replaced: Sequence[int],
) -> dict[str, int]:
    """Ids of the rows by path, but for paths with a row that is not among those to be `replaced`."""
    cursor = await conn.execute(
        """
        INSERT INTO item (
            dataset_id, folder_id, path, object_key, size_bytes, etag, modified_at, mime_type, hidden, description,
            user_metadata, metadata_edited_at, system_metadata, link, creator_id, updated_by_id, changed_at
        )
        SELECT
            %(dataset_id)s, folder_id, path, object_key, size_bytes, etag, modified_at::timestamptz, mime_type, hidden,
            description, user_metadata::jsonb, CASE WHEN user_metadata IS NOT NULL THEN now() END,
            system_metadata::jsonb, link::jsonb, %(creator_id)s, %(creator_id)s,
            -- Never before the start of a scan that runs, though the clock may have been put back since.
            greatest(
                clock_timestamp(),
                (SELECT started_at FROM scan WHERE dataset_id = %(dataset_id)s AND state = 'running')
            )
        FROM unnest(
            -- Texts in binary: otherwise each is looked through for what is to be escaped.
            %(folder_ids)s::bigint[], %(paths)b::text[], %(object_keys)b::text[], %(sizes)s::bigint[],
            %(etags)b::text[], %(modified)b::text[], %(mime_types)b::text[], %(hidden)s::boolean[],
            %(descriptions)b::text[], %(user_metadata)b::text[], %(system_metadata)b::text[], %(links)b::text[]
        ) WITH ORDINALITY AS given (
            folder_id, path, object_key, size_bytes, etag, modified_at, mime_type, hidden, description, user_metadata,
            system_metadata, link, n
        )
        ORDER BY n
        ON CONFLICT (dataset_id, path) DO UPDATE
        SET object_key = excluded.object_key, size_bytes = excluded.size_bytes, etag = excluded.etag,
            modified_at = excluded.modified_at, mime_type = excluded.mime_type,
            description = coalesce(excluded.description, item.description),
            user_metadata = coalesce(excluded.user_metadata, item.user_metadata),
            metadata_edited_at = coalesce(excluded.metadata_edited_at, item.metadata_edited_at),
            system_metadata = coalesce(item.system_metadata - %(derived)s::text[], '{}')
                || coalesce(excluded.system_metadata, '{}'),
            link = excluded.link, width_px = NULL, height_px = NULL, thumbnail_type = NULL, etl_state = 0,
            missing_since = NULL, trashed_at = NULL, changed_at = excluded.changed_at, updated_at = now(),
            updated_by_id = excluded.updated_by_id, origin_dataset_id = NULL,
            -- The thumbnail of the old content may be that of clones, or of what this is a clone of.
            thumbnail_id = CASE
                WHEN item.origin_dataset_id IS NOT NULL OR item.thumbnail_type IS NOT NULL THEN nextval('item_id_seq')
                ELSE item.thumbnail_id
            END
        WHERE item.id = ANY(%(replaced)s)
        RETURNING path, id
        """,
        {
            "dataset_id": dataset_id,
            "creator_id": creator_id,
            "derived": DERIVED_KEYS,
            "replaced": list(replaced),
            "folder_ids": [folder_ids[folder_of(one.path)] for one in written],
            "paths": [one.path for one in written],
            "object_keys": [one.object_key for one in written],
            "sizes": [one.size_bytes for one in written],
            "etags": [one.etag for one in written],
            "modified": [None if one.modified_at is None else one.modified_at.isoformat() for one in written],
            "mime_types": [one.mime_type or guess_mime_type(one.path) for one in written],
            "hidden": [_is_hidden(one.path) for one in written],
            "descriptions": [one.description for one in written],
            "user_metadata": [_json(one.user_metadata) for one in written],
            "system_metadata": [_json(one.system_metadata) for one in written],
            "links": [_json(one.link) for one in written],
        },
    )
    return dict(await cursor.fetchall())


def _json(document: dict[str, Any] | None) -> str | None:
    if document is None:
        return None
    try:
        return orjson.dumps(document).decode()
    except TypeError:  # a number of more than 64 bits
        return json.dumps(document)


async def _lock_items_at(conn: AsyncConnection[Any], dataset_id: int, paths: Sequence[str]) -> list[Item]:
    """As they are now: preprocessing and scans, which do not ask for paths' locks, wait for this transaction."""
    cursor = conn.cursor(row_factory=class_row(Item))
    await cursor.execute(
        SELECT_ITEM + "WHERE item.dataset_id = %s AND item.path = ANY(%s) ORDER BY item.id FOR UPDATE OF item",
        [dataset_id, list(paths)],
    )
    return await cursor.fetchall()


def _uncount(item: Item, change: CounterChange) -> None:
    """Take what this row counts off its dataset's counters."""
    change.items -= 1
    change.hidden_items -= item.hidden
    change.missing_items -= item.missing_since is not None
    change.trashed_items -= item.trashed_at is not None
    change.bytes -= item.size_bytes
    change.prepared_items -= item.etl_state == ETL_DONE
    change.failed_items -= item.etl_state == ETL_FAILED


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
        SET user_metadata = %(user)s, system_metadata = %(system)s, description = %(description)s, updated_at = now(),
            updated_by_id = %(updated_by_id)s,
            metadata_edited_at = CASE
                WHEN coalesce(user_metadata, '{}') <> %(user)s THEN now() ELSE metadata_edited_at
            END
        WHERE dataset_id = %(dataset_id)s AND id = %(id)s
        """,
        {
            "user": Jsonb(user_metadata),
            "system": Jsonb(system_metadata),
            "description": description,
            "updated_by_id": updated_by_id,
            "dataset_id": item.dataset_id,
            "id": item.id,
        },
    )
    return await get_item(conn, item.id)
