"""Notices, and live news: progress of commands, counters of datasets and notices as server-sent events.

All news is from committed rows alone. What says that there may be news gets lost, at a restart of the database say;
a notice does not: each stream has a cursor, and who comes back with it hears what was missed.
"""

import asyncio
import logging
import time
from collections.abc import AsyncIterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Annotated, Any

import psycopg
from fastapi import APIRouter, Header, Query, Request
from fastapi.responses import StreamingResponse
from psycopg import AsyncConnection

from headwater.api.caller import Base, BearerDep, Caller, Connection, Server, ServerDep, account_of, needs
from headwater.api.quotas import quota_for
from headwater.catalog import commands, datasets, news, notices
from headwater.catalog.accounts import Account
from headwater.catalog.notices import Choice, Notice
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
_NOTICES = "notice"
_CURSOR_DIGITS = 20
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
        heard = _NOTICES if topic.startswith("notice:") else topic
        for listener in self._listeners:
            listener.hear(heard)

    async def run(self, database_url: str) -> None:
        """Until cancelled; with a connection of its own, made anew when it breaks."""
        while True:
            try:
                async with await AsyncConnection.connect(database_url, autocommit=True) as conn:
                    await conn.execute("LISTEN " + news.CHANNEL)
                    self.tell(_NOTICES)  # those of the time without a connection
                    async for notification in conn.notifies():
                        self.tell(notification.payload)
            except psycopg.OperationalError:
                _log.warning("listening for news broke off; trying again")
                await asyncio.sleep(_RECONNECT_S)


class _Listener:
    def __init__(self) -> None:
        self.topics: set[str] = set()
        self.woken = asyncio.Event()

    def hear(self, topic: str) -> None:
        self.topics.add(topic)
        self.woken.set()

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
    base: Base,
    before: Annotated[str | None, Query(description="The id of the last notice of the page before.")] = None,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    project: Annotated[str | None, Query(description="Only of this project.")] = None,
    dataset: Annotated[str | None, Query(description="Only of this dataset.")] = None,
    command: Annotated[str | None, Query(description="Only of this command; with its earlier ones.")] = None,
    level: Annotated[list[wire_notices.Level] | None, Query(description="Only of these levels.")] = None,
    since: Annotated[datetime | None, Query(description="Only from this time on.")] = None,
    unread: Annotated[bool, Query(description="Only what the caller has not read.")] = False,
    history: Annotated[bool, Query(description="With those that a later one of their command stands for.")] = False,
) -> list[wire_notices.NoticeJson]:
    """What the caller was told, the latest first: of their projects, and as owner or admin of organisations."""
    choice = Choice(
        project_id=_number(project, "project"),
        dataset_id=_number(dataset, "dataset"),
        command_id=_number(command, "command"),
        levels=level or (),
        since=since,
        unread=unread,
        history=history or command is not None,
    )
    found = await notices.list_notices(conn, caller, choice, before_id=_number(before, "notice"), limit=limit)
    return [wire_notices.notice(one, base) for one in found]


def _number(text: str | None, noun: str) -> int | None:
    return None if text is None else from_wire(text, noun)


@router.get("/unread", openapi_extra=needs("account"))
async def count_unread(
    caller: Caller,
    conn: Connection,
    project: Annotated[str | None, Query(description="Only of this project.")] = None,
) -> wire_notices.UnreadJson:
    """How many notices the caller has not read, up to 1,000; those of one command count once."""
    choice = Choice(project_id=_number(project, "project"))
    return wire_notices.UnreadJson(unread=await notices.count_unread(conn, caller, choice))


@router.post("/read", openapi_extra=needs("account"))
async def mark_read(body: wire_notices.ReadBody, caller: Caller, conn: Connection) -> wire_notices.ReadJson:
    """By the caller, for the caller alone. Says how many had been unread, and how many are left."""
    marked = await notices.mark_read(
        conn,
        caller,
        Choice(project_id=_number(body.project, "project"), dataset_id=_number(body.dataset, "dataset")),
        ids=None if body.ids is None else [from_wire(text, "notice") for text in body.ids],
        until_id=_number(body.until, "notice"),
    )
    return wire_notices.ReadJson(marked=marked, unread=await notices.count_unread(conn, caller))


@router.get("/stream", openapi_extra=needs("account"), response_class=StreamingResponse)
async def stream(
    request: Request,
    caller: Caller,
    bearer: BearerDep,
    server: ServerDep,
    base: Base,
    dataset: Annotated[str | None, Query(description="Only news of this dataset.")] = None,
    last_event_id: Annotated[str | None, Header(description="The last one heard: what was missed comes first.")] = None,
) -> StreamingResponse:
    """Events `command` (a command's JSON), `dataset` (a dataset's JSON with its counts) and `notice`, as they come.

    Each notice is told: who comes back with `Last-Event-ID` hears those missed, the latest 500 at most, and may hear
    one twice. Owners and admins hear `quota` (an organisation's quota) when 80, 95 or 100 % of the data points come
    into use.
    """
    only = None if dataset is None else from_wire(dataset, "dataset")
    if only is not None:
        async with server.place.pool.connection() as conn:
            await datasets.get_dataset(conn, caller, only)
    live: News = request.app.state.news
    return StreamingResponse(
        _events(live, server, caller, bearer, base, only, last_event_id),
        media_type="text/event-stream",
        headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"},
    )


@dataclass(slots=True)
class _Cursor:
    """How far a stream has told the notices."""

    xid: int
    told: set[int] = field(default_factory=set[int])  # those that may be read again


async def _events(
    live: News, server: Server, caller: Account, bearer: Bearer, base: str, only: int | None, last_event_id: str | None
) -> AsyncIterator[str]:
    now = asyncio.get_running_loop().time
    with live.listening() as listener:
        cursor = await asyncio.shield(_cursor(server, last_event_id))
        if last_event_id is not None:
            listener.hear(_NOTICES)
        yield f": connected\nid: {cursor.xid}\n\n"
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
            if _NOTICES in topics:
                before = cursor.xid
                fresh = await asyncio.shield(_fresh_notices(server, caller, cursor, only))
                for number, notice in enumerate(fresh, 1):
                    # Before the last one there is more to come: who leaves here asks for all of them again.
                    heard = cursor.xid if number == len(fresh) else before
                    yield server_sent_event("notice", wire_notices.notice(notice, base), event_id=str(heard))
            for topic in sorted(topics - {_NOTICES}):
                event = await asyncio.shield(_event(server, caller, base, topic, only))
                if event is not None:
                    yield event
            await asyncio.sleep(_AT_MOST_EVERY_S)


async def _cursor(server: Server, last_event_id: str | None) -> _Cursor:
    """Where a stream begins, or goes on."""
    async with server.place.pool.connection() as conn:
        now = await notices.now_xid(conn)
    if last_event_id is None or not (last_event_id.isascii() and last_event_id.isdigit()):
        return _Cursor(now)
    return _Cursor(min(int(last_event_id[:_CURSOR_DIGITS]), now))


async def _fresh_notices(server: Server, caller: Account, cursor: _Cursor, only: int | None) -> list[Notice]:
    async with server.place.pool.connection() as conn:
        found, xid = await notices.list_since(conn, caller, cursor.xid, dataset_id=only)
    fresh = [notice for notice in found if notice.id not in cursor.told]
    cursor.xid, cursor.told = xid, {notice.id for notice in found}
    return fresh


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
            elif kind == "quota":
                if only is None:
                    return server_sent_event("quota", await quota_for(conn, caller, int(number)))
            elif only in (None, int(number)):
                dataset = await datasets.get_dataset(conn, caller, int(number))
                return server_sent_event("dataset", wire_datasets.dataset(dataset, base))
    except HeadwaterError:
        pass
    return None
