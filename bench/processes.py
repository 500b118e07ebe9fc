"""The processes of `headwater serve`, each started as the supervisor starts it."""

import asyncio
import multiprocessing
import os
import socket
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import httpx
import uvloop
from psycopg import AsyncConnection

from bench.ground import Ground
from headwater import children
from headwater.catalog import organizations
from headwater.tokens import Signer
from headwater.workplace import load_signing_key


@dataclass(frozen=True, slots=True)
class Api:
    port: int
    pid: int
    token: str


@contextmanager
def api(ground: Ground) -> Generator[Api]:
    """Answers until the end of the block."""
    with (
        listening() as (listener, port),
        child(children.run_api, os.getpid(), ground.settings, ground.database_url, listener) as pid,
    ):
        uvloop.run(answering(port))
        yield Api(port, pid, uvloop.run(owner_token(ground)))


@contextmanager
def worker(ground: Ground) -> Generator[int]:
    """Works until the end of the block; yields the id of its process."""
    with child(children.run_worker, os.getpid(), ground.settings, ground.database_url) as pid:
        yield pid


@contextmanager
def listening() -> Generator[tuple[socket.socket, int]]:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(1024)
        yield listener, listener.getsockname()[1]


@contextmanager
def child(run: Any, *arguments: Any) -> Generator[int]:
    """A process of its own, as the supervisor starts it; yields its id."""
    process = multiprocessing.get_context("spawn").Process(target=run, args=arguments, daemon=True)
    process.start()
    try:
        yield process.pid or 0
    finally:
        process.terminate()
        process.join(10)


async def owner_token(ground: Ground) -> str:
    async with await AsyncConnection.connect(ground.database_url) as conn:
        owner = await organizations.get_owner(conn)
    return Signer(load_signing_key(ground.settings)).sign(account_id=owner.id, email=owner.email)


async def answering(port: int) -> None:
    async with asyncio.timeout(30), httpx.AsyncClient() as client:
        while True:
            try:
                (await client.get(f"http://127.0.0.1:{port}/readyz")).raise_for_status()
                break
            except httpx.HTTPError:
                await asyncio.sleep(0.1)
