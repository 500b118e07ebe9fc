"""What one process keeps of columns in memory: the chunks and masks used last, up to a number of bytes."""

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Hashable
from threading import Lock
from time import monotonic
from typing import Any, TypeVar

from headwater.errors import QueryTooSlow

_AT_ONCE = 2  # evaluations; they take the whole of a core each

T = TypeVar("T")


class Cache:
    """Threads may use it at once. What was used longest ago goes first."""

    def __init__(self, most_bytes: int) -> None:
        self._most_bytes = most_bytes
        self._bytes = 0
        self._kept: OrderedDict[Hashable, tuple[Any, int]] = OrderedDict()
        self._lock = Lock()

    def get(self, key: Hashable) -> Any | None:
        with self._lock:
            found = self._kept.get(key)
            if found is None:
                return None
            self._kept.move_to_end(key)
            return found[0]

    def put(self, key: Hashable, value: Any, size_bytes: int) -> None:
        """Without effect for what would take more than an eighth of all there is."""
        if size_bytes > self._most_bytes // 8:
            return
        with self._lock:
            _, before = self._kept.pop(key, (None, 0))
            self._kept[key] = (value, size_bytes)
            self._bytes += size_bytes - before
            while self._bytes > self._most_bytes:
                _, (_, gone) = self._kept.popitem(last=False)
                self._bytes -= gone

    @property
    def size_bytes(self) -> int:
        return self._bytes


class Deadline:
    """When a query has to be done, or be given up: it is asked between small pieces of work."""

    def __init__(self, timeout_s: float) -> None:
        self._began = monotonic()
        self._until = self._began + timeout_s
        self._is_stopped = False

    @property
    def left_s(self) -> float:
        return max(0.0, self._until - monotonic())

    @property
    def elapsed_s(self) -> float:
        return monotonic() - self._began

    def stop(self) -> None:
        self._is_stopped = True

    def check(self) -> None:
        """Raises QueryTooSlow."""
        if self._is_stopped or monotonic() > self._until:
            raise QueryTooSlow("The query took too long and was stopped.")


class Columns:
    """The one way of a process to columns: its memory, and how many evaluations go on at once."""

    def __init__(self, *, most_bytes: int) -> None:
        self.cache = Cache(most_bytes)
        self.most_bytes = most_bytes
        self._turns = asyncio.Semaphore(_AT_ONCE)

    async def run(self, work: Callable[[], T], deadline: Deadline) -> T:
        """In a thread, so that the loop goes on. Who is cancelled stops the work, too. Raises QueryTooSlow."""
        async with self._turns:
            deadline.check()
            try:
                return await asyncio.to_thread(work)
            except asyncio.CancelledError:
                deadline.stop()
                raise
