"""Resumable uploads by the tus protocol, version 1.0.0: https://tus.io/protocols/resumable-upload"""

import hashlib
from collections.abc import AsyncIterator
from email.utils import format_datetime
from typing import Annotated, Any

from fastapi import APIRouter, Header, Request, Response
from fastapi.responses import JSONResponse
from starlette.datastructures import MutableHeaders
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from headwater.api.caller import Base, Caller, DatasetId, ServerDep, needs, wire_id
from headwater.catalog import datasets
from headwater.catalog.datasets import Dataset
from headwater.catalog.uploads import ResumableUpload
from headwater.errors import BadRequest, HeadwaterError
from headwater.ids import to_wire
from headwater.storage.stores import LARGEST_OBJECT_BYTES
from headwater.wire import items as wire_items
from headwater.wire import tus as wire
from headwater.work.tus import Arriving, Asked, Checksum, Crc32, Interrupted, Receptions, TooLarge
from headwater.work.upload import Announced

router = APIRouter(prefix="/datasets", tags=["tus"])

BODY_TYPE = "application/offset+octet-stream"
_HASHES = {"sha1": hashlib.sha1, "sha256": hashlib.sha256, "md5": hashlib.md5, "crc32": Crc32}
_EXPOSED = (
    "Location, Tus-Resumable, Tus-Version, Tus-Extension, Tus-Max-Size, Tus-Checksum-Algorithm, Upload-Offset, "
    "Upload-Length, Upload-Metadata, Upload-Expires, X-Item-Id, x-item-op"
)
_BODY = {"requestBody": {"content": {BODY_TYPE: {"schema": {"type": "string", "format": "binary"}}}}}

UploadId = Annotated[int, wire_id("upload")]
OffsetHeader = Annotated[str | None, Header(alias="upload-offset", description="Where the bytes begin.")]
ChecksumHeader = Annotated[str | None, Header(alias="upload-checksum", description="Algorithm and base64 digest.")]


class WrongVersion(HeadwaterError):
    status = 412


class WrongType(HeadwaterError):
    status = 415


class Protocol:
    """Every answer about resumable uploads says the version, also one that refuses; pages may read what it says."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not is_tus(scope["path"]):
            await self._app(scope, receive, send)
            return

        async def say(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers["Tus-Resumable"] = wire.VERSION
                headers["Access-Control-Expose-Headers"] = _EXPOSED
                if message["status"] == WrongVersion.status:
                    headers["Tus-Version"] = wire.VERSION
            await send(message)

        await self._app(scope, receive, say)


def is_tus(path: str) -> bool:
    parts = path.split("/")
    return parts[1:4] == ["api", "v1", "datasets"] and parts[5:6] == ["tus"]


def _receptions(request: Request) -> Receptions:
    return request.app.state.receptions


def _check_version(request: Request) -> None:
    """Raises WrongVersion."""
    if request.headers.get("tus-resumable") != wire.VERSION:
        raise WrongVersion(f"This server speaks tus {wire.VERSION}: send the header Tus-Resumable: {wire.VERSION}.")


async def _dataset(server: ServerDep, caller: Any, dataset_id: int) -> Dataset:
    async with server.place.pool.connection() as conn:
        return await datasets.get_dataset(conn, caller, dataset_id, "write_items")


@router.options("/{dataset_id}/tus", openapi_extra=needs("anybody"), status_code=204)
async def tell_abilities(dataset_id: str) -> Response:
    """What this server can do of the tus protocol."""
    del dataset_id
    return Response(
        status_code=204,
        headers={
            "Tus-Version": wire.VERSION,
            "Tus-Extension": ",".join(wire.EXTENSIONS),
            "Tus-Max-Size": str(LARGEST_OBJECT_BYTES),
            "Tus-Checksum-Algorithm": ",".join(wire.ALGORITHMS),
        },
    )


@router.post("/{dataset_id}/tus", openapi_extra=needs("write_items") | _BODY, status_code=201)
async def create_upload(
    dataset_id: DatasetId,
    request: Request,
    caller: Caller,
    server: ServerDep,
    base: Base,
    upload_length: Annotated[str | None, Header(description="The size of the file in bytes.")] = None,
    upload_metadata: Annotated[str, Header(description="Pairs of key and base64, see docs/reference/tus.md.")] = "",
    upload_checksum: ChecksumHeader = None,
) -> Response:
    """Announce a file. The first bytes may come along, as with PATCH."""
    _check_version(request)
    dataset = await _dataset(server, caller, dataset_id)
    asked = _asked(wire.parse_number("Upload-Length", upload_length), upload_metadata)
    if _has_body(request):
        _check_type(request)
    receptions = _receptions(request)
    upload = await receptions.create(dataset, caller, asked)
    if _has_body(request) and upload.ended_at is None:
        arriving = _arriving(request, 0, upload_checksum)
        upload = await receptions.receive(dataset, caller, upload.id, arriving)
    headers = _headers(upload) | {"Location": f"{base}/datasets/{to_wire(dataset.id)}/tus/{to_wire(upload.id)}"}
    return Response(status_code=201, headers=headers)


@router.head("/{dataset_id}/tus/{upload_id}", openapi_extra=needs("write_items"))
async def look_at_upload(
    dataset_id: DatasetId, upload_id: UploadId, request: Request, caller: Caller, server: ServerDep
) -> Response:
    """How far it has come; also of a finished one, until it expires."""
    _check_version(request)
    upload = await _receptions(request).look(await _dataset(server, caller, dataset_id), caller, upload_id)
    headers = _headers(upload) | {"Upload-Length": str(upload.size_bytes), "Cache-Control": "no-store"}
    if upload.told:
        headers["Upload-Metadata"] = upload.told
    return Response(status_code=200, headers=headers)


@router.patch("/{dataset_id}/tus/{upload_id}", openapi_extra=needs("write_items") | _BODY, status_code=204)
async def go_on_with_upload(
    dataset_id: DatasetId,
    upload_id: UploadId,
    request: Request,
    caller: Caller,
    server: ServerDep,
    base: Base,
    upload_offset: OffsetHeader = None,
    upload_checksum: ChecksumHeader = None,
) -> Response:
    """Send bytes. The last ones make the item: X-Item-Id names it, and who accepts JSON gets it as the body."""
    _check_version(request)
    _check_type(request)
    arriving = _arriving(request, wire.parse_number("Upload-Offset", upload_offset), upload_checksum)
    receptions = _receptions(request)
    upload = await receptions.receive(await _dataset(server, caller, dataset_id), caller, upload_id, arriving)
    headers = _headers(upload)
    if "application/json" in request.headers.get("accept", "") and (item := await receptions.find_item(upload)):
        return JSONResponse(wire_items.item(item, base), 200, headers)
    return Response(status_code=204, headers=headers)


@router.delete("/{dataset_id}/tus/{upload_id}", openapi_extra=needs("write_items"), status_code=204)
async def drop_upload(
    dataset_id: DatasetId, upload_id: UploadId, request: Request, caller: Caller, server: ServerDep
) -> Response:
    """Forget an upload and what was sent of it; an item that it became stays."""
    _check_version(request)
    await _receptions(request).drop(await _dataset(server, caller, dataset_id), caller, upload_id)
    return Response(status_code=204)


def _asked(size_bytes: int, header: str) -> Asked:
    if size_bytes > LARGEST_OBJECT_BYTES:
        raise TooLarge(f"Upload-Length: a file has at most {LARGEST_OBJECT_BYTES} bytes.")
    told = wire.parse_metadata(header)
    mode = told.get("mode", "skip")
    if mode not in ("skip", "overwrite"):
        raise BadRequest("Upload-Metadata: mode is skip or overwrite.")
    user, system = wire.user_and_system(told)
    announced = Announced(
        path=wire.path_of(told),
        mode="overwrite" if mode == "overwrite" else "skip",
        description=told.get("description"),
        user_metadata=user,
        system_metadata=system,
    )
    return Asked(announced, size_bytes, header, wire.crc32_of(told))


def _has_body(request: Request) -> bool:
    return request.headers.get("content-length", "0") != "0" or "transfer-encoding" in request.headers


def _check_type(request: Request) -> None:
    """Raises WrongType."""
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != BODY_TYPE:
        raise WrongType(f"Send the bytes with Content-Type: {BODY_TYPE}.")


def _arriving(request: Request, offset_bytes: int, checksum: str | None) -> Arriving:
    length = request.headers.get("content-length")
    return Arriving(
        offset_bytes=offset_bytes,
        chunks=_chunks(request),
        length=None if length is None else wire.parse_number("Content-Length", length),
        checksum=None if checksum is None else _checksum(checksum),
    )


async def _chunks(request: Request) -> AsyncIterator[bytes]:
    try:
        async for chunk in request.stream():
            if chunk:
                yield chunk
    except ClientDisconnect:
        raise Interrupted("The connection broke off; what had arrived is kept.") from None


def _checksum(header: str) -> Checksum:
    name, digest = wire.parse_checksum(header)
    return Checksum(name, digest, _HASHES[name]())


def _headers(upload: ResumableUpload) -> dict[str, str]:
    headers = {
        "Upload-Offset": str(upload.offset_bytes),
        "Upload-Expires": format_datetime(upload.expires_at, usegmt=True),
    }
    if upload.item_id is not None and upload.outcome is not None:
        headers |= {"X-Item-Id": to_wire(upload.item_id), "x-item-op": upload.outcome}
    return headers
