"""Feature vectors: what models say of items, annotations and datasets, as lists of numbers. One for each thing and set.

They are kept with the precision of 32 bits. Those of what is deleted go with it: see migration 0027.
"""

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, LiteralString

import numpy as np
from numpy.typing import NDArray
from psycopg import AsyncConnection
from psycopg.adapt import Dumper
from psycopg.pq import Format
from psycopg.rows import class_row
from psycopg.sql import SQL

from headwater.catalog import feature_sets, query
from headwater.catalog.accounts import Account
from headwater.catalog.feature_sets import EntityType, FeatureSet
from headwater.catalog.fields import Field, FieldTable
from headwater.errors import BadRequest, NotFound

LARGEST = 1e15  # of each number: distances between such vectors can still be told
LARGEST_HALF = 65_504.0  # what an index over more than 2,000 numbers can hold of each
HALVES_FROM, HALVES_TO = 2_001, 4_000  # sizes whose index keeps halves of the precision


@dataclass(frozen=True, slots=True)
class FeatureVector:
    id: int
    dataset_id: int
    feature_set_id: int
    entity_id: int
    entity_type: EntityType
    project_id: int
    organization_id: int
    creator: str | None
    created_at: datetime
    version: str | None
    parent_id: int | None
    value: list[float]


@dataclass(frozen=True, slots=True)
class NewVector:
    dataset_id: int
    entity_id: int
    value: Sequence[float]
    version: str | None = None
    parent_id: int | None = None


class _Reals(Dumper):
    """An array of numpy as one of PostgreSQL's real[], in its binary form."""

    format = Format.BINARY
    oid = 1021

    def dump(self, obj: NDArray[np.float32]) -> bytes:
        elements = np.empty(obj.size, dtype=[("length", ">i4"), ("value", ">f4")])
        elements["length"], elements["value"] = 4, obj.ravel()
        return struct.pack(">iiiii", 1 if obj.size else 0, 0, 700, obj.size, 1) + elements.tobytes()


_COLUMNS = """
    feature_vector.id, feature_vector.dataset_id, feature_vector.feature_set_id, feature_vector.entity_id,
    feature_vector.entity_type, dataset.project_id, project.organization_id, account.email AS creator,
    feature_vector.created_at, feature_vector.version, feature_vector.parent_id, feature_vector.value
"""
_FROM = """
FROM feature_vector
JOIN dataset ON dataset.id = feature_vector.dataset_id AND dataset.deleted_at IS NULL
JOIN project ON project.id = dataset.project_id
LEFT JOIN account ON account.id = feature_vector.creator_id
"""

VECTOR_FIELDS = FieldTable(
    base="feature_vector.feature_set_id = ANY(%(set_ids)s)",
    named={
        "id": Field("feature_vector.id", "id", unique=True),
        "featureSetId": Field("feature_vector.feature_set_id", "id"),
        "entityId": Field("feature_vector.entity_id", "id"),
        "entityType": Field("feature_vector.entity_type", "text"),
        "datasetId": Field("feature_vector.dataset_id", "id"),
        "project": Field("dataset.project_id", "id"),
        "projectId": Field("dataset.project_id", "id"),
        "parentId": Field("feature_vector.parent_id", "id", nullable=True),
        "version": Field("feature_vector.version", "text", nullable=True),
        "creator": Field('account.email COLLATE "C"', "text", nullable=True),
        "createdAt": Field("date_trunc('milliseconds', feature_vector.created_at)", "timestamp"),
    },
)


def checked_values(into: FeatureSet, values: Sequence[Sequence[float]]) -> NDArray[np.float32]:
    """All of them as rows. Raises BadRequest with the place of the first that is no vector of this set."""
    for number, value in enumerate(values):
        if len(value) != into.size:
            raise BadRequest(
                f"[{number}].value has {len(value):,} numbers; the vectors of feature set {into.name!r} have "
                f"{into.size:,}."
            )
    wide = np.asarray(values, dtype=np.float64).reshape(len(values), into.size)
    most = LARGEST_HALF if HALVES_FROM <= into.size <= HALVES_TO else LARGEST
    wrong = ~(np.abs(wide) <= most)  # NaN compares as false
    if wrong.any():
        number, place = (int(index) for index in np.argwhere(wrong)[0])
        raise BadRequest(
            f"[{number}].value[{place}] is {wide[number, place]}; the numbers of a vector lie between "
            f"-{most:,.6g} and {most:,.6g}."
        )
    return wide.astype(np.float32)


async def put_vectors(
    conn: AsyncConnection[Any], caller: Account, into: FeatureSet, given: Sequence[NewVector]
) -> list[int]:
    """Their ids, in the order given. One that is there is replaced and keeps its id, so it may be repeated.

    Of several for one thing the last counts. What they belong to has to be in datasets that the caller may change, of
    the set's project. Raises BadRequest, NotFound.
    """
    values = checked_values(into, [one.value for one in given])
    await feature_sets.hold(conn, into.id)
    await _check_there(conn, into.entity_type, given)
    last = {one.entity_id: number for number, one in enumerate(given)}
    kept = [given[number] for _, number in sorted(last.items())]  # in one order, or two requests wait for each other
    flat = values[[number for _, number in sorted(last.items())]]
    cursor = conn.cursor()
    cursor.adapters.register_dumper(np.ndarray, _Reals)
    await cursor.execute(
        """
        INSERT INTO feature_vector AS held
            (dataset_id, feature_set_id, entity_id, entity_type, creator_id, version, parent_id, value)
        SELECT
            given.dataset_id, %(set_id)s, given.entity_id, %(entity_type)s, %(by)s, given.version, given.parent_id,
            (%(values)s::real[])[(number - 1) * %(size)s + 1 : number * %(size)s]
        FROM unnest(%(datasets)s::bigint[], %(entities)s::bigint[], %(versions)s::text[], %(parents)s::bigint[])
            WITH ORDINALITY AS given (dataset_id, entity_id, version, parent_id, number)
        ON CONFLICT (entity_id, feature_set_id) DO UPDATE
        SET value = EXCLUDED.value, version = EXCLUDED.version, parent_id = EXCLUDED.parent_id,
            creator_id = EXCLUDED.creator_id
        RETURNING entity_id, id
        """,
        {
            "set_id": into.id,
            "entity_type": into.entity_type,
            "by": caller.id,
            "values": flat,
            "size": into.size,
            "datasets": [one.dataset_id for one in kept],
            "entities": [one.entity_id for one in kept],
            "versions": [one.version for one in kept],
            "parents": [one.parent_id for one in kept],
        },
    )
    ids = dict(await cursor.fetchall())
    return [ids[one.entity_id] for one in given]


_LOCKED: dict[EntityType, LiteralString] = {
    "item": "SELECT dataset_id, id FROM item WHERE dataset_id = %s AND id = ANY(%s) ORDER BY id FOR KEY SHARE",
    "annotation": "SELECT dataset_id, id FROM annotation WHERE dataset_id = %s AND id = ANY(%s) ORDER BY id"
    " FOR KEY SHARE",
    "dataset": "SELECT id, id FROM dataset WHERE id = %s AND id = ANY(%s) AND deleted_at IS NULL FOR KEY SHARE",
}


async def _check_there(conn: AsyncConnection[Any], entity_type: EntityType, given: Sequence[NewVector]) -> None:
    """What they belong to is there, and not deleted before this transaction ends. Raises NotFound."""
    wanted: dict[int, list[int]] = {}
    for one in given:
        wanted.setdefault(one.dataset_id, []).append(one.entity_id)
    there: set[tuple[int, int]] = set()
    for dataset_id, entity_ids in sorted(wanted.items()):
        cursor = await conn.execute(_LOCKED[entity_type], [dataset_id, entity_ids])
        there.update(await cursor.fetchall())
    for number, one in enumerate(given):
        if (one.dataset_id, one.entity_id) not in there:
            raise NotFound(
                f"[{number}].entityId: no {entity_type} with id {one.entity_id:024x} in dataset {one.dataset_id:024x}."
            )


async def find_vectors(
    conn: AsyncConnection[Any], tree: query.Tree, page: query.Page, *, set_ids: Sequence[int]
) -> tuple[list[FeatureVector], int]:
    """One page of those in these sets, and how many there are in all. Raises BadRequest."""
    where, parameters = query.compile_filter(tree, dataset_id=0, fields=VECTOR_FIELDS)
    parameters |= {"set_ids": list(set_ids)}
    rows: list[FeatureVector] = []
    if page.page_size:
        order, limits = query.compile_page(page, VECTOR_FIELDS)
        cursor = conn.cursor(row_factory=class_row(FeatureVector))
        await cursor.execute(
            SQL("SELECT ") + SQL(_COLUMNS) + SQL(_FROM) + SQL("WHERE ") + where + SQL(" ") + order,
            parameters | limits,
            prepare=False,
        )
        rows = await cursor.fetchall()
    counted = await conn.execute(SQL("SELECT count(*)") + SQL(_FROM) + SQL("WHERE ") + where, parameters, prepare=False)
    row = await counted.fetchone()
    assert row is not None
    return rows, row[0]


async def load_vectors(conn: AsyncConnection[Any], ids: Sequence[int]) -> dict[int, FeatureVector]:
    """By id, those that there are."""
    cursor = conn.cursor(row_factory=class_row(FeatureVector))
    await cursor.execute("SELECT" + _COLUMNS + _FROM + "WHERE feature_vector.id = ANY(%s)", [list(ids)])
    return {one.id: one for one in await cursor.fetchall()}


async def of_items(
    conn: AsyncConnection[Any], dataset_id: int, item_ids: Sequence[int], tree: query.Tree = query.EVERYTHING
) -> dict[int, list[FeatureVector]]:
    """The vectors of these items that meet a filter over VECTOR_FIELDS, by item; for exports. Raises BadRequest."""
    cursor = await conn.execute(
        """
        SELECT feature_set.id
        FROM feature_set
        JOIN dataset ON dataset.project_id = feature_set.project_id
        WHERE dataset.id = %s AND feature_set.entity_type = 'item' AND feature_set.deleted_at IS NULL
        """,
        [dataset_id],
    )
    set_ids = [set_id for (set_id,) in await cursor.fetchall()]
    where, parameters = query.compile_filter(tree, dataset_id=dataset_id, fields=VECTOR_FIELDS)
    found = conn.cursor(row_factory=class_row(FeatureVector))
    await found.execute(
        SQL("SELECT ")
        + SQL(_COLUMNS)
        + SQL(_FROM)
        + SQL("WHERE feature_vector.dataset_id = %(dataset_id)s AND feature_vector.entity_id = ANY(%(items)s) AND ")
        + where
        + SQL(" ORDER BY feature_vector.id"),
        parameters | {"set_ids": set_ids, "dataset_id": dataset_id, "items": list(item_ids)},
        prepare=False,
    )
    by_item: dict[int, list[FeatureVector]] = {}
    for one in await found.fetchall():
        by_item.setdefault(one.entity_id, []).append(one)
    return by_item


async def value_of(conn: AsyncConnection[Any], set_id: int, entity_id: int) -> list[float] | None:
    """The vector of one thing in a set."""
    cursor = await conn.execute(
        "SELECT value FROM feature_vector WHERE entity_id = %s AND feature_set_id = %s", [entity_id, set_id]
    )
    row = await cursor.fetchone()
    return None if row is None else row[0]


async def delete_vector(conn: AsyncConnection[Any], found: FeatureVector) -> None:
    await conn.execute("DELETE FROM feature_vector WHERE dataset_id = %s AND id = %s", [found.dataset_id, found.id])


async def count_by_set(conn: AsyncConnection[Any], dataset_ids: Sequence[int]) -> Mapping[int, int]:
    """How many vectors of each set there are in these datasets. Reads an index over all of them."""
    cursor = await conn.execute(
        """
        SELECT feature_vector.feature_set_id, count(*)
        FROM feature_vector
        JOIN feature_set ON feature_set.id = feature_vector.feature_set_id AND feature_set.deleted_at IS NULL
        WHERE feature_vector.dataset_id = ANY(%s)
        GROUP BY 1
        ORDER BY 1
        """,
        [list(dataset_ids)],
    )
    return dict(await cursor.fetchall())


async def has_at_least(conn: AsyncConnection[Any], set_id: int, number: int) -> bool:
    """Whether a set has so many vectors. Reads no more than that."""
    cursor = await conn.execute(
        "SELECT count(*) FROM (SELECT FROM feature_vector WHERE feature_set_id = %s LIMIT %s) AS counted",
        [set_id, number],
    )
    row = await cursor.fetchone()
    return row is not None and row[0] >= number


async def delete_some(conn: AsyncConnection[Any], set_id: int, *, limit: int) -> int:
    """Of a deleted set. Returns how many it were."""
    cursor = await conn.execute(
        """
        DELETE FROM feature_vector
        WHERE (dataset_id, id) IN (
            SELECT dataset_id, id FROM feature_vector WHERE feature_set_id = %s ORDER BY id LIMIT %s
        )
        """,
        [set_id, limit],
    )
    return cursor.rowcount


async def forget_dataset_vectors(conn: AsyncConnection[Any], dataset_id: int) -> None:
    """Those of a deleted dataset itself; those of its items go with them. Safe to repeat."""
    await conn.execute(
        "DELETE FROM feature_vector WHERE entity_id = %(id)s AND dataset_id = %(id)s", {"id": dataset_id}
    )
