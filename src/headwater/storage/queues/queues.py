"""What every queue can do: `sqs.py` and `azure_queue.py` answer it."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field

import aiohttp


@dataclass(frozen=True, slots=True)
class Message:
    id: str
    receipt: str = field(repr=False)  # of this delivery: deletes it
    body: bytes = field(repr=False)
    receives: int  # how often it was delivered, this time included


class Queue(ABC):
    """A message that is not deleted comes again after a while; any number may read side by side."""

    def __init__(self, session: aiohttp.ClientSession) -> None:
        self._session = session

    @abstractmethod
    async def receive(self, *, wait_s: int) -> list[Message]:
        """What is there, or comes within `wait_s`. Raises StoreDenied, StoreMissing, Unavailable."""

    @abstractmethod
    async def delete(self, messages: Sequence[Message]) -> None:
        """For good; one that is gone already is no error. Raises StoreDenied, StoreMissing, Unavailable."""

    async def close(self) -> None:
        await self._session.close()
