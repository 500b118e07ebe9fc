"""Datasets: create, read, change, delete, sync, and the queries over their items."""

from typing import Annotated, Any

from fastapi import APIRouter, Body
from fastapi.responses import JSONResponse
from psycopg import AsyncConnection
from pydantic import BaseModel, Field

from headwater import ids, queue
from headwater.api.bulk_metadata import update_matching
from headwater.api.caller import Base, Caller, Connection, DatasetId, Server, ServerDep, needs
from headwater.api.deletions import delete_matching, forget_deletions
from headwater.catalog import commands, datasets, drivers, folders, items, projects
from headwater.catalog.accounts import Account
from headwater.errors import BadRequest, NotFound
from headwater.ids import from_wire
from headwater.wire import commands as wire_commands
from headwater.wire import datasets as wire
from headwater.wire import items as wire_items
from headwater.wire.deletions import RestoreBody
from headwater.wire.query import ItemsQuery, parse_items_query, single_slashed
from headwater.work import sync
from headwater.work.deletion import PURGE_TASK

router = APIRouter(prefix="/datasets", tags=["datasets"])


@router.post("", openapi_extra=needs("manage_datasets"))
async def create_dataset(body: wire.NewDatasetBody, caller: Caller, conn: Connection, base: Base) -> wire.DatasetJson:
    """On a driver, the initial sync starts by itself unless `sync` is false."""
    project = await projects.get_project(conn, caller, from_wire(body.projects[0], "project"), "manage_datasets")
    driver_id = None
    if body.driver is not None:
        driver_id = from_wire(body.driver, "storage driver")
        if all(driver.id != driver_id for driver in await drivers.list_drivers(conn, project.id)):
            raise NotFound(f"No storage driver with id {body.driver} in this project.")
    dataset = await datasets.create_dataset(conn, caller, project_id=project.id, driver_id=driver_id, name=body.name)
    if driver_id is not None and body.sync:
        await sync.request_sync(conn, dataset, caller_id=caller.id)
    return wire.dataset(await datasets.get_dataset(conn, caller, dataset.id), base)


@router.post("/query", openapi_extra=needs("account"))
async def query_datasets(
    caller: Caller, conn: Connection, base: Base, body: Annotated[dict[str, Any], Body(default_factory=dict)]
) -> dict[str, Any]:
    """By name and by project (`context.projects`), as the SDK lists datasets."""
    asked = wire.parse_query(body)
    offset = asked.page * asked.page_size
    found, total = await datasets.find_datasets(
        conn, caller, project_ids=asked.project_ids, name=asked.name, offset=offset, limit=asked.page_size
    )
    return {
        "totalItemsCount": total,
        "items": [wire.dataset(dataset, base) for dataset in found],
        "totalPagesCount": -(-total // asked.page_size) if asked.page_size else 0,
        "hasNextPage": offset + len(found) < total,
    }


@router.get("/{dataset_id}", openapi_extra=needs("read"))
async def read_dataset(dataset_id: DatasetId, caller: Caller, conn: Connection, base: Base) -> wire.DatasetJson:
    return wire.dataset(await datasets.get_dataset(conn, caller, dataset_id), base)


class DatasetPatch(BaseModel):
    """What may be changed; the SDK sends the whole dataset, the rest of which is left alone."""

    name: str | None = None
    metadata: dict[str, Any] | None = None
    readonly: bool | None = None


@router.patch("/{dataset_id}", openapi_extra=needs("manage_datasets"))
async def update_dataset(
    dataset_id: DatasetId, body: DatasetPatch, caller: Caller, conn: Connection, base: Base, system: bool = False
) -> wire.DatasetJson:
    """Change the name, user metadata and whether it is read-only; system metadata only with `?system=true`."""
    dataset = await datasets.get_dataset(conn, caller, dataset_id, "manage_datasets")
    metadata = None
    if body.metadata is not None:
        metadata = wire.patched_metadata(dataset.metadata, body.metadata, system=system)
    await datasets.update_dataset(conn, caller, dataset, name=body.name, metadata=metadata, readonly=body.readonly)
    return wire.dataset(await datasets.get_dataset(conn, caller, dataset_id), base)


@router.delete("/{dataset_id}", openapi_extra=needs("manage_datasets"))
async def delete_dataset(dataset_id: DatasetId, caller: Caller, conn: Connection) -> dict[str, bool]:
    """The index and the derived files go; objects in the bucket stay."""
    dataset = await datasets.get_dataset(conn, caller, dataset_id, "manage_datasets")
    await datasets.delete_dataset(conn, dataset)
    await projects.record(
        conn,
        caller,
        dataset.project_id,
        "dataset.deleted",
        dataset.name,
        id=ids.to_wire(dataset.id),
        items=dataset.items,
    )
    await queue.defer(conn, PURGE_TASK, dataset_id=dataset.id)
    return {"success": True}


class SyncBody(BaseModel):
    confirm_missing: bool = Field(
        default=False,
        alias="confirmMissing",
        description="Mark everything that is missing from the bucket, however much that is.",
    )
    resume: bool = Field(
        default=False,
        description="Go on where the last sync was stopped by an abort or a failure, instead of beginning again. "
        "What changed since in what it had listed is found by the next one.",
    )
    restore_deleted: bool = Field(
        default=False,
        alias="restoreDeleted",
        description="Bring back, as new items, what was deleted here and is still in the bucket.",
    )
    folder: str | None = Field(default=None, description="Of what was deleted, only what was in this folder.")


@router.post("/{dataset_id}/sync", openapi_extra=needs("sync"))
async def sync_dataset(
    dataset_id: DatasetId, caller: Caller, conn: Connection, base: Base, body: SyncBody | None = None
) -> wire_commands.CommandJson:
    """Answers at once with the command; while a sync runs, with that one's."""
    dataset = await datasets.get_syncable(conn, caller, dataset_id)
    asked = body or SyncBody()
    if asked.folder is not None and not asked.restore_deleted:
        raise BadRequest("folder: a sync looks at the whole dataset; a folder goes with restoreDeleted.")
    if asked.restore_deleted:
        await forget_deletions(conn, caller, dataset, RestoreBody(folder=asked.folder))
    command_id = await sync.request_sync(
        conn, dataset, caller_id=caller.id, confirm_missing=asked.confirm_missing, resume=asked.resume
    )
    return wire_commands.command(await commands.load_command(conn, command_id), base)


@router.get("/{dataset_id}/directoryTree", openapi_extra=needs("read"))
async def read_directory_tree(dataset_id: DatasetId, caller: Caller, conn: Connection) -> wire.TreeNode:
    """Every folder but those more than 100 levels deep, nested."""
    dataset = await datasets.get_dataset(conn, caller, dataset_id)
    return wire.directory_tree(await folders.list_folders(conn, dataset.id))


@router.post("/{dataset_id}/query", openapi_extra=needs("read"), response_model=wire_items.PageJson)
async def query_items(
    dataset_id: DatasetId, caller: Caller, server: ServerDep, base: Base, body: dict[str, Any]
) -> Any:
    """A page of items (files, folders or both), as the SDK's filters ask for it.

    With `delete: true` they are deleted, with `update` their metadata is changed, and the answer is the command that
    did it. Both need the right to write.
    """
    asked = parse_items_query(body)
    meant = await _as_meant(server, caller, dataset_id, body)
    if meant is not body:
        body, asked = meant, parse_items_query(meant)
    if asked.delete:
        return JSONResponse(dict(await delete_matching(server, caller, dataset_id, body["filter"], base)))
    if asked.update is not None:
        return JSONResponse(dict(await update_matching(server, caller, dataset_id, asked, body["filter"], base)))
    async with server.place.pool.connection() as conn:
        return await _page(conn, caller, dataset_id, asked, base)


async def _as_meant(server: Server, caller: Account, dataset_id: int, body: dict[str, Any]) -> dict[str, Any]:
    """A path with several slashes in front means the one with one, unless the dataset has such paths.

    Raises NotFound.
    """
    conditions = single_slashed(body.get("filter"))
    if conditions is body.get("filter"):
        return body
    async with server.place.pool.connection() as conn:
        dataset = await datasets.get_dataset(conn, caller, dataset_id)
        return body if await items.has_double_slashes(conn, dataset.id) else {**body, "filter": conditions}


async def _page(
    conn: AsyncConnection[Any], caller: Account, dataset_id: int, asked: ItemsQuery, base: str
) -> wire_items.PageJson:
    dataset = await datasets.get_dataset(conn, caller, dataset_id)
    found = await items.find_page(conn, dataset.id, asked.files, asked.dirs, asked.page, reader_id=caller.id)
    if asked.is_default and not asked.keyset_after:
        total = dataset.shown_items
    else:
        total = await items.count_found(conn, dataset.id, asked.files, asked.dirs)
    shaped = [
        wire_items.item(row, base)
        if isinstance(row, items.Item)
        else wire_items.directory(row, dataset.project_id, base)
        for row in found.rows
    ]
    return wire_items.page(shaped, total=total, page_size=asked.page.page_size, has_next=found.has_next)
