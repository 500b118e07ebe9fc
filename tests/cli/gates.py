"""A gate between a client and a server: it counts what passes, halts it, cuts it, and leads elsewhere."""

import re
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

_HEAD = re.compile(rb"(GET|POST|PUT|PATCH|HEAD|DELETE) (\S+) HTTP/1\.1\r\n")
_RANGE = re.compile(rb"(?i)\r\n(?:range|upload-offset): ([^\r]+)")
_AT_ONCE = 65_536


class Gate:
    """`url` answers as `upstream` does; at most `down_bytes` come down and `up_bytes` go up until `open` is called.

    With `only`, connections whose first request does not name it go their way uncounted.
    """

    def __init__(
        self, upstream: str, *, only: str = "", down_bytes: float = float("inf"), up_bytes: float = float("inf")
    ) -> None:
        self._only = only.encode()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self._upstream = upstream
        self._left = {"down": down_bytes, "up": up_bytes}
        self._changed = threading.Condition()
        self._sockets: set[socket.socket] = set()
        self.asked: list[tuple[str, str, str | None]] = []  # method, path, Range or Upload-Offset
        self.passed = {"down": 0, "up": 0}
        threading.Thread(target=self._accept, daemon=True).start()

    def lead_to(self, upstream: str) -> None:
        self._upstream = upstream

    def open(self, *, down_bytes: float = float("inf"), up_bytes: float = float("inf")) -> None:
        with self._changed:
            self._left = {"down": down_bytes, "up": up_bytes}
            self._changed.notify_all()

    def wait_until_halted(self, within_s: float = 60) -> None:
        with self._changed:
            assert self._changed.wait_for(lambda: min(self._left.values()) <= 0, within_s), self.passed

    def cut(self) -> None:
        """Every connection, at once."""
        with self._changed:
            cut, self._sockets = self._sockets, set()
        for one in cut:
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self.open()
        self.cut()
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                here, _ = self._listener.accept()
            except OSError:
                return
            host, _, port = self._upstream.removeprefix("http://").partition(":")
            try:
                there = socket.create_connection((host, int(port)))
            except OSError:
                here.close()
                continue
            with self._changed:
                self._sockets |= {here, there}
            for way, source, target in (("up", here, there), ("down", there, here)):
                threading.Thread(target=self._pump, args=(way, source, target), daemon=True).start()

    def _count(self, way: str, size_bytes: int) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._left[way] > 0)
            self._left[way] -= size_bytes
            self.passed[way] += size_bytes
            self._changed.notify_all()

    def _pump(self, way: str, source: socket.socket, target: socket.socket) -> None:
        is_counted = not self._only
        with suppress(OSError):
            while data := source.recv(_AT_ONCE):
                is_counted = is_counted or (way == "up" and self._only in data.partition(b"\r\n\r\n")[0])
                if way == "up" and (head := _HEAD.match(data)):
                    found = _RANGE.search(data.partition(b"\r\n\r\n")[0])
                    self.asked.append((head[1].decode(), head[2].decode(), found and found[1].decode()))
                if is_counted:
                    self._count(way, len(data))
                target.sendall(data)
        for one in (source, target):
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()


@contextmanager
def gate(upstream: str, **limits: Any) -> Iterator[Gate]:
    opened = Gate(upstream, **limits)
    try:
        yield opened
    finally:
        opened.close()
