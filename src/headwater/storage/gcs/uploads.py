"""Uploads of any size to Google Cloud Storage: one request for small objects, a resumable session for large ones.

Source: https://cloud.google.com/storage/docs/performing-resumable-uploads
"""

import asyncio
import hashlib
import random
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from urllib.parse import parse_qsl, urlsplit

import orjson

from headwater.errors import StoreDenied, StoreMissing, Unavailable
from headwater.storage.gcs.requests import INSERT, GcsCredentials, encoded
from headwater.storage.requests import Request
from headwater.storage.sending import Answer, Sender
from headwater.storage.stores import ObjectInfo, Upload

CHUNK_BYTES = 8 * 1024**2
_STEP_BYTES = 256 * 1024  # every chunk but the last is a multiple of it
_ATTEMPTS = 5  # of one chunk
# Google's answer "go on" is 308, which others take for a redirect; so asked, it says 200 and 308 in a header.
_NO_308 = {"X-GUploader-No-308": "yes"}


class GcsUpload(Upload):
    def __init__(
        self,
        sender: Sender[GcsCredentials],
        once: Sender[GcsCredentials],
        put: Callable[..., Awaitable[ObjectInfo]],
        read_info: Callable[[bytes], ObjectInfo],
        key: str,
        resource: Mapping[str, str],
        *,
        backoff_s: float,
    ) -> None:
        """`once` sends without repeating: a chunk must not be sent again before it is known what has arrived."""
        self._sender = sender
        self._once = once
        self._put = put
        self._read_info = read_info
        self._key = key
        self._resource = resource
        self._backoff_s = backoff_s
        self._held = bytearray()
        self._sent_bytes = 0
        self._md5 = hashlib.md5(usedforsecurity=False)
        self._session: dict[str, str] | None = None  # a secret: whoever has it may write the object
        self._is_over = False

    async def begin(self) -> None:
        """A session, however small the object will be."""
        self._session = await self._create()

    async def write(self, chunk: bytes) -> None:
        self._held += chunk
        # More than a chunk, so that an object of exactly that size still goes as one request.
        while len(self._held) > CHUNK_BYTES:
            await self._send_held(CHUNK_BYTES)

    async def seal(self) -> None:
        """Keeps a last piece back, because the last byte makes the object visible."""
        if self._session is not None and (size := (len(self._held) - 1) // _STEP_BYTES * _STEP_BYTES) > 0:
            await self._send_held(size)

    async def finish(self) -> ObjectInfo:
        if self._session is None:
            content_type = self._resource["contentType"]
            info = await self._put(self._key, bytes(self._held), content_type=content_type)
        else:
            total_bytes = self._sent_bytes + len(self._held)
            answer = await self._send(self._session, bytes(self._held), total_bytes)
            assert answer is not None
            info = self._checked(answer, total_bytes)
        self._is_over = True
        return info

    async def abort(self) -> None:
        self._held.clear()
        if self._session is not None and not self._is_over:
            with suppress(StoreMissing):  # so it is told that the session has ended
                await self._sender.send(Request(INSERT, "DELETE", self._key, self._session))
        self._is_over = True

    async def _send_held(self, size: int) -> None:
        with memoryview(self._held) as view:
            chunk = bytes(view[:size])
        del self._held[:size]
        if self._session is None:
            self._session = await self._create()
        if await self._send(self._session, chunk, None) is not None:
            raise Unavailable(f'The store ended the upload of "{self._key}" too early. Upload it again.')

    async def _create(self) -> dict[str, str]:
        query = {"uploadType": "resumable", "fields": "name,size,md5Hash,generation,timeCreated,contentType"}
        headers = {"Content-Type": "application/json; charset=UTF-8"}
        request = Request(INSERT, "POST", self._key, query, headers, orjson.dumps(dict(self._resource)))
        answer = await self._sender.send(request)
        # Only its query is taken: the chunks go where the other requests go, whatever host this names.
        session = dict(parse_qsl(urlsplit(answer.headers.get("Location", "")).query, keep_blank_values=True))
        if not session.get("upload_id"):
            raise Unavailable(f'The store began the upload of "{self._key}" without giving it an id.')
        return session

    async def _send(self, session: dict[str, str], chunk: bytes, total_bytes: int | None) -> Answer | None:
        """The next bytes, the last ones if `total_bytes` is given; the answer if the object is complete.

        When an answer is lost, the store is asked how far it came, and gets the rest.
        """
        await asyncio.to_thread(self._md5.update, chunk)
        failures = 0
        while True:
            try:
                answer = await self._once.send(self._chunk_request(session, chunk, total_bytes))
            except (Unavailable, StoreDenied):
                failures += 1
                if failures >= _ATTEMPTS:
                    raise
                await asyncio.sleep(self._backoff_s * 2**failures * random.uniform(0.5, 1))  # noqa: S311
                answer = await self._sender.send(self._chunk_request(session, b"", total_bytes))
            if answer.headers.get("X-Http-Status-Code-Override") != "308":
                return answer
            arrived_bytes = _arrived_bytes(answer)
            news_bytes = arrived_bytes - self._sent_bytes
            if not 0 <= news_bytes <= len(chunk):
                raise Unavailable(f'The store lost bytes of "{self._key}" during its upload. Upload it again.')
            failures += news_bytes == 0
            if failures >= _ATTEMPTS:
                raise Unavailable(f'The store does not take the upload of "{self._key}". Try again later.')
            self._sent_bytes, chunk = arrived_bytes, chunk[news_bytes:]
            if not chunk and total_bytes is None:
                return None

    def _chunk_request(self, session: dict[str, str], chunk: bytes, total_bytes: int | None) -> Request:
        """Without bytes it asks how much has arrived."""
        span = f"{self._sent_bytes}-{self._sent_bytes + len(chunk) - 1}" if chunk else "*"
        total = "*" if total_bytes is None else str(total_bytes)
        headers = _NO_308 | {"Content-Range": f"bytes {span}/{total}"}
        return Request(INSERT, "PUT", self._key, session, headers, chunk)

    def _checked(self, answer: Answer, total_bytes: int) -> ObjectInfo:
        info = self._read_info(answer.body)
        md5 = encoded(self._md5.digest())
        if info.size_bytes != total_bytes or info.etag != md5:
            raise Unavailable(f'The store keeps other bytes of "{self._key}" than were sent. Upload it again.')
        return info


def _arrived_bytes(answer: Answer) -> int:
    """`Range: bytes=0-262143` says that 262,144 bytes are there; without it, none are."""
    last = answer.headers.get("Range", "").rpartition("-")[2]
    return int(last) + 1 if last.isdigit() else 0
