"""The bytes of items and of their thumbnails."""

import logging
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import APIRouter, Path, Request
from fastapi.responses import Response, StreamingResponse
from fastapi.routing import APIRoute
from starlette.routing import Match
from starlette.types import Receive, Scope, Send

from headwater import ids
from headwater.api import presenting
from headwater.api.caller import Server, needs
from headwater.api.ranges import has_already, parse_range, still_holds
from headwater.catalog.serving import Asked, Kept
from headwater.errors import Conflict, HeadwaterError, NotFound, StoreMissing, Unauthorized
from headwater.storage.stores import ObjectInfo, Store
from headwater.tokens import KnownBearers
from headwater.work.preprocess import thumbnail_key
from headwater.work.serving import Lookups

_SIGNED_FOR_S = 900
_log = logging.getLogger(__name__)


class Gate:
    """What the streams of one process share: who asks, and whether they may."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self._bearers = KnownBearers(server.signer)
        self._lookups = Lookups(server.place.pool)

    async def find(self, request: Request, item_id: str) -> Kept:
        """Raises Unauthorized, Forbidden, NotFound."""
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not token:
            raise Unauthorized("This needs a token: send the header authorization: Bearer TOKEN.")
        bearer = self._bearers.read(token.strip())
        number = ids.from_wire(item_id, "item")
        return await self._lookups.find(Asked(number, bearer.account_id, bearer.key_id, bearer.issued_at))


class _Direct(APIRoute):
    """A route that is declared as any other and reads its request by itself: what FastAPI makes of the parameters takes
    several times as long as the answer. It answers HEAD as it answers GET, without the body.
    """

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        if scope["type"] == "http" and scope["method"] == "HEAD":
            match, found = super().matches({**scope, "method": "GET"})
            return match, found
        return super().matches(scope)

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive, send)
        response: Response = await self.endpoint(request, **request.path_params)
        await response(scope, receive, send)


router = APIRouter(prefix="/items", tags=["items"], route_class=_Direct)


def _described(*headers: str, **queries: str) -> dict[str, Any]:
    """What the routes declare of what they read by themselves."""
    parameters: list[dict[str, Any]] = [
        *({"name": name, "in": "query", "schema": {"type": "boolean"}, "description": told}
          for name, told in queries.items()),
        *({"name": name, "in": "header", "schema": {"type": "string"}} for name in headers),
    ]  # fmt: skip
    return needs("read") | {"parameters": parameters, "security": [{"HTTPBearer": []}]}


_ItemId = Annotated[str, Path(description="24 hexadecimal digits.")]
_DOWNLOAD = "Have a browser save what it would show."


@dataclass(frozen=True, slots=True)
class _Asked:
    """The bytes of one object, as they are to be handed out."""

    key: str
    name: str  # of the file that a browser saves
    mime_type: str | None
    size_bytes: int | None  # as the index has it; None for derived files
    range: str | None


@router.get(
    "/{item_id}/stream",
    openapi_extra=_described("range", "if-range", "if-none-match", download=_DOWNLOAD),
    response_class=Response,
    responses={302: {"description": "To a signed URL of its bucket."}, 206: {"description": "The range asked for."}},
)
async def stream_item(request: Request, item_id: _ItemId) -> Response:
    """The bytes of an item: a redirect to a signed URL of its bucket, or the bytes themselves.

    Ranges are honoured, one at a time. HEAD is answered, too, and never with a redirect.
    """
    gate: Gate = request.app.state.gate
    item = await gate.find(request, item_id)
    if item.missing_since is not None:
        raise Conflict(
            f"{item.path} is missing from its bucket since {item.missing_since:%Y-%m-%d %H:%M} UTC. "
            "Put the object back and sync."
        )
    asked = _Asked(
        item.key, item.path.rpartition("/")[2], item.mime_type, item.size_bytes, request.headers.get("range")
    )
    return await _served(request, gate.server, gate.server.place.places.of_kept(item), asked)


@router.get(
    "/{item_id}/thumbnail",
    openapi_extra=_described("if-none-match", download=_DOWNLOAD),
    response_class=Response,
    responses={302: {"description": "To a signed URL of its bucket."}},
)
async def read_thumbnail(request: Request, item_id: _ItemId) -> Response:
    """The thumbnail: JPEG, or WebP where there is transparency; or a redirect to a signed URL.

    404 while there is none: metadata.system.etl of the item says why.
    """
    gate: Gate = request.app.state.gate
    item = await gate.find(request, item_id)
    if item.thumbnail_type is None:
        raise NotFound(f"{item.path} has no thumbnail. metadata.system.etl of the item says why.")
    key = thumbnail_key(item.thumbnail_id or item.id, item.thumbnail_type)
    asked = _Asked(key, key.rpartition("/")[2], item.thumbnail_type, None, None)
    try:
        return await _served(request, gate.server, gate.server.place.places.of_kept_thumbnail(item), asked)
    except StoreMissing:
        raise NotFound(f"The thumbnail of {item.path} is no longer in its bucket.") from None


async def _served(
    request: Request, server: Server, opened: AbstractAsyncContextManager[Store], asked: _Asked
) -> Response:
    mime_type = presenting.safe_type(asked.mime_type)
    shown = presenting.is_shown(mime_type) and request.query_params.get("download") != "true"
    headers = presenting.HEADERS | {
        "Content-Type": mime_type,
        "Content-Disposition": presenting.disposition(asked.name, shown=shown),
        "Cache-Control": "private, no-cache",
    }
    async with AsyncExitStack() as stack:
        store = await stack.enter_async_context(opened)
        # The SDK asks for bytes from 0 on, and a bucket has none of an empty object to give.
        if request.method != "HEAD" and server.settings.redirect_downloads and asked.size_bytes != 0:
            signed = await store.sign_get(
                asked.key, expires_s=_SIGNED_FOR_S, file_name=None if shown else asked.name, content_type=mime_type
            )
            if signed is not None:
                return Response(status_code=302, headers={"Location": signed, "Cache-Control": "no-store"})
        if request.method == "HEAD":
            return _head(request, await store.head(asked.key), headers)
        return await _bytes(request, stack, store, asked, headers)
    raise AssertionError("unreachable: nothing in the stack swallows errors")


def _head(request: Request, info: ObjectInfo, headers: dict[str, str]) -> Response:
    headers |= _tag(info)
    if has_already(request.headers.get("if-none-match"), info.etag):
        return _not_modified(headers)
    return Response(headers=headers | {"Accept-Ranges": "bytes", "Content-Length": str(info.size_bytes)})


def _tag(info: ObjectInfo) -> dict[str, str]:
    return {"ETag": f'"{info.etag}"'} if info.etag.isascii() and info.etag.isprintable() and info.etag else {}


def _not_modified(headers: dict[str, str]) -> Response:
    kept = {name: headers[name] for name in ("ETag", "Cache-Control", "Vary") if name in headers}
    return Response(status_code=304, headers=kept)


async def _bytes(
    request: Request, stack: AsyncExitStack, store: Store, asked: _Asked, headers: dict[str, str]
) -> Response:
    """What the stack holds is let go when the bytes are sent."""
    if_none_match, if_range = request.headers.get("if-none-match"), request.headers.get("if-range")
    wants_range = asked.range is not None
    if if_none_match is not None or (wants_range and if_range is not None):
        info = await store.head(asked.key)
        if has_already(if_none_match, info.etag):
            return _not_modified(headers | _tag(info))
        wants_range = wants_range and still_holds(if_range, info.etag)
    span = parse_range(asked.range, asked.size_bytes) if wants_range and asked.size_bytes is not None else None
    start, end = (0, None) if span is None else span
    reader = await stack.enter_async_context(store.get(asked.key, start=start, end=end))
    size_bytes = reader.info.size_bytes
    last = size_bytes if end is None else min(end, size_bytes)
    headers |= _tag(reader.info) | {"Accept-Ranges": "bytes", "Content-Length": str(last - start)}
    if span is not None:
        headers["Content-Range"] = f"bytes {start}-{last - 1}/{size_bytes}"
    status = 200 if span is None else 206
    chunks = aiter(reader)
    first = await anext(chunks, b"")
    if len(first) == last - start:
        return Response(first, status_code=status, headers=headers)
    return _Flow(stack.pop_all(), first, chunks, status_code=status, headers=headers)


class _Flow(StreamingResponse):
    """Bytes as they come from a store; it ends when the caller leaves."""

    def __init__(self, stack: AsyncExitStack, first: bytes, rest: AsyncIterator[bytes], **given: Any) -> None:
        super().__init__(_joined(first, rest), **given)
        self._stack = stack

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async with self._stack:
            await super().__call__(scope, receive, send)

    async def stream_response(self, send: Send) -> None:
        try:
            await super().stream_response(send)
        except HeadwaterError as error:
            # Without its end the server breaks the connection: nobody takes what came for the whole.
            _log.warning("a stream broke off: %s", error)


async def _joined(first: bytes, rest: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    yield first
    async for chunk in rest:
        yield chunk
