"""Preprocessing of linked items: looks at what they lead to, as far as facts and a thumbnail need it."""

from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from time import monotonic
from typing import Any

from headwater.catalog.items import ETL_FAILED, ETL_WAITING, VIDEO_KEYS, Item
from headwater.catalog.links import Found, Link
from headwater.errors import BadRequest, Unavailable
from headwater.media.probe import sniff_mime_type
from headwater.media.records import ImageFacts, Prepared, Problem
from headwater.media.video_parts import HEAD_BYTES, MOST_BYTES, READERS
from headwater.net.fetch import PASSING, SILENT, host_of
from headwater.net.turns import LetAlone
from headwater.wire.links import DEFAULT_MIME_TYPE, LARGEST_LINK_BYTES, parse_link
from headwater.work.links import DeadLink, dead_by, follow, open_url
from headwater.work.spooling import read_head, spooled, spooled_parts
from headwater.work.workplace import Workplace

_IMAGE_WITHIN_S = 300
_VIDEO_WITHIN_S = 180  # all its parts
_PART_WITHIN_S = 60
_TRIED_FOR = timedelta(hours=1)  # a server that is overloaded, or cannot be reached
_EMPTY = Prepared(problem=Problem("empty", "The file is empty."))


@dataclass(frozen=True, slots=True)
class Looked:
    """What a look at the end of a link brought."""

    found: Found
    mime_type: str
    prepared: Prepared
    video: dict[str, Any] = field(default_factory=dict[str, Any])  # facts that the target has already
    target: Item | None = None  # whose thumbnail is to be copied


def link_in(item: Item, body: bytes) -> Link | None:
    """Of an item that is a link file, as one that came with a sync. Raises BadRequest for a broken one."""
    is_whole = item.size_bytes == len(body) <= LARGEST_LINK_BYTES
    return parse_link(body) if is_whole and item.path.lower().endswith(".json") else None


async def look(place: Workplace, item: Item) -> Looked:
    """Raises Unavailable when the same look may bring more in a while."""
    link = Link.of(item.link or {})
    if link.kind == "url" and not place.link_fetch:
        return Looked(Found("unchecked", datetime.now(UTC)), link.mime_type or DEFAULT_MIME_TYPE, Prepared())
    try:
        if link.kind == "url":
            return await _look_in_turn(place, item, link.ref)
        async with place.slots:
            return await _look_at_item(place, item)
    except DeadLink as dead:
        is_young = datetime.now(UTC) - item.updated_at < _TRIED_FOR
        if dead.reason in PASSING and is_young:
            raise Unavailable(str(dead)) from None
        return _dead(item, dead)


async def _look_in_turn(place: Workplace, item: Item, url: str) -> Looked:
    """Raises DeadLink, also for a host that was silent before and is not asked."""
    try:
        host = host_of(url)
    except BadRequest:
        host = ""  # it will be refused
    try:
        async with place.link_turns.turn(host):
            looked = await _look_at_url(place, item)
    except LetAlone as alone:
        raise DeadLink("timeout", f"The link {item.path} is dead: {alone}") from None
    except DeadLink as dead:
        if dead.reason in SILENT and dead.host == host:
            place.link_turns.note_silence(host)
        else:
            place.link_turns.note_answer(host)
        raise
    place.link_turns.note_answer(host)
    return looked


def _dead(item: Item, dead: DeadLink) -> Looked:
    problem = Problem("dead-link", str(dead))
    return Looked(dead_by(dead), Link.of(item.link or {}).mime_type or DEFAULT_MIME_TYPE, Prepared(problem=problem))


async def _look_at_item(place: Workplace, item: Item) -> Looked:
    """Its facts are the target's. Raises DeadLink, Unavailable while the target itself is not prepared.

    Those of another project are left to its members: whoever sees the link might not be one.
    """
    async with place.pool.connection() as conn:
        try:
            target = await follow(conn, None, item)
        except DeadLink as dead:
            if not dead.is_hidden:
                raise
            return Looked(_alive(None), Link.of(item.link or {}).mime_type or DEFAULT_MIME_TYPE, Prepared())
    if target.etl_state == ETL_WAITING:
        raise Unavailable(f"{item.path} leads to {target.path}, which is not prepared yet.")
    system = target.system_metadata or {}
    facts = problem = None
    if target.width_px is not None and target.height_px is not None:
        facts = ImageFacts(
            target.mime_type or DEFAULT_MIME_TYPE,
            target.width_px,
            target.height_px,
            system.get("channels", 0),
            system.get("exif", {}),
        )
    if target.etl_state == ETL_FAILED:
        etl = system.get("etl", {})
        problem = Problem(etl.get("reason", "corrupt"), etl.get("message", "The linked item could not be read."))
    return Looked(
        _alive(target.size_bytes),
        target.mime_type or DEFAULT_MIME_TYPE,
        Prepared(facts=facts, problem=problem),
        {key: system[key] for key in VIDEO_KEYS if key in system},
        target,
    )


def _alive(size_bytes: int | None) -> Found:
    return Found("alive", datetime.now(UTC), size_bytes)


async def _look_at_url(place: Workplace, item: Item) -> Looked:
    """Its first bytes say what it is: the whole of an image is read, and of a video what tells its length."""
    try:
        async with open_url(place, item, 0, HEAD_BYTES, within_s=_PART_WITHIN_S) as answer:
            head = await read_head(answer.chunks, HEAD_BYTES)
    except BadRequest:  # there is no first byte
        return Looked(_alive(0), Link.of(item.link or {}).mime_type or DEFAULT_MIME_TYPE, _EMPTY)
    size_bytes = answer.size_bytes
    if size_bytes is None and len(head) < HEAD_BYTES:
        size_bytes = len(head)
    found = _alive(size_bytes)
    mime_type = sniff_mime_type(head, answer.url.target.partition("?")[0])
    if not head:
        return Looked(found, mime_type, _EMPTY)
    if mime_type in READERS:
        return Looked(found, mime_type, await _read_video(place, item, mime_type, head, size_bytes))
    if mime_type.startswith("image/"):
        return Looked(found, mime_type, await _read_image(place, item, head, size_bytes))
    return Looked(found, mime_type, Prepared())


async def _read_image(place: Workplace, item: Item, head: bytes, size_bytes: int | None) -> Prepared:
    if size_bytes == len(head):
        async with spooled(place.spool_dir, head, _nothing()) as file:
            return await place.decoders.prepare(file)
    most = place.link_most_bytes
    if size_bytes is not None and size_bytes > most:
        return Prepared(problem=_too_large(most))
    try:
        async with (
            open_url(place, item, most_bytes=most, within_s=_IMAGE_WITHIN_S) as answer,
            spooled(place.spool_dir, b"", answer.chunks) as file,
        ):
            return await place.decoders.prepare(file)
    except DeadLink as dead:
        if dead.reason == "too-large":
            return Prepared(problem=_too_large(most))
        raise


def _too_large(most_bytes: int) -> Problem:
    return Problem(
        "too-large",
        f"The linked image has more than {most_bytes:,} bytes, which is more than this server reads of a link "
        "(HEADWATER_LINK_MOST_BYTES).",
    )


async def _read_video(place: Workplace, item: Item, mime_type: str, head: bytes, size_bytes: int | None) -> Prepared:
    """Nothing but what tells its length is read, also of one that comes from a server without ranges."""
    give_up_at_s = monotonic() + _VIDEO_WITHIN_S

    async def read(start: int, end: int) -> bytes:
        if end <= len(head):
            return head[start:end]
        within_s = max(0.001, min(_PART_WITHIN_S, give_up_at_s - monotonic()))
        async with open_url(place, item, start, end, within_s=within_s) as answer:
            if not answer.is_range and end > MOST_BYTES:
                return b""
            return await answer.read()

    async with spooled_parts(place.spool_dir, mime_type, size_bytes or len(head), read) as file:
        return await place.decoders.prepare(file)


async def _nothing() -> AsyncIterator[bytes]:
    return
    yield b""
