"""Recipes: which ontologies the annotators of a dataset use, and what they are told. Datasets name their recipes.

Rows are locked in the order ontology, recipe, dataset.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from psycopg import AsyncConnection
from psycopg.rows import class_row
from psycopg.types.json import Jsonb

from headwater.catalog import labels, ontologies, projects, rights, shared
from headwater.catalog.accounts import Account
from headwater.catalog.attributes import Attribute
from headwater.catalog.datasets import Dataset
from headwater.catalog.labels import Label
from headwater.catalog.ontologies import RIGHT, Ontology
from headwater.errors import BadRequest, Conflict, NotFound
from headwater.ids import to_wire

MOST_OF_DATASET = 10
_MOST_ONTOLOGIES = 100


@dataclass(frozen=True, slots=True)
class Recipe:
    id: int
    project_ids: list[int]  # those that the caller may know of
    ontology_ids: list[int]
    title: str
    description: str | None
    settings: dict[str, Any]  # what only clients read
    metadata: dict[str, Any]
    creator: str
    created_at: datetime
    updated_at: datetime
    updated_by: str


_SELECT = """
SELECT
    recipe.id, recipe.project_ids, recipe.ontology_ids, recipe.title, recipe.description, recipe.settings,
    recipe.metadata, creator.email AS creator, recipe.created_at, recipe.updated_at,
    coalesce(updater.email, creator.email) AS updated_by
FROM recipe
JOIN account AS creator ON creator.id = recipe.creator_id
LEFT JOIN account AS updater ON updater.id = recipe.updated_by_id
"""


async def create_recipe(
    conn: AsyncConnection[Any],
    caller: Account,
    *,
    project_ids: Sequence[int],
    ontology_ids: Sequence[int],
    title: str,
    description: str | None = None,
    settings: dict[str, Any] | None = None,
    metadata: dict[str, Any] | None = None,
) -> Recipe:
    """Raises BadRequest, NotFound, Forbidden."""
    wanted = await shared.checked_projects(conn, caller, project_ids, RIGHT)
    cursor = await conn.execute(
        """
        INSERT INTO recipe (project_ids, ontology_ids, title, description, settings, metadata, creator_id)
        VALUES (%s, %s, %s, %s, %s, %s, %s)
        RETURNING id
        """,
        [
            wanted,
            await _checked_ontologies(conn, caller, ontology_ids, wanted),
            ontologies.checked_title(title, "recipe"),
            description,
            Jsonb(settings or {}),
            Jsonb(metadata or {}),
            caller.id,
        ],
    )
    row = await cursor.fetchone()
    assert row is not None
    return await get_recipe(conn, caller, row[0])


async def _checked_ontologies(
    conn: AsyncConnection[Any], caller: Account, ontology_ids: Sequence[int], project_ids: Sequence[int]
) -> list[int]:
    """They stay until this transaction ends. Raises BadRequest, NotFound."""
    wanted = list(dict.fromkeys(ontology_ids))
    if len(wanted) > _MOST_ONTOLOGIES:
        raise BadRequest(f"ontologyIds: a recipe has at most {_MOST_ONTOLOGIES} ontologies.")
    cursor = await conn.execute(
        "SELECT id, project_ids FROM ontology WHERE id = ANY(%s) ORDER BY id FOR SHARE", [sorted(wanted)]
    )
    lies_in: dict[int, list[int]] = dict(await cursor.fetchall())
    readable = set(await shared.readable_projects(conn, caller))
    for ontology_id in wanted:
        if readable.isdisjoint(lies_in.get(ontology_id, [])):
            raise NotFound(f"No ontology with id {ontology_id:024x}.")
        for project_id in project_ids:
            if project_id not in lies_in[ontology_id]:
                raise BadRequest(
                    f"The ontology {to_wire(ontology_id)} does not belong to the project {to_wire(project_id)} of the "
                    "recipe: add the project to metadata.system.projectIds of the ontology, with ?system=true."
                )
    return wanted


async def get_recipe(
    conn: AsyncConnection[Any], caller: Account, recipe_id: int, right: rights.Right = "read", *, lock: bool = False
) -> Recipe:
    """With `lock`, as it is now, and kept so until this transaction ends. Raises NotFound, Forbidden."""
    cursor = conn.cursor(row_factory=class_row(Recipe))
    await cursor.execute(_SELECT + "WHERE recipe.id = %s" + (" FOR UPDATE OF recipe" if lock else ""), [recipe_id])
    recipe = await cursor.fetchone()
    roles = {} if recipe is None else await shared.roles_in(conn, caller, recipe.project_ids)
    seen = [] if recipe is None else shared.visible(roles, recipe.project_ids)
    if recipe is None or not seen:
        raise NotFound(f"No recipe with id {recipe_id:024x}.")
    if right != "read":
        shared.require(roles, right, "recipe")
    return replace(recipe, project_ids=seen)


async def find_recipes(
    conn: AsyncConnection[Any],
    caller: Account,
    *,
    project_ids: Sequence[int] | None,
    ids: Sequence[int] | None,
    ontology_ids: Sequence[int] | None,
    title: str | None,
    offset: int,
    limit: int,
) -> tuple[list[Recipe], int]:
    """Those of these projects, or of all that the caller may see: one page in the order of ids, and how many in all."""
    readable = await shared.readable_projects(conn, caller)
    conditions = """
        WHERE recipe.project_ids && %(among)s::bigint[]
            AND (%(ids)s::bigint[] IS NULL OR recipe.id = ANY(%(ids)s::bigint[]))
            AND (%(ontology_ids)s::bigint[] IS NULL OR recipe.ontology_ids && %(ontology_ids)s::bigint[])
            AND (%(title)s::text IS NULL OR recipe.title = %(title)s)
    """
    parameters = {
        "among": readable if project_ids is None else [one for one in readable if one in set(project_ids)],
        "ids": None if ids is None else list(ids),
        "ontology_ids": None if ontology_ids is None else list(ontology_ids),
        "title": title,
        "offset": offset,
        "limit": limit,
    }
    cursor = conn.cursor(row_factory=class_row(Recipe))
    await cursor.execute(_SELECT + conditions + "ORDER BY recipe.id OFFSET %(offset)s LIMIT %(limit)s", parameters)
    found = await cursor.fetchall()
    total = await (await conn.execute("SELECT count(*) FROM recipe " + conditions, parameters)).fetchone()
    assert total is not None
    seen = set(readable)
    return [replace(one, project_ids=[here for here in one.project_ids if here in seen]) for one in found], total[0]


@dataclass(frozen=True, slots=True)
class RecipeChange:
    """What is said of a recipe; None says nothing."""

    title: str | None = None
    description: str | None = None  # '': none any more
    settings: dict[str, Any] | None = None  # put over what is there
    metadata: dict[str, Any] | None = None
    project_ids: list[int] | None = None
    ontology_ids: list[int] | None = None


async def update_recipe(conn: AsyncConnection[Any], caller: Account, recipe_id: int, given: RecipeChange) -> Recipe:
    """Raises NotFound, Forbidden, BadRequest, Conflict for a project that one of its datasets needs."""
    seen = await get_recipe(conn, caller, recipe_id, RIGHT)
    project_ids = seen.project_ids if given.project_ids is None else given.project_ids
    ontology_ids = seen.ontology_ids if given.ontology_ids is None else given.ontology_ids
    moves = project_ids != seen.project_ids
    if moves:
        project_ids = await shared.checked_projects(conn, caller, project_ids, RIGHT)
    if moves or ontology_ids != seen.ontology_ids:
        ontology_ids = await _checked_ontologies(conn, caller, ontology_ids, project_ids)
    before = await get_recipe(conn, caller, recipe_id, RIGHT, lock=True)
    await _require_unneeded(conn, before, project_ids)
    description = before.description if given.description is None else given.description or None
    await conn.execute(
        """
        UPDATE recipe
        SET project_ids = %(project_ids)s, ontology_ids = %(ontology_ids)s, title = %(title)s,
            description = %(description)s, settings = %(settings)s, metadata = %(metadata)s, updated_at = now(),
            updated_by_id = %(by)s
        WHERE id = %(id)s
        """,
        {
            "id": before.id,
            "project_ids": project_ids if moves else before.project_ids,
            "ontology_ids": ontology_ids if given.ontology_ids is not None else before.ontology_ids,
            "title": before.title if given.title is None else ontologies.checked_title(given.title, "recipe"),
            "description": description,
            "settings": Jsonb(before.settings | (given.settings or {})),
            "metadata": Jsonb(before.metadata if given.metadata is None else given.metadata),
            "by": caller.id,
        },
    )
    return await get_recipe(conn, caller, recipe_id)


async def _require_unneeded(conn: AsyncConnection[Any], before: Recipe, project_ids: Sequence[int]) -> None:
    gone = [one for one in before.project_ids if one not in project_ids]
    cursor = await conn.execute(
        """
        SELECT name FROM dataset
        WHERE recipe_ids @> %s::bigint[] AND project_id = ANY(%s) AND deleted_at IS NULL
        LIMIT 1
        """,
        [[before.id], gone],
    )
    row = await cursor.fetchone()
    if row is not None:
        raise Conflict(f"The dataset {row[0]!r} uses this recipe in a project that it would leave. Switch its recipe.")


async def delete_recipe(conn: AsyncConnection[Any], caller: Account, recipe_id: int, *, force: bool) -> None:
    """Its ontologies stay. Raises NotFound, Forbidden, Conflict while a dataset uses it, unless `force`."""
    recipe = await get_recipe(conn, caller, recipe_id, RIGHT, lock=True)
    cursor = await conn.execute(
        """
        SELECT name, project_id FROM dataset
        WHERE recipe_ids @> ARRAY[%s]::bigint[] AND deleted_at IS NULL
        ORDER BY id
        FOR NO KEY UPDATE
        """,
        [recipe.id],
    )
    used_by = await cursor.fetchall()
    if used_by and not force:
        named = ", ".join(repr(name) for name, _ in used_by[:3]) + (" …" if len(used_by) > 3 else "")
        raise Conflict(
            f"The recipe {recipe.title!r} is in use by {len(used_by)} dataset{'s' if len(used_by) > 1 else ''}: "
            f"{named}. Switch them to another recipe first, or send ?force=true: then they are left without labels."
        )
    await conn.execute(
        "UPDATE dataset SET recipe_ids = array_remove(recipe_ids, %(id)s) WHERE recipe_ids @> ARRAY[%(id)s]::bigint[]",
        {"id": recipe.id},
    )
    await conn.execute("DELETE FROM recipe WHERE id = %s", [recipe.id])
    for project_id in recipe.project_ids:  # each in its own organisation's log, with its own datasets alone
        told = {
            "id": to_wire(recipe.id),
            "datasets": [name for name, lies_in in used_by if lies_in == project_id][:100],
        }
        await projects.record(conn, caller, project_id, "recipe.deleted", recipe.title, **told)


async def clone_recipe(conn: AsyncConnection[Any], caller: Account, recipe_id: int, *, shallow: bool) -> Recipe:
    """In those of its projects where the caller may; `shallow` shares its ontologies. Raises NotFound, Forbidden."""
    source = await get_recipe(conn, caller, recipe_id)
    roles = await shared.roles_in(conn, caller, source.project_ids)
    project_ids = [one for one in source.project_ids if (role := roles[one]) is not None and rights.may(role, RIGHT)]
    if not project_ids:
        shared.require(roles, RIGHT, "recipe")
    ontology_ids = source.ontology_ids
    if not shallow:
        ontology_ids = [await _copy_ontology(conn, caller, one, project_ids) for one in source.ontology_ids]
    return await create_recipe(
        conn,
        caller,
        project_ids=project_ids,
        ontology_ids=ontology_ids,
        title=f"{source.title[:900]} (clone)",
        description=source.description,
        settings=source.settings,
        metadata=source.metadata,
    )


async def _copy_ontology(
    conn: AsyncConnection[Any], caller: Account, ontology_id: int, project_ids: Sequence[int]
) -> int:
    source = await ontologies.get_ontology(conn, caller, ontology_id)
    made = await ontologies.create_ontology(
        conn,
        caller,
        project_ids=project_ids,
        title=source.title,
        tree=source.labels,
        asked=source.attributes,
        attribute_names=source.attribute_names,
        metadata=source.metadata,
    )
    return made.id


# Recipes of datasets.


async def create_default_recipe(
    conn: AsyncConnection[Any],
    caller: Account,
    dataset: Dataset,
    tree: list[Label] | None = None,
    asked: Sequence[Attribute] = (),
) -> None:
    """A recipe of the dataset's own, with an ontology of its own. Raises Forbidden."""
    ontology = await ontologies.create_ontology(
        conn,
        caller,
        project_ids=[dataset.project_id],
        title=f"{dataset.name} Default Ontology",
        tree=tree,
        asked=asked,
    )
    recipe = await create_recipe(
        conn,
        caller,
        project_ids=[dataset.project_id],
        ontology_ids=[ontology.id],
        title=f"{dataset.name} Default Recipe",
    )
    await _set_recipes(conn, dataset.id, [recipe.id])


async def switch_recipes(
    conn: AsyncConnection[Any], caller: Account, dataset: Dataset, recipe_ids: Sequence[int]
) -> None:
    """Raises NotFound, BadRequest for a recipe of another project."""
    wanted = list(dict.fromkeys(recipe_ids))
    if wanted == dataset.recipe_ids:
        return
    if len(wanted) > MOST_OF_DATASET:
        raise BadRequest(f"metadata.system.recipes: a dataset has at most {MOST_OF_DATASET} recipes.")
    cursor = await conn.execute("SELECT id FROM recipe WHERE id = ANY(%s) ORDER BY id FOR SHARE", [wanted])
    await cursor.fetchall()  # they stay until this transaction ends
    for recipe_id in wanted:
        recipe = await get_recipe(conn, caller, recipe_id)
        if dataset.project_id not in recipe.project_ids:
            raise BadRequest(
                f"The recipe {recipe.title!r} belongs to other projects than dataset {dataset.name!r}. Add the project "
                f"{to_wire(dataset.project_id)} to its projectIds, or clone it."
            )
    await _set_recipes(conn, dataset.id, wanted)


async def inherit_recipes(
    conn: AsyncConnection[Any], caller: Account, dataset: Dataset, sources: Sequence[Dataset]
) -> None:
    """A clone shares the recipes of its original, where that is of the same project.

    A merge of datasets with different recipes gets one of its own, with the labels and attributes of all.
    """
    found = {tuple(source.recipe_ids) for source in sources}
    is_near = all(source.project_id == dataset.project_id for source in sources)
    if is_near and len(found) == 1:
        await _set_recipes(conn, dataset.id, sources[0].recipe_ids)
        return
    used = [ontology for source in sources if (ontology := await _ontology_of(conn, caller, source)) is not None]
    asked = {attribute.key: attribute for ontology in reversed(used) for attribute in ontology.attributes}
    tree = labels.merged([ontology.labels for ontology in used])
    await create_default_recipe(conn, caller, dataset, tree, list(asked.values()))


async def _ontology_of(conn: AsyncConnection[Any], caller: Account, dataset: Dataset) -> Ontology | None:
    """The one whose labels are the dataset's."""
    for recipe_id in dataset.recipe_ids[:1]:
        for ontology_id in (await get_recipe(conn, caller, recipe_id)).ontology_ids[:1]:
            return await ontologies.get_ontology(conn, caller, ontology_id)
    return None


async def _set_recipes(conn: AsyncConnection[Any], dataset_id: int, recipe_ids: Sequence[int]) -> None:
    await conn.execute("UPDATE dataset SET recipe_ids = %s WHERE id = %s", [list(recipe_ids), dataset_id])
