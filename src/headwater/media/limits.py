"""Decodes files in child processes with limits of time and memory: no file can harm us or its neighbours."""

import asyncio
from pathlib import Path
from types import TracebackType
from typing import Self

from headwater.errors import Unavailable
from headwater.media.child import Child
from headwater.media.decoder import Orders
from headwater.media.records import Prepared

READ_FILE = "headwater.media.reading:read_file"


class DecodePool:
    """Long-lived child processes, started as files arrive; each decodes one file at a time.

    Belongs to the event loop that uses it first. The children know neither our environment nor our open
    files, and die with us. Where the system holds no memory limit (macOS), `memory_bytes` has no effect.
    """

    def __init__(
        self,
        *,
        processes: int,
        timeout_s: float,
        memory_bytes: int,
        read_gps: bool = False,
        max_pixels: int = 1_000_000_000,
        decode: str = READ_FILE,
    ) -> None:
        """Starts nothing yet. `decode` is `module:function`, looked up in the child."""
        self._orders = Orders(decode, timeout_s, memory_bytes, read_gps, max_pixels)
        self._processes = processes
        self._slots = asyncio.Semaphore(processes)
        self._closing = asyncio.Lock()
        self._children: set[Child] = set()
        self._idle: list[Child] = []
        self._is_closed = False

    async def prepare(self, path: Path) -> Prepared:
        """Facts and thumbnail of the file at `path`; what is wrong with it is a Problem, not an exception.

        Waits while all processes are busy; the time limit starts when a process takes the file.
        Raises Unavailable when no child process can be started, or after `close`.
        """
        async with self._slots:
            self._refuse_when_closed()
            child = self._idle.pop() if self._idle else await self._start()
            prepared = await self._ask(child, path)
            if child.is_spent and child.files > 1 and not _is_timeout(prepared):
                # Perhaps an earlier file harmed the process: let this one try alone.
                prepared = await self._ask(await self._start(), path)
            return prepared

    async def _start(self) -> Child:
        child = await Child.start(self._orders)
        self._children.add(child)
        if self._is_closed:  # meanwhile
            await self._end(child)
        self._refuse_when_closed()
        return child

    async def _ask(self, child: Child, path: Path) -> Prepared:
        try:
            prepared = await child.ask(path, self._orders.timeout_s)
        finally:
            if child.is_spent:
                await self._end(child)
            else:
                self._idle.append(child)
        self._refuse_when_closed()
        return prepared

    def _refuse_when_closed(self) -> None:
        if self._is_closed:
            raise Unavailable("The decoders are closed.")

    async def _end(self, child: Child) -> None:
        self._children.discard(child)
        await child.end()

    async def close(self) -> None:
        """Kill the child processes and wait for their end; files in work raise Unavailable. Repeatable."""
        self._is_closed = True
        for child in self._children:
            child.kill()
        async with self._closing:
            for _ in range(self._processes):  # once all are ours, no file is in work and no child is starting
                await self._slots.acquire()
            while self._idle:
                await self._end(self._idle.pop())
            for _ in range(self._processes):
                self._slots.release()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()


def _is_timeout(prepared: Prepared) -> bool:
    return prepared.problem is not None and prepared.problem.reason == "timeout"
