"""Uploads of many files at once: planned, sent to the bucket by their owners, committed."""

from fastapi import APIRouter
from typing_extensions import TypedDict

from headwater.api.caller import Caller, DatasetId, ServerDep, needs
from headwater.catalog import datasets
from headwater.catalog.accounts import Account
from headwater.catalog.datasets import Dataset
from headwater.errors import BadRequest, NotFound
from headwater.ids import from_wire, to_wire
from headwater.storage.stores import SignedRequest
from headwater.wire import items as wire_items
from headwater.wire import times
from headwater.wire import uploads as wire
from headwater.work.upload import committing, planned
from headwater.work.upload.committing import Committed, Given
from headwater.work.upload.planned import Answer, Wanted

router = APIRouter(prefix="/datasets", tags=["items"])


@router.post("/{dataset_id}/uploads/plan", openapi_extra=needs("write_items"))
async def plan_uploads(dataset_id: DatasetId, body: wire.PlanBody, caller: Caller, server: ServerDep) -> wire.PlanJson:
    """For each of up to 1,000 files what to do: nothing, or which way its bytes go."""
    dataset = await _get_dataset(server, caller, dataset_id)
    wanted = [Wanted(file.path, file.size) for file in body.files]
    answers, expires_at = await planned.plan_uploads(
        server.place, dataset, caller, body.mode, wanted, direct=body.direct
    )
    return wire.PlanJson(
        files=[_planned(answer) for answer in answers],
        expiresAt=times.to_wire(expires_at),
        batchFileBytes=planned.LARGEST_BATCH_FILE_BYTES,
    )


@router.post("/{dataset_id}/uploads/parts", openapi_extra=needs("write_items"))
async def sign_parts(dataset_id: DatasetId, body: wire.PartsBody, caller: Caller, server: ServerDep) -> wire.PartsJson:
    """A request for each of these parts of a large file; ask again when they expire, and after interruptions."""
    dataset = await _get_dataset(server, caller, dataset_id)
    upload_id = from_wire(body.upload, "upload")
    signed = await planned.sign_parts(server.place, dataset, caller, upload_id, body.numbers)
    return wire.PartsJson(
        requests=[
            wire.PartRequestJson(number=part.number, size=part.size_bytes, **_request(part.request)) for part in signed
        ]
    )


@router.post("/{dataset_id}/uploads/commit", openapi_extra=needs("write_items"))
async def commit_uploads(
    dataset_id: DatasetId, body: wire.CommitBody, caller: Caller, server: ServerDep
) -> wire.CommitJson:
    """Make items of up to 1,000 files that were sent; may be repeated. Each is told what became of it."""
    dataset = await _get_dataset(server, caller, dataset_id)
    given = [_given(file, number) for number, file in enumerate(body.files)]
    answers = await committing.commit_uploads(server.place, dataset, caller, given)
    return wire.CommitJson(files=[committed(answer) for answer in answers])


class ForgottenJson(TypedDict):
    forgotten: bool


@router.post("/{dataset_id}/uploads/forget", openapi_extra=needs("write_items"))
async def forget_uploads(
    dataset_id: DatasetId, body: wire.ForgetBody, caller: Caller, server: ServerDep
) -> ForgottenJson:
    """Give up planned uploads: their parts go, and their places in the quota are free again. May be repeated."""
    dataset = await _get_dataset(server, caller, dataset_id)
    ids = [from_wire(text, "upload") for text in body.uploads]
    await planned.forget_uploads(server.place, dataset, caller, ids)
    return ForgottenJson(forgotten=True)


async def _get_dataset(server: ServerDep, caller: Account, dataset_id: int) -> Dataset:
    async with server.place.pool.connection() as conn:
        return await datasets.get_dataset(conn, caller, dataset_id, "write_items")


def _planned(answer: Answer) -> wire.PlannedJson:
    told = wire.PlannedJson(path=answer.path, action=answer.action)
    if answer.item_id is not None:
        told["item"] = to_wire(answer.item_id)
    if answer.upload_id is not None:
        told["upload"] = to_wire(answer.upload_id)
    if answer.request is not None:
        told["request"] = _request(answer.request)
    if answer.part_bytes is not None:
        told["partBytes"] = answer.part_bytes
    if answer.error is not None:
        told["error"] = answer.error
    return told


def _request(signed: SignedRequest) -> wire.RequestJson:
    return wire.RequestJson(method=signed.method, url=signed.url, headers=signed.headers)


def _given(file: wire.CommittedFile, number: int) -> Given:
    try:
        upload_id = from_wire(file.upload, "upload")
        patch = wire_items.metadata_patch(file.metadata or {})
    except (BadRequest, NotFound) as error:
        raise BadRequest(f"files[{number}]: {error}") from None
    return Given(
        upload_id,
        etag=file.etag,
        parts=None if file.parts is None else [(part.number, part.etag) for part in file.parts],
        description=file.description,
        user_metadata=None if patch.user is None else wire_items.merged({}, patch.user),
        system_metadata=wire_items.merged({}, patch.system) or None,
    )


def committed(answer: Committed) -> wire.CommittedJson:
    return wire.CommittedJson(
        path=answer.path,
        outcome=answer.outcome,
        item=None if answer.item_id is None else to_wire(answer.item_id),
        size=answer.size_bytes,
        error=answer.error,
    )
