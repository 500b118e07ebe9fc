"""Collections of a dataset, and which items are in them."""

import asyncio
from contextlib import suppress
from typing import Annotated, Any

from fastapi import APIRouter, Path
from psycopg import AsyncConnection

from headwater.api.asking import summing_up
from headwater.api.caller import Base, Caller, Connection, DatasetId, Server, ServerDep, needs
from headwater.catalog import commands, datasets, item_collections
from headwater.catalog.accounts import Account
from headwater.catalog.datasets import Dataset
from headwater.errors import BadRequest
from headwater.wire import bulk_metadata as wire_bulk_metadata
from headwater.wire import commands as wire_commands
from headwater.wire import item_collections as wire
from headwater.wire.query import confined
from headwater.work import item_collections as work

router = APIRouter(prefix="/datasets/{dataset_id}/items/collections", tags=["collections"])

_SMALL_WITHIN_S = 1.0  # the SDK waits 2 s before it asks again

Name = Annotated[str, Path(description="The name of a collection; a slash needs no escape.")]


@router.get("", openapi_extra=needs("read"))
async def list_collections(dataset_id: DatasetId, caller: Caller, conn: Connection) -> dict[str, wire.CollectionJson]:
    """By the field of the metadata that items in it have: {"metadata.system.collections.c0": {"name": "best"}}."""
    dataset = await datasets.get_dataset(conn, caller, dataset_id)
    return wire.collections(await item_collections.list_collections(conn, dataset.id))


@router.post("", openapi_extra=needs("write_items"))
async def create_collection(
    dataset_id: DatasetId, body: wire.CollectionBody, caller: Caller, conn: Connection
) -> dict[str, wire.CollectionJson]:
    """A dataset has at most ten. Answers with all that there are now."""
    dataset = await _get_writable(conn, caller, dataset_id)
    await item_collections.create(conn, dataset.id, body.name)
    return wire.collections(await item_collections.list_collections(conn, dataset.id))


@router.post("/bulk-add", openapi_extra=needs("write_items"))
async def add_items(
    dataset_id: DatasetId, body: wire.MarkBody, caller: Caller, server: ServerDep, base: Base
) -> wire_commands.CommandJson:
    """Put what a query finds into collections; those that are not there are made. Small changes are done at once."""
    async with server.place.pool.connection() as conn:
        dataset = await _get_writable(conn, caller, dataset_id)
        wanted = wire_bulk_metadata.wanted(confined(body.query, dataset))
        named = await item_collections.ensure(conn, dataset.id, body.collections)
        async with summing_up(server, conn):
            job = await work.request(conn, dataset, wanted, named, "add", caller_id=caller.id)
    return await _done(server, job, base)


@router.post("/bulk-remove", openapi_extra=needs("write_items"))
async def remove_items(
    dataset_id: DatasetId, body: wire.MarkBody, caller: Caller, server: ServerDep, base: Base
) -> wire_commands.CommandJson:
    """Take what a query finds out of collections. The items and the collections stay."""
    async with server.place.pool.connection() as conn:
        dataset = await _get_writable(conn, caller, dataset_id)
        wanted = wire_bulk_metadata.wanted(confined(body.query, dataset))
        names = dict.fromkeys(name.strip() for name in body.collections)
        named = [await item_collections.get(conn, dataset.id, name) for name in names]
        async with summing_up(server, conn):
            job = await work.request(conn, dataset, wanted, named, "remove", caller_id=caller.id)
    return await _done(server, job, base)


@router.patch("/{name:path}", openapi_extra=needs("write_items"))
async def rename_collection(
    dataset_id: DatasetId, name: Name, body: wire.CollectionBody, caller: Caller, conn: Connection
) -> dict[str, wire.CollectionJson]:
    """Its items stay in it. Answers with all that there are."""
    dataset = await _get_writable(conn, caller, dataset_id)
    await item_collections.rename(conn, dataset.id, name, body.name)
    return wire.collections(await item_collections.list_collections(conn, dataset.id))


@router.delete("/{name:path}", openapi_extra=needs("write_items"))
async def delete_collection(
    dataset_id: DatasetId, name: Name, caller: Caller, server: ServerDep, base: Base
) -> wire_commands.CommandJson:
    """The collection goes, its items stay. It is out of sight at once; the command takes its mark from the items."""
    async with server.place.pool.connection() as conn:
        dataset = await _get_writable(conn, caller, dataset_id)
        found = await item_collections.get(conn, dataset.id, name, lock=True)
        if found.deleting_command_id is not None:
            return wire_commands.command(await commands.load_command(conn, found.deleting_command_id), base)
        job = await work.request(conn, dataset, {}, [found], "delete", caller_id=caller.id)
    return await _done(server, job, base)


async def _done(server: Server, job: dict[str, Any], base: str) -> wire_commands.CommandJson:
    """The command, at its end where that comes soon; otherwise its job goes on."""
    with suppress(TimeoutError):
        await asyncio.wait_for(work.mark_items(server.place, **job), _SMALL_WITHIN_S)
    async with server.place.pool.connection() as conn:
        return wire_commands.command(await commands.load_command(conn, job["command_id"]), base)


async def _get_writable(conn: AsyncConnection[Any], caller: Account, dataset_id: int) -> Dataset:
    """Raises NotFound, Forbidden, BadRequest."""
    dataset = await datasets.get_dataset(conn, caller, dataset_id, "write_items")
    if dataset.readonly:
        raise BadRequest(f"Dataset {dataset.name!r} is read-only.")
    return dataset
