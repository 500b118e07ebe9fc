"""A bucket that speaks S3 (AWS, MinIO, Ceph, SeaweedFS, R2 …) as a store."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, aclosing, asynccontextmanager
from dataclasses import replace
from urllib.parse import quote

import aiohttp

from headwater.errors import FailedDependency, HeadwaterError, StoreDenied, StoreMissing, Unavailable
from headwater.storage.multipart import Multipart, MultipartStore, part_request
from headwater.storage.parts import Room
from headwater.storage.progress import ParsedPage, pages_ahead
from headwater.storage.reading import info_of, unbroken_chunks
from headwater.storage.requests import Request
from headwater.storage.s3.deletion import MOST_KEYS, can_be_named, deletion_request, read_failures
from headwater.storage.s3.dialect import S3Dialect
from headwater.storage.s3.listing import find_token, parse_page, unended
from headwater.storage.s3.presigning import signed_url
from headwater.storage.s3.requests import Bucket, S3Credentials
from headwater.storage.s3.uploads import S3Upload
from headwater.storage.sending import CredentialsProvider, Sender
from headwater.storage.stores import (
    FEW_KEYS,
    PAGE_KEYS,
    SMALLEST_PART_BYTES,
    Doomed,
    ListingPage,
    ObjectInfo,
    ObjectReader,
    PartState,
    SignedRequest,
    Store,
    Unfinished,
    Upload,
    changed,
    check_range,
    delete_each,
    first_after,
)

_PARTS_ON_THEIR_WAY = 8  # of all uploads together, beyond one of each


class S3Store(MultipartStore):
    _only_if_new = {"If-None-Match": "*"}  # noqa: RUF012

    def __init__(
        self,
        bucket: Bucket,
        credentials: CredentialsProvider[S3Credentials],
        session: aiohttp.ClientSession,
        *,
        backoff_s: float,
        attempts: int,
        page_keys: int,
        storage_class: str | None = None,
    ) -> None:
        self.bucket = bucket
        self._sender = Sender(S3Dialect(bucket), credentials, session, backoff_s=backoff_s, attempts=attempts)
        self._session = session
        self._page_keys = page_keys
        self._walks_folders = False  # it is SeaweedFS
        # Standard is what every bucket does unasked, and some servers know no other.
        is_standard = (storage_class or "STANDARD").upper() == "STANDARD"
        self._class_header = {} if is_standard else {"x-amz-storage-class": str(storage_class).upper()}
        self._multipart = Multipart(self._sender, self._class_header)
        self._room = Room(_PARTS_ON_THEIR_WAY * SMALLEST_PART_BYTES)

    @property
    def credentials(self) -> CredentialsProvider[S3Credentials]:
        return self._sender.credentials

    async def list_pages(self, *, start_after: str | None = None, prefix: str = "") -> AsyncGenerator[ListingPage]:
        """The next page is on its way while one is parsed and used."""
        query = self._listing_query(prefix, self._page_keys)

        async def fetch(token: str | None) -> bytes:
            if token is not None:
                return await self._fetch_page(query | {"continuation-token": self._marker(token)})
            if start_after is None:
                return await self._fetch_page(query)
            return await self._fetch_after(query, start_after)

        async def parse(body: bytes) -> ParsedPage:
            parsed = await self._parse(body)
            return unended(parsed, min(self._page_keys, PAGE_KEYS)) if self._walks_folders else parsed

        async with aclosing(pages_ahead(fetch, find_token, parse)) as pages:
            async for page in pages:
                yield page

    async def first_key_after(self, key: str) -> str | None:
        body = await self._fetch_after(self._listing_query("", FEW_KEYS), key)
        return first_after((await self._parse(body)).page, key)

    async def head(self, key: str) -> ObjectInfo:
        answer = await self._sender.send(Request("HeadObject", "HEAD", key))
        return info_of(key, answer.headers)

    @asynccontextmanager
    async def get(self, key: str, *, start: int = 0, end: int | None = None) -> AsyncGenerator[ObjectReader]:
        check_range(start, end)
        async with AsyncExitStack() as opened:
            response = await opened.enter_async_context(self._sender.open(_get_request(key, start, end)))
            info = info_of(key, response.headers)
            content_range = response.headers.get("Content-Range")
            chunks = unbroken_chunks(
                opened,
                response,
                self._reopen(key, end, info.etag) if info.etag else None,
                info=info,
                position=start,
                place=f'bucket "{self.bucket.name}"',
            )
            yield ObjectReader(info, content_range, chunks)

    def _reopen(
        self, key: str, end: int | None, etag: str
    ) -> Callable[[int], AbstractAsyncContextManager[aiohttp.ClientResponse]]:
        return lambda position: self._sender.open(_get_request(key, position, end, same_as=etag))

    async def put(self, key: str, body: bytes, *, content_type: str) -> ObjectInfo:
        headers = {"Content-Type": content_type} | self._class_header
        answer = await self._sender.send(Request("PutObject", "PUT", key, headers=headers, body=body))
        etag = answer.headers.get("ETag", "").strip('"')
        return ObjectInfo(key, len(body), etag, None, content_type)

    async def begin_upload(self, key: str, *, content_type: str) -> Upload:
        return self._upload(key, content_type)

    def _upload(self, key: str, content_type: str) -> S3Upload:
        return S3Upload(self._multipart, self.put, key, content_type, self._room)

    async def sign_part(
        self, key: str, state: PartState, number: int, *, size_bytes: int, expires_s: int
    ) -> SignedRequest | None:
        headers = {"Content-Length": str(size_bytes)}
        request = replace(part_request(key, state["id"], number), headers=headers)
        url = signed_url(self.bucket, request, await self._sender.credentials(False), expires_s=expires_s)
        return None if url is None else SignedRequest("PUT", url, headers)

    def list_unfinished(self) -> AsyncIterator[Unfinished]:
        return self._multipart.list_unfinished(self.bucket.prefix)

    async def delete(self, key: str) -> None:
        await self._sender.send(Request("DeleteObject", "DELETE", key))

    async def delete_same(self, key: str, etag: str) -> None:
        """AWS compares and deletes in one step; other servers may pay no heed to the condition."""
        if not self._compares:
            await Store.delete_same(self, key, etag)
            return
        try:
            await self._sender.send(Request("DeleteObject", "DELETE", key, headers={"If-Match": f'"{etag}"'}))
        except StoreMissing as error:
            if error.code == "NoSuchBucket":
                raise

    async def delete_many(self, doomed: Sequence[Doomed]) -> dict[str, HeadwaterError]:
        failures = {} if self._compares else await self._replaced(doomed)
        rest = [one for one in doomed if one.key not in failures]
        together = [one for one in rest if can_be_named(one.key)][:MOST_KEYS]
        if len(together) > 1:
            try:
                request = deletion_request(self.bucket, together, with_etags=self._compares)
                failures |= read_failures(self.bucket, (await self._sender.send(request)).body)
            except (StoreDenied, Unavailable) as error:
                return failures | dict.fromkeys([one.key for one in rest], error)
            except FailedDependency:  # a server that knows no such request
                together = []
        else:
            together = []
        done = {one.key for one in together}
        return failures | await delete_each(self, [one for one in rest if one.key not in done])

    @property
    def _compares(self) -> bool:
        return self.bucket.endpoint is None

    async def _replaced(self, doomed: Sequence[Doomed], *, at_once: int = 16) -> dict[str, HeadwaterError]:
        """Those that are other objects than were meant, and those that could not be looked at."""
        slots = asyncio.Semaphore(at_once)
        failures: dict[str, HeadwaterError] = {}

        async def look(one: Doomed) -> None:
            async with slots:
                try:
                    info = await self.head(one.key)
                except StoreMissing:  # deleting tells whether the object is absent, or the bucket
                    return
                except HeadwaterError as error:
                    failures[one.key] = error
                    return
            if info.etag and info.etag != one.etag:
                failures[one.key] = changed(one.key)

        async with asyncio.TaskGroup() as group:
            for one in doomed:
                if one.etag:
                    group.create_task(look(one))
        return failures

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

    async def sign_put(
        self, key: str, *, size_bytes: int, content_type: str, expires_s: int, only_if_new: bool
    ) -> SignedRequest | None:
        headers = {"Content-Type": content_type, "Content-Length": str(size_bytes)} | self._class_header
        if only_if_new:
            headers["If-None-Match"] = "*"
        request = Request("PutObject", "PUT", key, headers=headers)
        url = signed_url(self.bucket, request, await self._sender.credentials(False), expires_s=expires_s)
        return None if url is None else SignedRequest("PUT", url, headers)

    async def check_listing(self) -> ListingPage:
        return (await self._parse(await self._fetch_page(self._listing_query("", FEW_KEYS)))).page

    async def probe_multipart(self, key: str, body: bytes) -> None:
        upload = self._upload(key, "text/plain")
        await upload.begin()
        try:
            await upload.abort()
        except StoreDenied:  # so it is finished instead, for nothing else ends it
            await upload.write(body)
            await upload.finish()
            raise

    async def close(self) -> None:
        await self._session.close()

    def _listing_query(self, prefix: str, page_keys: int) -> dict[str, str]:
        query = {"list-type": "2", "encoding-type": "url", "max-keys": str(page_keys)}
        full = self.bucket.prefix + prefix
        return query | {"prefix": full} if full else query

    async def _fetch_after(self, query: dict[str, str], key: str) -> bytes:
        start = self.bucket.prefix + key
        sent = self._marker(start)
        body = await self._fetch_page(query | {"start-after": sent})
        if self._marker(start) != sent:  # only its answer told what it is
            body = await self._fetch_page(query | {"start-after": self._marker(start)})
        return body

    def _marker(self, key: str) -> str:
        """SeaweedFS goes on after a folder when asked to go on after the object of the same name.

        It lists folder by folder, so after `a/` comes what is in it, if it is one, and then what comes after `a`.
        """
        return key + "/" if self._walks_folders and key and not key.endswith("/") else key

    async def _fetch_page(self, query: dict[str, str]) -> bytes:
        answer = await self._sender.send(Request("ListObjectsV2", "GET", query=query))
        self._walks_folders = answer.headers.get("Server", "").startswith("SeaweedFS")
        return answer.body

    async def _parse(self, body: bytes) -> ParsedPage:
        try:
            return await asyncio.to_thread(parse_page, body, self.bucket.prefix)
        except Unavailable as error:
            raise Unavailable(f'Listing bucket "{self.bucket.name}" failed. {error}') from error


def _get_request(key: str, start: int, end: int | None, *, same_as: str | None = None) -> Request:
    headers = {} if same_as is None else {"If-Match": f'"{same_as}"'}
    if start != 0 or end is not None:
        headers["Range"] = f"bytes={start}-{'' if end is None else end - 1}"
    return Request("GetObject", "GET", key, headers=headers)
