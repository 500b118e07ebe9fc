"""A budget of memory that many tasks share."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager


class Budget:
    def __init__(self, limit_bytes: int) -> None:
        self._limit_bytes = limit_bytes
        self._used_bytes = 0
        self._given_back = asyncio.Condition()

    @asynccontextmanager
    async def taken(self, size_bytes: int) -> AsyncGenerator[None]:
        """Waits until there is room; what is larger than all of it goes alone."""
        async with self._given_back:
            await self._given_back.wait_for(
                lambda: not self._used_bytes or self._used_bytes + size_bytes <= self._limit_bytes
            )
            self._used_bytes += size_bytes
        try:
            yield
        finally:
            self._used_bytes -= size_bytes
            async with self._given_back:
                self._given_back.notify_all()
