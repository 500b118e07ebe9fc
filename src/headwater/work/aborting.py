"""Long work that stops within a second of an abort, whatever it waits for just then."""

import asyncio
from collections.abc import Coroutine
from typing import Any


class Aborted(Exception):
    """Somebody asked the command to stop."""


async def until_aborted(work: Coroutine[Any, Any, None], watch: Coroutine[Any, Any, None]) -> None:
    """Runs `work` to its end, or until `watch` returns, which it does when an abort is asked for: then Aborted.

    Raises what the work failed with, or what kept it from being watched. Neither runs on afterwards.
    """
    working, watching = asyncio.create_task(work), asyncio.create_task(watch)
    try:
        await asyncio.wait([working, watching], return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            watching.result()  # raises when it could not watch
            raise Aborted
        await working
    finally:
        for task in (working, watching):
            task.cancel()
        await asyncio.gather(working, watching, return_exceptions=True)
