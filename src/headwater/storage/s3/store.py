"""A bucket that speaks S3 (AWS, MinIO, Ceph, SeaweedFS, R2 …) as a store."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from email.utils import parsedate_to_datetime
from urllib.parse import quote

import aiohttp
from multidict import CIMultiDictProxy

from headwater.errors import HeadwaterError, Unavailable
from headwater.storage.requests import Request
from headwater.storage.s3.dialect import S3Dialect
from headwater.storage.s3.listing import ParsedPage, find_token, parse_page
from headwater.storage.s3.requests import Bucket, S3Credentials, signed_url
from headwater.storage.s3.uploads import S3Upload
from headwater.storage.sending import CredentialsProvider, Sender
from headwater.storage.stores import ListingPage, ObjectInfo, ObjectReader, Store, Upload, check_range

_CHUNK_BYTES = 256 * 1024
_MOST_BREAKS = 3  # of one download
_MOST_EMPTY_PAGES = 100  # in a row; buckets with many deleted versions do have some


class S3Store(Store):
    def __init__(
        self,
        bucket: Bucket,
        credentials: CredentialsProvider[S3Credentials],
        session: aiohttp.ClientSession,
        *,
        backoff_s: float,
        attempts: int,
        page_keys: int,
    ) -> None:
        self.bucket = bucket
        self._sender = Sender(S3Dialect(bucket), credentials, session, backoff_s=backoff_s, attempts=attempts)
        self._session = session
        self._page_keys = page_keys

    async def list_pages(self, *, start_after: str | None = None, prefix: str = "") -> AsyncGenerator[ListingPage]:
        """The next page is on its way while one is parsed and used."""
        query = self._listing_query(prefix, self._page_keys)
        first = query if start_after is None else query | {"start-after": self.bucket.prefix + start_after}
        fetched = asyncio.create_task(self._fetch_page(first))
        progress = _Progress()
        try:
            while True:
                body = await fetched
                early = find_token(body)
                if early is not None:
                    fetched = asyncio.create_task(self._fetch_page(query | {"continuation-token": early}))
                parsed = await self._parse(body)
                progress.check(parsed)
                if parsed.token is not None and parsed.token != early:
                    fetched = asyncio.create_task(self._fetch_page(query | {"continuation-token": parsed.token}))
                yield parsed.page
                if parsed.page.is_last:
                    return
        finally:
            await _discard(fetched)

    async def head(self, key: str) -> ObjectInfo:
        answer = await self._sender.send(Request("HeadObject", "HEAD", key))
        return _info(key, answer.headers)

    @asynccontextmanager
    async def get(self, key: str, *, start: int = 0, end: int | None = None) -> AsyncGenerator[ObjectReader]:
        check_range(start, end)
        async with AsyncExitStack() as opened:
            response = await opened.enter_async_context(self._sender.open(_get_request(key, start, end)))
            info = _info(key, response.headers)
            content_range = response.headers.get("Content-Range")
            yield ObjectReader(info, content_range, self._chunks(opened, response, info, start, end))

    async def put(self, key: str, body: bytes, *, content_type: str) -> ObjectInfo:
        headers = {"Content-Type": content_type}
        answer = await self._sender.send(Request("PutObject", "PUT", key, headers=headers, body=body))
        etag = answer.headers.get("ETag", "").strip('"')
        return ObjectInfo(key, len(body), etag, None, content_type)

    async def begin_upload(self, key: str, *, content_type: str) -> Upload:
        return S3Upload(self._sender, self.put, key, content_type)

    async def delete(self, key: str) -> None:
        await self._sender.send(Request("DeleteObject", "DELETE", key))

    async def sign_get(
        self, key: str, *, expires_s: int, file_name: str | None = None, content_type: str | None = None
    ) -> str | None:
        query: dict[str, str] = {}
        if file_name is not None:
            query["response-content-disposition"] = f"attachment; filename*=UTF-8''{quote(file_name, safe='')}"
        if content_type is not None:
            query["response-content-type"] = content_type
        credentials = await self._sender.credentials(False)
        return signed_url(self.bucket, Request("GetObject", "GET", key, query), credentials, expires_s=expires_s)

    async def check_listing(self) -> None:
        await self._parse(await self._fetch_page(self._listing_query("", 1)))

    async def close(self) -> None:
        await self._session.close()

    def _listing_query(self, prefix: str, page_keys: int) -> dict[str, str]:
        query = {"list-type": "2", "encoding-type": "url", "max-keys": str(page_keys)}
        full = self.bucket.prefix + prefix
        return query | {"prefix": full} if full else query

    async def _fetch_page(self, query: dict[str, str]) -> bytes:
        return (await self._sender.send(Request("ListObjectsV2", "GET", query=query))).body

    async def _parse(self, body: bytes) -> ParsedPage:
        try:
            return await asyncio.to_thread(parse_page, body, self.bucket.prefix)
        except Unavailable as error:
            raise Unavailable(f'Listing bucket "{self.bucket.name}" failed. {error}') from error

    async def _chunks(
        self,
        opened: AsyncExitStack,
        response: aiohttp.ClientResponse,
        info: ObjectInfo,
        position: int,
        end: int | None,
    ) -> AsyncGenerator[bytes]:
        """When the connection breaks, go on where it broke, if the object is still the same."""
        failures = 0
        while True:
            try:
                async for chunk in response.content.iter_chunked(_CHUNK_BYTES):
                    position += len(chunk)
                    yield chunk
                return  # noqa: TRY300 - an else would run after every break, too
            except (aiohttp.ClientError, TimeoutError, OSError) as error:
                failures += 1
                if failures > _MOST_BREAKS or not info.etag:
                    raise Unavailable(
                        f'The connection broke while "{info.key}" in bucket "{self.bucket.name}" was read, '
                        f"at byte {position:,} of {info.size_bytes:,}. Try again later."
                    ) from error
            request = _get_request(info.key, position, end, same_as=info.etag)
            response = await opened.enter_async_context(self._sender.open(request))


class _Progress:
    """Sees to it that a listing moves on: no token twice, no endless row of empty pages."""

    def __init__(self) -> None:
        self._pages = 0
        self._empty_pages = 0
        self._last: str | None = None
        self._landmark: str | None = None  # moves on at every power of two, so it meets any circle (Brent)

    def check(self, parsed: ParsedPage) -> None:
        if parsed.token is None:
            return
        if parsed.token in {self._last, self._landmark}:
            raise Unavailable("The store repeats a continuation token, so its listing would never end.")
        self._pages += 1
        self._last = parsed.token
        if self._pages & (self._pages - 1) == 0:
            self._landmark = parsed.token
        self._empty_pages = 0 if parsed.last_key is not None else self._empty_pages + 1
        if self._empty_pages > _MOST_EMPTY_PAGES:
            raise Unavailable("The store keeps saying that more objects follow, but sends none.")


async def _discard(task: asyncio.Task[bytes]) -> None:
    task.cancel()
    with suppress(asyncio.CancelledError, HeadwaterError):
        await task


def _get_request(key: str, start: int, end: int | None, *, same_as: str | None = None) -> Request:
    headers = {} if same_as is None else {"If-Match": f'"{same_as}"'}
    if start != 0 or end is not None:
        headers["Range"] = f"bytes={start}-{'' if end is None else end - 1}"
    return Request("GetObject", "GET", key, headers=headers)


def _info(key: str, headers: CIMultiDictProxy[str]) -> ObjectInfo:
    modified = headers.get("Last-Modified")
    total = headers.get("Content-Range", "").rpartition("/")[2]
    return ObjectInfo(
        key=key,
        size_bytes=int(total if total.isdigit() else headers["Content-Length"]),
        etag=headers.get("ETag", "").strip('"'),
        modified_at=parsedate_to_datetime(modified) if modified else None,
        content_type=headers.get("Content-Type"),
    )
