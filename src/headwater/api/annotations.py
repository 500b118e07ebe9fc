"""Annotations: created on an item, read, changed and deleted one by one; lists of them are queries."""

from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from fastapi.responses import Response
from psycopg import AsyncConnection

from headwater import ids
from headwater.api.caller import AnnotationId, Base, Caller, Connection, ItemId, ServerDep, needs
from headwater.catalog import annotations, datasets, projects
from headwater.catalog.accounts import Account
from headwater.catalog.annotations import Annotation
from headwater.catalog.datasets import Dataset
from headwater.catalog.query import Condition, Page
from headwater.catalog.rights import AnyRight, Right
from headwater.errors import BadRequest, NotFound
from headwater.wire import annotations as wire
from headwater.wire.answers import as_json

router = APIRouter(tags=["annotations"])

_LARGEST_PAGE = 1_000
_BODY: Any = {"required": True, "content": {"application/json": {"schema": {}}}}


def _takes_json(right: AnyRight) -> dict[str, Any]:
    """For routes that read their body themselves: it may be long, and nothing else reads it as fast."""
    return needs(right) | {"requestBody": _BODY}


def _answer(answer: object) -> Response:
    return Response(as_json(answer), media_type="application/json")


async def _dataset_of(conn: AsyncConnection[Any], caller: Account, item_id: int, right: Right) -> Dataset:
    """Raises NotFound, in the same words for an item that is not the caller's; Forbidden; BadRequest if read-only."""
    dataset_id = await annotations.dataset_of(conn, item_id)
    try:
        dataset = None if dataset_id is None else await datasets.get_dataset(conn, caller, dataset_id, right)
    except NotFound:
        dataset = None
    if dataset is None:
        raise NotFound(f"No item with id {item_id:024x}.")
    _check_writable(dataset, right)
    return dataset


async def _get_annotation(
    conn: AsyncConnection[Any], caller: Account, annotation_id: int, right: Right = "read"
) -> tuple[Annotation, Dataset]:
    """Raises NotFound, in the same words for one that is not the caller's; Forbidden; BadRequest if read-only."""
    found = await annotations.find_annotation(conn, annotation_id)
    try:
        dataset = None if found is None else await datasets.get_dataset(conn, caller, found.dataset_id, right)
    except NotFound:
        dataset = None
    if found is None or dataset is None:
        raise NotFound(f"No annotation with id {annotation_id:024x}.")
    _check_writable(dataset, right)
    return found, dataset


def _check_writable(dataset: Dataset, right: Right) -> None:
    if right != "read" and dataset.readonly:
        raise BadRequest(f"Dataset {dataset.name!r} is read-only.")


@router.post(
    "/items/{item_id}/annotations",
    openapi_extra=_takes_json("annotate"),
    response_model=list[wire.AnnotationJson] | wire.AnnotationJson,
)
async def create_annotations(
    item_id: ItemId, request: Request, caller: Caller, server: ServerDep, base: Base
) -> Response:
    """Add annotations to an item: a list of them, or one. All are added, or none.

    Ids, creators and dates in what is sent are ignored, so that exported files go in as they are. A `parentId` that
    names another one of the list leads to it here, too.
    """
    body = wire.parse(await request.body())
    posted = wire.posted(body)
    async with server.place.pool.connection() as conn:
        dataset = await _dataset_of(conn, caller, item_id, "annotate")
        if wire.have_parents(posted):
            new_ids = await annotations.reserve_ids(conn, len(posted))
            contents = wire.with_parents(posted, new_ids)
        else:
            new_ids, contents = None, [one.content for one in posted]
        made = await annotations.add_annotations(
            conn, dataset.id, item_id, contents, reserved_ids=new_ids, creator=caller
        )
    shaped = [wire.annotation(one, base) for one in made]
    return _answer(shaped if isinstance(body, list) else shaped[0])


@router.get("/items/{item_id}/annotations", openapi_extra=needs("read"), response_model=wire.AnnotationPageJson)
async def list_annotations(
    item_id: ItemId,
    caller: Caller,
    conn: Connection,
    base: Base,
    page: Annotated[int, Query(ge=0, le=1_000_000_000)] = 0,
    page_size: Annotated[int, Query(ge=0, le=_LARGEST_PAGE, alias="pageSize")] = _LARGEST_PAGE,
) -> Response:
    """The annotations of one item, in the order they came. Other lists are queries of the dataset."""
    dataset = await _dataset_of(conn, caller, item_id, "read")
    tree = Condition("itemId", "eq", ids.to_wire(item_id))
    found = await annotations.find_page(conn, dataset.id, tree, Page((("id", False),), page, page_size))
    shaped = [wire.annotation(one, base) for one in found.rows]
    return _answer(wire.page(shaped, total=found.total, page_size=page_size, has_next=found.has_next))


@router.get("/annotations/{annotation_id}", openapi_extra=needs("read"), response_model=wire.AnnotationJson)
async def read_annotation(annotation_id: AnnotationId, caller: Caller, conn: Connection, base: Base) -> Response:
    found, _ = await _get_annotation(conn, caller, annotation_id)
    return _answer(wire.annotation(found, base))


@router.put("/annotations/{annotation_id}", openapi_extra=_takes_json("annotate"), response_model=wire.AnnotationJson)
async def update_annotation(
    annotation_id: AnnotationId,
    request: Request,
    caller: Caller,
    server: ServerDep,
    base: Base,
    system: bool = False,
) -> Response:
    """Change an annotation by a difference, as the SDK sends it: nested, null removes a key, lists are replaced.

    System metadata (frames, status, attributes, parentId) only with `?system=true`.
    """
    patch = wire.parse(await request.body())
    async with server.place.pool.connection() as conn:
        await _get_annotation(conn, caller, annotation_id, "annotate")
        found = await annotations.lock_annotation(conn, annotation_id)
        content = wire.patched(found, patch, with_system=system)
        await annotations.update_annotation(conn, found, content, updated_by=caller)
        changed, _ = await _get_annotation(conn, caller, annotation_id)
    return _answer(wire.annotation(changed, base))


@router.delete("/annotations/{annotation_id}", openapi_extra=needs("annotate"))
async def delete_annotation(annotation_id: AnnotationId, caller: Caller, conn: Connection) -> dict[str, bool]:
    """It is gone for good; its item stays as it is."""
    found, dataset = await _get_annotation(conn, caller, annotation_id, "annotate")
    if await annotations.delete_annotations(conn, dataset.id, [annotation_id]):
        named = {"id": ids.to_wire(found.id), "item": ids.to_wire(found.item_id), "dataset": dataset.name}
        await projects.record(conn, caller, dataset.project_id, "annotation.deleted", found.label, **named)
    return {"success": True}
