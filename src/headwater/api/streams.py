"""The bytes of items and of their thumbnails."""

import re
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from typing import Annotated

from fastapi import APIRouter, Header
from fastapi.responses import RedirectResponse, Response, StreamingResponse

from headwater.api.caller import Caller, ItemId, Server, ServerDep, needs
from headwater.api.items import get_item
from headwater.catalog.items import Item
from headwater.errors import BadRequest, Conflict, NotFound, StoreMissing
from headwater.storage.stores import ObjectReader, Store
from headwater.work.preprocess import thumbnail_key

router = APIRouter(prefix="/items", tags=["items"])

_SIGNED_FOR_S = 900
_RANGE = re.compile(r"bytes=(?:(\d{1,18})-(\d{1,18})?|-(\d{1,18}))")
# Files are users' own: a browser must never run one as a page of ours.
_SAFE_HEADERS = {"X-Content-Type-Options": "nosniff", "Content-Security-Policy": "sandbox; default-src 'none'"}


@router.get("/{item_id}/stream", openapi_extra=needs("read"), response_class=Response)
async def stream_item(
    item_id: ItemId,
    caller: Caller,
    server: ServerDep,
    range_header: Annotated[str | None, Header(alias="range")] = None,
) -> Response:
    """The bytes of an item: a redirect to a signed URL of its bucket, or the bytes themselves. Ranges are honoured."""
    async with server.place.pool.connection() as conn:
        item = await get_item(conn, caller, item_id)
    if item.missing_since is not None:
        raise Conflict(
            f"{item.path} is missing from its bucket since {item.missing_since:%Y-%m-%d %H:%M} UTC. "
            "Put the object back and sync."
        )
    return await _served(server, server.place.places.of_item(item), item, item.key, item.mime_type, range_header)


@router.get("/{item_id}/thumbnail", openapi_extra=needs("read"), response_class=Response)
async def read_thumbnail(item_id: ItemId, caller: Caller, server: ServerDep) -> Response:
    """The thumbnail: JPEG, or WebP where there is transparency.

    404 while there is none: metadata.system.etl of the item says why.
    """
    async with server.place.pool.connection() as conn:
        item = await get_item(conn, caller, item_id)
    if item.thumbnail_type is None:
        raise NotFound(f"{item.path} has no thumbnail. metadata.system.etl of the item says why.")
    places = server.place.places
    try:
        key = thumbnail_key(item.thumbnail_id or item.id, item.thumbnail_type)
        return await _served(server, places.of_thumbnail(item), item, key, item.thumbnail_type, None)
    except StoreMissing:
        raise NotFound(f"The thumbnail of {item.path} is no longer in its bucket.") from None


async def _served(
    server: Server,
    opened: AbstractAsyncContextManager[Store],
    item: Item,
    key: str,
    mime_type: str | None,
    range_header: str | None,
) -> Response:
    async with AsyncExitStack() as stack:
        store = await stack.enter_async_context(opened)
        # The SDK asks for bytes from 0 on, and a bucket has none of an empty object to give.
        if server.settings.redirect_downloads and item.size_bytes:
            signed = await store.sign_get(key, expires_s=_SIGNED_FOR_S)
            if signed is not None:
                return RedirectResponse(signed, status_code=302, headers={"Cache-Control": "no-store"})
        start, end = _range_of(range_header, item.size_bytes)
        reader = await stack.enter_async_context(store.get(key, start=start, end=end))
        return _streamed(stack.pop_all(), reader, mime_type, start, end, is_range=range_header is not None)
    raise AssertionError("unreachable: nothing in the stack swallows errors")


def _streamed(
    stack: AsyncExitStack, reader: ObjectReader, mime_type: str | None, start: int, end: int | None, *, is_range: bool
) -> StreamingResponse:
    """The bytes as they come; what `stack` holds is let go at their end."""
    size_bytes = reader.info.size_bytes
    last = size_bytes if end is None else min(end, size_bytes)
    headers = _SAFE_HEADERS | {"Accept-Ranges": "bytes", "Content-Length": str(last - start)}
    is_part = is_range and size_bytes > 0
    if is_part:
        headers["Content-Range"] = f"bytes {start}-{last - 1}/{size_bytes}"
    return StreamingResponse(
        _chunks(stack, reader),
        status_code=206 if is_part else 200,
        media_type=mime_type or "application/octet-stream",
        headers=headers,
    )


def _range_of(header: str | None, size_bytes: int) -> tuple[int, int | None]:
    """(start, end) of `bytes=3-9`, the end not included. Raises BadRequest for the forms we do not serve.

    The status is 400 and not HTTP's 416, which the SDK does not know.
    """
    if header is None:
        return 0, None
    match = _RANGE.fullmatch(header.strip())
    if match is None:
        raise BadRequest(f"The range {header[:60]!r} is none of bytes=START-, bytes=START-END and bytes=-LENGTH.")
    if match[3]:
        return max(0, size_bytes - int(match[3])), None
    return int(match[1]), int(match[2]) + 1 if match[2] else None


async def _chunks(stack: AsyncExitStack, reader: ObjectReader) -> AsyncIterator[bytes]:
    async with stack:
        async for chunk in reader:
            yield chunk
