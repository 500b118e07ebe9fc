"""Linked items: what they lead to is looked up, asked for with the reader's own rights, and streamed through us."""

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime

from psycopg import AsyncConnection

from headwater.catalog import items, links
from headwater.catalog.accounts import Account
from headwater.catalog.datasets import get_dataset
from headwater.catalog.items import ETL_DONE, MOST_LINKS, Item
from headwater.catalog.links import Found, Link
from headwater.errors import FailedDependency, HeadwaterError, NotFound, StoreMissing
from headwater.net.fetch import Answer, Fetcher, FetchFailed
from headwater.wire.links import parse_link
from headwater.work.workplace import Workplace


@dataclass(frozen=True, slots=True)
class Opened:
    """Bytes of what an item leads to; iterate it once."""

    start: int
    end: int | None  # not included; None where nobody says how long it is
    size_bytes: int | None  # of the whole
    mime_type: str | None
    chunks: AsyncIterator[bytes] = field(repr=False)

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self.chunks


class DeadLink(FailedDependency):
    """`reason` is one word for programs, the text a sentence for people; `host` is where the network failed. One that
    is hidden leads to something that is there, and that this reader may not know of.
    """

    def __init__(self, reason: str, message: str, *, host: str | None = None, is_hidden: bool = False) -> None:
        super().__init__(message)
        self.reason = reason
        self.host = host
        self.is_hidden = is_hidden


async def read_new_link(place: Workplace, caller: Account, path: str, body: bytes) -> Link | None:
    """The link that a file is; None for what is none. Raises BadRequest, NotFound as `check_new` does."""
    link = parse_link(body) if path.lower().endswith(".json") else None
    if link is not None:
        async with place.pool.connection() as conn:
            await check_new(conn, place.fetcher, caller, link)
    return link


async def check_new(conn: AsyncConnection, fetcher: Fetcher, caller: Account, link: Link) -> None:
    """Before a link becomes an item. Raises BadRequest for a URL that is never fetched, NotFound for an item that is
    not there or not the caller's to read.
    """
    if link.kind == "url":
        fetcher.check_url(link.ref)
        return
    target_id = link.target_id
    target = None if target_id is None else await items.find_item(conn, target_id)
    try:
        if target is not None:
            await get_dataset(conn, caller, target.dataset_id, "read")
    except HeadwaterError:
        target = None
    if target is None:
        raise NotFound(f"No item with id {link.ref}, which the link is to lead to.")


async def follow(conn: AsyncConnection, reader: Account | None, item: Item) -> Item:
    """The item whose bytes an item stands for: itself, unless it is a link to another. It may be a link to a URL.

    Each item on the way is one that the reader may read; without a reader, one of the same project. Raises DeadLink.
    """
    found = item
    for _ in range(MOST_LINKS + 1):
        if found.link is None or found.link["kind"] != "id":
            return found
        target = await links.find_target(conn, reader, found)
        if target is None:
            raise DeadLink(
                "not-found",
                f"{item.path} leads to an item that is no more, or is not yours to read.",
                is_hidden=await links.has_target(conn, found),
            )
        found = target
    raise DeadLink("refused", f"{item.path} leads from one link to the next, more than {MOST_LINKS} times.")


@asynccontextmanager
async def open_link(
    place: Workplace, reader: Account, item: Item, start: int = 0, end: int | None = None
) -> AsyncGenerator[Opened]:
    """Bytes from `start` up to, not including, `end`, of what a linked item leads to; a negative `start` asks for that
    many at the end. No connection to the database is held meanwhile.

    Raises DeadLink (and keeps that on the item), RangeNotSatisfiable, Unavailable.
    """
    try:
        async with place.pool.connection() as conn:
            target = await follow(conn, reader, item)
    except DeadLink as dead:
        if not dead.is_hidden:
            await note(place, item, dead_by(dead))
        raise
    opening = _open_item(place, target, start, end) if target.link is None else _open_url(place, target, start, end)
    async with opening as opened:
        yield opened


@asynccontextmanager
async def _open_item(place: Workplace, target: Item, start: int, end: int | None) -> AsyncGenerator[Opened]:
    if target.missing_since is not None:
        raise DeadLink("not-found", f"It leads to {target.path}, which is missing from its bucket.")
    start = max(0, target.size_bytes + start) if start < 0 else start
    end = None if end is None or end >= target.size_bytes else end  # an empty object has no range to give
    try:
        async with (
            place.places.of_item(target) as store,
            store.get(target.key, start=start, end=end) as reader,
        ):
            size_bytes = reader.info.size_bytes
            last = size_bytes if end is None else min(end, size_bytes)
            yield Opened(start, last, size_bytes, target.mime_type, reader.chunks)
    except StoreMissing:
        raise DeadLink("not-found", f"It leads to {target.path}, whose bytes are no longer in their bucket.") from None


@asynccontextmanager
async def _open_url(place: Workplace, item: Item, start: int, end: int | None) -> AsyncGenerator[Opened]:
    async with open_url(place, item, start, end) as answer:
        await note(place, item, Found("alive", datetime.now(UTC), answer.size_bytes))
        mime_type = item.mime_type if item.etl_state == ETL_DONE else answer.mime_type or item.mime_type
        yield Opened(answer.start, answer.end, answer.size_bytes, mime_type, answer.chunks)


@asynccontextmanager
async def open_url(
    place: Workplace,
    item: Item,
    start: int = 0,
    end: int | None = None,
    *,
    most_bytes: int | None = None,
    within_s: float | None = None,
) -> AsyncGenerator[Answer]:
    """What the URL of a linked item gives. Raises DeadLink when it cannot be had, and keeps that on the item."""
    if not place.link_fetch:
        raise FailedDependency("This server reads no linked URLs (HEADWATER_LINK_FETCH=false). Open the URL yourself.")
    url = Link.of(item.link or {}).ref
    try:
        async with place.fetcher.open(url, start=start, end=end, most_bytes=most_bytes, within_s=within_s) as answer:
            yield answer
    except FetchFailed as failed:
        dead = DeadLink(failed.reason, f"The link {item.path} is dead: {failed}", host=failed.host)
        if failed.reason != "too-large":
            await note(place, item, dead_by(dead))
        raise dead from None


def dead_by(dead: DeadLink) -> Found:
    return Found("dead", datetime.now(UTC), reason=dead.reason, message=str(dead))


async def note(place: Workplace, item: Item, found: Found) -> None:
    """Keep it on the item, if it is news."""
    if links.is_news(item, found):
        async with place.pool.connection() as conn:
            await links.note_found(conn, item, found)
