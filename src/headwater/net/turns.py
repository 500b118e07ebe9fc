"""Turns of fetches that nobody waits for: few at once, fewer of one host, and none of one that is silent for now."""

import asyncio
from collections import OrderedDict
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from time import monotonic

from headwater.errors import Unavailable

_SILENT_TIMES = 3  # one after the other, before a host is let alone
_LET_ALONE_S = 60
_MOST_HOSTS = 10_000  # that are remembered as silent


class LetAlone(Exception):
    """The host did not answer the last times, and is not asked again yet."""


@dataclass(slots=True)
class _Queue:
    slots: asyncio.Semaphore
    waiting: int = 0


@dataclass(slots=True)
class _Silence:
    times: int = 0
    until_s: float = field(default_factory=monotonic)


class Turns:
    """Of one process. A host with a million links that never answers costs the others a few turns a minute."""

    def __init__(self, *, at_once: int, at_once_of_a_host: int, patience_s: float = 60) -> None:
        self._slots = asyncio.Semaphore(at_once)
        self._patience_s = patience_s
        self._at_once_of_a_host = at_once_of_a_host
        self._hosts: dict[str, _Queue] = {}  # that somebody waits for or fetches from
        self._silent: OrderedDict[str, _Silence] = OrderedDict()

    @asynccontextmanager
    async def turn(self, host: str) -> AsyncGenerator[None]:
        """Waits for it. Raises LetAlone, and Unavailable when the host is busy with others for long."""
        queue = self._hosts.setdefault(host, _Queue(asyncio.Semaphore(self._at_once_of_a_host)))
        queue.waiting += 1
        try:
            await self._wait(queue, host)
            try:
                self._check(host)
                async with self._slots:
                    yield
            finally:
                queue.slots.release()
        finally:
            queue.waiting -= 1
            if not queue.waiting:
                del self._hosts[host]

    async def _wait(self, queue: _Queue, host: str) -> None:
        try:
            async with asyncio.timeout(self._patience_s):
                await queue.slots.acquire()
        except TimeoutError:
            raise Unavailable(f"Many links lead to {host}, which is slow. It is asked for this one later.") from None

    def _check(self, host: str) -> None:
        silence = self._silent.get(host)
        if silence is None or silence.times < _SILENT_TIMES:
            return
        if monotonic() < silence.until_s:
            raise LetAlone(f"{host} did not answer the last times. It is asked again in a minute.")
        silence.until_s = monotonic() + _LET_ALONE_S  # one tries it for all

    def note_silence(self, host: str) -> None:
        silence = self._silent.setdefault(host, _Silence())
        silence.times += 1
        silence.until_s = monotonic() + _LET_ALONE_S
        self._silent.move_to_end(host)
        if len(self._silent) > _MOST_HOSTS:
            self._silent.popitem(last=False)

    def note_answer(self, host: str) -> None:
        self._silent.pop(host, None)
