"""Recipes, ontologies, labels and attributes."""

from typing import Annotated, Any

from fastapi import APIRouter, Query, Request

from headwater.api.caller import Base, Caller, Connection, OntologyId, RecipeId, needs
from headwater.catalog import ontologies, recipes
from headwater.wire import ontologies as wire
from headwater.wire import recipes as wire_recipes

router = APIRouter(tags=["recipes"])

Force = Annotated[bool, Query(description="Delete it though it is in use.")]
System = Annotated[bool, Query(description="Change what lies in metadata.system, too.")]


@router.post("/recipes", openapi_extra=needs("manage_recipes"))
async def create_recipe(
    body: wire_recipes.RecipeBody, caller: Caller, conn: Connection, base: Base
) -> wire_recipes.RecipeJson:
    """In one or more projects, of ontologies that these have."""
    made = await recipes.create_recipe(
        conn,
        caller,
        project_ids=wire.wire_ids(body.project_ids, "project"),
        ontology_ids=wire.wire_ids(body.ontology_ids, "ontology"),
        title=body.title or "Recipe",
        description=body.description,
        settings=wire_recipes.settings_of(body),
        metadata=wire_recipes.checked_metadata(body.metadata),
    )
    return wire_recipes.recipe(made, base)


@router.get("/recipes", openapi_extra=needs("account"))
async def list_recipes(request: Request, caller: Caller, conn: Connection, base: Base) -> dict[str, Any]:
    """One page: `projects` and `ontologies` are ids with commas between, `pageOffset` counts pages of `pageSize`."""
    asked = wire_recipes.parse_list(request.query_params)
    found, total = await recipes.find_recipes(
        conn,
        caller,
        project_ids=asked.project_ids,
        ids=asked.ids,
        ontology_ids=asked.ontology_ids,
        title=asked.title,
        offset=asked.page * asked.page_size,
        limit=asked.page_size,
    )
    return wire_recipes.page([wire_recipes.recipe(one, base) for one in found], total=total, asked=asked)


@router.get("/recipes/{recipe_id}", openapi_extra=needs("read"))
async def read_recipe(recipe_id: RecipeId, caller: Caller, conn: Connection, base: Base) -> wire_recipes.RecipeJson:
    return wire_recipes.recipe(await recipes.get_recipe(conn, caller, recipe_id), base)


@router.patch("/recipes/{recipe_id}", openapi_extra=needs("manage_recipes"))
async def update_recipe(
    recipe_id: RecipeId,
    body: wire_recipes.RecipePatch,
    caller: Caller,
    conn: Connection,
    base: Base,
    system: System = False,
) -> wire_recipes.RecipeJson:
    """Change what is given; null leaves a field alone. It needs the right in all projects of the recipe."""
    before = await recipes.get_recipe(conn, caller, recipe_id, "manage_recipes")
    change = wire_recipes.change(body, before, system=system)
    return wire_recipes.recipe(await recipes.update_recipe(conn, caller, recipe_id, change), base)


@router.delete("/recipes/{recipe_id}", openapi_extra=needs("manage_recipes"))
async def delete_recipe(recipe_id: RecipeId, caller: Caller, conn: Connection, force: Force = False) -> dict[str, bool]:
    """Refused while a dataset uses it, unless `force`. Its ontologies stay."""
    await recipes.delete_recipe(conn, caller, recipe_id, force=force)
    return {"success": True}


@router.post("/recipes/{recipe_id}/clone", openapi_extra=needs("manage_recipes"))
async def clone_recipe(
    recipe_id: RecipeId, body: wire_recipes.RecipeCloneBody, caller: Caller, conn: Connection, base: Base
) -> wire_recipes.RecipeJson:
    """With its ontologies cloned, or shared: `shallow`."""
    return wire_recipes.recipe(await recipes.clone_recipe(conn, caller, recipe_id, shallow=body.shallow), base)


@router.post("/ontologies", openapi_extra=needs("manage_recipes"))
async def create_ontology(body: wire.OntologyBody, caller: Caller, conn: Connection, base: Base) -> wire.OntologyJson:
    asked, names = wire.attributes_of(body.attributes, body.metadata or {})
    made = await ontologies.create_ontology(
        conn,
        caller,
        project_ids=wire.wire_ids(body.project_ids, "project"),
        title=body.title,
        tree=wire.parse_roots(body.roots or []),
        asked=asked,
        attribute_names=names,
        metadata=wire.own_metadata(body.metadata),
    )
    return wire.ontology(made, base)


@router.get("/ontologies", openapi_extra=needs("account"))
async def list_ontologies(request: Request, caller: Caller, conn: Connection, base: Base) -> dict[str, Any]:
    """One page: `projects` and `ids` are ids with commas between, `pageOffset` counts pages of `pageSize`."""
    asked = wire_recipes.parse_list(request.query_params, ("projects", "ids", "pageOffset", "pageSize"))
    found, total = await ontologies.find_ontologies(
        conn,
        caller,
        project_ids=asked.project_ids,
        ids=asked.ids,
        offset=asked.page * asked.page_size,
        limit=asked.page_size,
    )
    return wire_recipes.page([wire.ontology(one, base) for one in found], total=total, asked=asked)


@router.get("/ontologies/{ontology_id}", openapi_extra=needs("read"))
async def read_ontology(ontology_id: OntologyId, caller: Caller, conn: Connection, base: Base) -> wire.OntologyJson:
    return wire.ontology(await ontologies.get_ontology(conn, caller, ontology_id), base)


@router.put("/ontologies/{ontology_id}", openapi_extra=needs("manage_recipes"))
async def replace_ontology(
    ontology_id: OntologyId,
    body: wire.OntologyPut,
    caller: Caller,
    conn: Connection,
    base: Base,
    system: System = False,
) -> wire.OntologyJson:
    """Put these labels in the place of all; with `system` attributes, projects and the rest of the metadata, too."""
    before = await ontologies.get_ontology(conn, caller, ontology_id, "manage_recipes", lock=True)
    given = wire.replacement(body, before.metadata, system=system)
    return wire.ontology(await ontologies.replace_ontology(conn, caller, ontology_id, given), base)


@router.delete("/ontologies/{ontology_id}", openapi_extra=needs("manage_recipes"))
async def delete_ontology(
    ontology_id: OntologyId, caller: Caller, conn: Connection, force: Force = False
) -> dict[str, bool]:
    """Refused while a recipe uses it, unless `force`. Annotations keep their labels."""
    await ontologies.delete_ontology(conn, caller, ontology_id, force=force)
    return {"success": True}


@router.patch("/ontologies/{ontology_id}/labels", openapi_extra=needs("manage_recipes"))
async def change_labels(
    ontology_id: OntologyId, body: wire.LabelsBody, caller: Caller, conn: Connection, base: Base
) -> wire.OntologyJson:
    """Change labels by their full names, `fish.shark`; with `upsert` add those that are not there, and their parents.

    Whatever others change at the same time stays.
    """
    changes = wire.parse_nodes(body.nodes)
    return wire.ontology(await ontologies.change_labels(conn, caller, ontology_id, changes, may_add=body.upsert), base)


@router.patch("/ontologies/{ontology_id}/addLabels", openapi_extra=needs("manage_recipes"))
async def add_labels(
    ontology_id: OntologyId, body: wire.LabelsBody, caller: Caller, conn: Connection, base: Base
) -> wire.OntologyJson:
    """Add labels by their full names, with the parents they lack; one that is there is refused, unless `upsert`."""
    changes = wire.parse_nodes(body.nodes)
    return wire.ontology(
        await ontologies.change_labels(conn, caller, ontology_id, changes, may_change=body.upsert), base
    )


@router.patch("/ontologies/{ontology_id}/attributes", openapi_extra=needs("manage_recipes"))
async def change_attributes(
    ontology_id: OntologyId, body: wire.AttributesBody, caller: Caller, conn: Connection, base: Base
) -> wire.OntologyJson:
    """Add attributes; one whose key is there is changed with `upsert`, and refused without."""
    given = wire.parse_attributes(body.items)
    return wire.ontology(
        await ontologies.change_attributes(conn, caller, ontology_id, given, may_change=body.upsert), base
    )


@router.delete("/ontologies/{ontology_id}/attributes", openapi_extra=needs("manage_recipes"))
async def delete_attributes(
    ontology_id: OntologyId, body: wire.KeysBody, caller: Caller, conn: Connection, base: Base
) -> wire.OntologyJson:
    """By their keys. Annotations keep what they say of them."""
    return wire.ontology(await ontologies.delete_attributes(conn, caller, ontology_id, body.keys), base)
