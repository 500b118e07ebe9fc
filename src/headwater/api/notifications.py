"""Live news: progress of commands and counters of datasets as server-sent events, from committed rows alone."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator
from contextlib import contextmanager
from typing import Annotated, Any

import psycopg
from fastapi import APIRouter, Query, Request
from fastapi.responses import StreamingResponse
from psycopg import AsyncConnection

from headwater.api.caller import Base, BearerDep, Caller, Connection, Server, ServerDep, account_of, needs
from headwater.api.quotas import quota_for
from headwater.catalog import commands, datasets, notices
from headwater.catalog.accounts import Account
from headwater.errors import HeadwaterError
from headwater.ids import from_wire
from headwater.tokens import Bearer
from headwater.wire import commands as wire_commands
from headwater.wire import datasets as wire_datasets
from headwater.wire import notices as wire_notices
from headwater.wire.events import server_sent_event

router = APIRouter(prefix="/notifications", tags=["notifications"])

_AT_MOST_EVERY_S = 0.2
_SIGN_OF_LIFE_S = 15.0
_WAIT_S = 1.0
_ASK_AGAIN_S = 2.0  # whether the listener's token still counts: a revoked key is told nothing more within 5 s
_RECONNECT_S = 2.0
_log = logging.getLogger(__name__)


class News:
    """Passes what PostgreSQL notifies on to whoever listens in this process; topics are told once, not queued up."""

    def __init__(self) -> None:
        self._listeners: set[_Listener] = set()

    @contextmanager
    def listening(self) -> Any:
        listener = _Listener()
        self._listeners.add(listener)
        try:
            yield listener
        finally:
            self._listeners.discard(listener)

    def tell(self, topic: str) -> None:
        for listener in self._listeners:
            listener.topics.add(topic)
            listener.woken.set()

    async def run(self, database_url: str) -> None:
        """Until cancelled; with a connection of its own, made anew when it breaks."""
        while True:
            try:
                async with await AsyncConnection.connect(database_url, autocommit=True) as conn:
                    await conn.execute("LISTEN " + commands.CHANNEL)
                    async for notification in conn.notifies():
                        self.tell(notification.payload)
            except psycopg.OperationalError:
                _log.warning("listening for news broke off; trying again")
                await asyncio.sleep(_RECONNECT_S)


class _Listener:
    def __init__(self) -> None:
        self.topics: set[str] = set()
        self.woken = asyncio.Event()

    async def next_topics(self) -> set[str]:
        """Empty when nothing happened for a while."""
        try:
            await asyncio.wait_for(self.woken.wait(), _WAIT_S)
        except TimeoutError:
            return set()
        self.woken.clear()
        topics, self.topics = self.topics, set()
        return topics


@router.get("", openapi_extra=needs("account"))
async def list_notices(
    caller: Caller,
    conn: Connection,
    before: Annotated[str | None, Query(description="The id of the last notice of the page before.")] = None,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
) -> list[wire_notices.NoticeJson]:
    """What the owners and admins of an organisation were told, the latest first; empty for everybody else."""
    before_id = None if before is None else from_wire(before, "notice")
    return [
        wire_notices.notice(found)
        for found in await notices.list_notices(conn, caller, before_id=before_id, limit=limit)
    ]


@router.get("/stream", openapi_extra=needs("account"), response_class=StreamingResponse)
async def stream(
    request: Request,
    caller: Caller,
    bearer: BearerDep,
    server: ServerDep,
    base: Base,
    dataset: Annotated[str | None, Query(description="Only news of this dataset.")] = None,
) -> StreamingResponse:
    """Events `command` (a command's JSON) and `dataset` (a dataset's JSON with its counts), as they change.

    Owners and admins hear `quota` (an organisation's quota) when 80, 95 or 100 % of the data points come into use, and
    `notice` (a notice's JSON).
    """
    only = None if dataset is None else from_wire(dataset, "dataset")
    if only is not None:
        async with server.place.pool.connection() as conn:
            await datasets.get_dataset(conn, caller, only)
    news: News = request.app.state.news
    return StreamingResponse(
        _events(news, server, caller, bearer, base, only),
        media_type="text/event-stream",
        headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"},
    )


async def _events(
    news: News, server: Server, caller: Account, bearer: Bearer, base: str, only: int | None
) -> AsyncIterator[str]:
    now = asyncio.get_running_loop().time
    with news.listening() as listener:
        yield ": connected\n\n"
        asked_at = told_at = now()
        while True:
            topics = await listener.next_topics()
            # A client that leaves must not cut a query off in the middle of its answer.
            if now() - asked_at >= _ASK_AGAIN_S:
                if not await asyncio.shield(_may_listen(server, bearer, only)):
                    return
                asked_at = now()
            if now() - told_at >= _SIGN_OF_LIFE_S:
                told_at = now()
                yield ": still here\n\n"
            for topic in sorted(topics):
                event = await asyncio.shield(_event(server, caller, base, topic, only))
                if event is not None:
                    yield event
            await asyncio.sleep(_AT_MOST_EVERY_S)


async def _may_listen(server: Server, bearer: Bearer, only: int | None) -> bool:
    if bearer.expires_at <= time.time():
        return False
    try:
        caller = await account_of(server, bearer)
        if only is not None:
            async with server.place.pool.connection() as conn:
                await datasets.get_dataset(conn, caller, only)
    except HeadwaterError:
        return False
    return True


async def _event(server: Server, caller: Account, base: str, topic: str, only: int | None) -> str | None:
    """None for what the caller may not see, or did not ask for."""
    kind, _, number = topic.partition(":")
    try:
        async with server.place.pool.connection() as conn:
            if kind == "command":
                command = await commands.get_command(conn, caller, int(number))
                if only in (None, command.dataset_id):
                    return server_sent_event("command", wire_commands.command(command, base))
            elif kind == "notice":
                if only is None:
                    told = await notices.get_notice(conn, caller, int(number))
                    return server_sent_event("notice", wire_notices.notice(told))
            elif kind == "quota":
                if only is None:
                    return server_sent_event("quota", await quota_for(conn, caller, int(number)))
            elif only in (None, int(number)):
                dataset = await datasets.get_dataset(conn, caller, int(number))
                return server_sent_event("dataset", wire_datasets.dataset(dataset, base))
    except HeadwaterError:
        pass
    return None
