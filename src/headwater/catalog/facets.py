"""Facets: how many of the items that a filter finds have which value of a field."""

from collections import Counter
from dataclasses import dataclass
from typing import Any, LiteralString

from psycopg import AsyncConnection
from psycopg.sql import SQL

from headwater.catalog import finding, query
from headwater.catalog.fields import ITEM_FIELDS
from headwater.catalog.finding import Asking
from headwater.catalog.folders import parent_of
from headwater.catalog.query import Tree
from headwater.errors import BadRequest, NotFound

LARGEST_LIMIT = 1_000
_ALL = 10**9

# Of annotations, by the names of facets.
ANNOTATION_FIELDS: dict[str, LiteralString] = {
    "label": "annotation.label",
    "annotationType": "annotation.type",
    "annotationStatus": "annotation.system_metadata ->> 'status'",
}


@dataclass(frozen=True, slots=True)
class Value:
    value: Any
    items: int
    annotations: int | None = None  # of facets of annotations


@dataclass(frozen=True, slots=True)
class Facet:
    values: list[Value]  # the most frequent first
    distinct: int  # values in all


async def count_values(
    conn: AsyncConnection[Any], dataset_id: int, tree: Tree, name: str, *, limit: int, asking: Asking
) -> Facet:
    """By a field of items, a path of their metadata, or one of ANNOTATION_FIELDS. Raises BadRequest, QueryTooSlow.

    An item that has several values at a path, in a list, counts for each of them.
    """
    if name in ANNOTATION_FIELDS:
        return await _count_annotations(conn, dataset_id, tree, ANNOTATION_FIELDS[name], limit)
    if ITEM_FIELDS.find(name).unique:
        raise BadRequest(f"{name} is different for every item: there is nothing to count by it.")
    found, distinct = await finding.count_by(conn, dataset_id, tree, name, limit, asking=asking)
    return Facet([Value(value, items) for value, items in found], distinct)


async def _count_annotations(
    conn: AsyncConnection[Any], dataset_id: int, tree: Tree, expression: LiteralString, limit: int
) -> Facet:
    where, parameters = query.compile_filter(tree, dataset_id=dataset_id)
    cursor = await conn.execute(
        SQL("WITH counted AS (SELECT ")
        + SQL(expression)
        + SQL(
            """ AS value, count(*) AS annotations, count(DISTINCT annotation.item_id) AS items
            FROM item
            JOIN annotation ON annotation.dataset_id = item.dataset_id AND annotation.item_id = item.id
            WHERE """
        )
        + where
        + SQL(
            """ GROUP BY 1)
            SELECT value, items, annotations, count(*) OVER ()
            FROM counted
            WHERE value IS NOT NULL
            ORDER BY items DESC, value
            LIMIT %(facet_limit)s
            """
        ),
        parameters | {"facet_limit": limit},
        prepare=False,
    )
    rows = await cursor.fetchall()
    values = [Value(value, items, annotations) for value, items, annotations, _ in rows]
    return Facet(values, rows[0][3] if rows else 0)


async def count_folders(
    conn: AsyncConnection[Any], dataset_id: int, tree: Tree, folder: str, *, limit: int, asking: Asking
) -> Facet:
    """By the folders right in this one: how many items each has in it and in all that is below. Raises NotFound.

    Call it when `asking` has been used for the same filter, and knows whether there are columns.
    """
    known = await conn.execute("SELECT FROM folder WHERE dataset_id = %s AND path = %s", [dataset_id, folder])
    if await known.fetchone() is None and folder != "/":
        raise NotFound(f"There is no folder {folder[:200]!r} in this dataset.")
    if asking.has_columns:
        held, _ = await finding.count_by(conn, dataset_id, tree, "dir", _ALL, asking=asking)
    else:
        held = await _count_by_folder(conn, dataset_id, tree, folder)
    counts: Counter[str] = Counter()
    for path, items in held:
        if (child := _child_of(folder, path)) is not None:
            counts[child] += items
    best = sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))
    return Facet([Value(path, items) for path, items in best[:limit]], len(best))


async def _count_by_folder(
    conn: AsyncConnection[Any], dataset_id: int, tree: Tree, folder: str
) -> list[tuple[str, int]]:
    """How many of the items in a folder or below it are right in which."""
    where, parameters = query.compile_filter(tree, dataset_id=dataset_id)
    below = folder.rstrip("/")
    cursor = await conn.execute(
        SQL(
            """
            WITH counted AS (
                SELECT item.folder_id, count(*) AS items
                FROM item
                WHERE item.path >= %(facet_from)s AND item.path < %(facet_until)s AND """
        )
        + where
        + SQL(
            """ GROUP BY 1)
            SELECT folder.path, items
            FROM counted
            JOIN folder ON folder.dataset_id = %(dataset_id)s AND folder.id = counted.folder_id
            """
        ),
        parameters | {"facet_from": below + "/", "facet_until": below + "0"},  # the character after the slash
        prepare=False,
    )
    return await cursor.fetchall()


def _child_of(folder: str, path: str) -> str | None:
    """The folder right in `folder` that is `path`, or has it somewhere below."""
    while (parent := parent_of(path)) is not None:
        if parent == folder:
            return path
        path = parent
    return None
