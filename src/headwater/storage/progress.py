"""Listings page by page: the next page is on its way while one is used, and none goes in circles."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Coroutine
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from headwater.errors import HeadwaterError, Unavailable
from headwater.storage.stores import ListingPage

_MOST_EMPTY_PAGES = 100  # in a row; buckets with many deleted versions do have some


@dataclass(frozen=True, slots=True)
class ParsedPage:
    page: ListingPage
    token: str | None  # of the next page
    last_key: str | None  # as the bucket has it, prefix included; None when the page held nothing


async def pages_ahead(
    fetch: Callable[[str | None], Coroutine[Any, Any, bytes]],
    find_token: Callable[[bytes], str | None],
    parse: Callable[[bytes], Coroutine[Any, Any, ParsedPage]],
) -> AsyncGenerator[ListingPage]:
    """Pages up to the last. `fetch` takes the token of a page, None for the first.

    `find_token` reads the next token of a body without parsing it; None when there is none, or when only the
    parsed page can tell.
    """
    fetched = asyncio.create_task(fetch(None))
    progress = Progress()
    try:
        while True:
            body = await fetched
            early = find_token(body)
            if early is not None:
                fetched = asyncio.create_task(fetch(early))
            parsed = await parse(body)
            progress.check(parsed)
            if parsed.token is not None and parsed.token != early:
                fetched.cancel()
                fetched = asyncio.create_task(fetch(parsed.token))
            yield parsed.page
            if parsed.page.is_last:
                return
    finally:
        await _discard(fetched)


class Progress:
    """Sees to it that a listing moves on: no token twice, no endless row of empty pages."""

    def __init__(self) -> None:
        self._pages = 0
        self._empty_pages = 0
        self._last: str | None = None
        self._landmark: str | None = None  # moves on at every power of two, so it meets any circle (Brent)

    def check(self, parsed: ParsedPage) -> None:
        if parsed.token is None:
            return
        if parsed.token in {self._last, self._landmark}:
            raise Unavailable("The store repeats a continuation token, so its listing would never end.")
        self._pages += 1
        self._last = parsed.token
        if self._pages & (self._pages - 1) == 0:
            self._landmark = parsed.token
        self._empty_pages = 0 if parsed.last_key is not None else self._empty_pages + 1
        if self._empty_pages > _MOST_EMPTY_PAGES:
            raise Unavailable("The store keeps saying that more objects follow, but sends none.")


async def _discard(task: asyncio.Task[bytes]) -> None:
    task.cancel()
    with suppress(asyncio.CancelledError, HeadwaterError):
        await task
