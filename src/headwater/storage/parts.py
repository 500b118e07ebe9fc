"""Cuts what is written into parts, as uploads of large objects want them, and sends some of them side by side."""

import asyncio
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

_SMALL_BYTES = 16 * 1024  # chunks smaller than this are copied together


class PartBuffer:
    """Holds at most a part and a chunk. `part_bytes` gives the size of the part with that number, counted from 0."""

    def __init__(self, part_bytes: Callable[[int], int]) -> None:
        self._part_bytes = part_bytes
        self._chunks: list[Any] = []  # bytes, bytearrays, memoryviews
        self._held_bytes = 0
        self._parts = 0
        self.size_bytes = 0  # of all that was written

    def cut(self, chunk: bytes) -> Iterator[bytes]:
        """The parts that are full now. Something is always held back, so an object of one part's size is no part."""
        self.size_bytes += len(chunk)
        self._hold(chunk)
        while (excess := self._held_bytes - self._part_bytes(self._parts)) > 0:
            last = memoryview(self._chunks.pop())
            part = b"".join([*self._chunks, last[:-excess]])
            self._chunks = [last[-excess:]]
            self._held_bytes = excess
            self._parts += 1
            yield part

    def _hold(self, chunk: bytes) -> None:
        self._held_bytes += len(chunk)
        if len(chunk) >= _SMALL_BYTES:
            self._chunks.append(chunk)
        elif self._chunks and isinstance(self._chunks[-1], bytearray):
            self._chunks[-1] += chunk
        else:
            self._chunks.append(bytearray(chunk))

    def take_rest(self) -> bytes:
        rest = self.rest
        self.drop()
        return rest

    @property
    def rest(self) -> bytes:
        return b"".join(self._chunks)

    def drop(self) -> None:
        self._chunks, self._held_bytes = [], 0


class Room:
    """Bytes that all uploads of a store together may have on their way, beyond the one part that each always may."""

    def __init__(self, most_bytes: int) -> None:
        self._left_bytes = most_bytes

    def take(self, size_bytes: int) -> bool:
        if size_bytes > self._left_bytes:
            return False
        self._left_bytes -= size_bytes
        return True

    def give_back(self, size_bytes: int) -> None:
        self._left_bytes += size_bytes


class InFlight:
    """Requests that send parts beside each other, as many as fit into so many bytes and into the room that all share.

    One is always sent, however large it is, and one that is larger than `most_bytes` alone.
    """

    def __init__(self, most_bytes: int, room: Room) -> None:
        self._most_bytes = most_bytes
        self._room = room
        self._bytes = 0
        self._requests: dict[asyncio.Task[None], tuple[int, int]] = {}  # its size, and what it took of the room

    async def add(self, size_bytes: int, request: Coroutine[Any, Any, None]) -> None:
        """Begin it as soon as there is room; raises what an earlier one failed with."""
        try:
            while self._requests and not self._has_room(size_bytes):
                await self._wait(asyncio.FIRST_COMPLETED)
        except BaseException:
            request.close()
            raise
        taken_bytes = size_bytes if self._requests else 0
        self._requests[asyncio.create_task(request)] = size_bytes, taken_bytes
        self._bytes += size_bytes
        if size_bytes > self._most_bytes:
            await self.land()

    def _has_room(self, size_bytes: int) -> bool:
        return self._bytes + size_bytes <= self._most_bytes and self._room.take(size_bytes)

    async def land(self) -> None:
        """Wait for all of them; raises what the first failed with."""
        while self._requests:
            await self._wait(asyncio.FIRST_EXCEPTION)

    async def drop(self) -> None:
        """End all of them."""
        for request in self._requests:
            request.cancel()
        await asyncio.gather(*self._requests, return_exceptions=True)
        for request in list(self._requests):
            self._forget(request)

    async def _wait(self, return_when: str) -> None:
        done, _ = await asyncio.wait(self._requests, return_when=return_when)
        failures: list[BaseException] = []
        for request in done:
            self._forget(request)
            if (failure := request.exception()) is not None:
                failures.append(failure)
        if failures:
            raise failures[0]

    def _forget(self, request: asyncio.Task[None]) -> None:
        size_bytes, taken_bytes = self._requests.pop(request)
        self._bytes -= size_bytes
        self._room.give_back(taken_bytes)
