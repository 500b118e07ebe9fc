"""What an object is by the headers of an answer, and downloads that go on where a connection broke."""

from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from email.utils import parsedate_to_datetime

import aiohttp
from multidict import CIMultiDictProxy

from headwater.errors import Unavailable
from headwater.storage.stores import ObjectInfo

_CHUNK_BYTES = 256 * 1024
_MOST_BREAKS = 3  # of one download


def info_of(key: str, headers: CIMultiDictProxy[str]) -> ObjectInfo:
    """Of a whole object or a range of it, as S3 and Azure answer. Its size is that of the whole."""
    modified = headers.get("Last-Modified")
    total = headers.get("Content-Range", "").rpartition("/")[2]
    return ObjectInfo(
        key=key,
        size_bytes=int(total if total.isdigit() else headers["Content-Length"]),
        etag=headers.get("ETag", "").strip('"'),
        modified_at=parsedate_to_datetime(modified) if modified else None,
        content_type=headers.get("Content-Type"),
    )


async def unbroken_chunks(
    opened: AsyncExitStack,
    response: aiohttp.ClientResponse,
    reopen: Callable[[int], AbstractAsyncContextManager[aiohttp.ClientResponse]] | None,
    *,
    info: ObjectInfo,
    position: int,
    place: str,
) -> AsyncGenerator[bytes]:
    """The bytes of an answer that begins at `position`; what is opened ends with `opened`.

    `reopen` asks for the bytes from a position on, of the same version of the object, or raises; None when the
    version cannot be told. `place` names the bucket. Raises Unavailable when the connection keeps breaking.
    """
    failures = 0
    while True:
        try:
            async for chunk in response.content.iter_chunked(_CHUNK_BYTES):
                position += len(chunk)
                yield chunk
            return  # noqa: TRY300 - an else would run after every break, too
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            failures += 1
            if failures > _MOST_BREAKS or reopen is None:
                raise Unavailable(
                    f'The connection broke while "{info.key}" in {place} was read, '
                    f"at byte {position:,} of {info.size_bytes:,}. Try again later."
                ) from error
        response = await opened.enter_async_context(reopen(position))
