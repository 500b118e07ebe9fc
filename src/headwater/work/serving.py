"""Asks together what many requests for bytes want to know: whether each may have them, and where they lie."""

import asyncio
from collections.abc import Sequence

from headwater.catalog import serving
from headwater.catalog.serving import Asked, Kept
from headwater.db.pool import Pool

_AT_ONCE = 2  # statements on their way
_MOST_TOGETHER = 100


class Lookups:
    """Requests that come while statements are on their way go together into the next one.

    Nothing is remembered: each answer is of a statement that began after its request came.
    """

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._waiting: list[tuple[Asked, asyncio.Future[Kept]]] = []
        self._running: set[asyncio.Task[None]] = set()

    async def find(self, asked: Asked) -> Kept:
        """Raises Unauthorized, Forbidden, NotFound; what the database raises."""
        future: asyncio.Future[Kept] = asyncio.get_running_loop().create_future()
        self._waiting.append((asked, future))
        if len(self._running) < _AT_ONCE:
            # It begins when this turn of the loop is over, so others of the same turn come along.
            task = asyncio.create_task(self._answer_all())
            self._running.add(task)
            task.add_done_callback(self._running.discard)
        return await future

    async def _answer_all(self) -> None:
        while self._waiting:
            together, self._waiting = self._waiting[:_MOST_TOGETHER], self._waiting[_MOST_TOGETHER:]
            try:
                answers = await self._ask([asked for asked, _ in together])
            except Exception as error:  # noqa: BLE001 - each of them is told
                answers = [error] * len(together)
            for (_, future), answer in zip(together, answers, strict=True):
                if future.done():  # who asked went away
                    continue
                if isinstance(answer, Exception):
                    future.set_exception(answer)
                else:
                    future.set_result(answer)

    async def _ask(self, asked: Sequence[Asked]) -> list[Kept | Exception]:
        async with self._pool.connection() as conn:
            return await serving.find_kept(conn, asked)
