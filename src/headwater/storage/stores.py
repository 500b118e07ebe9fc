"""Stores: what Headwater asks of any bucket or folder, whichever cloud holds it.

Keys are relative to the driver's prefix and otherwise exactly what the bucket has: `a//b`, `%`, `+`, spaces,
leading and trailing slashes and `..` are ordinary. The object named like the prefix itself has the key ''.

Every method raises only errors of `headwater.errors`: StoreDenied, StoreMissing, StoreChanged, another
FailedDependency, BadRequest, or Unavailable after the adapter's own retries. No message contains a secret or a
signed URL.
"""

import asyncio
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from datetime import datetime
from types import TracebackType
from typing import Any, Protocol, Self

from headwater.errors import BadRequest, HeadwaterError, RangeNotSatisfiable, StoreChanged, StoreMissing, Unavailable

LARGEST_KEY_BYTES = 1024  # of S3, GCS and Azure
PAGE_KEYS = 1000
FEW_KEYS = 20  # of a page that only proves something: some may be folder markers, or ours


@dataclass(frozen=True, slots=True)
class ObjectInfo:
    key: str
    size_bytes: int
    etag: str  # without quotes
    modified_at: datetime | None  # None where the store does not tell, as after a write to S3
    content_type: str | None


@dataclass(frozen=True, slots=True)
class SignedRequest:
    """A request that whoever has it may send for a while, with exactly these headers. Never kept and never logged."""

    method: str
    url: str = field(repr=False)  # percent-encoded letter by letter as it is to be sent
    headers: Mapping[str, str] = field(default_factory=dict[str, str], repr=False)


@dataclass(frozen=True, slots=True)
class Doomed:
    """An object to delete."""

    key: str
    etag: str | None = None  # only the object with this etag is meant; None: whichever is there


@dataclass(frozen=True, slots=True)
class ListingPage:
    """Some consecutive objects as parallel lists; a page may be empty.

    A listing is complete only when its page with `is_last` has come; whatever stops it earlier raises.
    """

    keys: list[str]
    sizes: list[int]
    etags: list[str]  # without quotes; '' where the store gives none
    modified: list[str]  # ISO 8601 with a time zone, as PostgreSQL casts to timestamptz
    unindexable: list[tuple[str, str]]  # printable form of the key, reason
    is_last: bool


@dataclass(frozen=True, slots=True)
class ObjectReader:
    """The bytes of one object, or of the range asked for; iterate it once."""

    info: ObjectInfo  # size_bytes is that of the whole object
    content_range: str | None  # as the HTTP header, `bytes 0-9/100`; None when the whole object comes
    chunks: AsyncIterator[bytes]

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self.chunks

    async def read(self) -> bytes:
        return b"".join([chunk async for chunk in self.chunks])


@dataclass(frozen=True, slots=True)
class Part:
    """A piece of an object that is not there yet."""

    number: int  # from 1 on
    size_bytes: int
    etag: str  # what the store wants to be told of it at the end


@dataclass(frozen=True, slots=True)
class PartLimits:
    part_bytes: int  # of every part but the last, which may be shorter
    most_parts: int


PartState = dict[str, Any]
"""What a store has to know of an object that is written in parts: JSON, fit for a database.

It holds nothing by which anybody without credentials could write.
"""


@dataclass(frozen=True, slots=True)
class Unfinished:
    """An object that somebody began to write in parts."""

    key: str
    state: PartState  # by it `abort_parts` ends it, if it was ours
    began_at: datetime


class Upload(ABC):
    """One object being written; nothing is to be seen at its key before `finish`.

    As a context manager it aborts unless `finish` was reached. It holds a part in memory, never the object.
    """

    @abstractmethod
    async def write(self, chunk: bytes) -> None: ...

    @abstractmethod
    async def seal(self) -> None:
        """Send the data still held back, so that `finish` is short; may be left out."""

    @abstractmethod
    async def finish(self) -> ObjectInfo:
        """Make the object visible, in place of what was there."""

    @abstractmethod
    async def abort(self) -> None:
        """Leave nothing behind; harmless after `finish` and when repeated."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            await self.abort()
        except HeadwaterError:
            if error is None:
                raise


class Store(Protocol):
    def list_pages(self, *, start_after: str | None = None, prefix: str = "") -> AsyncIterator[ListingPage]:
        """Every object whose key begins with `prefix` and sorts after `start_after`, in the store's order."""
        ...

    async def first_key_after(self, key: str) -> str | None:
        """A key that exists and sorts after `key` as bytes, the first that the store names in one listing call.

        It proves nothing else: there may be keys in between, and None does not mean that none follows. Some stores
        skip objects after a key that they did not list themselves. Good to find out where a range may be cut.
        """
        ...

    async def head(self, key: str) -> ObjectInfo:
        """Raises StoreMissing."""
        ...

    def get(self, key: str, *, start: int = 0, end: int | None = None) -> AbstractAsyncContextManager[ObjectReader]:
        """Bytes from `start` up to, not including, `end`; an `end` past the object is cut to its size.

        Raises StoreMissing, and RangeNotSatisfiable for a range that holds no byte of the object.
        """
        ...

    async def put(self, key: str, body: bytes, *, content_type: str) -> ObjectInfo: ...

    async def begin_upload(self, key: str, *, content_type: str) -> Upload: ...

    def part_limits(self, size_bytes: int) -> PartLimits:
        """How an object of that size is cut. Raises BadRequest for one that is larger than the store holds."""
        return part_limits(size_bytes)

    async def begin_parts(self, key: str, *, content_type: str, part_bytes: int) -> PartState:
        """Begin an object that is written in parts, in any order, over any time, by any number of processes.

        Nothing is to be seen at `key` before `finish_parts`. Every part but the last has `part_bytes`.
        """
        ...

    async def put_part(self, key: str, state: PartState, number: int, body: bytes) -> Part:
        """Durable when it returns. May be repeated with the same number: what `finish_parts` is told counts.

        Raises StoreMissing when the store no longer knows what was begun.
        """
        ...

    async def sign_part(
        self, key: str, state: PartState, number: int, *, size_bytes: int, expires_s: int
    ) -> SignedRequest | None:
        """A request whose body becomes that part; None where the store cannot sign.

        `list_parts` tells what came so. No request goes to the store, but fresh credentials may be taken.
        """
        del key, state, number, size_bytes, expires_s
        return None

    async def list_parts(self, key: str, state: PartState) -> list[Part]:
        """The parts that the store has, by number; some stores tell of each attempt at one.

        A store that cannot sign tells of none. Raises StoreMissing when it no longer knows what was begun.
        """
        ...

    async def finish_parts(
        self, key: str, state: PartState, parts: Sequence[Part], *, content_type: str, only_if_new: bool = False
    ) -> ObjectInfo:
        """Make these parts, one after the other, the object at `key`, in place of what was there; none make it empty.

        May be repeated when an answer was lost. With `only_if_new` an object that is there raises StoreChanged. Raises
        PartsLost when the store has not all of them any more.
        """
        ...

    async def abort_parts(self, key: str, state: PartState) -> None:
        """Leave nothing of what was begun; harmless when repeated, and after `finish_parts`."""
        ...

    def list_unfinished(self) -> AsyncIterator[Unfinished]:
        """What was begun below the prefix, by anybody, and not finished; nothing where the store does not tell."""
        return _nothing()

    async def delete(self, key: str) -> None:
        """May be repeated: an absent object is fine."""
        ...

    async def delete_same(self, key: str, etag: str) -> None:
        """Delete the object if it is still the one with this etag; raises StoreChanged. An absent object is fine.

        Where the store cannot compare and delete in one step, an object that is written between the two is lost.
        """
        try:
            info = await self.head(key)
        except StoreMissing:
            info = None  # the object is absent, or the bucket: deleting tells
        if info is not None and info.etag and info.etag != etag:
            raise changed(key)
        await self.delete(key)

    async def delete_many(self, doomed: Sequence[Doomed]) -> dict[str, HeadwaterError]:
        """Delete up to 1,000 objects. Returns what stood in the way of those that it could not delete, by key."""
        return await delete_each(self, doomed)

    async def sign_get(
        self, key: str, *, expires_s: int, file_name: str | None = None, content_type: str | None = None
    ) -> str | None:
        """A URL that lets anyone read the object for that long; None where the store cannot sign.

        It makes no request to the store, but may take fresh credentials.
        """
        ...

    async def sign_put(
        self, key: str, *, size_bytes: int, content_type: str, expires_s: int, only_if_new: bool
    ) -> SignedRequest | None:
        """A request that writes the whole object, as `put` would; None where the store cannot sign.

        `only_if_new` is answered 412 or 409 by stores that know the condition when there is an object already; others
        replace it. Nor does every store hold the sender to the size: look at what lies there before you believe it.
        It makes no request to the store, but may take fresh credentials.
        """
        del key, size_bytes, content_type, expires_s, only_if_new
        return None

    async def check_listing(self) -> ListingPage:
        """Prove with one call that the prefix can be listed; raises what stands in the way.

        The page holds a few objects, if there are any; its order and its `is_last` mean nothing.
        """
        ...

    async def probe_multipart(self, key: str, body: bytes) -> None:
        """Prove that large objects can be written to `key`; raises what stands in the way.

        No unfinished upload stays, and at `key` there is what was there before or an object with these bytes.
        """
        ...

    async def close(self) -> None: ...


LARGEST_OBJECT_BYTES = 5 * 1024**4  # of S3 and GCS
MOST_PARTS = 10_000  # of one object, in S3 and GCS
SMALLEST_PART_BYTES = 8 * 1024**2
_STEP_BYTES = 1024**2


def part_limits(size_bytes: int) -> PartLimits:
    """Parts of 8 MiB up to 78 GiB, then a 10,000th of the whole. Raises BadRequest."""
    if size_bytes > LARGEST_OBJECT_BYTES:
        raise BadRequest(f"A file of {size_bytes:,} bytes is larger than any store holds: {LARGEST_OBJECT_BYTES:,}.")
    steps = -(-size_bytes // (MOST_PARTS * _STEP_BYTES))
    return PartLimits(max(SMALLEST_PART_BYTES, steps * _STEP_BYTES), MOST_PARTS)


def in_order(key: str, parts: Sequence[Part]) -> list[Part]:
    """Parts as they lie one after the other. Raises BadRequest where they do not make an object."""
    ordered = sorted(parts, key=lambda part: part.number)
    if [part.number for part in ordered] != list(range(1, len(ordered) + 1)):
        raise BadRequest(f'Parts of "{key}" are missing, or there are two with one number. Number them from 1 on.')
    return ordered


class PartsLost(Unavailable):
    """What was put is gone from the store: everything has to be sent again."""


def lost_parts(key: str) -> PartsLost:
    return PartsLost(
        f'The store no longer has all parts of "{key}": its upload was aborted, or expired, or another upload to the '
        "same name ended meanwhile. Upload it again."
    )


async def _nothing() -> AsyncIterator[Unfinished]:
    for none in list[Unfinished]():
        yield none


def first_after(page: ListingPage, key: str) -> str | None:
    return next((listed for listed in page.keys if listed.encode() > key.encode()), None)


def changed(key: str) -> StoreChanged:
    return StoreChanged(f'"{key}" is not the object that was meant: it was replaced meanwhile. It was left alone.')


async def delete_each(store: Store, doomed: Sequence[Doomed], *, at_once: int = 16) -> dict[str, HeadwaterError]:
    """One request an object, some side by side."""
    slots = asyncio.Semaphore(at_once)
    failures: dict[str, HeadwaterError] = {}

    async def delete(one: Doomed) -> None:
        async with slots:
            try:
                await (store.delete(one.key) if not one.etag else store.delete_same(one.key, one.etag))
            except HeadwaterError as error:
                failures[one.key] = error

    for defect in await asyncio.gather(*map(delete, doomed), return_exceptions=True):
        if isinstance(defect, BaseException):
            raise defect
    return failures


def check_range(start: int, end: int | None) -> None:
    """Raises RangeNotSatisfiable for a range that can hold no byte of any object."""
    if start < 0 or (end is not None and end <= start):
        raise RangeNotSatisfiable(
            f"Bytes {start} up to {end} are no range. Start at 0 or later and end after the start."
        )


def prefix_of(text: str) -> str:
    """The prefix as stores use it: '' or with one slash at its end, so that `img_7` never takes `img_70`."""
    return text if not text or text.endswith("/") else text + "/"


def unindexable_reason(name: bytes) -> str | None:
    """Why a name cannot stand in the index; None when it can."""
    if not name:
        return "The name is empty."
    if len(name) > LARGEST_KEY_BYTES:
        return f"The name is longer than {LARGEST_KEY_BYTES:,} bytes."
    if b"\0" in name:
        return "The name contains a NUL character."
    try:
        name.decode()
    except UnicodeDecodeError:
        return "The name is not UTF-8."
    return None
