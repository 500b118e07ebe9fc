"""Datasets as the SDK sends and reads them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ConfigDict, Field
from typing_extensions import TypedDict

from headwater.catalog.datasets import Dataset
from headwater.catalog.folders import Folder, name_of, parent_of
from headwater.catalog.sync.rules import rules_of
from headwater.errors import BadRequest
from headwater.ids import from_wire, to_wire
from headwater.wire import times
from headwater.wire.items import check_depth
from headwater.wire.sync_rules import rules

_DEEPEST_FOLDER = 100
_RULES = "syncRules"
_RECIPES = "recipes"


class NewDatasetBody(BaseModel):
    model_config = ConfigDict(populate_by_name=True, extra="ignore")

    name: str
    projects: list[str] = Field(min_length=1, max_length=1)
    driver: str | None = Field(default=None, description="The id of a storage driver; without it, our own storage.")
    with_recipe: bool = Field(
        alias="createDefaultRecipe", default=True, description="With a recipe and an ontology of its own."
    )
    sync: bool = Field(default=True, description="Start the initial sync of a driver's dataset at once.")


@dataclass(frozen=True, slots=True)
class DatasetsQuery:
    name: str | None
    project_ids: list[int] | None
    with_system: bool
    page: int
    page_size: int


def parse_query(body: dict[str, Any]) -> DatasetsQuery:
    """What the SDK asks of datasets: by name, in projects. Raises BadRequest for any other condition."""
    name: str | None = None
    for condition in _conditions(body.get("filter")):
        for field, value in condition.items():
            wanted = value.get("$eq") if isinstance(value, dict) else value
            if field != "name" or not isinstance(wanted, str):
                raise BadRequest(f"Datasets can be listed by name and by project, not by {field!r}.")
            name = wanted
    context = body.get("context") or {}
    projects = context.get("projects") if isinstance(context, dict) else None
    if not isinstance(projects, list | None):
        raise BadRequest('The projects of a query look like {"context": {"projects": ["65a0…"]}}.')
    return DatasetsQuery(
        name=name,
        project_ids=None if projects is None else [from_wire(str(project), "project") for project in projects],
        with_system=name == "Binaries" or _boolean(body, "systemSpace"),
        page=_number(body, "page", default=0, most=10**9),
        page_size=_number(body, "pageSize", default=1000, most=1000),
    )


def _conditions(given: Any) -> list[dict[str, Any]]:
    """The conditions of a flat filter. Raises BadRequest."""
    if not given:
        return []
    is_flat = isinstance(given, dict) and ("$and" not in given or len(given) == 1)
    parts: Any = given.get("$and", [given]) if is_flat else None
    if not isinstance(parts, list) or not all(isinstance(part, dict) for part in parts):
        raise BadRequest('A filter of datasets looks like {"$and": [{"name": "cars"}]}.')
    return parts


def _number(body: dict[str, Any], name: str, *, default: int, most: int) -> int:
    value = body.get(name, default)
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise BadRequest(f"{name} is a number from 0, not {value!r}.")
    return min(value, most)


def _boolean(body: dict[str, Any], name: str) -> bool:
    value = body.get(name)
    if not isinstance(value, bool | None):
        raise BadRequest(f"{name} is true or false, not {value!r}.")
    return bool(value)


class DatasetJson(TypedDict):
    id: str
    name: str
    url: str
    creator: str
    projects: list[str]
    items: str
    directoryTree: str
    export: dict[str, str]
    annotated: int
    annotationsCount: int
    itemsCount: int
    metadata: dict[str, Any]
    readableType: str
    accessLevel: str
    readonly: bool
    driver: str | None
    indexDriver: str
    isSyncing: bool
    enableSyncWithCloned: None
    srcDataset: str | None
    expirationOptions: None
    createdAt: str
    updatedAt: str
    updatedBy: str
    counts: dict[str, Any]


def dataset(found: Dataset, base: str) -> DatasetJson:
    """`counts` is ours: what a page or a command line shows without another request."""
    url = f"{base}/datasets/{to_wire(found.id)}"
    return DatasetJson(
        id=to_wire(found.id),
        name=found.name,
        url=url,
        creator=found.creator,
        projects=[to_wire(found.project_id)],
        items=f"{url}/items",
        directoryTree=f"{url}/directoryTree",
        export={"zip": f"{url}/export"},
        annotated=found.annotated_items,
        annotationsCount=found.annotations,
        itemsCount=found.shown_items,
        metadata=_metadata(found),
        readableType="private",
        accessLevel="private",
        readonly=found.readonly,
        driver=None if found.driver_id is None else to_wire(found.driver_id),
        indexDriver="v2",
        isSyncing=found.is_syncing,
        enableSyncWithCloned=None,
        srcDataset=_source(found),
        expirationOptions=None,
        createdAt=times.to_wire(found.created_at),
        updatedAt=times.to_wire(found.updated_at),
        updatedBy=found.updated_by or found.creator,
        counts={
            "items": found.shown_items,
            "bytes": found.bytes,
            "missing": found.missing_items - found.trashed_items,
            "trashed": found.trashed_items,
            "preprocessed": found.prepared_items,
            "failed": found.failed_items,
            "waiting": max(
                0,
                found.items - found.hidden_items - found.prepared_items - found.failed_items,
            ),
            "syncedAt": None if found.synced_at is None else times.to_wire(found.synced_at),
        },
    )


def _source(found: Dataset) -> str | None:
    """Of a clone the dataset that it was made of, the first of several."""
    return None if found.origin is None else to_wire(found.origin["datasets"][0])


def _metadata(found: Dataset) -> dict[str, Any]:
    """With its recipes, and the rules of its sync, which are changed by a route of their own."""
    metadata = {"system": {}, "user": {}} | found.metadata
    metadata["system"] = {**metadata["system"], _RECIPES: [to_wire(recipe_id) for recipe_id in found.recipe_ids]}
    if found.is_system:
        metadata["system"] = {**metadata["system"], "scope": "system"}
    if found.driver_id is not None:
        metadata["system"] = {**metadata["system"], _RULES: rules(rules_of(found.sync_rules))}
    return metadata


def patched_metadata(before: dict[str, Any], given: dict[str, Any], *, system: bool) -> dict[str, Any]:
    """The SDK sends all of `user` and all of `system`, so each replaces what was there; null leaves it alone.

    `system` counts only where the caller said so. Raises BadRequest.
    """
    check_depth(given)
    for key in ("user", "system"):
        if not isinstance(given.get(key), dict | None):
            raise BadRequest(f"metadata.{key} is a JSON object.")
    changes = {key: value for key, value in given.items() if value is not None and (system or key != "system")}
    if "system" in changes:
        changes["system"] = {key: value for key, value in changes["system"].items() if key not in (_RULES, _RECIPES)}
    return before | changes


def patched_recipes(given: dict[str, Any]) -> list[int] | None:
    """The recipes that a change of metadata names; None where it says nothing. Raises BadRequest, NotFound."""
    recipes = (given.get("system") or {}).get(_RECIPES)
    if recipes is None:
        return None
    if not isinstance(recipes, list) or not all(isinstance(recipe, str) for recipe in recipes):
        raise BadRequest("metadata.system.recipes is a list of ids of recipes.")
    return [from_wire(recipe, "recipe") for recipe in recipes]


class TreeNode(TypedDict):
    value: dict[str, Any]
    children: list["TreeNode"]


def directory_tree(folders: Sequence[Folder]) -> TreeNode:
    """Nested nodes of folders given in the order of their paths.

    Folders more than 100 levels deep are left out: JSON writers and readers, the SDK's too, give up at a few hundred.
    """
    nodes: dict[int, TreeNode] = {}
    root = _node("root", "/", None)
    shown = [folder for folder in folders if folder.path.count("/") <= _DEEPEST_FOLDER]
    for folder in shown:
        node = _node(to_wire(folder.id), folder.path, parent_of(folder.path))
        nodes[folder.id] = node
        if folder.parent_id is None:
            root = node
    for folder in shown:
        if folder.parent_id is not None:
            nodes[folder.parent_id]["children"].append(nodes[folder.id])
    return root


def _node(node_id: str, path: str, parent: str | None) -> TreeNode:
    name = name_of(path) or "root"
    value = {"id": node_id, "name": name, "dir": parent or "/", "filename": path, "metadata": {"system": {}}}
    return TreeNode(value=value, children=[])
