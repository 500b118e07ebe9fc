"""Annotations: what people and models say of items. They are rows of ours alone and go with their item, nothing else.

Whoever adds or removes some keeps `item.annotations_count` and the dataset's counters right, in the same transaction:
the item's row is locked before its annotations, the counters come last. No event of the item: its bytes are the same.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, LiteralString, NamedTuple

import orjson
from psycopg import AsyncConnection, AsyncCursor
from psycopg.abc import Buffer
from psycopg.adapt import Loader
from psycopg.rows import RowMaker
from psycopg.sql import SQL
from psycopg.types.json import Jsonb

from headwater.catalog import query
from headwater.catalog.accounts import Account
from headwater.catalog.datasets import CounterChange, count
from headwater.catalog.fields import ANNOTATION_FIELDS
from headwater.errors import NotFound


class Content(NamedTuple):  # and no dataclass: requests and pages have a thousand
    """What clients say; JSON values are as they sent them."""

    type: str
    label: str
    source: str | None
    hash: str | None
    description: str | None
    coordinates: Any  # None: this type has none
    attributes: Any
    system_metadata: dict[str, Any]
    user_metadata: Any
    extra: dict[str, Any] | None  # what else was sent and is given back


class Annotation(NamedTuple):
    type: str  # up to `extra` as in Content
    label: str
    source: str | None
    hash: str | None
    description: str | None
    coordinates: Any
    attributes: Any
    system_metadata: dict[str, Any]
    user_metadata: Any
    extra: dict[str, Any] | None
    id: int
    dataset_id: int
    item_id: int
    creator: str
    created_at: datetime
    updated_at: datetime
    updated_by: str

    @property
    def content(self) -> Content:
        return Content._make(self[: len(Content._fields)])


# In the order of the fields. The emails are of accounts, which are never removed; looked up a row, so that a page reads
# as few as it has.
_SELECT: LiteralString = """
SELECT
    annotation.type, annotation.label, annotation.source, annotation.hash, annotation.description,
    annotation.coordinates, annotation.attributes, annotation.system_metadata, annotation.user_metadata,
    annotation.extra, annotation.id, annotation.dataset_id, annotation.item_id, creator.email, annotation.created_at,
    annotation.updated_at, updater.email
FROM annotation
JOIN account AS creator ON creator.id = annotation.creator_id
JOIN account AS updater ON updater.id = annotation.updated_by_id
"""


def _as_annotation(_: AsyncCursor[Any]) -> RowMaker[Annotation]:
    return Annotation._make


async def find_annotation(conn: AsyncConnection[Any], annotation_id: int) -> Annotation | None:
    """Whether the caller may see it is a question to its dataset, which may be deleted."""
    cursor = conn.cursor(row_factory=_as_annotation)
    await cursor.execute(_SELECT + "WHERE annotation.id = %s", [annotation_id])
    return await cursor.fetchone()


async def lock_annotation(conn: AsyncConnection[Any], annotation_id: int) -> Annotation:
    """As it is now, and nobody else changes it before this transaction ends. Raises NotFound."""
    cursor = conn.cursor(row_factory=_as_annotation)
    await cursor.execute(_SELECT + "WHERE annotation.id = %s FOR UPDATE OF annotation", [annotation_id])
    found = await cursor.fetchone()
    if found is None:
        raise NotFound(f"No annotation with id {annotation_id:024x}.")
    return found


@dataclass(frozen=True, slots=True)
class Found:
    rows: list[Annotation]
    has_next: bool
    total: int


async def find_page(conn: AsyncConnection[Any], dataset_id: int, tree: query.Tree, page: query.Page) -> Found:
    """One page of what a filter asks for, and how many it asks for in all. Raises BadRequest.

    JSON values in it are the bytes that the database wrote, which an answer passes on: reading them takes longer than
    all the rest.
    """
    if page.page_size == 0:
        return Found([], has_next=False, total=(await summarize(conn, dataset_id, tree)).number)
    where, parameters = query.compile_filter(tree, dataset_id=dataset_id, fields=ANNOTATION_FIELDS)
    order, limits = query.compile_page(page, ANNOTATION_FIELDS, lookahead=1)
    cursor = conn.cursor(row_factory=_as_annotation)
    cursor.adapters.register_loader("jsonb", _Unread)
    statement = SQL(_SELECT) + SQL("WHERE ") + where + SQL(" ") + order
    await cursor.execute(statement, parameters | limits, prepare=False)
    rows = await cursor.fetchall()
    if 0 < len(rows) <= page.page_size:  # the last page tells how many there are
        return Found(rows, has_next=False, total=page.page * page.page_size + len(rows))
    total = (await summarize(conn, dataset_id, tree)).number
    return Found(rows[: page.page_size], has_next=len(rows) > page.page_size, total=total)


class _Unread(Loader):
    def load(self, data: Buffer) -> bytes:
        return bytes(data)


@dataclass(frozen=True, slots=True)
class Summary:
    number: int
    last_id: int  # annotations that come later have larger ones


async def summarize(conn: AsyncConnection[Any], dataset_id: int, tree: query.Tree) -> Summary:
    """How many a filter asks for. Reads them all. Raises BadRequest."""
    where, parameters = query.compile_filter(tree, dataset_id=dataset_id, fields=ANNOTATION_FIELDS)
    cursor = await conn.execute(
        SQL("SELECT count(*), coalesce(max(annotation.id), 0) FROM annotation WHERE ") + where,
        parameters,
        prepare=False,
    )
    row = await cursor.fetchone()
    assert row is not None
    return Summary(*row)


async def next_ids(
    conn: AsyncConnection[Any], dataset_id: int, tree: query.Tree, *, after_id: int, last_id: int, limit: int
) -> list[int]:
    """Ids of the next ones that a filter asks for, in their order."""
    where, parameters = query.compile_filter(tree, dataset_id=dataset_id, fields=ANNOTATION_FIELDS)
    bounds = SQL(
        " AND annotation.id > %(after_id)s AND annotation.id <= %(last_id)s ORDER BY annotation.id LIMIT %(limit)s"
    )
    cursor = await conn.execute(
        SQL("SELECT annotation.id FROM annotation WHERE ") + where + bounds,
        parameters | {"after_id": after_id, "last_id": last_id, "limit": limit},
        prepare=False,
    )
    return [annotation_id for (annotation_id,) in await cursor.fetchall()]


async def of_items(conn: AsyncConnection[Any], dataset_id: int, item_ids: Sequence[int]) -> dict[int, list[Annotation]]:
    """The annotations of these items, in the order they came; items without have no entry."""
    cursor = conn.cursor(row_factory=_as_annotation)
    await cursor.execute(
        _SELECT
        + "WHERE annotation.dataset_id = %s AND annotation.item_id = ANY(%s)"
        + " ORDER BY annotation.item_id, annotation.id",
        [dataset_id, list(item_ids)],
    )
    found: dict[int, list[Annotation]] = {}
    for annotation in await cursor.fetchall():
        found.setdefault(annotation.item_id, []).append(annotation)
    return found


async def dataset_of(conn: AsyncConnection[Any], item_id: int) -> int | None:
    """The dataset of an item; None if there is no such item."""
    cursor = await conn.execute("SELECT dataset_id FROM item WHERE id = %s", [item_id])
    row = await cursor.fetchone()
    return None if row is None else row[0]


async def reserve_ids(conn: AsyncConnection[Any], number: int) -> list[int]:
    """Ids for annotations that are to be added now, in their order."""
    cursor = await conn.execute("SELECT nextval('annotation_id_seq') FROM generate_series(1, %s)", [number])
    return [annotation_id for (annotation_id,) in await cursor.fetchall()]


async def add_annotations(
    conn: AsyncConnection[Any],
    dataset_id: int,
    item_id: int,
    contents: Sequence[Content],
    *,
    creator: Account,
    reserved_ids: Sequence[int] | None = None,
) -> list[Annotation]:
    """Add them to an item, with ids of `reserve_ids` where somebody had to know them before.

    Raises NotFound when the item is gone.
    """
    if not contents:
        return []
    cursor = await conn.execute(
        """
        WITH annotated AS (
            UPDATE item
            SET annotations_count = annotations_count + %(number)s
            WHERE dataset_id = %(dataset_id)s AND id = %(item_id)s
            RETURNING annotations_count
        ), added AS (
            INSERT INTO annotation (
                id, dataset_id, item_id, creator_id, updated_by_id, type, label, source, hash, description,
                coordinates, attributes, system_metadata, user_metadata, extra
            )
            SELECT
                coalesce(id, nextval('annotation_id_seq')), %(dataset_id)s, %(item_id)s, %(creator_id)s,
                %(creator_id)s, type, label, source, hash, description, coordinates::jsonb, attributes::jsonb,
                system_metadata::jsonb, user_metadata::jsonb, extra::jsonb
            FROM annotated -- none if the item is gone
            CROSS JOIN unnest(
                -- Texts in binary: otherwise each is looked through for what is to be escaped.
                %(ids)s::bigint[], %(types)b::text[], %(labels)b::text[], %(sources)b::text[], %(hashes)b::text[],
                %(descriptions)b::text[], %(coordinates)b::text[], %(attributes)b::text[], %(system)b::text[],
                %(user)b::text[], %(extras)b::text[]
            ) AS given (
                id, type, label, source, hash, description, coordinates, attributes, system_metadata, user_metadata,
                extra
            )
            RETURNING id
        )
        SELECT (SELECT annotations_count FROM annotated), now(), array_agg(id ORDER BY id) FROM added
        """,
        {
            "dataset_id": dataset_id,
            "item_id": item_id,
            "creator_id": creator.id,
            "number": len(contents),
            "ids": [None] * len(contents) if reserved_ids is None else list(reserved_ids),
            "types": [one.type for one in contents],
            "labels": [one.label for one in contents],
            "sources": [one.source for one in contents],
            "hashes": [one.hash for one in contents],
            "descriptions": [one.description for one in contents],
            "coordinates": [_json(one.coordinates) for one in contents],
            "attributes": [_json(one.attributes) for one in contents],
            "system": [_json(one.system_metadata) for one in contents],
            "user": [_json(one.user_metadata) for one in contents],
            "extras": [_json(one.extra) for one in contents],
        },
    )
    row = await cursor.fetchone()
    assert row is not None
    now_there, at, ids = row
    if now_there is None:
        raise NotFound(f"No item with id {item_id:024x}.")
    newly_annotated = now_there == len(contents)
    await count(conn, dataset_id, CounterChange(annotations=len(contents), annotated_items=int(newly_annotated)))
    email = creator.email
    return [
        Annotation(*content, number, dataset_id, item_id, email, at, at, email)
        for number, content in zip(ids, contents, strict=True)
    ]


def _json(value: Any) -> str | None:
    return None if value is None else orjson.dumps(value).decode()


async def update_annotation(
    conn: AsyncConnection[Any], annotation: Annotation, content: Content, *, updated_by: Account
) -> None:
    """Give an annotation of `lock_annotation` its new content. Nothing is written where it has it already."""
    if annotation.content == content:
        return
    await conn.execute(
        """
        UPDATE annotation
        SET type = %(type)s, label = %(label)s, source = %(source)s, hash = %(hash)s, description = %(description)s,
            coordinates = %(coordinates)s, attributes = %(attributes)s, system_metadata = %(system)s,
            user_metadata = %(user)s, extra = %(extra)s, updated_at = now(), updated_by_id = %(updated_by_id)s
        WHERE dataset_id = %(dataset_id)s AND id = %(id)s
        """,
        {
            "type": content.type,
            "label": content.label,
            "source": content.source,
            "hash": content.hash,
            "description": content.description,
            "coordinates": _jsonb(content.coordinates),
            "attributes": _jsonb(content.attributes),
            "system": Jsonb(content.system_metadata),
            "user": Jsonb(content.user_metadata),
            "extra": _jsonb(content.extra),
            "updated_by_id": updated_by.id,
            "dataset_id": annotation.dataset_id,
            "id": annotation.id,
        },
    )


def _jsonb(value: Any) -> Jsonb | None:
    return None if value is None else Jsonb(value)


async def patch_annotations(
    conn: AsyncConnection[Any],
    dataset_id: int,
    ids: Sequence[int],
    *,
    label: str | None,
    user: dict[str, Any],
    system: dict[str, Any],
    updated_by_id: int | None,
) -> int:
    """Put the same patch over many, deeply; null removes a key. Returns how many it changed. Repeatable."""
    cursor = await conn.execute(
        """
        WITH chosen AS (
            SELECT id, label, user_metadata, system_metadata
            FROM annotation
            WHERE dataset_id = %(dataset_id)s AND id = ANY(%(ids)s)
            ORDER BY id
            FOR UPDATE
        ), merged AS MATERIALIZED (
            SELECT
                id, coalesce(%(label)s::text COLLATE "C", label) AS label_after,
                CASE
                    WHEN %(user)s::jsonb = '{}' THEN user_metadata
                    ELSE jsonb_deep_merge(
                        CASE jsonb_typeof(user_metadata) WHEN 'object' THEN user_metadata ELSE '{}' END, %(user)s
                    )
                END AS user_after,
                jsonb_deep_merge(system_metadata, %(system)s) AS system_after
            FROM chosen
        )
        UPDATE annotation
        SET label = label_after, user_metadata = user_after, system_metadata = system_after, updated_at = now(),
            updated_by_id = coalesce(%(updated_by_id)s, annotation.updated_by_id)
        FROM merged
        WHERE annotation.dataset_id = %(dataset_id)s AND annotation.id = merged.id
            AND (label <> label_after OR user_metadata <> user_after OR system_metadata <> system_after)
        """,
        {
            "dataset_id": dataset_id,
            "ids": list(ids),
            "label": label,
            "user": Jsonb(user),
            "system": Jsonb(system),
            "updated_by_id": updated_by_id,
        },
    )
    return cursor.rowcount


async def delete_annotations(conn: AsyncConnection[Any], dataset_id: int, ids: Sequence[int]) -> int:
    """Returns how many of them were still there."""
    items = await conn.execute(
        """
        SELECT id
        FROM item
        WHERE dataset_id = %(dataset_id)s AND id IN (
            SELECT item_id FROM annotation WHERE dataset_id = %(dataset_id)s AND id = ANY(%(ids)s)
        )
        ORDER BY id
        FOR NO KEY UPDATE
        """,
        {"dataset_id": dataset_id, "ids": list(ids)},
    )
    await items.fetchall()
    cursor = await conn.execute(
        """
        WITH held AS MATERIALIZED ( -- in the order in which they are changed by `patch_annotations`
            SELECT id
            FROM annotation
            WHERE dataset_id = %(dataset_id)s AND id = ANY(%(ids)s)
            ORDER BY id
            FOR UPDATE
        ), gone AS (
            DELETE FROM annotation
            WHERE dataset_id = %(dataset_id)s AND id IN (SELECT id FROM held)
            RETURNING item_id
        ), per_item AS (
            SELECT item_id, count(*) AS number FROM gone GROUP BY item_id
        ), changed AS (
            UPDATE item
            SET annotations_count = annotations_count - number
            FROM per_item
            WHERE item.dataset_id = %(dataset_id)s AND item.id = per_item.item_id
            RETURNING annotations_count
        )
        SELECT (SELECT count(*) FROM gone), (SELECT count(*) FROM changed WHERE annotations_count = 0)
        """,
        {"dataset_id": dataset_id, "ids": list(ids)},
    )
    row = await cursor.fetchone()
    assert row is not None
    number, emptied = row
    await count(conn, dataset_id, CounterChange(annotations=-number, annotated_items=-emptied))
    return number


async def delete_of_items(conn: AsyncConnection[Any], dataset_id: int, item_ids: Sequence[int]) -> None:
    """Remove the annotations of items whose rows went in this transaction; the caller counts them off."""
    if item_ids:
        await conn.execute(
            """
            WITH held AS MATERIALIZED ( -- in the order in which they are changed by `patch_annotations`
                SELECT id
                FROM annotation
                WHERE dataset_id = %(dataset_id)s AND item_id = ANY(%(item_ids)s)
                ORDER BY id
                FOR UPDATE
            )
            DELETE FROM annotation WHERE dataset_id = %(dataset_id)s AND id IN (SELECT id FROM held)
            """,
            {"dataset_id": dataset_id, "item_ids": list(item_ids)},
        )


async def purge(conn: AsyncConnection[Any], dataset_id: int, *, limit: int) -> int:
    """Remove some of what is left in a deleted dataset. Returns how many: 0 at the end."""
    cursor = await conn.execute(
        """
        DELETE FROM annotation
        WHERE dataset_id = %(dataset_id)s AND id IN (
            SELECT id FROM annotation WHERE dataset_id = %(dataset_id)s ORDER BY id LIMIT %(limit)s
        )
        """,
        {"dataset_id": dataset_id, "limit": limit},
    )
    return cursor.rowcount
