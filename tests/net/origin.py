"""A web server that answers byte for byte as a test says, a DNS that follows a script, canaries that must not sing."""

import asyncio
import socket
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, ClassVar

from aiohttp.abc import AbstractResolver, ResolveResult


@dataclass
class Request:
    method: str
    target: str
    headers: dict[str, str]

    @property
    def range(self) -> tuple[int, int | None] | None:
        """(first, last), both included; a negative first is a suffix."""
        text = self.headers.get("range", "").removeprefix("bytes=")
        if not text:
            return None
        first, _, last = text.partition("-")
        return (-int(last), None) if not first else (int(first), int(last) if last else None)


Answer = Callable[[Request, asyncio.StreamWriter], Awaitable[None]]


@dataclass
class Origin:
    """Every request has a connection of its own."""

    port: int = 0
    answers: dict[str, Answer] = field(default_factory=dict)  # by path, without query
    requests: list[Request] = field(default_factory=list)
    bytes_sent: int = 0
    _tasks: set[asyncio.Task] = field(default_factory=set)

    def url(self, path: str, host: str = "images.example.com") -> str:
        return f"http://{host}:{self.port}{path}"

    def serve(self, path: str, body: bytes, mime_type: str = "image/jpeg", *, ranges: bool = True) -> str:
        """A file as ordinary servers serve it. Returns its URL."""

        async def answer(request: Request, writer: asyncio.StreamWriter) -> None:
            status, part, extra = "200 OK", body, ""
            if ranges and request.range is not None:
                first, last = request.range
                first = max(0, len(body) + first) if first < 0 else first
                part = body[first:] if last is None else body[first : last + 1]
                status = "206 Partial Content"
                extra = f"Content-Range: bytes {first}-{first + len(part) - 1}/{len(body)}\r\n"
                if not part:
                    await send(writer, "416 Range Not Satisfiable", b"")
                    return
            await send(writer, status, part, f"Content-Type: {mime_type}\r\n{extra}")
            self.bytes_sent += len(part)

        self.answers[path] = answer
        return self.url(path)

    def redirect(self, path: str, location: str, status: int = 302) -> str:
        async def answer(request: Request, writer: asyncio.StreamWriter) -> None:
            line = f"Location: {location}\r\n"
            await send(writer, f"{status} Found", b"elsewhere", line)

        self.answers[path] = answer
        return self.url(path)

    def say(self, path: str, *pieces: bytes) -> str:
        """Exactly these bytes, then the end."""

        async def answer(request: Request, writer: asyncio.StreamWriter) -> None:
            for piece in pieces:
                writer.write(piece)
                await writer.drain()

        self.answers[path] = answer
        return self.url(path)

    async def take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._tasks.add(asyncio.current_task())
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
            line, *lines = head.strip().split("\r\n")
            method, target, _ = line.split(" ")
            headers = {name.lower(): value.strip() for name, _, value in (text.partition(":") for text in lines)}
            request = Request(method, target, headers)
            self.requests.append(request)
            answer = self.answers.get(target.partition("?")[0])
            await (answer(request, writer) if answer else send(writer, "404 Not Found", b"secret inner answer"))
        except (asyncio.IncompleteReadError, asyncio.LimitOverrunError, ConnectionError, asyncio.CancelledError):
            pass
        finally:
            self._tasks.discard(asyncio.current_task())
            writer.close()

    async def end(self) -> None:
        """Whoever still waits for an answer gets none."""
        for task in [*self._tasks]:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


async def send(writer: asyncio.StreamWriter, status: str, body: bytes, lines: str = "") -> None:
    head = f"HTTP/1.1 {status}\r\n{lines}Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    writer.write(head.encode("utf-8", "surrogatepass") + body)
    await writer.drain()


@asynccontextmanager
async def serving() -> AsyncIterator[Origin]:
    origin = Origin()
    server = await asyncio.start_server(origin.take, "127.0.0.1", 0)
    origin.port = server.sockets[0].getsockname()[1]
    try:
        yield origin
    finally:
        server.close()
        await origin.end()


class ScriptedDns(AbstractResolver):
    """Names that are not in the script lead to the canaries: a name that slips through must be heard."""

    def __init__(self, names: dict[str, list[list[str]]] | None = None) -> None:
        self.names = names or {}
        self.asked: list[str] = []

    async def resolve(self, host: str, port: int = 0, family: Any = socket.AF_UNSPEC) -> list[ResolveResult]:
        self.asked.append(host)
        answers = self.names.get(host.rstrip("."), [["127.0.0.1", "::1"]])
        if not answers[0]:
            raise OSError(f"no such host {host}")
        addresses = answers.pop(0) if len(answers) > 1 else answers[0]  # the last answer stays
        return [
            ResolveResult(
                hostname=host,
                host=address,
                port=port,
                family=socket.AF_INET6 if ":" in address else socket.AF_INET,
                proto=0,
                flags=socket.AI_NUMERICHOST,
            )
            for address in addresses
        ]

    async def close(self) -> None:
        pass


def own_addresses() -> list[str]:
    """Of this machine's network, besides its loopback."""
    found = []
    for family, target in ((socket.AF_INET, "198.41.0.4"), (socket.AF_INET6, "2001:503:ba3e::2:30")):
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            try:
                probe.connect((target, 9))  # sends nothing
                found.append(probe.getsockname()[0])
            except OSError:
                pass
    return found


class Watch:
    """Every TCP connection that this process begins, and every one that reaches a canary."""

    _running: ClassVar[list["Watch"]] = []
    _hooked = False

    def __init__(self) -> None:
        self.port = 0
        self.connects: list[tuple[str, int]] = []
        self.heard: list[str] = []

    @classmethod
    def _hook(cls, event: str, arguments: tuple[Any, ...]) -> None:
        if event == "socket.connect" and cls._running:
            sock, address = arguments
            if sock.type & socket.SOCK_STREAM and sock.family in (socket.AF_INET, socket.AF_INET6):
                for watch in cls._running:
                    watch.connects.append((str(address[0]), int(address[1])))

    def strangers(self, allowed_port: int) -> list[tuple[str, int]]:
        return [found for found in self.connects if found != ("127.0.0.1", allowed_port)]

    @asynccontextmanager
    async def listening(self) -> AsyncIterator["Watch"]:
        """Canaries on one port of every address of this machine: 0.0.0.0 stands for 127.x.x.x, too, and for its own."""
        if not Watch._hooked:
            sys.addaudithook(Watch._hook)
            Watch._hooked = True

        async def take(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            self.heard.append(str(writer.get_extra_info("sockname")))
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nsecret")
            writer.close()

        everywhere = await asyncio.start_server(take, "0.0.0.0", 0)
        self.port = everywhere.sockets[0].getsockname()[1]
        servers = [everywhere]
        if socket.has_dualstack_ipv6() or socket.has_ipv6:
            servers.append(await asyncio.start_server(take, "::", self.port, family=socket.AF_INET6))
        Watch._running.append(self)
        try:
            yield self
        finally:
            Watch._running.remove(self)
            for server in servers:
                server.close()
