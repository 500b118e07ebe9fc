"""Metadata of many items at once: by filter, by folder, and split into subsets."""

import asyncio
from contextlib import suppress
from typing import Any

from fastapi import APIRouter
from psycopg import AsyncConnection

from headwater.api.asking import summing_up
from headwater.api.caller import Base, Caller, DatasetId, Server, ServerDep, needs
from headwater.catalog import commands, datasets, selections
from headwater.catalog.accounts import Account
from headwater.catalog.datasets import Dataset
from headwater.errors import BadRequest
from headwater.wire import bulk_metadata as wire
from headwater.wire import commands as wire_commands
from headwater.wire.deletions import paths
from headwater.wire.query import ItemsQuery, confined
from headwater.work import bulk_metadata

router = APIRouter(prefix="/datasets", tags=["items"])

_EXAMPLES = 10
_SMALL_WITHIN_S = 1.0  # the SDK waits 2 s before it asks again
_WAIT_FOR_ANSWER_S = 30.0  # an update by filter, which the SDK does not follow


@router.post("/{dataset_id}/items/bulk-update-metadata", openapi_extra=needs("write_items"))
async def bulk_update(
    dataset_id: DatasetId, body: wire.BulkUpdateBody, caller: Caller, server: ServerDep, base: Base
) -> wire_commands.CommandJson | wire.PreviewJson:
    """Put a patch over the metadata of items: null removes a key, a list replaces a list.

    Answers with the command, which is done already where the items are few.
    """
    change = wire.bulk_change(body)
    async with server.place.pool.connection() as conn:
        dataset = await _get_writable(conn, caller, dataset_id)
        wanted = wire.wanted(confined(body.query, dataset), body.folder)
        if body.paths is not None:
            wanted["ids"] = sorted((await selections.ids_at(conn, dataset.id, paths(body.paths))).values())
        if body.dry_run:
            chosen = bulk_metadata.selection_of(wanted)
            async with summing_up(server, conn):
                return wire.preview(await selections.summarize(conn, dataset.id, chosen, examples=_EXAMPLES))
    return await _changed(server, caller, dataset_id, wanted, change, base, within_s=_SMALL_WITHIN_S)


@router.post("/{dataset_id}/split", openapi_extra=needs("write_items"))
async def split_items(
    dataset_id: DatasetId, body: wire.SplitBody, caller: Caller, server: ServerDep, base: Base
) -> wire_commands.CommandJson:
    """Deal items to subsets at random, by their shares: `metadata.system.tags` says which one an item is in."""
    change = wire.split_change(body)
    async with server.place.pool.connection() as conn:
        wanted = wire.wanted(confined(body.items_query, await _get_writable(conn, caller, dataset_id)))
    return await _changed(server, caller, dataset_id, wanted, change, base, within_s=_SMALL_WITHIN_S)


async def update_matching(
    server: Server, caller: Account, dataset_id: int, asked: ItemsQuery, conditions: dict[str, Any], base: str
) -> wire_commands.CommandJson:
    """`update` of a query, as the SDK sends it: answered when it is done, unless that takes very long."""
    change = wire.change(asked.update, system_space=asked.system_space)
    wanted = wire.wanted({"filter": conditions})
    return await _changed(server, caller, dataset_id, wanted, change, base, within_s=_WAIT_FOR_ANSWER_S)


async def _changed(
    server: Server,
    caller: Account,
    dataset_id: int,
    wanted: dict[str, Any],
    change: wire.ChangeJson,
    base: str,
    *,
    within_s: float,
) -> wire_commands.CommandJson:
    """The command, at its end where that comes soon; otherwise its job goes on."""
    pool = server.place.pool
    async with pool.connection() as conn:
        dataset = await _get_writable(conn, caller, dataset_id)
        async with summing_up(server, conn):
            summary = await selections.summarize(conn, dataset.id, bulk_metadata.selection_of(wanted), examples=0)
        command_id = await bulk_metadata.request_change(conn, dataset, wanted, change, summary, caller_id=caller.id)
    arguments = bulk_metadata.job_arguments(command_id, wanted, change, summary, caller.id)
    with suppress(TimeoutError):
        await asyncio.wait_for(bulk_metadata.change_items(server.place, **arguments), within_s)
    async with pool.connection() as conn:
        return wire_commands.command(await commands.load_command(conn, command_id), base)


async def _get_writable(conn: AsyncConnection[Any], caller: Account, dataset_id: int) -> Dataset:
    """Raises NotFound, Forbidden, BadRequest."""
    dataset = await datasets.get_dataset(conn, caller, dataset_id, "write_items")
    if dataset.readonly:
        raise BadRequest(f"Dataset {dataset.name!r} is read-only.")
    return dataset
