"""Exports: a dataset's index as JSON, ZIP, lines, Parquet and Croissant."""

import asyncio
from contextlib import suppress

from fastapi import APIRouter

from headwater.api.caller import Base, Caller, DatasetId, Server, ServerDep, needs
from headwater.catalog import commands, datasets, exports, finding
from headwater.catalog.accounts import Account
from headwater.catalog.datasets import Dataset
from headwater.catalog.finding import Asking
from headwater.catalog.query import Tree
from headwater.catalog.searchable import require_searchable
from headwater.errors import BadRequest, HeadwaterError, QueryTooSlow
from headwater.wire import commands as wire_commands
from headwater.wire import exports as wire
from headwater.work import exporting

router = APIRouter(prefix="/datasets", tags=["exports"])

_WAIT_FOR_ANSWER_S = 10.0
_COUNT_WITHIN_S = 5.0


@router.post("/{dataset_id}/export", openapi_extra=needs("read"))
async def export_dataset(
    dataset_id: DatasetId, body: wire.ExportBody, caller: Caller, server: ServerDep, base: Base
) -> wire_commands.CommandJson:
    """Make files of the items that a filter chooses, with their metadata and annotations; no byte of an object.

    The files become hidden items of the project's Binaries, which who may read the project may read, for as many days
    as the operator keeps them. At the end `spec.outputItemId` names the file, or the manifest that names the files.
    What is changed meanwhile is in it or not, page by page of 1,000 items.
    """
    asked = wire.read_export(body, base, caller.id)
    return await _export(dataset_id, asked, caller, server, base)


@router.post("/{dataset_id}/export/v3", openapi_extra=needs("read"))
async def export_dataset_v3(
    dataset_id: DatasetId, body: wire.ExportV3Body, caller: Caller, server: ServerDep, base: Base
) -> wire_commands.CommandJson:
    """Make files of JSON lines: of all items, or of what has changed since the `toVersion` of an earlier export.

    Nothing that has changed is left out; what changes while an export runs may come again in the next one. An item that
    was deleted, or that the filter does not choose any more, comes as `{"id", "filename", "deleted": true}`. Where a
    version was made before the database was restored, all items come, and `spec.exportResult.mode` says "full".
    """
    asked = wire.read_export_v3(body, base, caller.id)
    return await _export(dataset_id, asked, caller, server, base)


async def _export(
    dataset_id: int, asked: wire.Asked, caller: Account, server: Server, base: str
) -> wire_commands.CommandJson:
    """What is small is done by now; else the worker goes on."""
    async with server.place.pool.connection() as conn:
        dataset = await datasets.get_dataset(conn, caller, dataset_id, "read")
        asked = wire.confined_to(asked, dataset)
        require_searchable(dataset.unsearchable_paths, asked.tree)
        if asked.from_version is not None:
            newest = await exports.newest_version(conn, dataset_id)
            if asked.from_version > newest:
                raise BadRequest(
                    f"fromVersion: dataset {dataset.name!r} has no version {asked.from_version}; "
                    + (f"its newest is {newest}." if newest else 'it has none yet. Export it with mode "full" first.')
                )
    total = await _count(server, dataset, asked.tree)
    async with server.place.pool.connection() as conn:
        export = await exporting.request_export(conn, caller, dataset, asked, total=total)
    if exporting.is_small(export.total):
        try:
            with suppress(TimeoutError):
                await asyncio.wait_for(exporting.run_export(server.place, export.command_id), _WAIT_FOR_ANSWER_S)
        except HeadwaterError as error:
            await exporting.give_up(server.place, export.command_id, str(error))
    async with server.place.pool.connection() as conn:
        return wire_commands.command(await commands.load_command(conn, export.command_id), base)


async def _count(server: Server, dataset: Dataset, tree: Tree) -> int:
    """How many items there are to be; all of the dataset where that takes too long to be waited for."""
    asking = Asking(server.columns, timeout_s=min(_COUNT_WITHIN_S, server.settings.query_timeout_s))
    try:
        async with server.place.pool.connection() as conn, finding.begin(conn, asking):
            return await finding.count_found(conn, dataset.id, tree, None, asking=asking)
    except QueryTooSlow:
        return dataset.items
