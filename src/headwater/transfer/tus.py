"""Large files through our server, for stores that cannot sign: tus 1.0, resumed at the offset that the server tells."""

import asyncio
from base64 import b64encode
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urljoin

import aiohttp
import orjson

from headwater.errors import FailedDependency, HeadwaterError, NotFound
from headwater.transfer.journal import Entry
from headwater.transfer.link import Answer, Link, Tries, refusal
from headwater.transfer.reading import read_piece
from headwater.transfer.scanning import Found

_VERSION = {"Tus-Resumable": "1.0.0"}
_PIECE_BYTES = 1024 * 1024
_GONE = (404, 410)
_NOT_NOW = (409, 423)  # another offset than ours, or another request that the server has not ended yet


@dataclass(slots=True)
class TusUpload:
    link: Link
    dataset_id: str
    found: Found
    entry: Entry
    mode: str
    metadata: dict[str, Any] | None
    count: Callable[[int, bool], None]  # bytes that are there; whether they passed just now
    _counted_bytes: int = 0
    _spoiled: Exception | None = field(default=None)  # why the file cannot be read

    async def send(self, url: str | None) -> str:
        """What became of it. `url` is that of an earlier run.

        Raises NotFound when the server knows nothing of it, OSError, HeadwaterError.
        """
        url = url or await self._begin()
        self.entry.write({"action": "tus", "url": url})
        tries = self.link.tries()
        while True:
            told = await self.link.call("HEAD", url, headers=_VERSION)
            offset = int(told.headers["Upload-Offset"])
            self._recount(offset)
            if offset == self.found.size_bytes and "x-item-op" in told.headers:
                return told.headers["x-item-op"]
            try:
                answer = await self._send_rest(url, offset)
            except (aiohttp.ClientError, TimeoutError, ConnectionError) as error:
                if self._spoiled is not None:
                    raise self._spoiled from None
                await self._wait(tries, url, offset, error)
                continue
            if answer.status in _GONE:
                raise NotFound("The server no longer knows the upload.")
            if answer.status in _NOT_NOW or answer.status >= 500:
                await self._wait(tries, url, offset, FailedDependency(f"it answered {answer.status}"))
                continue
            if not answer.is_good:
                raise refusal(answer, self.link.url)
            if "x-item-op" in answer.headers:
                return answer.headers["x-item-op"]
            tries.begin_anew()

    async def _begin(self) -> str:
        given = {"path": self.found.path, "mode": self.mode}
        if self.metadata is not None:
            given["metadata"] = orjson.dumps({"user": self.metadata}).decode()
        told = ",".join(f"{name} {b64encode(value.encode()).decode()}" for name, value in given.items())
        headers = _VERSION | {"Upload-Length": str(self.found.size_bytes), "Upload-Metadata": told}
        path = f"/datasets/{self.dataset_id}/tus"
        answer = await self.link.call("POST", path, headers=headers)
        location = answer.headers.get("Location")
        if location is None:
            raise HeadwaterError("The server did not say where the upload goes. Is it a Headwater server?")
        return urljoin(f"{self.link.url}/api/v1{path}", location)

    async def _send_rest(self, url: str, offset: int) -> Answer:
        left_bytes = self.found.size_bytes - offset
        headers = _VERSION | {
            "Content-Type": "application/offset+octet-stream",
            "Content-Length": str(left_bytes),
            "Upload-Offset": str(offset),
        }
        return await self.link.once("PATCH", url, lambda: self._pieces(offset), headers, left_bytes)

    async def _pieces(self, offset: int) -> AsyncIterator[bytes]:
        while offset < self.found.size_bytes:
            size_bytes = min(_PIECE_BYTES, self.found.size_bytes - offset)
            try:
                piece = await asyncio.to_thread(read_piece, self.found, offset, size_bytes)
            except (OSError, HeadwaterError) as error:
                self._spoiled = error
                raise
            yield piece
            offset += size_bytes
            self._counted_bytes += size_bytes
            self.count(size_bytes, True)

    def _recount(self, offset: int) -> None:
        self.count(offset - self._counted_bytes, False)
        self._counted_bytes = offset

    async def _wait(self, tries: Tries, url: str, offset: int, error: Exception) -> None:
        """A server that has more than before is not away."""
        if self._counted_bytes > offset:
            tries.begin_anew()
        await self.link.wait(tries, url, error)
