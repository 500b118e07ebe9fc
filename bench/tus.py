"""A resumable upload through a proxy that cuts every connection: how much has to be sent again.

The client sends the rest of the file in one request; when it is cut, it asks where to go on. Each connection is cut
once 1 to 16 MB of the file have passed: what was passed on may still be on its way into the server when the next
request comes.
"""

import asyncio
import base64
import hashlib
import multiprocessing
import os
import random
import socket
from collections.abc import AsyncGenerator, Iterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from itertools import count

import httpx
import uvloop
from psycopg import AsyncConnection

from bench.bucket import make_bucket
from bench.ground import Ground, installed, make_dataset, say, temporary_folder
from bench.report import Figure
from headwater import children
from headwater.catalog import organizations
from headwater.ids import to_wire
from headwater.tokens import Signer
from headwater.workplace import load_signing_key
from tests.servers import S3Server, seaweedfs

FILE_BYTES = 256 * 1024**2
_MOST_SENT_AGAIN = 0.02
_SHORTEST_BYTES, _LONGEST_BYTES = 10**6, 16 * 10**6  # of the file, over one connection
_CHUNK_BYTES = 64 * 1024
_BUCKET = "bench"


@dataclass
class _Proxy:
    port: int
    lengths: random.Random
    passed_bytes: int = 0  # of the file
    cuts: int = 0
    tasks: set[asyncio.Task[None]] = field(default_factory=set)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        server_reader, server_writer = await asyncio.open_connection("127.0.0.1", self.port)
        answering = asyncio.create_task(_pass_on(server_reader, writer))
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            server_writer.write(head)
            left = self.lengths.randint(_SHORTEST_BYTES, _LONGEST_BYTES)
            while left and (chunk := await reader.read(min(left, _CHUNK_BYTES))):
                server_writer.write(chunk)
                await server_writer.drain()
                left -= len(chunk)
                self.passed_bytes += len(chunk)
            self.cuts += not left
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        else:
            if left:
                await answering
        finally:
            writer.transport.abort()
            with suppress(ConnectionError):
                server_writer.close()
                await server_writer.wait_closed()
            answering.cancel()
            await asyncio.gather(answering, return_exceptions=True)


async def _pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(ConnectionError):
        while chunk := await reader.read(_CHUNK_BYTES):
            writer.write(chunk)
            await writer.drain()
        writer.write_eof()


@asynccontextmanager
async def _cutting(port: int) -> AsyncGenerator[tuple[_Proxy, int]]:
    proxy = _Proxy(port, random.Random(5))
    server = await asyncio.start_server(proxy.serve, "127.0.0.1", 0)
    try:
        yield proxy, server.sockets[0].getsockname()[1]
    finally:
        server.close()


def measure() -> Iterator[Figure]:
    with (
        temporary_folder() as folder,
        seaweedfs(folder / "seaweedfs") as server,
        installed(folder) as ground,
        socket.socket() as listener,
    ):
        listener.bind(("127.0.0.1", 0))
        listener.listen(64)
        arguments = os.getpid(), ground.settings, ground.database_url, listener
        api = multiprocessing.get_context("spawn").Process(target=children.run_api, args=arguments, daemon=True)
        api.start()
        try:
            yield uvloop.run(_measure(ground, server, listener.getsockname()[1]))
        finally:
            api.terminate()
            api.join(10)


async def _measure(ground: Ground, server: S3Server, port: int) -> Figure:
    await make_bucket(server, _BUCKET)
    dataset = await make_dataset(ground, server, _BUCKET)
    async with await AsyncConnection.connect(ground.database_url) as conn:
        owner = await organizations.get_owner(conn)
    token = Signer(load_signing_key(ground.settings)).sign(account_id=owner.id, email=owner.email)
    source = random.Random(4)
    body = b"".join(source.randbytes(1024**2) for _ in range(FILE_BYTES // 1024**2))
    headers = {"authorization": f"Bearer {token}", "Tus-Resumable": "1.0.0", "Connection": "close"}
    async with _cutting(port) as (proxy, proxy_port), httpx.AsyncClient(timeout=60, headers=headers) as client:
        await _answering(client, port)
        path = base64.b64encode(b"/large.bin").decode()
        made = await client.post(
            f"http://127.0.0.1:{proxy_port}/api/v1/datasets/{to_wire(dataset.id)}/tus",
            headers={"Upload-Length": str(FILE_BYTES), "Upload-Metadata": f"path {path}"},
        )
        location = made.raise_for_status().headers["Location"]
        requests, item_id = await _send(client, location, headers, body)
        answer = await client.get(f"http://127.0.0.1:{port}/api/v1/items/{item_id}/stream", follow_redirects=True)
    same = hashlib.sha256(answer.content).digest() == hashlib.sha256(body).digest()
    again_bytes = proxy.passed_bytes - FILE_BYTES
    say(f"tus: {proxy.cuts} cuts, {again_bytes:,} bytes sent again, {'the same' if same else 'OTHER'} bytes")
    return Figure(
        name="tus.resent",
        value=again_bytes,
        floor=FILE_BYTES,
        unit="B",
        target=_MOST_SENT_AGAIN,
        is_limit=True,
        must_hold=same,
        details={"cuts": proxy.cuts, "requests": requests, "byte_equal": same},
    )


async def _answering(client: httpx.AsyncClient, port: int) -> None:
    async with asyncio.timeout(30):
        while True:
            with suppress(httpx.HTTPError):
                if (await client.get(f"http://127.0.0.1:{port}/readyz")).is_success:
                    return
            await asyncio.sleep(0.1)


async def _send(client: httpx.AsyncClient, location: str, headers: dict[str, str], body: bytes) -> tuple[int, str]:
    """How many requests it took, and the item."""
    for number in count(1):
        looked = (await client.head(location)).raise_for_status()
        if item_id := looked.headers.get("X-Item-Id"):
            return number - 1, item_id
        await _patch(location, headers, body, int(looked.headers["Upload-Offset"]))
    raise AssertionError


async def _patch(location: str, headers: dict[str, str], body: bytes, offset: int) -> None:
    """The rest of the file, over a connection of its own, as far as it gets."""
    url = httpx.URL(location)
    reader, writer = await asyncio.open_connection(url.host, url.port)
    told = headers | {
        "Host": f"{url.host}:{url.port}",
        "Content-Type": "application/offset+octet-stream",
        "Content-Length": str(len(body) - offset),
        "Upload-Offset": str(offset),
    }
    head = f"PATCH {url.path} HTTP/1.1\r\n" + "".join(f"{name}: {text}\r\n" for name, text in told.items()) + "\r\n"
    with suppress(ConnectionError):
        writer.write(head.encode())
        for at in range(offset, len(body), _CHUNK_BYTES):
            writer.write(body[at : at + _CHUNK_BYTES])
            await writer.drain()
        await reader.read()
    writer.transport.abort()


if __name__ == "__main__":
    for figure in measure():
        print(figure.line())
