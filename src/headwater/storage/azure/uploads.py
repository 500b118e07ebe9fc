"""Uploads of any size to Azure: one Put Blob for small objects, blocks and a list of them for large ones."""

import base64
import re
import secrets
from collections.abc import Awaitable, Callable, Mapping, Sequence
from email.utils import parsedate_to_datetime
from typing import Literal

from headwater.errors import BadRequest
from headwater.storage.azure.signing import AzureCredentials
from headwater.storage.parts import PartBuffer
from headwater.storage.requests import Request
from headwater.storage.sending import Answer, Sender
from headwater.storage.stores import ObjectInfo, Upload

SMALLEST_BLOCK_BYTES = 8 * 1024**2
_BLOCK = re.compile(r"<Block>\s*<Name>([^<]+)</Name>\s*<Size>(\d+)</Size>\s*</Block>")
_MOST_BLOCKS = 50_000  # of one blob
_BLOCKS_OF_ONE_SIZE = 7_000


def block_bytes(block: int) -> int:
    """Size of the block with that number, counted from 0.

    It doubles every 7,000 blocks: 50,000 blocks hold 7.7 TiB, yet a block is 8 MiB or a 3,500th of the whole.
    """
    return SMALLEST_BLOCK_BYTES << (block // _BLOCKS_OF_ONE_SIZE)


def new_name() -> str:
    """Of an upload, in the ids of its blocks."""
    return secrets.token_hex(6)


def block_id(upload: str, block: int, attempt: str = "0000") -> str:
    """The blocks of all uploads to one name lie together, so ids must differ; Azure wants them of one length.

    Blocks that are put again by another attempt lie beside the earlier ones; the list at the end names one.
    """
    return base64.b64encode(f"{upload}{block:08}{attempt}".encode()).decode()


def number_of(block: str, upload: str) -> int | None:
    """The number in a block's id; None for a block of another upload."""
    try:
        text = base64.b64decode(block, validate=True).decode()
    except ValueError:
        return None
    number = text.removeprefix(upload)[:8]
    return int(number) if text.startswith(upload) and number.isdecimal() else None


class Blocks:
    """The requests of blobs that are written in blocks."""

    def __init__(self, sender: Sender[AzureCredentials], headers_of_blob: Callable[[str], Mapping[str, str]]) -> None:
        """`headers_of_blob` gives those of the finished blob, for a content type."""
        self._sender = sender
        self._headers_of_blob = headers_of_blob

    async def put(self, key: str, block: str, body: bytes) -> None:
        await self._sender.send(block_request(key, block, body))

    async def list(self, key: str, kind: Literal["uncommitted", "committed"] = "uncommitted") -> list[tuple[str, int]]:
        """The blocks of all uploads to this name that are under way, or those of the blob, with their sizes."""
        query = {"comp": "blocklist", "blocklisttype": kind}
        answer = await self._sender.send(Request("GetBlockList", "GET", key, query))
        document = answer.body.decode(errors="replace")
        return [(name, int(size)) for name, size in _BLOCK.findall(document)]

    async def commit(
        self, key: str, blocks: Sequence[str], size_bytes: int, content_type: str, *, only_if_new: bool = False
    ) -> ObjectInfo:
        """Repeated after an answer that was lost it finds the blocks committed, and commits them again."""
        headers = {**self._headers_of_blob(content_type), **({"If-None-Match": "*"} if only_if_new else {})}
        request = Request("PutBlockList", "PUT", key, {"comp": "blocklist"}, headers, _list_document(blocks))
        return written(key, size_bytes, content_type, await self._sender.send(request))


class AzureUpload(Upload):
    def __init__(self, blocks: Blocks, put: Callable[..., Awaitable[ObjectInfo]], key: str, content_type: str) -> None:
        self._sent = blocks
        self._put = put
        self._key = key
        self._content_type = content_type
        self._buffer = PartBuffer(block_bytes)
        self._blocks: list[str] = []
        self._name = new_name()

    async def write_block(self, block: bytes) -> None:
        """The bytes as a block, however few they are."""
        self._buffer.size_bytes += len(block)
        await self._send_block(block)

    async def write(self, chunk: bytes) -> None:
        for block in self._buffer.cut(chunk):
            await self._send_block(block)

    async def seal(self) -> None:
        if self._blocks and (rest := self._buffer.take_rest()):
            await self._send_block(rest)

    async def finish(self) -> ObjectInfo:
        if not self._blocks:
            return await self._put(self._key, self._buffer.rest, content_type=self._content_type)
        await self.seal()
        return await self._sent.commit(self._key, self._blocks, self._buffer.size_bytes, self._content_type)

    async def abort(self) -> None:
        """Nothing to send: blocks that no list names are never seen, and Azure drops them after a week."""
        self._buffer.drop()

    async def _send_block(self, body: bytes) -> None:
        if len(self._blocks) >= _MOST_BLOCKS:
            raise BadRequest(f'"{self._key}" is too large for Azure: it has more than {_MOST_BLOCKS:,} blocks.')
        block = block_id(self._name, len(self._blocks))
        await self._sent.put(self._key, block, body)
        self._blocks.append(block)


def block_request(key: str, block: str, body: bytes = b"") -> Request:
    return Request("PutBlock", "PUT", key, {"comp": "block", "blockid": block}, body=body)


def written(key: str, size_bytes: int, content_type: str, answer: Answer) -> ObjectInfo:
    modified = answer.headers.get("Last-Modified")
    return ObjectInfo(
        key=key,
        size_bytes=size_bytes,
        etag=answer.headers.get("ETag", "").strip('"'),
        modified_at=parsedate_to_datetime(modified) if modified else None,
        content_type=content_type,
    )


def _list_document(blocks: Sequence[str]) -> bytes:
    named = "".join(f"<Latest>{block}</Latest>" for block in blocks)
    return f'<?xml version="1.0" encoding="utf-8"?><BlockList>{named}</BlockList>'.encode()
