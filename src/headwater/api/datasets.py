"""Datasets: create, read, change, delete, sync, and the queries over their items."""

from typing import Annotated, Any

from fastapi import APIRouter, Body
from pydantic import BaseModel, Field

from headwater import ids, queue
from headwater.api.caller import Base, Caller, Connection, DatasetId, needs
from headwater.api.deletions import forget_deletions
from headwater.catalog import commands, datasets, drivers, folders, projects, recipes
from headwater.errors import BadRequest, NotFound
from headwater.ids import from_wire
from headwater.wire import commands as wire_commands
from headwater.wire import datasets as wire
from headwater.wire.deletions import RestoreBody
from headwater.work import sync
from headwater.work.deletion import PURGE_TASK

router = APIRouter(prefix="/datasets", tags=["datasets"])


@router.post("", openapi_extra=needs("manage_datasets"))
async def create_dataset(body: wire.NewDatasetBody, caller: Caller, conn: Connection, base: Base) -> wire.DatasetJson:
    """With a recipe of its own, whose labels it uses. On a driver, the initial sync starts unless `sync` is false."""
    project = await projects.get_project(conn, caller, from_wire(body.projects[0], "project"), "manage_datasets")
    driver_id = None
    if body.driver is not None:
        driver_id = from_wire(body.driver, "storage driver")
        if all(driver.id != driver_id for driver in await drivers.list_drivers(conn, project.id)):
            raise NotFound(f"No storage driver with id {body.driver} in this project.")
    dataset = await datasets.create_dataset(conn, caller, project_id=project.id, driver_id=driver_id, name=body.name)
    if body.with_recipe:
        await recipes.create_default_recipe(conn, caller, dataset)
    if driver_id is not None and body.sync:
        await sync.request_sync(conn, dataset, caller_id=caller.id)
    return wire.dataset(await datasets.get_dataset(conn, caller, dataset.id), base)


@router.post("/query", openapi_extra=needs("account"))
async def query_datasets(
    caller: Caller, conn: Connection, base: Base, body: Annotated[dict[str, Any], Body(default_factory=dict)]
) -> dict[str, Any]:
    """By name and by project (`context.projects`), as the SDK lists datasets.

    Each project's own Binaries is found by its name, and with `systemSpace`.
    """
    asked = wire.parse_query(body)
    offset = asked.page * asked.page_size
    found, total = await datasets.find_datasets(
        conn,
        caller,
        project_ids=asked.project_ids,
        name=asked.name,
        with_system=asked.with_system,
        offset=offset,
        limit=asked.page_size,
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
    """Change the name, user metadata and whether it is read-only; system metadata only with `?system=true`.

    `metadata.system.recipes` switches to other recipes of its project.
    """
    dataset = await datasets.get_dataset(conn, caller, dataset_id, "manage_datasets")
    metadata = None
    if body.metadata is not None:
        metadata = wire.patched_metadata(dataset.metadata, body.metadata, system=system)
    recipe_ids = wire.patched_recipes(body.metadata) if body.metadata is not None and system else None
    if recipe_ids is not None:
        await recipes.switch_recipes(conn, caller, dataset, recipe_ids)
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
