"""Imports: objects of a dataset's bucket that become items one by one, as the SDK's `external://` asks for it."""

from typing import Annotated

from fastapi import APIRouter, Body, Response

from headwater.api.caller import Base, Caller, DatasetId, ServerDep, needs
from headwater.catalog import datasets
from headwater.errors import HeadwaterError
from headwater.wire import imports as wire
from headwater.wire import items as wire_items
from headwater.work.imports import Imported, import_objects

router = APIRouter(prefix="/datasets", tags=["items"])


@router.post("/{dataset_id}/imports", openapi_extra=needs("write_items"))
async def import_items(
    dataset_id: DatasetId,
    body: Annotated[list[wire.ImportBody], Body(min_length=1, max_length=wire.MOST_IMPORTS)],
    caller: Caller,
    server: ServerDep,
    response: Response,
    base: Base,
) -> list[wire_items.ItemJson | wire.FailedImportJson]:
    """Items of objects that lie in the bucket already; nothing is copied. An item's path is its object's key.

    The header x-item-op says what was done: `created`, `skip` (it was there), `overwrite` (its object had changed), or
    `mixed`. One object that cannot be imported is answered with its error; of several, each that cannot has its error
    in its place in the answer. What was deleted here before is brought back.
    """
    async with server.place.pool.connection() as conn:
        dataset = await datasets.get_dataset(conn, caller, dataset_id, "write_items")
    done = await import_objects(server.place, dataset, caller, [one.storageId for one in body])
    if len(done) == 1 and isinstance(done[0], HeadwaterError):
        raise done[0]
    outcomes = {one.outcome for one in done if isinstance(one, Imported)}
    response.headers["x-item-op"] = outcomes.pop() if len(outcomes) == 1 else "mixed"
    return [
        wire_items.item(one.item, base) if isinstance(one, Imported) else wire.failed(asked.storageId, one)
        for asked, one in zip(body, done, strict=True)
    ]
