"""Decodes files in child processes with limits of time and memory: no file can harm us or its neighbours."""

import asyncio
from pathlib import Path
from types import TracebackType
from typing import Self

from headwater.errors import Unavailable
from headwater.media.child import Child, has_died
from headwater.media.decoder import Orders
from headwater.media.records import Prepared

READ_IMAGE = "headwater.media.image:read_image"


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
        decode: str = READ_IMAGE,
    ) -> None:
        """Starts nothing yet. `decode` is `module:function`, looked up in the child."""
        self._orders = Orders(decode, timeout_s, memory_bytes, read_gps, max_pixels)
        self._slots = asyncio.Semaphore(processes)
        self._children: set[Child] = set()
        self._idle: list[Child] = []
        self._is_closed = False

    async def prepare(self, path: Path) -> Prepared:
        """Facts and thumbnail of the file at `path`; what is wrong with it is a Problem, not an exception.

        Waits while all processes are busy; the time limit starts when a process takes the file.
        Raises Unavailable when no child process can be started, or after `close`.
        """
        async with self._slots:
            child = self._idle.pop() if self._idle else await self._start()
            is_fresh = child.files == 0
            prepared = await self._ask(child, path)
            if not is_fresh and has_died(prepared) and not _is_timeout(prepared):
                # Perhaps an earlier file harmed the process: let this one try alone.
                prepared = await self._ask(await self._start(), path)
            return prepared

    async def _start(self) -> Child:
        self._refuse_when_closed()
        child = await Child.start(self._orders)
        self._children.add(child)
        if self._is_closed:  # meanwhile
            await self._end(child)
        self._refuse_when_closed()
        return child

    async def _ask(self, child: Child, path: Path) -> Prepared:
        """Puts the child back among the idle only when it answered in good health."""
        is_healthy = False
        try:
            prepared = await child.ask(path, self._orders.timeout_s)
            self._refuse_when_closed()
            is_healthy = not has_died(prepared)
        finally:
            if is_healthy:
                self._idle.append(child)
            else:
                await self._end(child)
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
        self._idle.clear()
        await asyncio.gather(*(child.end() for child in tuple(self._children)))
        self._children.clear()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()


def _is_timeout(prepared: Prepared) -> bool:
    return prepared.problem is not None and prepared.problem.reason == "timeout"
