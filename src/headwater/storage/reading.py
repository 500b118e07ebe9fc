"""Downloads that go on where a connection broke."""

from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack

import aiohttp

from headwater.errors import Unavailable
from headwater.storage.stores import ObjectInfo

_CHUNK_BYTES = 256 * 1024
_MOST_BREAKS = 3  # of one download


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
