"""A real HTTP server that plays a cloud: it gives one scripted answer after another."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, Self

from aiohttp import web

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Scripted:
    """Gives one scripted answer after another, the last one for ever, and keeps the requests with their bodies."""

    def __init__(self) -> None:
        self.script: list[Handler | web.Response | str] = []
        self.requests: list[web.Request] = []
        self.bodies: list[bytes] = []
        self.port = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @classmethod
    @asynccontextmanager
    async def running(cls, *arguments: Any) -> AsyncIterator[Self]:
        scripted = cls(*arguments)
        app = web.Application(client_max_size=64 * 1024**2)
        app.router.add_route("*", "/{rest:.*}", scripted.answer)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.01)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        scripted.port = runner.addresses[0][1]
        try:
            yield scripted
        finally:
            await runner.cleanup()

    async def answer(self, request: web.Request) -> web.StreamResponse:
        self.requests.append(request)
        self.bodies.append(await request.read())
        step = self.script.pop(0) if len(self.script) > 1 else self.script[0]
        if isinstance(step, str):
            return web.Response(text=step, content_type="application/xml")
        if isinstance(step, web.Response):
            return web.Response(status=step.status, body=step.body, headers=step.headers)
        return await step(request)

    def queries(self, name: str) -> list[str | None]:
        return [request.query.get(name) for request in self.requests]


async def broken_off(request: web.Request) -> web.StreamResponse:
    """Breaks the connection within an answer."""
    response = web.StreamResponse(headers={"Content-Length": "1000"})
    await response.prepare(request)
    await response.write(b"<Begins>")
    assert request.transport is not None
    request.transport.abort()
    return response
