"""A client that asks as much as it can for little processor time of its own: keep-alive connections, nothing parsed but
the status and the length. Each answer is compared with what it has to be.
"""

import asyncio
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

_HEAD_END = b"\r\n\r\n"


@dataclass(frozen=True, slots=True)
class Expected:
    status: int
    size_bytes: int  # of the body
    header: bytes = b""  # has to be in the head of the answer, in lower case


@dataclass(slots=True)
class Tally:
    requests_s: float
    wrong: dict[str, int]  # how many answers were like this instead
    latencies_s: list[float] = field(repr=False)


class _Turns:
    """Which request is next, and what came of them."""

    def __init__(self, requests: Sequence[bytes], count: int, expected: Expected) -> None:
        self._requests = requests
        self._left = count
        self.expected = expected
        self.wrong: Counter[str] = Counter()
        self.latencies_s: list[float] = []
        self.ended = asyncio.Event()

    def take(self) -> bytes | None:
        if self._left == 0:
            return None
        self._left -= 1
        return self._requests[self._left % len(self._requests)]


class _Connection(asyncio.Protocol):
    def __init__(self, turns: _Turns) -> None:
        self._turns = turns
        self._head = b""
        self._body_left = 0
        self._sent_at = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport: Any = transport  # uvloop's is no asyncio.Transport by name
        self._ask()

    def _ask(self) -> None:
        request = self._turns.take()
        if request is None:
            self._transport.close()
            return
        self._head, self._body_left, self._sent_at = b"", -1, time.perf_counter()
        self._transport.write(request)

    def data_received(self, data: bytes) -> None:
        if self._body_left < 0:
            self._head += data
            head_bytes = self._head.find(_HEAD_END)
            if head_bytes < 0:
                return
            data = self._head[head_bytes + len(_HEAD_END) :]
            self._body_left = self._check(self._head[:head_bytes].lower())
        self._body_left -= len(data)
        if self._body_left == 0:
            self._turns.latencies_s.append(time.perf_counter() - self._sent_at)
            self._ask()
        elif self._body_left < 0:
            self._transport.close()  # more bytes than it said

    def _check(self, head: bytes) -> int:
        """How many bytes the body has."""
        status = int(head[9:12])
        at = head.find(b"\ncontent-length:")
        size_bytes = int(head[at + 16 :].partition(b"\r\n")[0]) if at >= 0 else 0
        expected = self._turns.expected
        if (status, size_bytes) != (expected.status, expected.size_bytes) or expected.header not in head:
            self._turns.wrong[f"{status} with {size_bytes} bytes"] += 1
        return size_bytes

    def connection_lost(self, _error: Exception | None) -> None:
        if self._body_left:
            self._turns.wrong["a connection broke"] += 1
            self._turns.latencies_s.append(0.0)
        self._turns.ended.set()


async def load(
    port: int, paths: Sequence[str], expected: Expected, *, count: int, connections: int, token: str = ""
) -> Tally:
    """So many requests for the paths in turn, over so many connections at once."""
    head = f"Host: 127.0.0.1:{port}\r\nAuthorization: Bearer {token}\r\n\r\n"
    turns = _Turns([f"GET {path} HTTP/1.1\r\n{head}".encode() for path in paths], count, expected)
    loop = asyncio.get_running_loop()
    began = time.perf_counter()
    for _ in range(connections):
        await loop.create_connection(lambda: _Connection(turns), "127.0.0.1", port)
    async with asyncio.timeout(120):
        while len(turns.latencies_s) < count:
            turns.ended.clear()
            await turns.ended.wait()
    return Tally(count / (time.perf_counter() - began), dict(turns.wrong), turns.latencies_s)
