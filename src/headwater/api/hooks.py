"""Hooks: where buckets send what happens in them. The address itself is the key: whoever knows it may send.

A hook only keeps what it is told, and answers when that is committed: a sender that hears nothing sends again.
"""

import asyncio
import hmac
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Annotated

from fastapi import APIRouter, Header, Request, Response
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from headwater import ids
from headwater.api.caller import Base, Origin, Server, ServerDep, needs
from headwater.catalog.sync import hints, upstream
from headwater.catalog.sync.upstream import Door
from headwater.errors import NotFound, TooManyRequests
from headwater.tokens import Signer
from headwater.wire import bucket_events
from headwater.wire.bucket_events import Parsed
from headwater.work.pushes import PushTokens
from headwater.work.subscriptions import confirm_subscription

router = APIRouter(prefix="/hooks", tags=["bucket events"])

MOST_BYTES = 4 * 1024 * 1024
_AT_ONCE = 6  # deliveries in a process; people need connections, too
_WAIT_S = 5.0
_BODY_S = 30.0  # who sends slowly keeps the others waiting


class Doors:
    """What the hooks of one process share."""

    def __init__(self, server: Server) -> None:
        settings = server.settings
        self.push_tokens = PushTokens(server.place.places.session, settings.google_certs_endpoint)
        self._slots = asyncio.Semaphore(_AT_ONCE)

    @asynccontextmanager
    async def turn(self) -> AsyncGenerator[None]:
        """Raises TooManyRequests where others are too many."""
        try:
            async with asyncio.timeout(_WAIT_S):
                await self._slots.acquire()
        except TimeoutError:
            raise TooManyRequests("Many events come at once. Send these again in a moment.", retry_after_s=2) from None
        try:
            yield
        finally:
            self._slots.release()


def hook_url(signer: Signer, base: str, driver_id: int, generation: int) -> str:
    """A secret."""
    return f"{base}/hooks/{ids.to_wire(driver_id)}/{signer.hook_secret(driver_id, generation)}"


async def _opened(server: Server, driver: str, secret: str) -> tuple[int, Door]:
    """Raises NotFound, in the same words for an address that never was, that is no more, or that is switched off."""
    missing = NotFound("There is no such hook, or its events are off. headwater events status DRIVER tells.")
    try:
        driver_id = ids.from_wire(driver, "driver")
    except NotFound:
        raise missing from None
    async with server.place.pool.connection() as conn:
        door = await upstream.find_door(conn, driver_id)
    right = server.signer.hook_secret(driver_id, 0 if door is None else door.generation)
    if not hmac.compare_digest(right.encode(), secret.encode("utf-8", "replace")) or door is None:
        raise missing
    return driver_id, door


@router.get("/{driver}/{secret}", openapi_extra=needs("anybody"))
async def look_at_hook(driver: str, secret: str, server: ServerDep) -> dict[str, str]:
    """For whoever wants to see whether the address is right."""
    await _opened(server, driver, secret)
    return {"message": "Send a bucket's events here, with POST."}


@router.options("/{driver}/{secret}", openapi_extra=needs("anybody"))
async def shake_hands(
    driver: str,
    secret: str,
    server: ServerDep,
    origin: Annotated[str | None, Header(alias="WebHook-Request-Origin")] = None,
) -> Response:
    """Senders of CloudEvents ask whether they may: see the CloudEvents specification of web hooks."""
    await _opened(server, driver, secret)
    allowed = {} if origin is None else {"WebHook-Allowed-Origin": origin, "WebHook-Allowed-Rate": "*"}
    return Response(headers={"Allow": "POST"} | allowed)


@router.post("/{driver}/{secret}", openapi_extra=needs("anybody"))
async def take_events(
    driver: str,
    secret: str,
    request: Request,
    server: ServerDep,
    base: Base,
    origin: Origin,
    authorization: Annotated[str | None, Header()] = None,
) -> JSONResponse:
    """Any number of events in any envelope that Headwater knows; docs/guide/bucket-events.md tells which."""
    doors: Doors = request.app.state.doors
    async with doors.turn():
        driver_id, door = await _opened(server, driver, secret)
        parsed = bucket_events.parse(await _body(request))
        if parsed.is_pubsub:
            audiences = [origin, base, hook_url(server.signer, base, driver_id, door.generation)]
            await doors.push_tokens.check(_token(authorization), audiences=audiences, account=door.push_account)
        if parsed.confirm_url is not None:
            await confirm_subscription(
                server.place.places.session, parsed.confirm_url, endpoint=server.settings.aws_sns_endpoint
            )
        kept = await _kept(server, driver_id, parsed)
        return JSONResponse(parsed.answer or kept)


async def _body(request: Request) -> bytes:
    body = bytearray()
    try:
        async with asyncio.timeout(_BODY_S):
            async for chunk in request.stream():
                body += chunk
                if len(body) > MOST_BYTES:
                    raise HTTPException(413, f"The events are longer than {MOST_BYTES} bytes. Send fewer at once.")
    except TimeoutError:
        raise HTTPException(408, f"The events did not come within {_BODY_S:.0f} s. Send them again.") from None
    return bytes(body)


def _token(authorization: str | None) -> str | None:
    kind, _, token = (authorization or "").partition(" ")
    return token.strip() if kind.lower() == "bearer" else None


async def _kept(server: Server, driver_id: int, parsed: Parsed) -> dict[str, int]:
    """Committed when this returns."""
    if not (parsed.hints or parsed.ignored or parsed.needs_scan):
        return {"kept": 0, "ignored": 0}
    async with server.place.pool.connection() as conn:
        taken = await hints.take_in(conn, driver_id, parsed.hints, ignored=parsed.ignored, needs_scan=parsed.needs_scan)
    return {"kept": taken.kept, "ignored": taken.ignored}
