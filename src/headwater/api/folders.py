"""Moving items and folders. Folders are made with POST /datasets/{id}/items, and listed as items of type dir."""

import asyncio
from contextlib import suppress
from typing import Annotated, Any

from fastapi import APIRouter, Body
from pydantic import BaseModel, ConfigDict, Field
from typing_extensions import TypedDict

from headwater import ids
from headwater.api.asking import summing_up
from headwater.api.caller import Base, Caller, DatasetId, ItemId, Server, ServerDep, needs
from headwater.catalog import commands, datasets, folders, selections
from headwater.catalog.accounts import Account
from headwater.catalog.commands import Command
from headwater.catalog.folders import Folder
from headwater.catalog.moving import count_conflicts
from headwater.errors import BadRequest, Conflict, NotFound
from headwater.wire import commands as wire_commands
from headwater.wire import items as wire_items
from headwater.work import moving

router = APIRouter(tags=["folders"])

_WAIT_FOR_ANSWER_S = 30.0  # the SDK takes the answer for the end of it
_MOST_NAMED = 100_000


class MoveBody(BaseModel):
    """What to move, which has to be something, and where to."""

    model_config = ConfigDict(extra="forbid", populate_by_name=True)

    filter: dict[str, Any] | None = Field(default=None, description="As in POST /datasets/{id}/query.")
    ids: Annotated[list[str], Field(max_length=_MOST_NAMED)] | None = None
    folder: str | None = Field(
        default=None, description="This folder becomes the folder `to`, with all that is in it, at its place."
    )
    to: str = Field(description="A folder; items chosen otherwise come right into it, by their names.")
    dry_run: bool = Field(default=False, alias="dryRun", description="Tell what would be moved, and move nothing.")


class PreviewJson(TypedDict):
    dryRun: bool
    items: int
    conflicts: int
    examples: list[str]


def _wanted(body: MoveBody) -> dict[str, Any]:
    """Raises BadRequest."""
    if body.filter is None and body.ids is None and body.folder is None:
        raise BadRequest('Say what to move: filter, ids or folder. To move every item: {"filter": {}}.')
    if body.folder is not None and (body.filter is not None or body.ids is not None):
        raise BadRequest("A folder is moved with all that is in it: leave out filter and ids.")
    kept: dict[str, Any] = {"filter": body.filter}
    if body.folder is not None:
        kept["folder"] = "/" + body.folder.strip("/")
    if body.ids is not None:
        kept["ids"] = _numbers(body.ids)
    return kept


def _numbers(given: list[str]) -> list[int]:
    """Those that name something."""
    found: list[int] = []
    for text in given:
        with suppress(NotFound):
            found.append(ids.from_wire(text, "item"))
    return found


@router.post("/datasets/{dataset_id}/move-items", openapi_extra=needs("write_items"))
async def move_items(
    dataset_id: DatasetId, body: MoveBody, caller: Caller, server: ServerDep, base: Base
) -> wire_commands.CommandJson | PreviewJson:
    """Move many items, or a folder; only in Headwater's own storage, where no byte is touched.

    An item whose new path is taken stays where it is, and the command says so.
    """
    wanted, to = _wanted(body), moving.checked_folder(body.to)
    async with server.place.pool.connection() as conn:
        dataset = await datasets.get_dataset(conn, caller, dataset_id, "write_items")
        if body.dry_run:
            moving.check_movable(dataset)
            selection = moving.selection_of(wanted)
            if selection.folder is not None:
                moving.check_not_into_itself(selection.folder, to)
            async with summing_up(server, conn):
                summary = await selections.summarize(conn, dataset.id, selection, examples=10)
                conflicts = await count_conflicts(conn, dataset.id, selection, folder=selection.folder, to=to)
            return PreviewJson(dryRun=True, items=summary.items, conflicts=conflicts, examples=list(summary.examples))
        async with summing_up(server, conn):
            job = await moving.request_move(conn, dataset, wanted, to, caller_id=caller.id)
    return wire_commands.command(await _done(server, job), base)


async def _done(server: Server, job: dict[str, Any]) -> Command:
    """A very long move goes on in the worker after the answer."""
    with suppress(TimeoutError):
        await asyncio.wait_for(moving.move_items(server.place, **job), _WAIT_FOR_ANSWER_S)
    async with server.place.pool.connection() as conn:
        return await commands.load_command(conn, job["command_id"])


@router.put("/datasets/{dataset_id}/items/{item_id}", openapi_extra=needs("write_items"))
async def move_into_folder(
    dataset_id: DatasetId,
    item_id: ItemId,
    caller: Caller,
    server: ServerDep,
    base: Base,
    body: Annotated[list[str], Body(max_length=_MOST_NAMED)],
) -> wire_items.ItemJson:
    """Move items into a folder by their names; the folder is answered, when they are there.

    Where names clash nothing is moved (409); of more than 400 items those that do not clash are.
    """
    chosen = _numbers(body)
    async with server.place.pool.connection() as conn:
        dataset = await datasets.get_dataset(conn, caller, dataset_id, "write_items")
        folder = await folders.find_folder(conn, item_id)
        if folder is None or folder.dataset_id != dataset.id:
            raise NotFound(f"No folder with id {item_id:024x} in dataset {dataset.name!r}.")
        shown = wire_items.directory(folder, dataset.project_id, base)
        to = moving.checked_folder(folder.path)
        if len(chosen) <= moving.MOST_AT_ONCE:
            await moving.move_together(conn, dataset, chosen, to, caller_id=caller.id)
            return shown
        job = await moving.request_move(conn, dataset, {"ids": chosen}, to, caller_id=caller.id)
    _raise_for(await _done(server, job))
    return shown


def _raise_for(command: Command) -> None:
    """Raises Conflict for what was not done."""
    if command.error or command.warning:
        told = command.spec["move"]
        raise Conflict(f"{told['moved']:,} of {told['items']:,} items were moved. {command.error or command.warning}")


async def move_folder(server: Server, caller: Account, folder: Folder, filename: str, base: str) -> wire_items.ItemJson:
    """Answers the folder at its new place. Raises NotFound, Forbidden, BadRequest, Conflict."""
    to = moving.checked_folder(filename)
    async with server.place.pool.connection() as conn:
        dataset = await datasets.get_dataset(conn, caller, folder.dataset_id, "write_items")
        if to == folder.path:
            return wire_items.directory(folder, dataset.project_id, base)
        wanted = {"folder": folder.path}
        moving.check_movable(dataset)
        moving.check_not_into_itself(folder.path, to)
        selection = moving.selection_of(wanted)
        conflicts = await count_conflicts(conn, dataset.id, selection, folder=folder.path, to=to)
        if conflicts:
            raise Conflict(
                f"{folder.path} was not moved: {conflicts:,} of its items have the path of another item in {to or '/'} "
                "already."
            )
        job = await moving.request_move(conn, dataset, wanted, to, caller_id=caller.id)
    _raise_for(await _done(server, job))
    async with server.place.pool.connection() as conn:
        moved = await folders.find_folder_at(conn, folder.dataset_id, to or "/")
    if moved is None:
        raise Conflict(f"{folder.path} was not moved: what was in it was deleted or moved meanwhile.")
    return wire_items.directory(moved, dataset.project_id, base)
