"""Ghosts: items whose object the bucket no longer has, their trash, and how they are forgotten."""

from datetime import datetime
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query
from psycopg import AsyncConnection

from headwater import ids
from headwater.api.caller import Base, Caller, Connection, DatasetId, needs
from headwater.catalog import commands, datasets, projects
from headwater.catalog.accounts import Account
from headwater.catalog.datasets import Dataset
from headwater.catalog.sync import ghosts
from headwater.catalog.sync.ghosts import Choice
from headwater.catalog.sync.rules import rules_of
from headwater.errors import BadRequest, Conflict
from headwater.wire import commands as wire_commands
from headwater.wire import ghosts as wire
from headwater.wire import times
from headwater.work import ghosts as work
from headwater.work.ghosts import Action

router = APIRouter(prefix="/datasets", tags=["ghosts"])

_EXAMPLES = 10


@router.get("/{dataset_id}/ghosts", openapi_extra=needs("read"))
async def list_ghosts(
    dataset_id: DatasetId,
    caller: Caller,
    conn: Connection,
    prefix: Annotated[str | None, Query(description="Only paths that begin so.")] = None,
    since: Annotated[datetime | None, Query(description="Only what is missing since then or later.")] = None,
    where: Annotated[Literal["flagged", "trash"] | None, Query(description="Without it: both.")] = None,
    after: Annotated[str, Query(description="`next` of the page before.")] = "",
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
) -> wire.GhostPageJson:
    """In the order of paths."""
    dataset = await datasets.get_dataset(conn, caller, dataset_id)
    choice = Choice(where=where, folder=prefix, since=None if since is None else times.aware(since))
    found = await ghosts.list_ghosts(conn, dataset.id, choice, after=after, limit=limit + 1)
    return wire.page(
        found[:limit],
        has_next=len(found) > limit,
        flagged=dataset.missing_items - dataset.trashed_items,
        trashed=dataset.trashed_items,
    )


@router.post("/{dataset_id}/ghosts/restore", openapi_extra=needs("write_items"))
async def restore_ghosts(
    dataset_id: DatasetId, body: wire.GhostsBody, caller: Caller, conn: Connection, base: Base
) -> wire.SettledJson:
    """Out of the trash: shown again, with the flag, until their object is back or they are forgotten."""
    return await _settled(conn, caller, dataset_id, "restore", body, base)


@router.post("/{dataset_id}/ghosts/trash", openapi_extra=needs("write_items"))
async def trash_ghosts(
    dataset_id: DatasetId, body: wire.GhostsBody, caller: Caller, conn: Connection, base: Base
) -> wire.SettledJson:
    """Into the trash, whatever the dataset's rules do with new ones."""
    return await _settled(conn, caller, dataset_id, "trash", body, base)


@router.post("/{dataset_id}/ghosts/forget", openapi_extra=needs("write_items"))
async def forget_ghosts(
    dataset_id: DatasetId, body: wire.ForgetBody, caller: Caller, conn: Connection, base: Base
) -> wire.SettledJson:
    """For good, with their metadata and annotations. If their object comes back, it is a new item.

    `all`, and more than the limit of the dataset's brake, is answered with 409 and the number, unless `confirm` is it.
    """
    return await _settled(conn, caller, dataset_id, "forget", body, base)


async def _settled(
    conn: AsyncConnection[Any], caller: Account, dataset_id: int, action: Action, body: wire.GhostsBody, base: str
) -> wire.SettledJson:
    dataset = await datasets.get_dataset(conn, caller, dataset_id, "write_items")
    if dataset.readonly:
        raise BadRequest(f"Dataset {dataset.name!r} is read-only.")
    wanted = wire.wanted(body)
    choice = work.choice_of(action, wanted)
    number = await ghosts.count_ghosts(conn, dataset.id, choice)
    examples = [ghost.path for ghost in await ghosts.list_ghosts(conn, dataset.id, choice, limit=_EXAMPLES)]
    if body.dry_run or not number:
        return wire.SettledJson(items=number, examples=examples, command=None)
    if isinstance(body, wire.ForgetBody):
        _require_confirmation(dataset, body, number)
        details = {"id": ids.to_wire(dataset.id), "items": number, "examples": examples}
        await projects.record(conn, caller, dataset.project_id, "ghosts.forgotten", dataset.name, **details)
    command_id = await work.request(conn, dataset, action, wanted, number, caller_id=caller.id)
    command = None if command_id is None else await commands.load_command(conn, command_id)
    return wire.SettledJson(
        items=number,
        examples=examples,
        command=None if command is None else wire_commands.command(command, base),
    )


def _require_confirmation(dataset: Dataset, body: wire.ForgetBody, number: int) -> None:
    """Raises Conflict."""
    limit = rules_of(dataset.sync_rules).brake_limit(dataset.items - dataset.hidden_items - dataset.missing_items)
    if body.confirm == number or not (body.all or number > limit):
        return
    raise Conflict(
        f"This forgets {number:,} items of dataset {dataset.name!r} for good, with their metadata and annotations. "
        f'Confirm it with their number: "confirm": {number}. The command line asks: headwater ghosts forget'
    )
