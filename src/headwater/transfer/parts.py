"""Large files in parts: straight to the bucket, side by side, in any order, over any number of runs."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from headwater.errors import HeadwaterError, NotFound
from headwater.transfer.budget import Budget
from headwater.transfer.journal import Entry
from headwater.transfer.link import Answer, Link, Request, refused
from headwater.transfer.reading import read_piece
from headwater.transfer.scanning import Found

_AT_ONCE = 4  # of one file
_TRIES = 3  # of one part, each with a new signature
_NOTED_EVERY_S = 1.0


@dataclass(slots=True)
class PartsUpload:
    link: Link
    ask: Callable[[str, dict[str, Any]], Awaitable[dict[str, Any]]]
    budget: Budget
    found: Found
    upload: str  # its id
    part_bytes: int
    entry: Entry
    count: Callable[[int, bool], None]  # bytes that are there; whether they passed just now
    done: dict[int, str] = field(default_factory=dict)  # ETags by number
    _noted_at: float = 0.0

    async def send(self) -> list[dict[str, Any]]:
        """What is to be committed. Raises NotFound when this upload is known no more, OSError, HeadwaterError."""
        count = max(1, -(-self.found.size_bytes // self.part_bytes))
        self.count(sum(self._size_of(number) for number in self.done), False)
        left = iter([number for number in range(1, count + 1) if number not in self.done])
        self._note()
        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(_AT_ONCE):
                    group.create_task(self._send_each(left))
        except* (HeadwaterError, OSError) as several:
            raise first_of(several) from None
        finally:
            self._note()
        return [{"number": number, "etag": etag} for number, etag in sorted(self.done.items())]

    async def _send_each(self, numbers: Iterator[int]) -> None:
        for number in numbers:
            async with self.budget.taken(self._size_of(number)):
                await self._send_one(number)

    async def _send_one(self, number: int) -> None:
        size_bytes = self._size_of(number)
        piece = await asyncio.to_thread(read_piece, self.found, (number - 1) * self.part_bytes, size_bytes)
        tries = 0
        while not (answer := await self._sent(number, piece)).is_good:
            tries += 1
            if answer.status == 404:
                raise NotFound("The bucket no longer knows the upload.")
            if tries >= _TRIES:
                raise refused(answer)
        self.done[number] = answer.headers.get("ETag", "")
        self.count(size_bytes, True)
        if time.monotonic() - self._noted_at >= _NOTED_EVERY_S:
            self._note()

    async def _sent(self, number: int, piece: bytes) -> Answer:
        """With a signature of its own: the one before may have expired."""
        signed = await self.ask("parts", {"upload": self.upload, "numbers": [number]})
        request = signed["requests"][0]
        return await self.link.send(Request(request["method"], request["url"], request["headers"]), piece)

    def _size_of(self, number: int) -> int:
        return min(self.part_bytes, self.found.size_bytes - (number - 1) * self.part_bytes)

    def _note(self) -> None:
        self._noted_at = time.monotonic()
        known = {"action": "parts", "upload": self.upload, "partBytes": self.part_bytes}
        self.entry.write(known | {"parts": {str(number): etag for number, etag in self.done.items()}})


def first_of(several: BaseException) -> BaseException:
    while isinstance(several, BaseExceptionGroup):
        several = several.exceptions[0]
    return several
