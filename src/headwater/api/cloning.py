"""Clones of datasets and of items, and merged datasets."""

import asyncio
from contextlib import suppress
from typing import Any

from fastapi import APIRouter
from psycopg import AsyncConnection
from typing_extensions import TypedDict

from headwater import ids
from headwater.api.caller import Base, Caller, DatasetId, ItemId, Server, ServerDep, needs
from headwater.catalog import commands, datasets, items, projects, recipes
from headwater.catalog.accounts import Account
from headwater.catalog.cloning import note_origin
from headwater.catalog.datasets import Dataset
from headwater.catalog.folders import name_of
from headwater.errors import BadRequest, NotFound
from headwater.wire import cloning as wire
from headwater.wire import commands as wire_commands
from headwater.wire import items as wire_items
from headwater.work import cloning
from headwater.work.cloning import Estimate, Options, Requested

router = APIRouter(tags=["cloning"])

_AT_ONCE = 5_000  # items: so many are cloned before the answer, because the SDK waits two seconds for what is not
_WAIT_FOR_ANSWER_S = 10.0


class EstimateJson(TypedDict):
    dryRun: bool
    items: int
    sizeBytes: int
    thereAlready: int
    renamed: int
    missing: int


def _estimate(found: Estimate) -> EstimateJson:
    return EstimateJson(
        dryRun=True,
        items=found.items,
        sizeBytes=found.size_bytes,
        thereAlready=found.there_already,
        renamed=found.renamed,
        missing=found.missing,
    )


def _options(params: wire.Params, folder: str | None = None) -> Options:
    return Options(
        folder=cloning.checked_folder(folder),
        with_metadata=params.with_metadata,
        with_task_status=params.with_task_status,
        with_annotations=params.with_annotations,
    )


@router.post("/datasets/{dataset_id}/clone", openapi_extra=needs("manage_datasets"))
async def clone_dataset(
    dataset_id: DatasetId, body: wire.CloneBody, caller: Caller, server: ServerDep, base: Base
) -> wire_commands.CommandJson | EstimateJson:
    """Clone the items that a filter chooses into a new dataset, or into another one; no byte is copied.

    Into another dataset it needs the right to write items there, and to read here. Both lie in Headwater's own storage,
    or in the bucket of the same driver. A path that another item has in the target gets a number: `a (2).jpg`; what is
    there already is left as it is.
    """
    options = _options(body.params, body.params.target_directory)
    async with server.place.pool.connection() as conn:
        target = None
        if body.params.target_dataset_id is not None:
            source = await datasets.get_dataset(conn, caller, dataset_id)
            target_id = ids.from_wire(body.params.target_dataset_id, "dataset")
            target = await datasets.get_dataset(conn, caller, target_id, "write_items")
        else:
            source = await datasets.get_dataset(conn, caller, dataset_id, "manage_datasets")
        wanted = wire.wanted(body, source)
        if body.dry_run:
            return _estimate(await cloning.estimate(conn, [source], wanted, target, options))
        if target is None:
            target = await _new_dataset(conn, caller, source.project_id, body.name, [source], "clone")
        asked = await cloning.request_clone(conn, caller, [source], wanted, target, options)
        await _record(conn, caller, [source], target, asked, "dataset.cloned")
    return await _answer(server, asked, base)


@router.post("/datasets/merge", openapi_extra=needs("manage_datasets"))
async def merge_datasets(
    body: wire.MergeBody, caller: Caller, server: ServerDep, base: Base
) -> wire_commands.CommandJson | EstimateJson:
    """Make a new dataset of the items of others, in their order; no byte is copied.

    The same object at the same path comes once. Of different items with one path the first keeps it, the others get a
    number: `a (2).jpg`.
    """
    options = _options(body.params)
    async with server.place.pool.connection() as conn:
        found = [await datasets.get_dataset(conn, caller, number) for number in wire.ids(body.datasets, "dataset")]
        project_ids = wire.ids(body.projects, "project") or [found[0].project_id]
        if body.dry_run:
            return _estimate(await cloning.estimate(conn, found, {}, None, options))
        target = await _new_dataset(conn, caller, project_ids[0], body.name, found, "merge")
        asked = await cloning.request_clone(conn, caller, found, {}, target, options, is_merge=True)
        await _record(conn, caller, found, target, asked, "datasets.merged")
    return await _answer(server, asked, base)


async def _new_dataset(
    conn: AsyncConnection[Any],
    caller: Account,
    project_id: int,
    name: str | None,
    sources: list[Dataset],
    kind: str,
) -> Dataset:
    """Raises BadRequest, Conflict, Forbidden, NotFound."""
    if name is None:
        raise BadRequest("name: say what the new dataset is called, or name another one as targetDatasetId.")
    cloning.check_same_storage(sources)
    project = await projects.get_project(conn, caller, project_id, "manage_datasets")
    driver_id = sources[0].driver_id
    if driver_id is not None and project.id != sources[0].project_id:
        raise BadRequest(
            f"Dataset {sources[0].name!r} lies in the bucket of a driver of its own project, so its clones are made in "
            "that project."
        )
    made = await datasets.create_dataset(conn, caller, project_id=project.id, driver_id=driver_id, name=name)
    await note_origin(conn, made.id, kind, [source.id for source in sources])
    await recipes.inherit_recipes(conn, caller, made, sources)
    return await datasets.get_dataset(conn, caller, made.id)


async def _record(
    conn: AsyncConnection[Any], caller: Account, sources: list[Dataset], target: Dataset, asked: Requested, action: str
) -> None:
    """In the audit log of whoever gets the items, and of those who let them go."""
    named = {
        "id": ids.to_wire(target.id),
        "items": asked.items,
        "of": ", ".join(source.name for source in sources)[:1_000],
        "command": ids.to_wire(asked.command_id),
    }
    for project_id in sorted({target.project_id, *(source.project_id for source in sources)}):
        await projects.record(conn, caller, project_id, action, target.name, **named)


async def _answer(server: Server, asked: Requested, base: str) -> wire_commands.CommandJson:
    """What is quick is done by now; else the worker goes on."""
    if asked.items <= _AT_ONCE:
        with suppress(TimeoutError):
            await asyncio.wait_for(cloning.clone_items(server.place, **asked.job), _WAIT_FOR_ANSWER_S)
    async with server.place.pool.connection() as conn:
        return wire_commands.command(await commands.load_command(conn, asked.command_id), base)


@router.post("/items/{item_id}/clone", openapi_extra=needs("write_items"))
async def clone_item(
    item_id: ItemId, body: wire.ItemCloneBody, caller: Caller, server: ServerDep, base: Base
) -> wire_commands.CommandJson:
    """Clone one item, to another path or another dataset; no byte is copied. The command has ended when it is answered.

    A clone that is there already is answered again, unless `allowMany` asks for another one.
    """
    async with server.place.pool.connection() as conn:
        item = await items.find_item(conn, item_id)
        try:
            source = None if item is None else await datasets.get_dataset(conn, caller, item.dataset_id)
        except NotFound:
            source = None
        if item is None or source is None:
            raise NotFound(f"No item with id {item_id:024x}.")
        target_id = source.id if body.target_dataset_id is None else ids.from_wire(body.target_dataset_id, "dataset")
        target = await datasets.get_dataset(conn, caller, target_id, "write_items")
        path = body.path or item.path
        path += name_of(item.path) if path.endswith("/") else ""
        clone_id = await cloning.clone_item(
            conn, caller, item, source, target, path, _options(body.params), may_be_another=body.allow_many
        )
        if body.metadata:
            await _add_metadata(conn, caller, clone_id, body.metadata)
        spec = {"datasetId": ids.to_wire(target.id), "returnedModelId": [ids.to_wire(clone_id)]}
        command_id = await commands.start_command(
            conn,
            project_id=target.project_id,
            dataset_id=target.id,
            kind=cloning.CLONE_ITEM,
            spec=spec,
            creator_id=caller.id,
        )
        await commands.end_command(conn, command_id, "success")
        return wire_commands.command(await commands.load_command(conn, command_id), base)


async def _add_metadata(conn: AsyncConnection[Any], caller: Account, item_id: int, given: dict[str, Any]) -> None:
    """Raises BadRequest."""
    patch = wire_items.metadata_patch(given)
    item = await items.lock_item(conn, item_id)
    await items.update_item(
        conn,
        item,
        user_metadata=wire_items.merged(item.user_metadata or {}, patch.user or {}),
        system_metadata=wire_items.merged(item.system_metadata or {}, patch.system),
        description=item.description,
        updated_by_id=caller.id,
    )
