"""Deleting many items at once, what was deleted, and bringing it back."""

import asyncio
from contextlib import suppress
from typing import Any, Literal

from fastapi import APIRouter
from psycopg import AsyncConnection
from typing_extensions import TypedDict

from headwater import ids
from headwater.api.asking import summing_up
from headwater.api.caller import Base, Caller, Connection, DatasetId, Server, ServerDep, needs
from headwater.catalog import commands, datasets, projects, selections, tombstones
from headwater.catalog.accounts import Account
from headwater.catalog.datasets import Dataset
from headwater.catalog.folders import ROOT, Folder, unmake_folder
from headwater.catalog.sync.rules import load_rules
from headwater.errors import BadRequest, Conflict
from headwater.wire import commands as wire_commands
from headwater.wire import deletions as wire
from headwater.work import deletion, sync

router = APIRouter(prefix="/datasets", tags=["deletions"])

_EXAMPLES = 10
_PAGE = 1_000
_WAIT_FOR_ANSWER_S = 30.0  # the SDK's scripts expect the items to be gone when they are answered


@router.post("/{dataset_id}/delete-items", openapi_extra=needs("write_items"))
async def delete_items(
    dataset_id: DatasetId, body: wire.DeletionBody, caller: Caller, server: ServerDep, conn: Connection, base: Base
) -> wire_commands.CommandJson | wire.PreviewJson | wire.RetriedJson:
    """Answers at once with the command that deletes; with `dryRun`, with what it would delete.

    More than the limit of the dataset's brake at once needs `confirm`, or is answered with 409. Objects go from the
    bucket only where the driver allows it.
    """
    dataset = await _get_writable(conn, caller, dataset_id)
    if body.retry:
        tried = await deletion.retry_refused(conn, dataset)
        await projects.record(
            conn, caller, dataset.project_id, "deletion.retried", dataset.name, id=ids.to_wire(dataset.id), items=tried
        )
        return wire.RetriedJson(retried=tried)
    at = await selections.ids_at(conn, dataset.id, wire.paths(body.paths)) if body.paths else {}
    wanted = wire.wanted(body, at)
    async with summing_up(server, conn):
        summary = await selections.summarize(conn, dataset.id, deletion.selection_of(wanted), examples=_EXAMPLES)
    limit = (await load_rules(conn, dataset.id)).brake_limit(dataset.items - dataset.hidden_items)
    if body.dry_run:
        objects = await deletion.what_of_objects(conn, dataset.id)
        return wire.preview(summary, objects, needs_confirmation=summary.items > limit)
    if summary.items > limit and not wire.is_confirmed(body, summary.items):
        objects = await deletion.what_of_objects(conn, dataset.id)
        raise Conflict(
            f"This would delete {summary.items:,} of {dataset.items - dataset.hidden_items:,} items of dataset "
            f"{dataset.name!r}, and their objects {objects}. More than {limit:,} at once need a confirmation: send "
            f'"confirm": {summary.items} (CLI: --yes), or look first with "dryRun": true.'
        )
    command_id = await _request(conn, caller, dataset, wanted, summary)
    return wire_commands.command(await commands.load_command(conn, command_id), base)


async def delete_matching(
    server: Server, caller: Account, dataset_id: int, conditions: dict[str, Any], base: str
) -> wire_commands.CommandJson:
    """As the SDK asks for it: without a confirmation, and answered when the items are gone.

    A very long deletion goes on in the worker after the answer.
    """
    return await _delete_now(server, caller, dataset_id, {"filter": conditions}, base)


async def delete_folder(server: Server, caller: Account, folder: Folder, base: str) -> None:
    """With all that is in it, as the SDK asks for it. Raises NotFound, Forbidden, BadRequest."""
    if folder.path == ROOT:
        raise BadRequest(
            "This is the dataset's own folder, which holds everything. Delete the dataset, or its items by a filter."
        )
    async with server.place.pool.connection() as conn:
        dataset = await _get_writable(conn, caller, folder.dataset_id)
        await unmake_folder(conn, dataset.id, folder.path)
    wanted = {"folder": folder.path, "shown": not folder.path.startswith("/.")}
    await _delete_now(server, caller, dataset.id, wanted, base)


async def _delete_now(
    server: Server, caller: Account, dataset_id: int, wanted: dict[str, Any], base: str
) -> wire_commands.CommandJson:
    pool = server.place.pool
    async with pool.connection() as conn:
        dataset = await _get_writable(conn, caller, dataset_id)
        async with summing_up(server, conn):
            summary = await selections.summarize(conn, dataset.id, deletion.selection_of(wanted), examples=0)
        command_id = await _request(conn, caller, dataset, wanted, summary)
    work = deletion.delete_items(server.place, command_id=command_id, wanted=wanted, last_id=summary.last_id)
    with suppress(TimeoutError):  # its job goes on
        await asyncio.wait_for(work, _WAIT_FOR_ANSWER_S)
    async with pool.connection() as conn:
        return wire_commands.command(await commands.load_command(conn, command_id), base)


async def _get_writable(conn: AsyncConnection[Any], caller: Account, dataset_id: int) -> Dataset:
    """Raises NotFound, Forbidden, BadRequest."""
    dataset = await datasets.get_dataset(conn, caller, dataset_id, "write_items")
    if dataset.readonly:
        raise BadRequest(f"Dataset {dataset.name!r} is read-only.")
    return dataset


async def _request(
    conn: AsyncConnection[Any], caller: Account, dataset: Dataset, wanted: dict[str, Any], summary: selections.Summary
) -> int:
    command_id = await deletion.request_deletion(conn, dataset, wanted, summary, caller_id=caller.id)
    await projects.record(
        conn,
        caller,
        dataset.project_id,
        "items.deleted",
        dataset.name,
        id=ids.to_wire(dataset.id),
        items=summary.items,
        command=ids.to_wire(command_id),
        selection=deletion.described(wanted),
    )
    return command_id


@router.get("/{dataset_id}/deleted", openapi_extra=needs("read"))
async def list_deleted(
    dataset_id: DatasetId,
    caller: Caller,
    conn: Connection,
    state: Literal["staying", "waiting", "refused", "any"] = "any",
    after: str = "",
) -> wire.DeletedPageJson:
    """What was deleted here while its object is still there, in the order of paths; a page begins behind `after`.

    `staying`: the object was never to go; `waiting`: it is to go; `refused`: the store did not let it go, and why.
    """
    dataset = await datasets.get_dataset(conn, caller, dataset_id)
    found = await tombstones.list_tombstones(conn, dataset.id, state=state, after=after, limit=_PAGE + 1)
    counts = await tombstones.count_tombstones(conn, dataset.id)
    return wire.deleted_page(found[:_PAGE], counts, has_next=len(found) > _PAGE)


async def forget_deletions(
    conn: AsyncConnection[Any], caller: Account, dataset: Dataset, asked: wire.RestoreBody
) -> int:
    """The next sync brings back what was deleted here and is still in the bucket: so many. Raises Conflict."""
    if dataset.is_syncing:
        raise Conflict(
            f"A sync of dataset {dataset.name!r} is running and may have passed what is to come back. Wait for "
            "its end, or abort it, and restore then."
        )
    restored = await tombstones.restore(
        conn,
        dataset.id,
        paths=None if asked.paths is None else wire.paths(asked.paths),
        folder=None if asked.folder is None else wire.folder(asked.folder),
    )
    if restored:
        named = {"id": ids.to_wire(dataset.id), "items": restored}
        await projects.record(conn, caller, dataset.project_id, "items.restored", dataset.name, **named)
    return restored


class RestoredJson(TypedDict):
    restored: int
    command: wire_commands.CommandJson | None


@router.post("/{dataset_id}/restore-deleted", openapi_extra=needs("sync"))
async def restore_deleted(
    dataset_id: DatasetId, caller: Caller, conn: Connection, base: Base, body: wire.RestoreBody | None = None
) -> RestoredJson:
    """Bring back items that were deleted here and whose object is still in the bucket, by a sync.

    They come back as new items: their metadata is lost. What still waits to be deleted from the bucket is kept.
    """
    dataset = await datasets.get_syncable(conn, caller, dataset_id)
    restored = await forget_deletions(conn, caller, dataset, body or wire.RestoreBody())
    if not restored:
        return RestoredJson(restored=0, command=None)
    command_id = await sync.request_sync(conn, dataset, caller_id=caller.id)
    return RestoredJson(
        restored=restored, command=wire_commands.command(await commands.load_command(conn, command_id), base)
    )
