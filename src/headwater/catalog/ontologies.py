"""Ontologies: labels and attributes. They belong to projects; recipes name them, and datasets name recipes."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from psycopg import AsyncConnection
from psycopg.rows import class_row
from psycopg.types.json import Jsonb

from headwater.catalog import attributes, labels, projects, rights, shared
from headwater.catalog.accounts import Account
from headwater.catalog.attributes import Attribute
from headwater.catalog.labels import Label, LabelChange
from headwater.errors import BadRequest, Conflict, NotFound
from headwater.ids import to_wire

_LONGEST_TITLE = 1_000
LARGEST_BYTES = 32_000_000  # of labels and attributes together, as JSON text: whoever reads an ontology reads it whole
RIGHT: rights.Right = "manage_recipes"


@dataclass(frozen=True, slots=True)
class Ontology:
    id: int
    project_ids: list[int]  # those that the caller may know of
    title: str | None
    labels: list[Label]
    attributes: list[Attribute]
    attribute_names: list[Any]  # as clients of old kept them
    metadata: dict[str, Any]
    creator: str
    created_at: datetime
    updated_at: datetime
    updated_by: str


@dataclass(frozen=True, slots=True)
class _Row:
    id: int
    project_ids: list[int]
    title: str | None
    labels: list[dict[str, Any]]
    attributes: list[dict[str, Any]]
    attribute_names: list[Any]
    metadata: dict[str, Any]
    creator: str
    created_at: datetime
    updated_at: datetime
    updated_by: str


_SELECT = """
SELECT
    ontology.id, ontology.project_ids, ontology.title, ontology.labels, ontology.attributes, ontology.attribute_names,
    ontology.metadata, creator.email AS creator, ontology.created_at, ontology.updated_at,
    coalesce(updater.email, creator.email) AS updated_by
FROM ontology
JOIN account AS creator ON creator.id = ontology.creator_id
LEFT JOIN account AS updater ON updater.id = ontology.updated_by_id
"""


def _from_row(row: _Row, project_ids: list[int]) -> Ontology:
    return Ontology(
        id=row.id,
        project_ids=project_ids,
        title=row.title,
        labels=labels.from_json(row.labels),
        attributes=attributes.from_json(row.attributes),
        attribute_names=row.attribute_names,
        metadata=row.metadata,
        creator=row.creator,
        created_at=row.created_at,
        updated_at=row.updated_at,
        updated_by=row.updated_by,
    )


async def create_ontology(
    conn: AsyncConnection[Any],
    caller: Account,
    *,
    project_ids: Sequence[int],
    title: str | None = None,
    tree: list[Label] | None = None,
    asked: Sequence[Attribute] = (),
    attribute_names: Sequence[Any] = (),
    metadata: dict[str, Any] | None = None,
) -> Ontology:
    """Raises BadRequest, NotFound, Forbidden."""
    wanted = await shared.checked_projects(conn, caller, project_ids, RIGHT)
    labels.named(tree or [])
    attributes.check_all(asked)
    cursor = await conn.execute(
        """
        INSERT INTO ontology (project_ids, title, labels, attributes, attribute_names, metadata, creator_id)
        VALUES (%s, %s, %s, %s, %s, %s, %s)
        RETURNING id
        """,
        [
            wanted,
            checked_title(title, "ontology"),
            *_stored(tree or [], asked),
            Jsonb(list(attribute_names)),
            Jsonb(metadata or {}),
            caller.id,
        ],
    )
    row = await cursor.fetchone()
    assert row is not None
    return await get_ontology(conn, caller, row[0])


def _stored(tree: Sequence[Label], asked: Sequence[Attribute]) -> tuple[Jsonb, Jsonb]:
    """Labels and attributes as their columns have them. Raises BadRequest for more than there may be."""
    told = [labels.to_json(tree), attributes.to_json(asked)]
    size_bytes = len(json.dumps(told, ensure_ascii=False).encode())
    if size_bytes > LARGEST_BYTES:
        raise BadRequest(
            f"With this, the labels and attributes of the ontology were {size_bytes:,} bytes of JSON; "
            f"{LARGEST_BYTES:,} are the most."
        )
    return Jsonb(told[0]), Jsonb(told[1])


def checked_title(title: str | None, noun: str) -> str | None:
    """Raises BadRequest."""
    if title is not None and (not title.strip() or len(title) > _LONGEST_TITLE):
        raise BadRequest(f"The title of an {noun} has 1 to {_LONGEST_TITLE} characters.")
    return title


async def get_ontology(
    conn: AsyncConnection[Any], caller: Account, ontology_id: int, right: rights.Right = "read", *, lock: bool = False
) -> Ontology:
    """With `lock`, as it is now, and kept so until this transaction ends. Raises NotFound, Forbidden."""
    cursor = conn.cursor(row_factory=class_row(_Row))
    await cursor.execute(
        _SELECT + "WHERE ontology.id = %s" + (" FOR UPDATE OF ontology" if lock else ""), [ontology_id]
    )
    row = await cursor.fetchone()
    roles = {} if row is None else await shared.roles_in(conn, caller, row.project_ids)
    seen = [] if row is None else shared.visible(roles, row.project_ids)
    if row is None or not seen:
        raise NotFound(f"No ontology with id {ontology_id:024x}.")
    if right != "read":
        shared.require(roles, right, "ontology")
    return _from_row(row, seen)


async def find_ontologies(
    conn: AsyncConnection[Any],
    caller: Account,
    *,
    project_ids: Sequence[int] | None,
    ids: Sequence[int] | None,
    offset: int,
    limit: int,
) -> tuple[list[Ontology], int]:
    """Those of these projects, or of all that the caller may see: one page in the order of ids, and how many in all."""
    readable = await shared.readable_projects(conn, caller)
    among = readable if project_ids is None else [one for one in readable if one in set(project_ids)]
    conditions = """
        WHERE ontology.project_ids && %(among)s::bigint[]
            AND (%(ids)s::bigint[] IS NULL OR ontology.id = ANY(%(ids)s::bigint[]))
    """
    parameters = {"among": among, "ids": None if ids is None else list(ids), "offset": offset, "limit": limit}
    cursor = conn.cursor(row_factory=class_row(_Row))
    await cursor.execute(_SELECT + conditions + "ORDER BY ontology.id OFFSET %(offset)s LIMIT %(limit)s", parameters)
    rows = await cursor.fetchall()
    total = await (await conn.execute("SELECT count(*) FROM ontology " + conditions, parameters)).fetchone()
    assert total is not None
    seen = set(readable)
    return [_from_row(row, [one for one in row.project_ids if one in seen]) for row in rows], total[0]


@dataclass(frozen=True, slots=True)
class Replacement:
    """What is said of an ontology as a whole; None says nothing."""

    title: str | None = None
    labels: list[Label] | None = None
    attributes: list[Attribute] | None = None
    attribute_names: list[Any] | None = None
    metadata: dict[str, Any] | None = None
    project_ids: list[int] | None = None


async def replace_ontology(
    conn: AsyncConnection[Any], caller: Account, ontology_id: int, given: Replacement
) -> Ontology:
    """Raises NotFound, Forbidden, BadRequest, Conflict for a project that a recipe of needs it."""
    before = await get_ontology(conn, caller, ontology_id, RIGHT, lock=True)
    after = replace(
        before,
        title=before.title if given.title is None else checked_title(given.title, "ontology"),
        labels=before.labels if given.labels is None else given.labels,
        attributes=before.attributes if given.attributes is None else given.attributes,
        attribute_names=before.attribute_names if given.attribute_names is None else given.attribute_names,
        metadata=before.metadata if given.metadata is None else given.metadata,
    )
    labels.named(after.labels)
    attributes.check_all(after.attributes)
    if given.project_ids is not None and given.project_ids != before.project_ids:
        after = replace(after, project_ids=await shared.checked_projects(conn, caller, given.project_ids, RIGHT))
        await _require_unneeded(conn, before, after.project_ids)
    return await _save(conn, caller, after)


async def _require_unneeded(conn: AsyncConnection[Any], before: Ontology, project_ids: Sequence[int]) -> None:
    gone = [one for one in before.project_ids if one not in project_ids]
    cursor = await conn.execute(
        "SELECT title FROM recipe WHERE ontology_ids @> %s::bigint[] AND project_ids && %s::bigint[] LIMIT 1",
        [[before.id], gone],
    )
    row = await cursor.fetchone()
    if row is not None:
        raise Conflict(f"The recipe {row[0]!r} uses this ontology in a project that it would leave.")


async def change_labels(
    conn: AsyncConnection[Any],
    caller: Account,
    ontology_id: int,
    changes: Sequence[LabelChange],
    *,
    may_add: bool = True,
    may_change: bool = True,
) -> Ontology:
    """What others change at the same time stays. Raises NotFound, Forbidden, Conflict, BadRequest."""
    before = await get_ontology(conn, caller, ontology_id, RIGHT, lock=True)
    tree = labels.changed(before.labels, changes, may_add=may_add, may_change=may_change)
    return await _save(conn, caller, replace(before, labels=tree))


async def change_attributes(
    conn: AsyncConnection[Any], caller: Account, ontology_id: int, given: Sequence[Attribute], *, may_change: bool
) -> Ontology:
    """Raises NotFound, Forbidden, Conflict, BadRequest."""
    before = await get_ontology(conn, caller, ontology_id, RIGHT, lock=True)
    changed = attributes.changed(before.attributes, given, may_change=may_change)
    return await _save(conn, caller, replace(before, attributes=changed))


async def delete_attributes(
    conn: AsyncConnection[Any], caller: Account, ontology_id: int, keys: Sequence[str]
) -> Ontology:
    """Annotations keep what they say of them. Raises NotFound, Forbidden."""
    before = await get_ontology(conn, caller, ontology_id, RIGHT, lock=True)
    return await _save(conn, caller, replace(before, attributes=attributes.without(before.attributes, keys)))


async def _save(conn: AsyncConnection[Any], caller: Account, after: Ontology) -> Ontology:
    """Who changes it sees all of its projects, but for those that were deleted."""
    tree, asked = _stored(after.labels, after.attributes)
    await conn.execute(
        """
        UPDATE ontology
        SET project_ids = %(project_ids)s, title = %(title)s, labels = %(labels)s, attributes = %(attributes)s,
            attribute_names = %(attribute_names)s, metadata = %(metadata)s, updated_at = now(), updated_by_id = %(by)s
        WHERE id = %(id)s
        """,
        {
            "id": after.id,
            "project_ids": after.project_ids,
            "title": after.title,
            "labels": tree,
            "attributes": asked,
            "attribute_names": Jsonb(after.attribute_names),
            "metadata": Jsonb(after.metadata),
            "by": caller.id,
        },
    )
    return await get_ontology(conn, caller, after.id)


async def delete_ontology(conn: AsyncConnection[Any], caller: Account, ontology_id: int, *, force: bool) -> None:
    """Annotations keep their labels. Raises NotFound, Forbidden, Conflict while a recipe uses it, unless `force`."""
    ontology = await get_ontology(conn, caller, ontology_id, RIGHT, lock=True)
    cursor = await conn.execute(
        "SELECT id, title FROM recipe WHERE ontology_ids @> ARRAY[%s]::bigint[] ORDER BY id FOR UPDATE", [ontology.id]
    )
    used_by = await cursor.fetchall()
    if used_by and not force:
        named = ", ".join(repr(title) for _, title in used_by[:3]) + (" …" if len(used_by) > 3 else "")
        raise Conflict(
            f"The ontology is in use by {len(used_by)} recipe{'s' if len(used_by) > 1 else ''}: {named}. Give them "
            "another one first, delete them, or send ?force=true: then they are left without these labels."
        )
    await conn.execute(
        """
        UPDATE recipe SET ontology_ids = array_remove(ontology_ids, %(id)s)
        WHERE ontology_ids @> ARRAY[%(id)s]::bigint[]
        """,
        {"id": ontology.id},
    )
    await conn.execute("DELETE FROM ontology WHERE id = %s", [ontology.id])
    name = ontology.title or to_wire(ontology.id)
    for project_id in ontology.project_ids:
        await projects.record(conn, caller, project_id, "ontology.deleted", name, id=to_wire(ontology.id))
