"""Feature sets: a project's named kinds of vectors, each with a size and a kind of thing that has them."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal, get_args

from psycopg import AsyncConnection
from psycopg.errors import UniqueViolation
from psycopg.rows import class_row
from psycopg.sql import SQL

from headwater.catalog import query, rights
from headwater.catalog.accounts import Account
from headwater.catalog.fields import Field, FieldTable
from headwater.catalog.names import checked_name
from headwater.errors import BadRequest, Conflict, NotFound

EntityType = Literal["item", "annotation", "dataset"]
LARGEST_SIZE = 16_000  # numbers of a vector: what the type of pgvector holds
Metric = Literal["euclidean", "cosine", "inner_product"]


@dataclass(frozen=True, slots=True)
class FeatureSet:
    id: int
    project_id: int
    organization_id: int
    name: str
    size: int
    kind: str
    entity_type: EntityType
    model_id: str | None
    creator: str
    created_at: datetime
    updated_at: datetime
    updated_by: str
    index_metric: Metric | None
    indexing_command_id: int | None
    role: rights.Role  # of the account that asked, in the project


_SELECT = """
SELECT
    feature_set.id, feature_set.project_id, project.organization_id, feature_set.name, feature_set.size,
    feature_set.kind, feature_set.entity_type, feature_set.model_id, creator.email AS creator, feature_set.created_at,
    feature_set.updated_at, updater.email AS updated_by, feature_set.index_metric, feature_set.indexing_command_id,
    CASE WHEN member.role IN ('owner', 'admin') THEN 'owner' ELSE project_member.role END AS role
"""
_FROM = """
FROM feature_set
JOIN project ON project.id = feature_set.project_id
JOIN account AS creator ON creator.id = feature_set.creator_id
JOIN account AS updater ON updater.id = feature_set.updated_by_id
LEFT JOIN member ON member.organization_id = project.organization_id AND member.account_id = %(account_id)s
LEFT JOIN project_member
    ON project_member.project_id = project.id AND project_member.account_id = %(account_id)s
WHERE feature_set.deleted_at IS NULL AND project.deleted_at IS NULL
    AND (member.role IN ('owner', 'admin') OR project_member.role IS NOT NULL)
"""

SET_FIELDS = FieldTable(
    base="(%(project_ids)s::bigint[] IS NULL OR feature_set.project_id = ANY(%(project_ids)s))",
    named={
        "id": Field("feature_set.id", "id", unique=True),
        "name": Field("feature_set.name", "text"),
        "type": Field("feature_set.kind", "text"),
        "entityType": Field("feature_set.entity_type", "text"),
        "size": Field("feature_set.size", "integer"),
        "modelId": Field("feature_set.model_id", "text", nullable=True),
        "project": Field("feature_set.project_id", "id"),
        "projectId": Field("feature_set.project_id", "id"),
        "creator": Field('creator.email COLLATE "C"', "text"),
        "createdAt": Field("date_trunc('milliseconds', feature_set.created_at)", "timestamp"),
        "updatedAt": Field("date_trunc('milliseconds', feature_set.updated_at)", "timestamp"),
    },
)


async def create_set(
    conn: AsyncConnection[Any],
    caller: Account,
    project_id: int,
    *,
    name: str,
    size: int,
    kind: str,
    entity_type: str,
    model_id: str | None,
) -> FeatureSet:
    """Raises BadRequest, Conflict."""
    name, kind = checked_name(name, "feature set"), checked_name(kind, "feature set's type")
    if not 1 <= size <= LARGEST_SIZE:
        raise BadRequest(f"size: a vector has 1 to {LARGEST_SIZE:,} numbers, not {size:,}.")
    if entity_type not in get_args(EntityType):
        raise BadRequest(
            f"entityType: {entity_type[:40]!r} has no vectors. There are {', '.join(get_args(EntityType))}."
        )
    try:
        async with conn.transaction():
            cursor = await conn.execute(
                """
                INSERT INTO feature_set
                    (project_id, name, size, kind, entity_type, model_id, creator_id, updated_by_id)
                VALUES (%(project_id)s, %(name)s, %(size)s, %(kind)s, %(entity_type)s, %(model_id)s, %(by)s, %(by)s)
                RETURNING id
                """,
                {
                    "project_id": project_id,
                    "name": name,
                    "size": size,
                    "kind": kind,
                    "entity_type": entity_type,
                    "model_id": None if model_id is None else checked_name(model_id, "model"),
                    "by": caller.id,
                },
            )
    except UniqueViolation:
        raise Conflict(f"There is a feature set named {name!r} in this project already.") from None
    row = await cursor.fetchone()
    assert row is not None
    return await get_set(conn, caller, row[0])


async def get_set(conn: AsyncConnection[Any], caller: Account, set_id: int, right: rights.Right = "read") -> FeatureSet:
    """Raises NotFound, or Forbidden for one that the caller may see but not use so."""
    cursor = conn.cursor(row_factory=class_row(FeatureSet))
    await cursor.execute(
        _SELECT + _FROM + "AND feature_set.id = %(set_id)s", {"account_id": caller.id, "set_id": set_id}
    )
    found = await cursor.fetchone()
    if found is None:
        raise NotFound(f"No feature set with id {set_id:024x}.")
    rights.require(found.role, right)
    return found


async def find_sets(
    conn: AsyncConnection[Any],
    caller: Account,
    tree: query.Tree,
    page: query.Page,
    *,
    project_ids: Sequence[int] | None,
) -> tuple[list[FeatureSet], int]:
    """One page of those that the caller may see, and how many there are in all. Raises BadRequest."""
    where, parameters = query.compile_filter(tree, dataset_id=0, fields=SET_FIELDS)
    order, limits = query.compile_page(page, SET_FIELDS)
    parameters |= {"account_id": caller.id, "project_ids": None if project_ids is None else list(project_ids)}
    found = SQL(_FROM) + SQL(" AND ") + where
    cursor = conn.cursor(row_factory=class_row(FeatureSet))
    await cursor.execute(SQL(_SELECT) + found + SQL(" ") + order, parameters | limits, prepare=False)
    rows = await cursor.fetchall()
    counted = await conn.execute(SQL("SELECT count(*)") + found, parameters, prepare=False)
    row = await counted.fetchone()
    assert row is not None
    return rows, row[0]


async def update_set(
    conn: AsyncConnection[Any],
    caller: Account,
    found: FeatureSet,
    *,
    name: str | None,
    kind: str | None,
    model_id: str | None,
) -> None:
    """What is None stays. Raises Conflict, BadRequest."""
    try:
        async with conn.transaction():
            await conn.execute(
                """
                UPDATE feature_set
                SET name = coalesce(%s, name), kind = coalesce(%s, kind), model_id = coalesce(%s, model_id),
                    updated_at = now(), updated_by_id = %s
                WHERE id = %s
                """,
                [
                    None if name is None else checked_name(name, "feature set"),
                    None if kind is None else checked_name(kind, "feature set's type"),
                    None if model_id is None else checked_name(model_id, "model"),
                    caller.id,
                    found.id,
                ],
            )
    except UniqueViolation:
        raise Conflict(f"There is a feature set named {name!r} in this project already.") from None


async def delete_set(conn: AsyncConnection[Any], set_id: int) -> None:
    """Out of sight at once; its vectors and its row go in a job."""
    await conn.execute("SELECT FROM feature_set WHERE id = %s FOR UPDATE", [set_id])  # waits for `hold`
    await conn.execute("UPDATE feature_set SET deleted_at = now() WHERE id = %s AND deleted_at IS NULL", [set_id])


async def hold(conn: AsyncConnection[Any], set_id: int) -> None:
    """Nobody deletes it before this transaction ends. Raises NotFound."""
    cursor = await conn.execute("SELECT FROM feature_set WHERE id = %s AND deleted_at IS NULL FOR KEY SHARE", [set_id])
    if await cursor.fetchone() is None:
        raise NotFound(f"No feature set with id {set_id:024x}.")


async def forget_set(conn: AsyncConnection[Any], set_id: int) -> None:
    """Remove the row of a deleted set that has no vector left. Safe to repeat."""
    await conn.execute(
        """
        DELETE FROM feature_set
        WHERE id = %(id)s AND deleted_at IS NOT NULL
            AND NOT EXISTS (SELECT FROM feature_vector WHERE feature_set_id = %(id)s)
        """,
        {"id": set_id},
    )


async def delete_of_project(conn: AsyncConnection[Any], project_id: int) -> list[int]:
    """All of a project that is being deleted. Returns their ids."""
    cursor = await conn.execute(
        "UPDATE feature_set SET deleted_at = now() WHERE project_id = %s RETURNING id", [project_id]
    )
    return [set_id for (set_id,) in await cursor.fetchall()]


async def readable_ids(conn: AsyncConnection[Any], caller: Account, *, project_ids: Sequence[int] | None) -> list[int]:
    """Of all sets that the caller may see, in these projects or in any."""
    cursor = await conn.execute(
        "SELECT feature_set.id"
        + _FROM
        + "AND (%(project_ids)s::bigint[] IS NULL OR feature_set.project_id = ANY(%(project_ids)s))",
        {"account_id": caller.id, "project_ids": None if project_ids is None else list(project_ids)},
    )
    return [set_id for (set_id,) in await cursor.fetchall()]


async def load_set(conn: AsyncConnection[Any], set_id: int) -> FeatureSet | None:
    """For our own jobs, which act for nobody."""
    cursor = conn.cursor(row_factory=class_row(FeatureSet))
    await cursor.execute(
        """
        SELECT
            feature_set.id, feature_set.project_id, project.organization_id, feature_set.name, feature_set.size,
            feature_set.kind, feature_set.entity_type, feature_set.model_id, '' AS creator, feature_set.created_at,
            feature_set.updated_at, '' AS updated_by, feature_set.index_metric, feature_set.indexing_command_id,
            'owner' AS role
        FROM feature_set
        JOIN project ON project.id = feature_set.project_id
        WHERE feature_set.id = %s AND feature_set.deleted_at IS NULL
        """,
        [set_id],
    )
    return await cursor.fetchone()


async def lock_set(conn: AsyncConnection[Any], set_id: int) -> tuple[Metric | None, int | None] | None:
    """(metric of its index, command that makes one) as they are now, and till the end of this transaction."""
    cursor = await conn.execute(
        """
        SELECT index_metric, indexing_command_id
        FROM feature_set
        WHERE id = %s AND deleted_at IS NULL
        FOR NO KEY UPDATE
        """,
        [set_id],
    )
    return await cursor.fetchone()


async def note_indexing(conn: AsyncConnection[Any], set_id: int, command_id: int | None) -> None:
    await conn.execute("UPDATE feature_set SET indexing_command_id = %s WHERE id = %s", [command_id, set_id])


async def note_index(conn: AsyncConnection[Any], set_id: int, metric: Metric | None) -> None:
    """It has an index for this metric now, or none."""
    await conn.execute("UPDATE feature_set SET index_metric = %s WHERE id = %s", [metric, set_id])
