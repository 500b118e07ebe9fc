"""Single items: read, change, delete. Their bytes are in streams.py."""

from typing import Any

from fastapi import APIRouter
from psycopg import AsyncConnection
from pydantic import BaseModel, ConfigDict, Field

from headwater import ids
from headwater.api.caller import Base, Caller, Connection, ItemId, ServerDep, needs
from headwater.api.deletions import delete_folder
from headwater.api.folders import move_folder
from headwater.catalog import datasets, folders, items, projects
from headwater.catalog.accounts import Account
from headwater.catalog.items import Item
from headwater.catalog.rights import Right
from headwater.errors import BadRequest, NotFound
from headwater.wire import items as wire
from headwater.work import deletion, moving

router = APIRouter(prefix="/items", tags=["items"])


async def get_item(conn: Any, caller: Account, item_id: int, right: Right = "read") -> Item:
    """Raises NotFound, in the same words for one that is not there and one that is not the caller's; Forbidden;
    BadRequest for a change in a read-only dataset.
    """
    item = await items.find_item(conn, item_id, reader_id=caller.id)
    if item is not None:
        try:
            dataset = await datasets.get_dataset(conn, caller, item.dataset_id, right)
        except NotFound:
            item = None
        else:
            if right == "write_items" and dataset.readonly:
                raise BadRequest(f"Dataset {dataset.name!r} is read-only.")
    if item is None:
        raise NotFound(f"No item with id {item_id:024x}.")
    return item


@router.get("/{item_id}", openapi_extra=needs("read"))
async def read_item(item_id: ItemId, caller: Caller, conn: Connection, base: Base) -> wire.ItemJson:
    folder = await folders.find_folder(conn, item_id)
    if folder is None:
        return wire.item(await get_item(conn, caller, item_id), base)
    try:
        dataset = await datasets.get_dataset(conn, caller, folder.dataset_id)
    except NotFound:
        raise NotFound(f"No item with id {item_id:024x}.") from None
    return wire.directory(folder, dataset.project_id, base)


class ItemPatch(BaseModel):
    """A difference, as the SDK sends it: nested, null removes a key. What is not named here is left alone."""

    model_config = ConfigDict(extra="ignore")

    metadata: dict[str, Any] | None = None
    description: str | None = Field(default=None, max_length=100_000, description="An empty one takes it away.")
    filename: str | None = None


@router.patch("/{item_id}", openapi_extra=needs("write_items"))
async def update_item(
    item_id: ItemId, body: ItemPatch, caller: Caller, server: ServerDep, base: Base, system: bool = False
) -> wire.ItemJson:
    """Change user metadata and description; system metadata only with `?system=true`. A new `filename` moves it.

    A folder has nothing but its filename: it is moved with all that is in it.
    """
    async with server.place.pool.connection() as conn:
        folder = None if body.filename is None else await folders.find_folder(conn, item_id)
        if folder is None:
            return wire.item(await _update_file(conn, caller, item_id, body, with_system=system), base)
    try:
        return await move_folder(server, caller, folder, body.filename or "", base)
    except NotFound:
        raise NotFound(f"No item with id {item_id:024x}.") from None


async def _update_file(
    conn: AsyncConnection[Any], caller: Account, item_id: int, body: ItemPatch, *, with_system: bool
) -> Item:
    seen = await get_item(conn, caller, item_id, "write_items")
    new_path = None
    if body.filename is not None and body.filename != seen.path:
        moving.check_movable(await datasets.get_dataset(conn, caller, seen.dataset_id))
        new_path = await moving.lock_move(conn, seen, body.filename)
    item = await items.lock_item(conn, item_id)
    if new_path is not None:
        await moving.move_locked(conn, seen, new_path, caller_id=caller.id)
        item = await items.lock_item(conn, item_id)
    given = body.metadata or {}
    patch = wire.metadata_patch(given)
    clears_user = "user" in given and patch.user is None
    user = {} if clears_user else wire.merged(item.user_metadata or {}, patch.user or {})
    if patch.user:
        wire.check_metadata(user, "metadata.user")
    return await items.update_item(
        conn,
        item,
        user_metadata=user,
        system_metadata=wire.merged(item.system_metadata or {}, patch.system if with_system else {}),
        description=(body.description or None) if "description" in body.model_fields_set else item.description,
        updated_by_id=caller.id,
    )


@router.delete("/{item_id}", openapi_extra=needs("write_items"))
async def delete_item(item_id: ItemId, caller: Caller, server: ServerDep, base: Base) -> dict[str, bool]:
    """The object in the bucket goes as well, if the driver allows it; otherwise it stays and is not indexed again.

    A folder goes with everything in it.
    """
    async with server.place.pool.connection() as conn:
        folder = await folders.find_folder(conn, item_id)
        if folder is None:
            await _delete_file(conn, caller, item_id)
    if folder is not None:
        try:
            await delete_folder(server, caller, folder, base)
        except NotFound:
            raise NotFound(f"No item with id {item_id:024x}.") from None
    return {"success": True}


async def _delete_file(conn: AsyncConnection[Any], caller: Account, item_id: int) -> None:
    item = await get_item(conn, caller, item_id, "write_items")
    if await deletion.delete_item(conn, item):
        project_id, dataset = await datasets.place_of(conn, item.dataset_id)
        named = {"id": ids.to_wire(item.id), "dataset": dataset}
        await projects.record(conn, caller, project_id, "item.deleted", item.path, **named)
