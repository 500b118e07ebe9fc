"""The listing of a key range, read ahead of the database and cut into batches."""

import asyncio
import operator
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import suppress
from dataclasses import dataclass

from headwater.catalog.items import HIDDEN_FOLDER
from headwater.catalog.sync.listed import Listed
from headwater.errors import Unavailable
from headwater.storage.stores import ListingPage, Store
from headwater.work.selection import Selection

BATCH_KEYS = 5_000
_PAGES_AHEAD = 8  # listed while the database works
_HIDDEN_KEYS = HIDDEN_FOLDER[1:] + "/"


class Unordered(Exception):
    """The store does not list in the order of keys."""


@dataclass(slots=True)
class KeyRange:
    """`(after, until]`, as paths; None: no bound. The end may come nearer while the range is listed."""

    after: str | None
    until: str | None

    def lies_behind(self, path: str) -> bool:
        return self.until is not None and path > self.until


async def batches(
    store: Store, within: KeyRange, selection: Selection, *, must_be_ordered: bool = True
) -> AsyncGenerator[Listed]:
    """Batches of about 5,000 keys. Raises Unordered.

    The last one of a range that ends before the bucket does holds the first path behind the end, too, and may hold
    more: the seam to the next range. `through` is None where the bucket ends.
    """
    after = within.after
    pages = _read_ahead(store.list_pages(start_after=None if after is None else after[1:]), within)
    try:
        batch = _Batch(after, selection)
        async for page in pages:
            if must_be_ordered:
                batch.check_order(page)
            batch.take(page)
            ends = page.is_last or (batch.last is not None and within.lies_behind(batch.last))
            if ends or batch.seen >= BATCH_KEYS:
                yield batch.listed(is_last=page.is_last)
                batch = _Batch(batch.last, selection)
            if ends:
                return
    finally:
        await pages.aclose()


@dataclass(slots=True)
class _Failed:
    error: Exception


async def _read_ahead(pages: AsyncIterator[ListingPage], within: KeyRange) -> AsyncGenerator[ListingPage]:
    """The same pages, read while the database is busy with earlier ones, but not far behind the end of the range."""
    ahead: asyncio.Queue[ListingPage | _Failed] = asyncio.Queue(_PAGES_AHEAD)

    async def read() -> None:
        try:
            async for page in pages:
                await ahead.put(page)
                if page.keys and within.lies_behind("/" + page.keys[-1]):
                    return
            await ahead.put(_Failed(Unavailable("The store's listing ended without its last page. List it again.")))
        except Exception as error:  # noqa: BLE001 - raised again below, in its place
            await ahead.put(_Failed(error))

    reader = asyncio.create_task(read())
    try:
        while True:
            page = await ahead.get()
            if isinstance(page, _Failed):
                raise page.error
            yield page
            if page.is_last:
                return
    finally:
        reader.cancel()
        with suppress(asyncio.CancelledError):
            await reader


class _Batch:
    """Pages put together, without what is never an item."""

    def __init__(self, after: str | None, selection: Selection) -> None:
        self.after = after
        self.last = after
        self.seen = 0
        self._pages: list[list[str]] = []
        self._selection = selection
        self._paths: list[str] = []
        self._sizes: list[int] = []
        self._etags: list[str] = []
        self._modified: list[str] = []
        self._skipped: list[tuple[str, str]] = []

    def check_order(self, page: ListingPage) -> None:
        """Strictly increasing in byte order (which for UTF-8 is the order of code points), and behind what came before.

        Raises Unordered.
        """
        keys = page.keys
        if keys and not ((self.last is None or self.last < "/" + keys[0]) and all(map(operator.lt, keys, keys[1:]))):
            raise Unordered

    def take(self, page: ListingPage) -> None:
        keys, sizes, etags, modified = page.keys, page.sizes, page.etags, page.modified
        if keys:
            self._pages.append(keys)
            self.last = "/" + keys[-1]
            self.seen += len(keys)
        if any(map(is_no_item, keys, sizes)):
            kept = [n for n, key in enumerate(keys) if not is_no_item(key, sizes[n])]
            keys, sizes, etags, modified = _only(kept, keys, sizes, etags, modified)
        paths = ["/" + key for key in keys]
        if not self._selection.keeps_all:
            kept = [n for n, path in enumerate(paths) if self._selection.keeps(path)]
            paths, sizes, etags, modified = _only(kept, paths, sizes, etags, modified)
        self._paths += paths
        self._sizes += sizes
        self._etags += etags
        self._modified += modified
        self._skipped += page.unindexable

    def listed(self, *, is_last: bool) -> Listed:
        return Listed(
            paths=self._paths,
            sizes=self._sizes,
            etags=self._etags,
            modified=self._modified,
            after=self.after,
            through=None if is_last else self.last,
            skipped=len(self._skipped),
            skipped_examples=self._skipped,
            key_pages=self._pages,
        )


def _only(
    kept: list[int], paths: list[str], sizes: list[int], etags: list[str], modified: list[str]
) -> tuple[list[str], list[int], list[str], list[str]]:
    return [paths[n] for n in kept], [sizes[n] for n in kept], [etags[n] for n in kept], [modified[n] for n in kept]


def is_no_item(key: str, size_bytes: int) -> bool:
    """Folder markers, and our own hidden folder."""
    return not key or (not size_bytes and key[-1] == "/") or key.startswith(_HIDDEN_KEYS)
