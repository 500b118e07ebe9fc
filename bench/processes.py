"""The processes of `headwater serve`, each started as the supervisor starts it."""

import asyncio
import multiprocessing
import os
import socket
from collections.abc import Generator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import httpx
import psutil
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


class Processors:
    """Processor time that our processes and PostgreSQL's use, by what they are. Call `look` often: processes end."""

    def __init__(self, ground: Ground, **ours: int) -> None:
        file = ground.settings.data_dir / "postgres" / "postmaster.pid"
        self._postmaster = psutil.Process(int(file.read_text().split()[0]))
        self._ours = [(name, psutil.Process(pid)) for name, pid in ours.items()]
        self._before: dict[tuple[str, int], float] = {}
        self._last: dict[tuple[str, int], float] = {}
        self.look()
        self._before = dict(self._last)

    def look(self) -> None:
        database = [(_database_kind(process), process) for process in self._postmaster.children()]
        for kind, process in [*self._ours, *database]:
            with suppress(psutil.Error):  # it has ended meanwhile
                times = process.cpu_times()
                self._last[kind, process.pid] = times.user + times.system

    def used_s(self) -> dict[str, float]:
        """Since this was made."""
        self.look()
        used: dict[str, float] = {}
        for key, seconds in self._last.items():
            used[key[0]] = used.get(key[0], 0.0) + seconds - self._before.get(key, 0.0)
        return {kind: seconds for kind, seconds in sorted(used.items(), key=lambda one: -one[1]) if seconds > 0.1}


def _database_kind(process: psutil.Process) -> str:
    """`backend`, or what PostgreSQL calls it, such as `autovacuum worker`."""
    with suppress(psutil.Error):
        words = " ".join(process.cmdline()).removeprefix("postgres: ").split()
        if words and words[0] in ("autovacuum", "io", "background", "logical", "parallel"):
            return " ".join(words[:2])
        return words[0] if words and words[0] in ("checkpointer", "walwriter") else "backend"
    return "ended"


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
    async with asyncio.timeout(120), httpx.AsyncClient() as client:
        while True:
            try:
                (await client.get(f"http://127.0.0.1:{port}/readyz")).raise_for_status()
                break
            except httpx.HTTPError:
                await asyncio.sleep(0.1)
