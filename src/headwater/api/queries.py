"""POST /datasets/{id}/query: pages of items, and what is done to all that a filter asks for."""

from typing import Any

from fastapi import APIRouter
from fastapi.responses import JSONResponse, Response
from psycopg import AsyncConnection

from headwater.api.bulk_metadata import update_matching
from headwater.api.caller import Base, Caller, DatasetId, Server, ServerDep, needs
from headwater.api.deletions import delete_matching
from headwater.catalog import datasets, finding, items
from headwater.catalog.accounts import Account
from headwater.wire import items as wire_items
from headwater.wire.answers import as_json
from headwater.wire.query import ItemsQuery, parse_items_query, single_slashed

router = APIRouter(prefix="/datasets", tags=["datasets"])


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
        page = await _page(conn, caller, dataset_id, asked, base)
    return Response(as_json(page), media_type="application/json")


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
    found = await finding.find_page(conn, dataset.id, asked.files, asked.dirs, asked.page, reader_id=caller.id)
    if asked.is_default and not asked.keyset_after:
        total = dataset.shown_items
    else:
        total = await finding.count_found(conn, dataset.id, asked.files, asked.dirs)
    shaped = [
        wire_items.item(row, base)
        if isinstance(row, items.Item)
        else wire_items.directory(row, dataset.project_id, base)
        for row in found.rows
    ]
    return wire_items.page(shaped, total=total, page_size=asked.page.page_size, has_next=found.has_next)
