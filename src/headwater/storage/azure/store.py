"""A container of Azure Blob Storage or Data Lake Gen2 as a store."""

import asyncio
import secrets
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, aclosing, asynccontextmanager
from dataclasses import replace
from urllib.parse import quote

import aiohttp
from azure.storage.blob import BlobSasPermissions, UserDelegationKey

from headwater.errors import BadRequest, StoreChanged, StoreMissing, Unavailable
from headwater.storage.azure.delegation import DelegationKeys
from headwater.storage.azure.dialect import AzureDialect
from headwater.storage.azure.listing import find_marker, parse_page
from headwater.storage.azure.requests import SERVICE_VERSION, Container, absolute_key, check_new_name
from headwater.storage.azure.signing import AccountKey, AzureCredentials, SharedAccessSignature, signed_url
from headwater.storage.azure.uploads import AzureUpload, Blocks, block_id, new_name, number_of, written
from headwater.storage.progress import ParsedPage, pages_ahead
from headwater.storage.reading import info_of, unbroken_chunks
from headwater.storage.requests import Request, is_shortened
from headwater.storage.sending import CredentialsProvider, Sender
from headwater.storage.stores import (
    FEW_KEYS,
    ListingPage,
    ObjectInfo,
    ObjectReader,
    Part,
    PartState,
    SignedRequest,
    Store,
    Upload,
    check_range,
    first_after,
    in_order,
)

_TIERS = {"": None, "STANDARD": None, "HOT": "Hot", "COOL": "Cool", "COLD": "Cold"}


class AzureStore(Store):
    """An object's etag is the blob's ETag: it changes with every write, and also with the blob's metadata.

    Content-MD5 would tell more exactly, but is not there for blobs that were written in blocks.
    """

    def __init__(
        self,
        container: Container,
        credentials: CredentialsProvider[AzureCredentials],
        session: aiohttp.ClientSession,
        *,
        backoff_s: float,
        attempts: int,
        page_keys: int,
        tier: str | None = None,
    ) -> None:
        self.container = container
        self._sender = Sender(AzureDialect(container), credentials, session, backoff_s=backoff_s, attempts=attempts)
        self._blocks = Blocks(self._sender, self._headers_of_blob)
        self._delegation_keys = DelegationKeys(self._sender)
        self._session = session
        self._page_keys = page_keys
        self._tier = tier  # None: the account's own

    @property
    def credentials(self) -> CredentialsProvider[AzureCredentials]:
        return self._sender.credentials

    async def list_pages(self, *, start_after: str | None = None, prefix: str = "") -> AsyncGenerator[ListingPage]:
        """In Azure's order: by bytes, but with a hierarchical namespace folder by folder."""
        query = self._listing_query(prefix, self._page_keys)
        start = "" if start_after is None else self.container.prefix + start_after
        first = query | {"startFrom": start} if start else query

        async def fetch(marker: str | None) -> bytes:
            return await self._fetch_page(first if marker is None else query | {"marker": marker})

        async with aclosing(pages_ahead(fetch, find_marker, self._parse)) as pages:
            async for page in pages:
                yield page if start_after is None else _without(page, start_after)

    async def first_key_after(self, key: str) -> str | None:
        query = self._listing_query("", FEW_KEYS)
        if after := self.container.prefix + key:
            query["startFrom"] = after
        return first_after((await self._parse(await self._fetch_page(query))).page, key)

    async def head(self, key: str) -> ObjectInfo:
        answer = await self._sender.send(Request("GetBlobProperties", "HEAD", key))
        return info_of(key, answer.headers)

    @asynccontextmanager
    async def get(self, key: str, *, start: int = 0, end: int | None = None) -> AsyncGenerator[ObjectReader]:
        check_range(start, end)
        async with AsyncExitStack() as opened:
            response = await opened.enter_async_context(self._sender.open(_get_request(key, start, end)))
            info = info_of(key, response.headers)
            if start and start >= info.size_bytes:  # Azurite answers it, with nothing
                raise BadRequest(f'"{key}" has {info.size_bytes:,} bytes, so none from byte {start:,} on.')
            chunks = unbroken_chunks(
                opened,
                response,
                self._reopen(key, end, info.etag) if info.etag else None,
                info=info,
                position=start,
                place=f'container "{self.container.name}"',
            )
            yield ObjectReader(info, response.headers.get("Content-Range"), chunks)

    def _reopen(
        self, key: str, end: int | None, etag: str
    ) -> Callable[[int], AbstractAsyncContextManager[aiohttp.ClientResponse]]:
        return lambda position: self._sender.open(_get_request(key, position, end, same_as=etag))

    async def put(self, key: str, body: bytes, *, content_type: str) -> ObjectInfo:
        check_new_name(self.container, key)
        headers = {"x-ms-blob-type": "BlockBlob"} | self._headers_of_blob(content_type)
        answer = await self._sender.send(Request("PutBlob", "PUT", key, headers=headers, body=body))
        return written(key, len(body), content_type, answer)

    async def begin_upload(self, key: str, *, content_type: str) -> Upload:
        return self._upload(key, content_type)

    def _upload(self, key: str, content_type: str) -> AzureUpload:
        check_new_name(self.container, key)
        return AzureUpload(self._blocks, self.put, key, content_type)

    async def begin_parts(self, key: str, *, content_type: str, part_bytes: int) -> PartState:
        """Nothing is sent. Azure drops the blocks after a week, and when another upload to the same name ends."""
        del content_type, part_bytes
        check_new_name(self.container, key)
        return {"name": new_name()}

    async def put_part(self, key: str, state: PartState, number: int, body: bytes) -> Part:
        if not body:  # no block is empty
            return Part(number, 0, "")
        block = block_id(state["name"], number, secrets.token_hex(2))
        await self._blocks.put(key, block, body)
        return Part(number, len(body), block)

    async def sign_part(
        self, key: str, state: PartState, number: int, *, size_bytes: int, expires_s: int
    ) -> SignedRequest | None:
        """None as `sign_get`. Azure holds nobody to a size, nor to a block: the URL may write this blob."""
        signer = await self._signer()
        if signer is None:
            return None
        permission = BlobSasPermissions(create=True, write=True)
        url = signed_url(self.container, key, signer, expires_s=expires_s, permission=permission)
        block = quote(block_id(state["name"], number), safe="")
        headers = {"x-ms-version": SERVICE_VERSION, "Content-Length": str(size_bytes)}
        return SignedRequest("PUT", f"{url}&comp=block&blockid={block}", headers)

    async def list_parts(self, key: str, state: PartState) -> list[Part]:
        """Of a part that was put again by us, each attempt."""
        try:
            blocks = await self._blocks.list(key)
        except StoreMissing as error:
            if error.code != "BlobNotFound":  # there is no block yet
                raise
            return []
        found = [(number_of(block, state["name"]), size_bytes, block) for block, size_bytes in blocks]
        return sorted(
            (Part(number, size_bytes, block) for number, size_bytes, block in found if number is not None),
            key=lambda part: part.number,
        )

    async def finish_parts(
        self,
        key: str,
        state: PartState,  # noqa: ARG002 - a part's etag is the id of its block
        parts: Sequence[Part],
        *,
        content_type: str,
        only_if_new: bool = False,
    ) -> ObjectInfo:
        ordered = [part for part in in_order(key, parts) if part.size_bytes]
        size_bytes = sum(part.size_bytes for part in ordered)
        blocks = [part.etag for part in ordered]
        try:
            return await self._blocks.commit(key, blocks, size_bytes, content_type, only_if_new=only_if_new)
        except StoreChanged:
            # Said of our own blob, too, when an answer was lost.
            if [block for block, _ in await self._blocks.list(key, "committed")] != blocks:
                raise
            info = await self.head(key)
            if info.size_bytes != size_bytes:
                raise
            return info

    async def abort_parts(self, key: str, state: PartState) -> None:
        """Nothing to send: blocks that no list names are never seen, and Azure drops them after a week."""

    async def delete(self, key: str) -> None:
        try:
            await self._sender.send(Request("DeleteBlob", "DELETE", key))
        except StoreMissing as error:
            if error.code != "BlobNotFound":
                raise

    async def delete_same(self, key: str, etag: str) -> None:
        try:
            await self._sender.send(Request("DeleteBlob", "DELETE", key, headers={"If-Match": f'"{etag}"'}))
        except StoreMissing as error:
            if error.code != "BlobNotFound":
                raise
        except StoreChanged:  # which a service may say of an absent blob, too
            try:
                await self.head(key)
            except StoreMissing:
                return
            raise

    async def sign_get(
        self, key: str, *, expires_s: int, file_name: str | None = None, content_type: str | None = None
    ) -> str | None:
        """None with a SAS: it cannot sign, and must not be handed out. A service principal may have to take a key.

        None, too, for a key that clients would shorten on the way.
        """
        signer = await self._signer()
        if signer is None or is_shortened(absolute_key(self.container, key)):
            return None
        disposition = None if file_name is None else f"attachment; filename*=UTF-8''{quote(file_name, safe='')}"
        return signed_url(
            self.container,
            key,
            signer,
            expires_s=expires_s,
            content_disposition=disposition,
            content_type=content_type,
        )

    async def sign_put(
        self, key: str, *, size_bytes: int, content_type: str, expires_s: int, only_if_new: bool
    ) -> SignedRequest | None:
        """None as `sign_get`. Azure holds nobody to a size."""
        signer = await self._signer()
        if signer is None:
            return None
        check_new_name(self.container, key)
        headers = {"x-ms-blob-type": "BlockBlob", "x-ms-version": SERVICE_VERSION, "Content-Length": str(size_bytes)}
        headers |= self._headers_of_blob(content_type)
        if only_if_new:
            headers["If-None-Match"] = "*"
        # With the permission to create alone nothing is replaced, whatever headers are sent.
        permission = BlobSasPermissions(create=True, write=not only_if_new)
        url = signed_url(self.container, key, signer, expires_s=expires_s, permission=permission)
        return SignedRequest("PUT", url, headers)

    async def check_listing(self) -> ListingPage:
        return (await self._parse(await self._fetch_page(self._listing_query("", FEW_KEYS)))).page

    async def probe_multipart(self, key: str, body: bytes) -> None:
        """It writes the object: blocks without a list would stay for a week."""
        upload = self._upload(key, "text/plain")
        await upload.write_block(body)
        await upload.finish()

    async def close(self) -> None:
        await self._session.close()

    async def _signer(self) -> AccountKey | UserDelegationKey | None:
        credentials = await self._sender.credentials(False)
        if isinstance(credentials, SharedAccessSignature):
            return None
        return credentials if isinstance(credentials, AccountKey) else await self._delegation_keys.current()

    def _headers_of_blob(self, content_type: str) -> dict[str, str]:
        headers = {"x-ms-blob-content-type": content_type}
        return headers if self._tier is None else headers | {"x-ms-access-tier": self._tier}

    def _listing_query(self, prefix: str, page_keys: int) -> dict[str, str]:
        # Metadata tells Hadoop's folders from files. Snapshots, versions and what was deleted come only if asked for.
        query = {"restype": "container", "comp": "list", "include": "metadata", "maxresults": str(page_keys)}
        full = self.container.prefix + prefix
        return query | {"prefix": full} if full else query

    async def _fetch_page(self, query: dict[str, str]) -> bytes:
        return (await self._sender.send(Request("ListBlobs", "GET", query=query))).body

    async def _parse(self, body: bytes) -> ParsedPage:
        try:
            return await asyncio.to_thread(parse_page, body, self.container.prefix)
        except Unavailable as error:
            raise Unavailable(f'Listing container "{self.container.name}" failed. {error}') from error


def access_tier(storage_class: str | None) -> str | None:
    """The tier to name in requests; None for the account's own. Raises BadRequest."""
    name = (storage_class or "").upper()
    if name not in _TIERS:
        raise BadRequest(
            f'"{storage_class}" is no access tier that objects can be written to and read from. '
            "Use hot, cool or cold, or none for the account's default."
        )
    return _TIERS[name]


def _without(page: ListingPage, key: str) -> ListingPage:
    """Azure starts from a name on, the name included."""
    if key not in page.keys:
        return page
    i = page.keys.index(key)
    columns = {name: getattr(page, name) for name in ("keys", "sizes", "etags", "modified")}
    return replace(page, **{name: column[:i] + column[i + 1 :] for name, column in columns.items()})


def _get_request(key: str, start: int, end: int | None, *, same_as: str | None = None) -> Request:
    headers = {} if same_as is None else {"If-Match": f'"{same_as}"'}
    if start != 0 or end is not None:
        headers["x-ms-range"] = f"bytes={start}-{'' if end is None else end - 1}"
    return Request("GetBlob", "GET", key, headers=headers)
