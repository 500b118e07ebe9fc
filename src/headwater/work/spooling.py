"""Files on their way to a decoder: whole ones, and ones with holes where nothing has to be read."""

import tempfile
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Generator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import IO

from headwater.errors import Unavailable
from headwater.media import video_parts


async def read_head(chunks: AsyncIterator[bytes], size_bytes: int) -> bytes:
    """At least so many bytes, if there are; the iterator goes on behind them."""
    head = bytearray()
    while len(head) < size_bytes and (chunk := await anext(chunks, b"")):
        head += chunk
    return bytes(head)


@asynccontextmanager
async def spooled(folder: Path, head: bytes, rest: AsyncIterator[bytes]) -> AsyncGenerator[Path]:
    """The whole object as a file for a decoder, gone afterwards. Raises Unavailable when the disk is full."""
    with _spool_file(folder) as file:
        file.write(head)
        async for chunk in rest:
            file.write(chunk)
        file.flush()
        yield Path(file.name)


@asynccontextmanager
async def spooled_parts(
    folder: Path, mime_type: str, size_bytes: int, read: Callable[[int, int], Awaitable[bytes]]
) -> AsyncGenerator[Path]:
    """A file of that length with what tells of a video in it, and holes; `read` gets the bytes of a range."""
    with _spool_file(folder) as file:
        file.truncate(size_bytes)
        parts = video_parts.parts(mime_type, size_bytes)
        part = next(parts, None)
        while part is not None:
            body = await read(*part)
            file.seek(part[0])
            file.write(body)
            try:
                part = parts.send(body)
            except StopIteration:
                part = None
        file.flush()
        yield Path(file.name)


@contextmanager
def _spool_file(folder: Path) -> Generator[IO[bytes]]:
    try:
        with tempfile.NamedTemporaryFile(dir=folder, prefix="spool-") as file:
            yield file
    except OSError as error:
        raise Unavailable(f"The spool folder {folder} cannot be written: {error.strerror}.") from error
