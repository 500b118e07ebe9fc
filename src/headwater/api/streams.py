"""The bytes of items and of their thumbnails."""

import logging
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import APIRouter, Path, Request
from fastapi.responses import Response, StreamingResponse
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException
from starlette.routing import Match
from starlette.types import Receive, Scope, Send

from headwater import ids
from headwater.api import presenting
from headwater.api.caller import Server, needs
from headwater.api.failures import RESPONSES
from headwater.api.ranges import asked_range, has_already, range_within, still_holds
from headwater.catalog import accounts, items
from headwater.catalog.serving import Asked, Kept
from headwater.errors import Conflict, HeadwaterError, NotFound, StoreMissing, Unauthorized
from headwater.storage.stores import ObjectInfo, Store
from headwater.tokens import KnownBearers
from headwater.work.links import open_link
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
            return super().matches({**scope, "method": "GET"})
        return super().matches(scope)

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["method"] not in ("GET", "HEAD"):
            raise HTTPException(405, headers={"Allow": "GET, HEAD"})
        request = Request(scope, receive, send)
        response: Response = await self.endpoint(request, **request.path_params)
        await response(scope, receive, send)


# With all of its address, for the application takes these routes as its own: it looks through included routers twice.
router = APIRouter(prefix="/api/v1/items", tags=["items"], route_class=_Direct, responses=RESPONSES)


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
    size_bytes: int | None  # as the index has it; None for derived files, of which there are no ranges


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
    name = item.path.rpartition("/")[2]
    if item.is_link:
        return await _linked(request, gate, item, name)
    asked = _Asked(item.key, name, item.mime_type, item.size_bytes)
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
    asked = _Asked(key, key.rpartition("/")[2], item.thumbnail_type, None)
    try:
        return await _served(request, gate.server, gate.server.place.places.of_kept_thumbnail(item), asked)
    except StoreMissing:
        raise NotFound(f"The thumbnail of {item.path} is no longer in its bucket.") from None


def _presented(request: Request, mime_type: str | None) -> tuple[str, bool]:
    """The type to tell, and whether a browser may show it."""
    safe = presenting.safe_type(mime_type)
    return safe, presenting.is_shown(safe) and request.query_params.get("download", "").lower() not in ("true", "1")


def _headers(name: str, mime_type: str, *, shown: bool) -> dict[str, str]:
    return presenting.HEADERS | {
        "Content-Type": mime_type,
        "Content-Disposition": presenting.disposition(name, shown=shown),
        "Cache-Control": "private, no-cache",
    }


async def _served(
    request: Request, server: Server, opened: AbstractAsyncContextManager[Store], asked: _Asked
) -> Response:
    mime_type, shown = _presented(request, asked.mime_type)
    headers = _headers(asked.name, mime_type, shown=shown)
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
    if_none_match, if_range = request.headers.get("if-none-match"), request.headers.get("if-range")
    wanted = None if asked.size_bytes is None else asked_range(request.headers.get("range"))
    if if_none_match is not None or (wanted is not None and if_range is not None):
        info = await store.head(asked.key)
        if has_already(if_none_match, info.etag):
            return _not_modified(headers | _tag(info))
        wanted = wanted if still_holds(if_range, info.etag) else None
    span = range_within(wanted, asked.size_bytes or 0)
    start, end = (0, None) if span is None else span
    reader = await stack.enter_async_context(store.get(asked.key, start=start, end=end))
    size_bytes = reader.info.size_bytes
    last = size_bytes if end is None else min(end, size_bytes)
    headers |= _tag(reader.info) | {"Accept-Ranges": "bytes", "Content-Length": str(last - start)}
    if span is not None:
        headers["Content-Range"] = f"bytes {start}-{last - 1}/{size_bytes}"
    return await _flowing(stack, aiter(reader), last - start, headers)


async def _linked(request: Request, gate: Gate, kept: Kept, name: str) -> Response:
    """What a linked item leads to, with the caller's rights; through us: its place is not the caller's to know."""
    place = gate.server.place
    async with place.pool.connection() as conn:
        item = await items.get_item(conn, kept.id)
        reader = await accounts.get_account(conn, kept.asked_by_id)
    wanted = asked_range(request.headers.get("range")) if request.method == "GET" else None
    start, end = (0, None) if wanted is None else wanted
    async with AsyncExitStack() as stack:
        opened = await stack.enter_async_context(open_link(place, reader, item, start, end))
        mime_type, shown = _presented(request, opened.mime_type)
        headers = _headers(name, mime_type, shown=shown)
        length = None
        if opened.end is not None:
            length = opened.end - opened.start
            headers |= {"Content-Length": str(length), "Accept-Ranges": "bytes"}
            if wanted is not None and length:
                total = "*" if opened.size_bytes is None else opened.size_bytes
                headers["Content-Range"] = f"bytes {opened.start}-{opened.end - 1}/{total}"
        if request.method == "HEAD":
            answer = Response(headers=headers)
            if length is None:
                del answer.headers["Content-Length"]
            return answer
        return await _flowing(stack, aiter(opened), length, headers)
    raise AssertionError("unreachable: nothing in the stack swallows errors")


async def _flowing(
    stack: AsyncExitStack, chunks: AsyncIterator[bytes], length: int | None, headers: dict[str, str]
) -> Response:
    """The bytes as they come, so many if that is known; what the stack holds is let go when they are sent."""
    status = 206 if "Content-Range" in headers else 200
    first = await anext(chunks, b"")
    if len(first) == length:
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
