"""How many items have which value: counts for filter bars and trees of folders."""

from fastapi import APIRouter

from headwater.api.asking import asking_of
from headwater.api.caller import Caller, DatasetId, ServerDep, needs
from headwater.catalog import datasets, facets, finding
from headwater.catalog.searchable import require_searchable
from headwater.wire import facets as wire

router = APIRouter(prefix="/datasets", tags=["datasets"])


@router.post("/{dataset_id}/facets", openapi_extra=needs("read"))
async def count_facets(
    dataset_id: DatasetId, body: wire.FacetsBody, caller: Caller, server: ServerDep
) -> wire.FacetsJson:
    """Of the items that a filter finds, how many have each value of these fields; the most frequent values first.

    `more` is how many values follow. An item with several values, in a list, counts for each of them.
    """
    async with server.place.pool.connection() as conn:
        dataset = await datasets.get_dataset(conn, caller, dataset_id)
    tree = wire.tree_of(body, dataset)
    async with asking_of(server, dataset_id, tree) as (conn, asking):
        fields = wire.asked_fields(body)
        require_searchable(dataset.unsearchable_paths, tree, [name for name, _ in fields])
        total = await finding.count_found(conn, dataset.id, tree, None, asking=asking)
        found = [
            await facets.count_folders(conn, dataset.id, tree, folder, limit=body.limit, asking=asking)
            if name == "dir"
            else await facets.count_values(conn, dataset.id, tree, name, limit=body.limit, asking=asking)
            for name, folder in fields
        ]
    told = [wire.facet(name, folder, one) for (name, folder), one in zip(fields, found, strict=True)]
    return wire.FacetsJson(itemsCount=total, facets=told)
