"""Workers that die at a chosen call, are held back at others, and the same history for every call there is.

A `Lane` is one worker as long as it lives: its tasks, its database statements and commits, its calls of a store. What
kills it kills all of it, as `kill -9` would: after the fatal call every other call of the same lane dies as well.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Coroutine, Iterable
from contextlib import asynccontextmanager
from contextvars import ContextVar, copy_context
from dataclasses import dataclass, field
from itertools import count
from typing import Any

from psycopg import AsyncConnection, AsyncCursor
from psycopg_pool import AsyncConnectionPool

from headwater.storage.stores import ListingPage, ObjectInfo, Upload
from tests.work.scripted import Crash, ScriptedStore

KINDS = ("store", "statement", "commit lost", "commit unheard")
_MOST_CALLS = 1_000
_NOBODY_MOVES_S = 0.02

_LANE: ContextVar["Lane | None"] = ContextVar("lane", default=None)


@dataclass
class Turns:
    """An interleaving: the calls of several lanes, each held back until so many others have come since.

    `holds` says it for one call after the other; those after the last are never held. When nobody else moves, because
    the others have ended or wait for a lock of ours, the call goes on.
    """

    holds: Iterable[int]
    came: int = 0
    _changed: asyncio.Condition = field(default_factory=asyncio.Condition)

    def __post_init__(self) -> None:
        self.holds = iter(self.holds)

    async def take(self) -> None:
        async with self._changed:
            self.came += 1
            until = self.came + next(self.holds, 0)
            self._changed.notify_all()
            try:
                async with asyncio.timeout(_NOBODY_MOVES_S):
                    await self._changed.wait_for(lambda: self.came >= until)
            except TimeoutError:
                pass


@dataclass
class Lane:
    """One worker; dies at the `nth` call of a `kind`, 0 for never.

    One that `hangs` stops there instead, as if it was cut off, until it `goes_on`: for "store" and "commit unheard",
    where it is in no transaction.
    """

    kind: str = "none"
    nth: int = 0
    turns: Turns | None = None
    hangs: bool = False
    is_dead: bool = False
    calls: int = 0
    is_held: asyncio.Event = field(default_factory=asyncio.Event)
    goes_on: asyncio.Event = field(default_factory=asyncio.Event)

    def hit(self, kind: str) -> None:
        if self.is_dead:
            raise Crash
        if kind == self.kind and not self.hangs:
            self.calls += 1
            if self.calls == self.nth:
                self.is_dead = True
                raise Crash

    async def reach(self, kind: str) -> None:
        """A call where it may hang, or wait for its turn."""
        if kind == self.kind and self.hangs:
            self.calls += 1
            if self.calls == self.nth:
                self.is_held.set()
            if self.calls >= self.nth:
                await self.goes_on.wait()
        if self.turns is not None and kind != "commit unheard":
            await self.turns.take()

    async def live(self, work: Coroutine[Any, Any, Any]) -> bool:
        """Do some work in this lane. False: it died of its fault."""
        context = copy_context()
        context.run(_LANE.set, self)
        try:
            await asyncio.create_task(work, context=context)
        except BaseException:
            if not self.is_dead:
                raise
            return False
        return True


def _hit(kind: str) -> None:
    lane = _LANE.get()
    if lane is not None:
        lane.hit(kind)


async def _reach(kind: str) -> None:
    lane = _LANE.get()
    if lane is not None:
        await lane.reach(kind)


class _Cursor(AsyncCursor[Any]):
    async def execute(self, *arguments: Any, **named: Any) -> Any:
        _hit("statement")
        return await super().execute(*arguments, **named)

    async def executemany(self, *arguments: Any, **named: Any) -> Any:
        _hit("statement")
        return await super().executemany(*arguments, **named)

    @asynccontextmanager
    async def copy(self, *arguments: Any, **named: Any) -> AsyncGenerator[Any]:
        _hit("statement")
        async with super().copy(*arguments, **named) as copied:
            yield copied


class _Connection(AsyncConnection[Any]):
    async def commit(self) -> None:
        await _reach("commit")
        _hit("commit lost")
        await super().commit()
        _hit("commit unheard")
        await _reach("commit unheard")


async def _configure(conn: _Connection) -> None:
    await conn.set_autocommit(True)
    await conn.execute("SET TIME ZONE 'UTC'")
    await conn.set_autocommit(False)


def lane_pool(conninfo: str, *, max_size: int = 16) -> AsyncConnectionPool[Any]:
    """Connections that know the lane that uses them. Not open yet."""
    return AsyncConnectionPool(
        conninfo,
        connection_class=_Connection,
        kwargs={"cursor_factory": _Cursor},
        configure=_configure,
        min_size=1,
        max_size=max_size,
        open=False,
    )


class LaneStore(ScriptedStore):
    """A bucket whose calls are its callers' lanes'."""

    def _called(self, name: str) -> None:
        super()._called(name)
        _hit("store")

    async def list_pages(self, *, start_after: str | None = None, prefix: str = "") -> AsyncIterator[ListingPage]:
        async for page in super().list_pages(start_after=start_after, prefix=prefix):
            await _reach("store")
            yield page

    async def first_key_after(self, key: str) -> str | None:
        await _reach("store")
        return await super().first_key_after(key)

    async def head(self, key: str) -> ObjectInfo:
        await _reach("store")
        return await super().head(key)

    async def begin_upload(self, key: str, *, content_type: str) -> Upload:
        await _reach("store")
        return await super().begin_upload(key, content_type=content_type)

    async def delete(self, key: str) -> None:
        await _reach("store")
        await super().delete(key)


async def at_every_call(kind: str, history: Callable[[Lane], Awaitable[None]]) -> int:
    """The history once for each of its calls of that kind, which kills its lane there. Returns how many there were.

    A history runs what shall die by `lane.live`, lets another worker finish it, and checks the end.
    """
    for nth in count(1):
        lane = Lane(kind, nth)
        await history(lane)
        if not lane.is_dead:
            return nth - 1
        assert nth < _MOST_CALLS, f"no end after {nth} calls of kind {kind!r}"
    raise AssertionError


async def hanging_at_every_call(kind: str, history: Callable[[Lane], Awaitable[None]]) -> int:
    """The same with a lane that hangs there; the history lets others go on without it, and then lets it go on."""
    for nth in count(1):
        lane = Lane(kind, nth, hangs=True)
        await history(lane)
        if not lane.is_held.is_set():
            return nth - 1
        assert nth < _MOST_CALLS, f"no end after {nth} calls of kind {kind!r}"
    raise AssertionError
