"""The column index of a dataset: what filters find quickly. It is kept up by itself; here it is shown and told."""

from typing import Annotated

from fastapi import APIRouter, Query

from headwater import ids
from headwater.api.caller import Caller, Connection, DatasetId, needs
from headwater.catalog import datasets, projects, slow_queries
from headwater.catalog.accounts import Account
from headwater.catalog.columns import covering, upkeep
from headwater.catalog.datasets import Dataset
from headwater.errors import NotFound
from headwater.wire import indexes as wire
from headwater.work import columns

router = APIRouter(prefix="/datasets", tags=["indexes"])


@router.get("/{dataset_id}/indexes", openapi_extra=needs("read"))
async def read_indexes(dataset_id: DatasetId, caller: Caller, conn: Connection) -> wire.IndexesJson:
    """Which paths are indexed, how far that is built, and which others slow queries would have needed."""
    dataset = await datasets.get_dataset(conn, caller, dataset_id)
    return await _shown(conn, dataset.id)


@router.post("/{dataset_id}/indexes", openapi_extra=needs("manage_datasets"))
async def add_index(dataset_id: DatasetId, body: wire.IndexBody, caller: Caller, conn: Connection) -> wire.IndexesJson:
    """Index a path of metadata, and begin to index the dataset if it was too small till now. Done by a job."""
    dataset = await datasets.get_dataset(conn, caller, dataset_id, "manage_datasets")
    covering.check_path(body.path)
    await upkeep.begin(conn, dataset.id)
    await covering.pin_path(conn, dataset.id, body.path)
    await columns.request_build(conn, dataset.id)
    await _record(conn, caller, dataset, "index.added", body.path)
    return await _shown(conn, dataset.id)


@router.delete("/{dataset_id}/indexes", openapi_extra=needs("manage_datasets"))
async def remove_index(
    dataset_id: DatasetId, path: Annotated[str, Query()], caller: Caller, conn: Connection
) -> wire.IndexesJson:
    """The path is not indexed any more, nor again by itself. Filters still find by it, only more slowly."""
    dataset = await datasets.get_dataset(conn, caller, dataset_id, "manage_datasets")
    if not await covering.exclude_path(conn, dataset.id, path):
        raise _not_indexed(dataset, path)
    await _record(conn, caller, dataset, "index.removed", path)
    return await _shown(conn, dataset.id)


@router.post("/{dataset_id}/indexes/rebuild", openapi_extra=needs("manage_datasets"))
async def rebuild_index(
    dataset_id: DatasetId, body: wire.RebuildBody, caller: Caller, conn: Connection
) -> wire.IndexesJson:
    """Build the columns of a path, or all of them, anew; with all, paths that nobody asked for are sought anew."""
    dataset = await datasets.get_dataset(conn, caller, dataset_id, "manage_datasets")
    if body.path is None:
        if not await upkeep.renew(conn, dataset.id):
            raise NotFound(
                f"Dataset {dataset.name!r} has no column index yet: it is small. Add a path to it: headwater index add"
            )
    elif not await covering.forget_path(conn, dataset.id, body.path):
        raise _not_indexed(dataset, body.path)
    await columns.request_build(conn, dataset.id, at_once=True)
    await _record(conn, caller, dataset, "index.rebuilt", body.path)
    return await _shown(conn, dataset.id)


def _not_indexed(dataset: Dataset, path: str) -> NotFound:
    return NotFound(f"{path[:200]} is not indexed in dataset {dataset.name!r}.")


async def _shown(conn: Connection, dataset_id: int) -> wire.IndexesJson:
    progress = await upkeep.progress(conn, dataset_id)
    paths = await covering.list_paths(conn, dataset_id)
    helpful = await slow_queries.suggestions(conn, dataset_id, indexed=[path.path for path in paths])
    return wire.indexes(dataset_id, progress, paths, helpful)


async def _record(conn: Connection, caller: Account, dataset: Dataset, verb: str, path: str | None) -> None:
    await projects.record(
        conn, caller, dataset.project_id, verb, dataset.name, dataset_id=ids.to_wire(dataset.id), path=path
    )
