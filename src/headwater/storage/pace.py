"""The pace at which one store is asked: slower when it throttles, quicker again once it is quiet.

All who ask through one store share its pace, so that they slow down together. A throttled answer doubles the gap
between requests, but once only for the requests that were on their way together (as TCP halves its window); each good
answer to a later request shortens it, until there is none.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable

LONGEST_REST_S = 30.0  # however long a store asks for; a job that gives up comes back later
_MOST_TIMES = 20  # the longest gap, in first gaps
_SHRINKS_BY = 0.9


class Pace:
    def __init__(
        self,
        first_gap_s: float,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
    ) -> None:
        self.gap_s = 0.0
        self._first_gap_s = first_gap_s
        self._clock = clock
        self._sleep = sleep
        self._next_s = -float("inf")  # when the next request may begin
        self._slowed_s = -float("inf")

    async def turn(self, rest_s: float = 0.0) -> float:
        """Rest, then wait for one's turn. The time at which it came, for the two below."""
        if rest_s:
            await self._sleep(rest_s)
        now_s = self._clock()
        begins_s = max(now_s, self._next_s)
        self._next_s = begins_s + self.gap_s
        if begins_s > now_s:
            await self._sleep(begins_s - now_s)
        return begins_s

    def slow_down(self, began_s: float, retry_after_s: float | None = None) -> None:
        """The request that began then was throttled; nobody asks again before `retry_after_s`, if the store tells."""
        now_s = self._clock()
        if retry_after_s is not None:
            self._next_s = max(self._next_s, now_s + min(max(retry_after_s, 0.0), LONGEST_REST_S))
        if began_s >= self._slowed_s:
            self.gap_s = min(max(self._first_gap_s, 2 * self.gap_s), _MOST_TIMES * self._first_gap_s)
            self._slowed_s = now_s

    def go_on(self, began_s: float) -> None:
        """The request that began then was answered."""
        if self.gap_s and began_s >= self._slowed_s:
            self.gap_s *= _SHRINKS_BY
            if self.gap_s < self._first_gap_s / 4:
                self.gap_s = 0.0
