"""A bucket that does what a test says: lists out of order, ends early, hangs, fails at a call; and calls that fail."""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from psycopg import AsyncConnection, AsyncCursor

from headwater.errors import StoreMissing
from headwater.storage.stores import ListingPage, ObjectInfo, ObjectReader, Store, Upload

MODIFIED = "2024-05-01T10:00:00+00:00"


class Crash(Exception):
    """What `kill -9` looks like from inside: nothing of ours catches it."""


@dataclass
class Fault:
    """Lets calls of one kind through until the `nth`, which raises `error`; every later one works again."""

    kind: str
    nth: int
    error: Exception = field(default_factory=Crash)
    calls: int = 0
    has_fired: bool = False

    def hit(self, kind: str) -> None:
        if kind != self.kind:
            return
        self.calls += 1
        if self.calls == self.nth:
            self.has_fired = True
            raise self.error


class FaultyCursor(AsyncCursor[Any]):
    """Statements of every connection made with it, one of which may fail."""

    fault: Fault | None = None

    async def execute(self, *arguments: Any, **named: Any) -> Any:
        if FaultyCursor.fault is not None:
            FaultyCursor.fault.hit("statement")
        return await super().execute(*arguments, **named)


class FaultyConnection(AsyncConnection[Any]):
    """Commits that are lost, or that happen without our hearing of it."""

    async def commit(self) -> None:
        fault = FaultyCursor.fault
        if fault is not None:
            fault.hit("commit lost")
        await super().commit()
        if fault is not None:
            fault.hit("commit unheard")


class ScriptedStore(Store):
    """Holds its objects in a dict: key -> bytes."""

    def __init__(self, objects: dict[str, bytes] | None = None, *, page_keys: int = 3) -> None:
        self.objects = objects or {}
        self.page_keys = page_keys
        self.order: Callable[[Iterable[str]], list[str]] = lambda keys: sorted(keys, key=str.encode)
        # What a listing that starts after a key has: whatever is behind it in the order of bytes, or in its own.
        self.follows: Callable[[str], Callable[[str], bool]] = lambda start: lambda key: key.encode() > start.encode()
        self.on_page: Callable[[int], Any] | None = None  # awaited with the page's number, from 1
        self.ends_before_page: int | None = None  # a listing that breaks its promise
        self.empty_pages: frozenset[int] = frozenset()  # pages without a key that say that more follow
        self.modified: dict[str, datetime] = {}  # where it is another time than MODIFIED
        self.fault: Fault | None = None
        self.calls: list[str] = []

    def _called(self, name: str) -> None:
        self.calls.append(name)
        if self.fault is not None:
            self.fault.hit("store")

    async def list_pages(self, *, start_after: str | None = None, prefix: str = "") -> AsyncIterator[ListingPage]:
        """As S3 does it, each page is a look at the bucket of that moment."""
        number, given = 0, 0
        keys: list[str] = []
        while True:
            number += 1
            self._called(f"list {number}")
            if self.on_page is not None:
                await self.on_page(number)
            if number == self.ends_before_page:
                return
            if not keys:
                after = self.objects if start_after is None else filter(self.follows(start_after), self.objects)
                keys = self.order([key for key in after if key.startswith(prefix)])
            if number in self.empty_pages:
                yield self._page([], is_last=False)
                continue
            taken, given = keys[given : given + self.page_keys], given + self.page_keys
            is_last = given >= len(keys)
            yield self._page([key for key in taken if key in self.objects], is_last=is_last)
            if is_last:
                return

    def _page(self, keys: list[str], *, is_last: bool) -> ListingPage:
        return ListingPage(
            keys=keys,
            sizes=[len(self.objects[key]) for key in keys],
            etags=[self.etag_of(key) for key in keys],
            modified=[MODIFIED] * len(keys),
            unindexable=[],
            is_last=is_last,
        )

    @staticmethod
    def etag_of_content(content: bytes) -> str:
        return hashlib.md5(content).hexdigest()

    def etag_of(self, key: str) -> str:
        return self.etag_of_content(self.objects[key])

    def _info(self, key: str) -> ObjectInfo:
        return ObjectInfo(
            key,
            len(self.objects[key]),
            self.etag_of(key),
            self.modified.get(key, datetime.fromisoformat(MODIFIED)),
            None,
        )

    async def first_key_after(self, key: str) -> str | None:
        self._called(f"first after {key}")
        return next((other for other in self.order(self.objects) if other.encode() > key.encode()), None)

    async def head(self, key: str) -> ObjectInfo:
        self._called(f"head {key}")
        if key not in self.objects:
            raise StoreMissing(f"No object {key!r}.")
        return self._info(key)

    @asynccontextmanager
    async def get(self, key: str, *, start: int = 0, end: int | None = None):
        self._called(f"get {key}")
        if key not in self.objects:
            raise StoreMissing(f"No object {key!r}.")
        body = self.objects[key][start:end]

        async def chunks() -> AsyncIterator[bytes]:
            yield body

        yield ObjectReader(self._info(key), None, chunks())

    async def put(self, key: str, body: bytes, *, content_type: str) -> ObjectInfo:
        self._called(f"put {key}")
        self.objects[key] = bytes(body)
        return self._info(key)

    async def begin_upload(self, key: str, *, content_type: str) -> Upload:
        self._called(f"begin {key}")
        return _ScriptedUpload(self, key)

    async def delete(self, key: str) -> None:
        self._called(f"delete {key}")
        self.objects.pop(key, None)

    async def sign_get(self, key: str, **_: Any) -> str | None:
        return None

    async def check_listing(self) -> None:
        self._called("check")

    async def close(self) -> None:
        pass


class _ScriptedUpload(Upload):
    def __init__(self, store: ScriptedStore, key: str) -> None:
        self._store = store
        self._key = key
        self._body = bytearray()

    async def write(self, chunk: bytes) -> None:
        self._body += chunk
        await asyncio.sleep(0)

    async def seal(self) -> None:
        pass

    async def finish(self) -> ObjectInfo:
        return await self._store.put(self._key, bytes(self._body), content_type="")

    async def abort(self) -> None:
        pass
