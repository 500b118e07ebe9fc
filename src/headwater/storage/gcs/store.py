"""A bucket of Google Cloud Storage as a store."""

import asyncio
import re
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, aclosing, asynccontextmanager, suppress
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, cast
from urllib.parse import quote

import aiohttp
import orjson
from multidict import CIMultiDictProxy

from headwater.errors import StoreMissing, Unavailable
from headwater.storage.gcs.dialect import GcsDialect
from headwater.storage.gcs.listing import FIELDS, find_token, parse_page
from headwater.storage.gcs.refusals import NO_SUCH_BUCKET
from headwater.storage.gcs.requests import (
    DELETE,
    GET,
    LIST,
    OBJECT_FIELDS,
    GcsBucket,
    GcsCredentials,
    etag_of,
    insert_request,
    media_request,
    resource_of,
)
from headwater.storage.gcs.signing import signed_url
from headwater.storage.gcs.uploads import GcsUpload
from headwater.storage.multipart import Multipart, MultipartStore
from headwater.storage.progress import ParsedPage, pages_ahead
from headwater.storage.reading import unbroken_chunks
from headwater.storage.requests import Request
from headwater.storage.sending import CredentialsProvider, Sender
from headwater.storage.stores import (
    FEW_KEYS,
    ListingPage,
    ObjectInfo,
    ObjectReader,
    PartState,
    SignedRequest,
    Unfinished,
    Upload,
    changed,
    check_range,
    first_after,
)

_MD5 = re.compile(r"\bmd5=([A-Za-z0-9+/]+=*)")


class GcsStore(MultipartStore):
    """An object's etag is its MD5, or its generation where Google keeps no MD5 of it, as of one in parts."""

    _only_if_new = {"x-goog-if-generation-match": "0"}  # noqa: RUF012

    def __init__(
        self,
        bucket: GcsBucket,
        credentials: CredentialsProvider[GcsCredentials],
        session: aiohttp.ClientSession,
        *,
        backoff_s: float,
        attempts: int,
        page_keys: int,
        storage_class: str | None = None,
    ) -> None:
        self.bucket = bucket
        dialect = GcsDialect(bucket)
        self._sender = Sender(dialect, credentials, session, backoff_s=backoff_s, attempts=attempts)
        self._once = Sender(dialect, credentials, session, backoff_s=backoff_s, attempts=1)
        self._session = session
        self._backoff_s = backoff_s
        self._page_keys = page_keys
        self._storage_class = storage_class
        class_header = {"x-goog-storage-class": storage_class} if storage_class else {}
        self._multipart = Multipart(self._sender, class_header, is_body_signed=False)

    @property
    def credentials(self) -> CredentialsProvider[GcsCredentials]:
        return self._sender.credentials

    async def list_pages(self, *, start_after: str | None = None, prefix: str = "") -> AsyncGenerator[ListingPage]:
        """The next page is on its way while one is parsed and used."""
        query = self._listing_query(prefix, self._page_keys)
        after = None if start_after is None else self.bucket.prefix + start_after
        if after:
            query["startOffset"] = after

        async def fetch(token: str | None) -> bytes:
            return await self._fetch_page(query if token is None else query | {"pageToken": token})

        async def parse(body: bytes) -> ParsedPage:
            return await self._parse(body, after)

        async with aclosing(pages_ahead(fetch, find_token, parse)) as pages:
            async for page in pages:
                yield page

    async def first_key_after(self, key: str) -> str | None:
        query = self._listing_query("", FEW_KEYS)
        if after := self.bucket.prefix + key:
            query["startOffset"] = after
        return first_after((await self._parse(await self._fetch_page(query), after)).page, key)

    async def head(self, key: str) -> ObjectInfo:
        answer = await self._sender.send(Request(GET, "GET", key, {"fields": OBJECT_FIELDS}))
        return self._read_info(key, answer.body)

    @asynccontextmanager
    async def get(self, key: str, *, start: int = 0, end: int | None = None) -> AsyncGenerator[ObjectReader]:
        check_range(start, end)
        async with AsyncExitStack() as opened:
            response = await opened.enter_async_context(self._sender.open(media_request(key, start, end)))
            info = _info(key, response.headers)
            generation = response.headers.get("X-Goog-Generation")
            chunks = unbroken_chunks(
                opened,
                response,
                self._reopen(key, end, generation) if generation else None,
                info=info,
                position=start,
                place=f'bucket "{self.bucket.name}"',
            )
            yield ObjectReader(info, response.headers.get("Content-Range"), chunks)

    def _reopen(
        self, key: str, end: int | None, generation: str
    ) -> Callable[[int], AbstractAsyncContextManager[aiohttp.ClientResponse]]:
        return lambda position: self._sender.open(media_request(key, position, end, generation=generation))

    async def put(self, key: str, body: bytes, *, content_type: str) -> ObjectInfo:
        request = await asyncio.to_thread(
            insert_request, self.bucket, key, body, content_type, self._storage_class
        )  # it hashes the body
        return self._read_info(key, (await self._sender.send(request)).body)

    async def begin_upload(self, key: str, *, content_type: str) -> Upload:
        return self._upload(key, content_type)

    def _upload(self, key: str, content_type: str) -> GcsUpload:
        resource = resource_of(self.bucket, key, content_type, self._storage_class)

        def read_info(body: bytes) -> ObjectInfo:
            return self._read_info(key, body)

        return GcsUpload(self._sender, self._once, self.put, read_info, key, resource, backoff_s=self._backoff_s)

    async def begin_parts(self, key: str, *, content_type: str, part_bytes: int) -> PartState:
        content_type = resource_of(self.bucket, key, content_type, None)["contentType"]
        return await super().begin_parts(key, content_type=content_type, part_bytes=part_bytes)

    async def sign_part(
        self, key: str, state: PartState, number: int, *, size_bytes: int, expires_s: int
    ) -> SignedRequest | None:
        """None as `sign_get`."""
        signer = (await self._sender.credentials(False)).url_signer
        if signer is None:
            return None
        headers = {"x-goog-content-length-range": f"{size_bytes},{size_bytes}"}
        query = {"partNumber": str(number), "uploadId": state["id"]}
        now = datetime.now(UTC)
        url = signed_url(self.bucket, key, signer, query, expires_s=expires_s, now=now, method="PUT", headers=headers)
        return None if url is None else SignedRequest("PUT", url, headers)

    def list_unfinished(self) -> AsyncIterator[Unfinished]:
        return self._multipart.list_unfinished(self.bucket.prefix)

    async def _finished(self, written: ObjectInfo) -> ObjectInfo:
        """The XML API tells an etag that no listing has."""
        return await self.head(written.key)

    def _is_made_of(self, info: ObjectInfo, parts: int) -> bool:
        """Nothing tells of how many parts an object was made."""
        del info, parts
        return True

    async def delete(self, key: str) -> None:
        try:
            await self._sender.send(Request(DELETE, "DELETE", key))
        except StoreMissing as error:
            if error.code == NO_SUCH_BUCKET:
                raise

    async def delete_same(self, key: str, etag: str) -> None:
        try:
            answer = await self._sender.send(Request(GET, "GET", key, {"fields": OBJECT_FIELDS}))
        except StoreMissing as error:
            if error.code == NO_SUCH_BUCKET:
                raise
            return
        if self._read_info(key, answer.body).etag != etag:
            raise changed(key)
        query = {"ifGenerationMatch": str(orjson.loads(answer.body)["generation"])}
        try:
            await self._sender.send(Request(DELETE, "DELETE", key, query))
        except StoreMissing as error:
            if error.code == NO_SUCH_BUCKET:
                raise

    async def sign_get(
        self, key: str, *, expires_s: int, file_name: str | None = None, content_type: str | None = None
    ) -> str | None:
        """None where the credentials hold no key of their own, and for keys with the segments `.` and `..`."""
        signer = (await self._sender.credentials(False)).url_signer
        if signer is None:
            return None
        query: dict[str, str] = {}
        if file_name is not None:
            query["response-content-disposition"] = f"attachment; filename*=UTF-8''{quote(file_name, safe='')}"
        if content_type is not None:
            query["response-content-type"] = content_type
        return signed_url(self.bucket, key, signer, query, expires_s=expires_s, now=datetime.now(UTC))

    async def sign_put(
        self, key: str, *, size_bytes: int, content_type: str, expires_s: int, only_if_new: bool
    ) -> SignedRequest | None:
        """None as `sign_get`. It goes to the XML API, which takes signatures."""
        signer = (await self._sender.credentials(False)).url_signer
        if signer is None:
            return None
        headers = {"Content-Type": content_type, "x-goog-content-length-range": f"{size_bytes},{size_bytes}"}
        if self._storage_class is not None:
            headers["x-goog-storage-class"] = self._storage_class.upper()
        if only_if_new:
            headers["x-goog-if-generation-match"] = "0"
        url = signed_url(
            self.bucket,
            key,
            signer,
            {},
            expires_s=expires_s,
            now=datetime.now(UTC),
            method="PUT",
            headers=headers,
        )
        return None if url is None else SignedRequest("PUT", url, headers)

    async def check_listing(self) -> ListingPage:
        return (await self._parse(await self._fetch_page(self._listing_query("", FEW_KEYS)), None)).page

    async def probe_multipart(self, key: str, body: bytes) -> None:  # noqa: ARG002 - nothing needs to be sent
        upload = self._upload(key, "text/plain")
        await upload.begin()
        await upload.abort()

    async def close(self) -> None:
        await self._session.close()

    def _listing_query(self, prefix: str, page_keys: int) -> dict[str, str]:
        query = {"maxResults": str(page_keys), "fields": FIELDS, "prettyPrint": "false"}
        full = self.bucket.prefix + prefix
        return query | {"prefix": full} if full else query

    async def _fetch_page(self, query: dict[str, str]) -> bytes:
        return (await self._sender.send(Request(LIST, "GET", query=query))).body

    async def _parse(self, body: bytes, after: str | None) -> ParsedPage:
        try:
            return await asyncio.to_thread(parse_page, body, self.bucket.prefix, after)
        except Unavailable as error:
            raise Unavailable(f'Listing bucket "{self.bucket.name}" failed. {error}') from error

    def _read_info(self, key: str, body: bytes) -> ObjectInfo:
        with suppress(orjson.JSONDecodeError, KeyError, TypeError, ValueError, AttributeError):
            resource = cast("dict[str, Any]", orjson.loads(body))
            return ObjectInfo(
                key=key,
                size_bytes=int(resource["size"]),
                etag=etag_of(resource),
                modified_at=datetime.fromisoformat(resource["timeCreated"]),
                content_type=resource.get("contentType"),
            )
        raise Unavailable(
            f'The store\'s answer about "{key}" in bucket "{self.bucket.name}" does not describe an object. '
            "If this stays so, check that the endpoint speaks Google Cloud Storage's JSON API."
        )


def _info(key: str, headers: CIMultiDictProxy[str]) -> ObjectInfo:
    modified = headers.get("Last-Modified")
    total = headers.get("Content-Range", "").rpartition("/")[2]
    md5 = _MD5.search(",".join(headers.getall("X-Goog-Hash", ())))
    return ObjectInfo(
        key=key,
        size_bytes=int(total if total.isdigit() else headers["Content-Length"]),
        etag=etag_of({"md5Hash": md5[1] if md5 else "", "generation": headers.get("X-Goog-Generation", "")}),
        modified_at=parsedate_to_datetime(modified) if modified else None,
        content_type=headers.get("Content-Type"),
    )
