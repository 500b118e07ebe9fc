"""POST /datasets/{id}/query: pages of items or annotations, and what is done to all that a filter asks for."""

import logging
from typing import Any

from fastapi import APIRouter
from fastapi.responses import JSONResponse, Response
from psycopg import AsyncConnection

from headwater.api.annotation_queries import change_annotations, page_of_annotations
from headwater.api.asking import asking_of
from headwater.api.bulk_metadata import update_matching
from headwater.api.caller import Base, Caller, DatasetId, Server, ServerDep, needs
from headwater.api.deletions import delete_matching
from headwater.api.features import similar_page
from headwater.catalog import datasets, finding, items, searchable
from headwater.catalog.accounts import Account
from headwater.catalog.query import HasAnnotation
from headwater.errors import BadRequest
from headwater.wire import annotations as wire_annotations
from headwater.wire import items as wire_items
from headwater.wire.answers import as_json
from headwater.wire.features import order_by_distance
from headwater.wire.query import (
    AnnotationsQuery,
    Context,
    ItemsQuery,
    confined,
    parse_items_query,
    parse_query,
    single_slashed,
    whole_filter,
)

router = APIRouter(prefix="/datasets", tags=["datasets"])

_log = logging.getLogger(__name__)
_LONG_LIST = 20_000  # items


@router.post(
    "/{dataset_id}/query",
    openapi_extra=needs("read"),
    response_model=wire_items.PageJson | wire_annotations.AnnotationPageJson,
)
async def query_dataset(
    dataset_id: DatasetId, caller: Caller, server: ServerDep, base: Base, body: dict[str, Any]
) -> Response:
    """A page of items (files, folders or both) or of annotations, as the SDK's filters ask for it.

    With `delete: true` they are deleted, with `update` their metadata is changed, and the answer is the command that
    did it. Both need the right to write, or to annotate.
    """
    try:
        return await _answer(server, caller, dataset_id, body, base)
    except BadRequest as error:
        # The SDK takes it for an empty list, and its user never sees the sentence.
        server.queries.refused += 1
        _log.warning("refused a query of account %d on dataset %024x: %s", caller.id, dataset_id, _loggable(error))
        raise


def _loggable(error: BadRequest) -> str:
    return str(error)[:1_000].encode("unicode_escape").decode()


async def _answer(server: Server, caller: Account, dataset_id: int, body: dict[str, Any], base: str) -> Response:
    if (order := order_by_distance(body)) is not None:
        async with server.place.pool.connection() as conn:
            return _json(await similar_page(server, conn, caller, dataset_id, order, body, base))
    asked = parse_query(body)
    if asked.context != Context():
        body = await _confined(server, caller, dataset_id, body)
        asked = parse_query(body)
    if isinstance(asked, AnnotationsQuery):
        chosen = whole_filter(body, "annotations")
        if asked.delete or asked.update is not None:
            return JSONResponse(dict(await change_annotations(server, caller, dataset_id, asked, chosen, base)))
        async with asking_of(server, dataset_id, HasAnnotation(asked.tree)) as (conn, _):
            annotations = await page_of_annotations(conn, caller, dataset_id, asked, base)
        return _json(annotations)
    meant = await _as_meant(server, caller, dataset_id, body)
    if meant is not body:
        body = meant
        asked = parse_items_query(meant)
    chosen = whole_filter(body)
    if asked.delete:
        return JSONResponse(dict(await delete_matching(server, caller, dataset_id, chosen, base)))
    if asked.update is not None:
        return JSONResponse(dict(await update_matching(server, caller, dataset_id, asked, chosen, base)))
    async with asking_of(server, dataset_id, asked.files or asked.dirs, asked.page) as (conn, asking):
        page = await _page(conn, caller, dataset_id, asked, base, asking)
    return _json(page)


def _json(answer: object) -> Response:
    return Response(as_json(answer), media_type="application/json")


async def _confined(server: Server, caller: Account, dataset_id: int, body: dict[str, Any]) -> dict[str, Any]:
    """Raises NotFound."""
    async with server.place.pool.connection() as conn:
        return confined(body, await datasets.get_dataset(conn, caller, dataset_id))


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
    conn: AsyncConnection[Any],
    caller: Account,
    dataset_id: int,
    asked: ItemsQuery,
    base: str,
    asking: finding.Asking,
) -> wire_items.PageJson:
    dataset = await datasets.get_dataset(conn, caller, dataset_id)
    sort = [name for name, _ in asked.page.sort]
    for tree in (asked.files, asked.dirs):
        searchable.require_searchable(dataset.unsearchable_paths, tree, sort)
    found = await finding.find_page(
        conn, dataset.id, asked.files, asked.dirs, asked.page, reader_id=caller.id, asking=asking
    )
    if found.total is not None:
        total = found.total
    elif _is_counted(asked, dataset):
        total = dataset.shown_items
    else:
        total = await finding.count_found(conn, dataset.id, asked.files, asked.dirs, asking=asking)
    shaped = [
        wire_items.item(row, base)
        if isinstance(row, items.Item)
        else wire_items.directory(row, dataset.project_id, base)
        for row in found.rows
    ]
    return wire_items.page(shaped, total=total, page_size=asked.page.page_size, has_next=found.has_next)


def _is_counted(asked: ItemsQuery, dataset: datasets.Dataset) -> bool:
    """Whether the dataset's counters tell the total.

    The SDK asks for a list of many items page by page, each beginning behind the last one's end: they all tell the
    total of the list. What is left of a short list, or was asked for by itself, is counted.
    """
    if asked.keyset_after is None:
        return asked.is_default
    is_long = dataset.shown_items > _LONG_LIST and asked.page.page_size > 0
    return asked.is_default_without_keyset and is_long
