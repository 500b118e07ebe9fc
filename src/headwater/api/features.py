"""Feature sets, their vectors, and items in the order of similarity."""

from typing import Annotated, Any

from fastapi import APIRouter, Body
from fastapi.responses import Response
from psycopg import AsyncConnection

from headwater import ids
from headwater.api.caller import Base, Caller, Connection, DatasetId, Server, ServerDep, needs, wire_id
from headwater.catalog import commands, datasets, feature_sets, features, items, projects, similarity
from headwater.catalog.accounts import Account
from headwater.catalog.datasets import Dataset
from headwater.catalog.feature_sets import FeatureSet
from headwater.catalog.searchable import require_searchable
from headwater.catalog.similarity import Nearest
from headwater.errors import BadRequest, NotFound
from headwater.wire import commands as wire_commands
from headwater.wire import features as wire
from headwater.wire import items as wire_items
from headwater.wire.answers import as_json
from headwater.wire.query import parse_items_query
from headwater.work import feature_sets as work

router = APIRouter(tags=["features"])

SetId = Annotated[int, wire_id("set")]
VectorId = Annotated[int, wire_id("vector")]
_Query = Annotated[dict[str, Any], Body(default_factory=dict)]


def _json(answer: object) -> Response:
    return Response(as_json(answer), media_type="application/json")


@router.post("/features/sets", openapi_extra=needs("write_items"))
async def create_feature_set(
    body: wire.NewSetBody, caller: Caller, conn: Connection, base: Base
) -> list[wire.FeatureSetJson]:
    """A list of one, as the SDK reads it."""
    project = await projects.get_project(conn, caller, ids.from_wire(body.project, "project"), "write_items")
    made = await feature_sets.create_set(
        conn,
        caller,
        project.id,
        name=body.name,
        size=body.size,
        kind=body.type,
        entity_type=body.entity_type,
        model_id=body.model_id,
    )
    return [wire.feature_set(made, base)]


@router.post("/features/sets/query", openapi_extra=needs("account"))
async def query_feature_sets(caller: Caller, conn: Connection, base: Base, body: _Query) -> dict[str, Any]:
    """A page of feature sets: of the projects in `context.projects`, or of all that you may see."""
    asked = wire.parse_query(body)
    await _check_projects(conn, caller, asked.project_ids)
    found, total = await feature_sets.find_sets(conn, caller, asked.tree, asked.page, project_ids=asked.project_ids)
    return wire.page_of([wire.feature_set(one, base) for one in found], total, asked.page)


@router.get("/features/sets/{set_id}", openapi_extra=needs("read"))
async def read_feature_set(set_id: SetId, caller: Caller, conn: Connection, base: Base) -> wire.FeatureSetJson:
    return wire.feature_set(await feature_sets.get_set(conn, caller, set_id), base)


@router.patch("/features/sets/{set_id}", openapi_extra=needs("write_items"))
async def update_feature_set(
    set_id: SetId, body: wire.SetPatch, caller: Caller, conn: Connection, base: Base
) -> wire.FeatureSetJson:
    """Change its name, its type or its model. What its vectors are of, and their size, stay."""
    found = await feature_sets.get_set(conn, caller, set_id, "write_items")
    await feature_sets.update_set(conn, caller, found, name=body.name, kind=body.type, model_id=body.model_id)
    return wire.feature_set(await feature_sets.get_set(conn, caller, set_id), base)


@router.delete("/features/sets/{set_id}", openapi_extra=needs("write_items"))
async def delete_feature_set(set_id: SetId, caller: Caller, conn: Connection) -> dict[str, bool]:
    """With all its vectors."""
    found = await feature_sets.get_set(conn, caller, set_id, "write_items")
    await work.delete_set(conn, found.id)
    await projects.record(
        conn, caller, found.project_id, "feature_set.deleted", found.name, id=ids.to_wire(found.id), size=found.size
    )
    return {"success": True}


@router.post("/features/sets/{set_id}/index", openapi_extra=needs("write_items"))
async def index_feature_set(
    set_id: SetId, body: wire.IndexBody, caller: Caller, conn: Connection, base: Base
) -> wire_commands.CommandJson:
    """Make searches by a metric fast. A set that grows large gets an index for Euclidean distances by itself."""
    found = await feature_sets.get_set(conn, caller, set_id, "write_items")
    command_id = await work.request_index(conn, found, body.metric, caller_id=caller.id)
    return wire_commands.command(await commands.load_command(conn, command_id), base)


@router.post("/features/vectors", openapi_extra=needs("write_items"), response_model=list[wire.FeatureJson])
async def create_vectors(bodies: wire.VectorBodies, caller: Caller, server: ServerDep, base: Base) -> Response:
    """Of items, annotations or datasets: all of them or none. A vector that is there is replaced and keeps its id."""
    given = wire.new_vectors(bodies)
    made: dict[int, int] = {}
    async with server.place.pool.connection() as conn:
        sets = [await feature_sets.get_set(conn, caller, set_id, "write_items") for set_id in sorted(given)]
        for into in sets:
            numbered = given[into.id]
            await _check_datasets(conn, caller, into, {one.dataset_id for _, one in numbered})
            put = await features.put_vectors(conn, caller, into, [one for _, one in numbered])
            made |= {number: vector_id for (number, _), vector_id in zip(numbered, put, strict=True)}
        found = await features.load_vectors(conn, list(made.values()))
    async with server.place.pool.connection() as conn:
        for into in sets:
            await work.index_if_grown(conn, into, from_vectors=server.settings.feature_index_from)
    return _json([wire.feature(found[made[number]], base) for number in range(len(bodies))])


async def _check_datasets(conn: AsyncConnection[Any], caller: Account, into: FeatureSet, dataset_ids: set[int]) -> None:
    """Vectors belong to things of the set's own project. Raises NotFound, Forbidden, BadRequest."""
    for dataset_id in sorted(dataset_ids):
        dataset = await datasets.get_dataset(conn, caller, dataset_id, "write_items")
        if dataset.readonly:
            raise BadRequest(f"Dataset {dataset.name!r} is read-only.")
        if dataset.project_id != into.project_id:
            raise BadRequest(
                f"Dataset {dataset.name!r} is in another project than feature set {into.name!r}. Make a set there."
            )


@router.post("/features/vectors/query", openapi_extra=needs("account"), response_model=wire.FeaturePageJson)
async def query_vectors(caller: Caller, conn: Connection, base: Base, body: _Query) -> Response:
    """A page of vectors by their set, their dataset, the thing they are of, and so on."""
    asked = wire.parse_query(body)
    await _check_projects(conn, caller, asked.project_ids)
    set_ids = await feature_sets.readable_ids(conn, caller, project_ids=asked.project_ids)
    found, total = await features.find_vectors(conn, asked.tree, asked.page, set_ids=set_ids)
    return _json(wire.page_of([wire.feature(one, base) for one in found], total, asked.page))


@router.post("/features/vectors/project-count-aggregation", openapi_extra=needs("read"))
async def count_vectors(body: wire.CountBody, caller: Caller, conn: Connection) -> list[wire.CountJson]:
    """How many vectors of each set these datasets of a project have."""
    project = await projects.get_project(conn, caller, ids.from_wire(body.project_id, "project"))
    dataset_ids = [ids.from_wire(text, "dataset") for text in body.dataset_ids]
    for dataset_id in dict.fromkeys(dataset_ids):
        if (await datasets.get_dataset(conn, caller, dataset_id)).project_id != project.id:
            raise NotFound(f"No dataset with id {ids.to_wire(dataset_id)} in this project.")
    counts = await features.count_by_set(conn, dataset_ids)
    return [wire.CountJson(featureSetId=ids.to_wire(set_id), count=count) for set_id, count in counts.items()]


@router.get("/features/vectors/{vector_id}", openapi_extra=needs("read"))
async def read_vector(vector_id: VectorId, caller: Caller, conn: Connection, base: Base) -> wire.FeatureJson:
    return wire.feature(await _get_vector(conn, caller, vector_id), base)


@router.delete("/features/vectors/{vector_id}", openapi_extra=needs("write_items"))
async def delete_vector(vector_id: VectorId, caller: Caller, conn: Connection) -> dict[str, bool]:
    found = await _get_vector(conn, caller, vector_id)
    dataset = await datasets.get_dataset(conn, caller, found.dataset_id, "write_items")
    if dataset.readonly:
        raise BadRequest(f"Dataset {dataset.name!r} is read-only.")
    await features.delete_vector(conn, found)
    return {"success": True}


async def _get_vector(conn: AsyncConnection[Any], caller: Account, vector_id: int) -> features.FeatureVector:
    """Raises NotFound."""
    found = (await features.load_vectors(conn, [vector_id])).get(vector_id)
    readable = () if found is None else await feature_sets.readable_ids(conn, caller, project_ids=[found.project_id])
    if found is None or found.feature_set_id not in readable:
        raise NotFound(f"No feature vector with id {vector_id:024x}.")
    return found


async def _check_projects(conn: AsyncConnection[Any], caller: Account, project_ids: list[int] | None) -> None:
    """Raises NotFound."""
    for project_id in project_ids or ():
        await projects.get_project(conn, caller, project_id)


# Similarity.


@router.post("/datasets/{dataset_id}/items/similar", openapi_extra=needs("read"), response_model=wire.SimilarJson)
async def find_similar(
    dataset_id: DatasetId, body: wire.SimilarBody, caller: Caller, server: ServerDep, conn: Connection, base: Base
) -> Response:
    """The items whose vectors are nearest to a vector, or to that of an item; the nearest first.

    `exact` tells whether every vector was measured, or an index asked for the nearest.
    """
    dataset = await datasets.get_dataset(conn, caller, dataset_id)
    into = await _set_of(conn, caller, dataset, ids.from_wire(body.feature_set_id, "feature set"))
    if (body.vector is None) == (body.item_id is None):
        raise BadRequest("vector, itemId: say one of the two, near which the items are to be.")
    tree = parse_items_query({"filter": body.filter}).only_files(
        "filter: it chooses folders, and only files have vectors."
    )
    require_searchable(dataset.unsearchable_paths, tree, [])
    item_id = None if body.item_id is None else ids.from_wire(body.item_id, "item")
    vector = body.vector
    if item_id is not None:
        vector = await features.value_of(conn, into.id, item_id)
        if vector is None:
            raise NotFound(f"Item {body.item_id} has no vector in feature set {into.name!r}.")
    assert vector is not None
    features.checked_values(into, [vector])
    near = Nearest(vector, metric=body.metric, tree=tree, without_id=item_id)
    async with similarity.within(conn, server.settings.query_timeout_s):
        found = await similarity.nearest(conn, dataset.id, into, near, limit=body.limit)
    shown = await _in_order(conn, caller, dataset, [near_id for near_id, _ in found.found], base)
    return _json(
        wire.SimilarJson(
            items=[
                wire.SimilarItemJson(item=shown[near_id], distance=distance)
                for near_id, distance in found.found
                if near_id in shown
            ],
            metric=body.metric,
            exact=found.is_exact,
        )
    )


async def similar_page(
    server: Server,
    conn: AsyncConnection[Any],
    caller: Account,
    dataset_id: int,
    order: wire.OrderByDistance,
    body: dict[str, Any],
    base: str,
) -> wire_items.PageJson:
    """A page of a query of items that is joined with feature vectors: the nearest first, by Euclidean distance."""
    asked = parse_items_query({key: value for key, value in body.items() if key not in ("join", "sort")})
    if asked.delete or asked.update is not None:
        raise BadRequest("join: items in an order of distance are listed; what is changed or deleted has no order.")
    dataset = await datasets.get_dataset(conn, caller, dataset_id)
    require_searchable(dataset.unsearchable_paths, asked.files, [])
    if order.dataset_id not in (None, dataset.id):
        raise BadRequest("join.filter.datasetId: another dataset than the one that is asked.")
    into = await _set_of(conn, caller, dataset, order.feature_set_id)
    vector = order.vector
    if order.vector_id is not None:
        of = await _get_vector(conn, caller, order.vector_id)
        if of.feature_set_id != into.id:
            raise BadRequest(f"join.filter.value.$euclid.input: that vector is not one of feature set {into.name!r}.")
        vector = of.value
    assert vector is not None
    features.checked_values(into, [vector])
    page = asked.page
    if asked.files is None or not asked.context.covers(dataset.project_id, dataset.id):
        return wire_items.page([], total=0, page_size=page.page_size, has_next=False)
    near = Nearest(vector, tree=asked.files, distances=order.distances, is_descending=order.is_descending)
    offset = page.page * page.page_size
    async with similarity.within(conn, server.settings.query_timeout_s):
        total = await similarity.count(conn, dataset.id, into, near)
        found = await similarity.nearest(conn, dataset.id, into, near, limit=page.page_size, offset=offset)
    shown = await _in_order(conn, caller, dataset, [near_id for near_id, _ in found.found], base)
    has_next = page.page_size > 0 and offset + len(found.found) < total
    return wire_items.page(list(shown.values()), total=total, page_size=page.page_size, has_next=has_next)


async def _set_of(conn: AsyncConnection[Any], caller: Account, dataset: Dataset, set_id: int) -> FeatureSet:
    """Raises NotFound."""
    into = await feature_sets.get_set(conn, caller, set_id)
    if into.project_id != dataset.project_id:
        raise NotFound(f"No feature set with id {set_id:024x} in the project of dataset {dataset.name!r}.")
    return into


async def _in_order(
    conn: AsyncConnection[Any], caller: Account, dataset: Dataset, item_ids: list[int], base: str
) -> dict[int, wire_items.ItemJson]:
    """By id, in the order given."""
    loaded = {item.id: item for item in await items.load_items(conn, dataset.id, item_ids, reader_id=caller.id)}
    return {item_id: wire_items.item(loaded[item_id], base) for item_id in item_ids if item_id in loaded}
