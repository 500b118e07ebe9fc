"""Uploads of any size to Azure: one Put Blob for small objects, blocks and a list of them for large ones."""

import base64
import secrets
from collections.abc import Awaitable, Callable, Mapping
from email.utils import parsedate_to_datetime

from headwater.errors import BadRequest
from headwater.storage.azure.signing import AzureCredentials
from headwater.storage.parts import PartBuffer
from headwater.storage.requests import Request
from headwater.storage.sending import Answer, Sender
from headwater.storage.stores import ObjectInfo, Upload

SMALLEST_BLOCK_BYTES = 8 * 1024**2
_MOST_BLOCKS = 50_000  # of one blob
_BLOCKS_OF_ONE_SIZE = 7_000


def block_bytes(block: int) -> int:
    """Size of the block with that number, counted from 0.

    It doubles every 7,000 blocks: 50,000 blocks hold 7.7 TiB, yet a block is 8 MiB or a 3,500th of the whole.
    """
    return SMALLEST_BLOCK_BYTES << (block // _BLOCKS_OF_ONE_SIZE)


def block_id(upload: str, block: int) -> str:
    """The blocks of all uploads to one name lie together, so ids must differ; Azure wants them of one length."""
    return base64.b64encode(f"{upload}{block:08}".encode()).decode()


class AzureUpload(Upload):
    def __init__(
        self,
        sender: Sender[AzureCredentials],
        put: Callable[..., Awaitable[ObjectInfo]],
        key: str,
        content_type: str,
        headers: Mapping[str, str],
    ) -> None:
        self._sender = sender
        self._put = put
        self._key = key
        self._content_type = content_type
        self._headers = headers  # of the finished blob
        self._parts = PartBuffer(block_bytes)
        self._blocks: list[str] = []
        self._name = secrets.token_hex(8)

    async def write_block(self, block: bytes) -> None:
        """The bytes as a block, however few they are."""
        self._parts.size_bytes += len(block)
        await self._send_block(block)

    async def write(self, chunk: bytes) -> None:
        for block in self._parts.cut(chunk):
            await self._send_block(block)

    async def seal(self) -> None:
        if self._blocks and (rest := self._parts.take_rest()):
            await self._send_block(rest)

    async def finish(self) -> ObjectInfo:
        if not self._blocks:
            return await self._put(self._key, self._parts.rest, content_type=self._content_type)
        await self.seal()
        # Repeated after an answer that was lost it finds the blocks committed, and commits them again.
        request = Request(
            "PutBlockList", "PUT", self._key, {"comp": "blocklist"}, self._headers, _list_document(self._blocks)
        )
        return written(self._key, self._parts.size_bytes, self._content_type, await self._sender.send(request))

    async def abort(self) -> None:
        """Nothing to send: blocks that no list names are never seen, and Azure drops them after a week."""
        self._parts.drop()

    async def _send_block(self, body: bytes) -> None:
        if len(self._blocks) >= _MOST_BLOCKS:
            raise BadRequest(f'"{self._key}" is too large for Azure: it has more than {_MOST_BLOCKS:,} blocks.')
        block = block_id(self._name, len(self._blocks))
        request = Request("PutBlock", "PUT", self._key, {"comp": "block", "blockid": block}, body=body)
        await self._sender.send(request)
        self._blocks.append(block)


def written(key: str, size_bytes: int, content_type: str, answer: Answer) -> ObjectInfo:
    modified = answer.headers.get("Last-Modified")
    return ObjectInfo(
        key=key,
        size_bytes=size_bytes,
        etag=answer.headers.get("ETag", "").strip('"'),
        modified_at=parsedate_to_datetime(modified) if modified else None,
        content_type=content_type,
    )


def _list_document(blocks: list[str]) -> bytes:
    named = "".join(f"<Latest>{block}</Latest>" for block in blocks)
    return f'<?xml version="1.0" encoding="utf-8"?><BlockList>{named}</BlockList>'.encode()
