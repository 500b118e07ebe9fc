"""A folder as a store; what blocks runs in a thread, but for reads of what is near and in memory."""

import asyncio
import os
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from io import BytesIO, FileIO

from headwater.errors import RangeNotSatisfiable, Unavailable
from headwater.storage.local.files import (
    Root,
    etag_of,
    explained,
    info_of,
    is_file,
    open_file,
    open_root,
    parent_of,
    segments_of,
)
from headwater.storage.local.listing import glance, take_page, walk
from headwater.storage.local.uploads import (
    LocalUpload,
    abort_parts,
    begin_parts,
    check_parts,
    finish_parts,
    list_unfinished,
    put_part,
)
from headwater.storage.stores import (
    FEW_KEYS,
    ListingPage,
    ObjectInfo,
    ObjectReader,
    Part,
    PartState,
    Store,
    Unfinished,
    Upload,
    changed,
    check_range,
    first_after,
    in_order,
)

_CHUNK_BYTES = 1024**2
_FIRST_BYTES = 256 * 1024


def _stop(info: ObjectInfo, start: int, end: int | None) -> int:
    stop = info.size_bytes if end is None else min(end, info.size_bytes)
    if start >= stop and not (start == 0 and end is None):
        raise RangeNotSatisfiable(
            f'Bytes from {start} are not inside "{info.key}", which has {info.size_bytes}. Ask for less.',
            size_bytes=info.size_bytes,
        )
    return stop


class LocalStore(Store):
    def __init__(self, root: Root, *, page_keys: int, is_near: bool = False) -> None:
        self._root = root
        self._is_near = is_near and hasattr(os, "RWF_NOWAIT")
        self._page_keys = page_keys

    async def list_pages(self, *, start_after: str | None = None, prefix: str = "") -> AsyncGenerator[ListingPage]:
        # Never closed by hand: when we are cancelled it may still run in its thread. Unreferenced, it closes.
        found = walk(self._root, prefix.encode(), (start_after or "").encode())
        while True:
            page = await asyncio.to_thread(take_page, found, self._page_keys)
            yield page
            if page.is_last:
                return

    async def first_key_after(self, key: str) -> str | None:
        found = walk(self._root, b"", key.encode())
        return first_after(await asyncio.to_thread(take_page, found, FEW_KEYS), key)

    async def head(self, key: str) -> ObjectInfo:
        return await asyncio.to_thread(self._head, key)

    @asynccontextmanager
    async def get(self, key: str, *, start: int = 0, end: int | None = None) -> AsyncGenerator[ObjectReader]:
        check_range(start, end)
        if self._is_near:
            file, info, stop, first = self._begin(key, start, end, self._read_cached)
        else:
            file, info, stop, first = await asyncio.to_thread(self._begin, key, start, end, self._read)
        try:
            is_whole = start == 0 and end is None
            content_range = None if is_whole else f"bytes {start}-{stop - 1}/{info.size_bytes}"
            yield ObjectReader(info, content_range, self._chunks(file, info, start, stop, first))
        finally:
            file.close()

    async def put(self, key: str, body: bytes, *, content_type: str) -> ObjectInfo:
        async with await self.begin_upload(key, content_type=content_type) as upload:
            await upload.write(body)
            return await upload.finish()

    async def begin_upload(self, key: str, *, content_type: str) -> Upload:  # noqa: ARG002 - files have no type
        return await asyncio.to_thread(LocalUpload, self._root, key)

    async def begin_parts(self, key: str, *, content_type: str, part_bytes: int) -> PartState:  # noqa: ARG002
        return await asyncio.to_thread(begin_parts, self._root, key, part_bytes)

    async def put_part(self, key: str, state: PartState, number: int, body: bytes) -> Part:
        return await asyncio.to_thread(put_part, self._root, key, state, number, body)

    async def list_parts(self, key: str, state: PartState) -> list[Part]:
        """None: who put them knows, for nobody else can."""
        await asyncio.to_thread(check_parts, self._root, key, state)
        return []

    async def finish_parts(
        self,
        key: str,
        state: PartState,
        parts: Sequence[Part],
        *,
        content_type: str,  # noqa: ARG002
        only_if_new: bool = False,
    ) -> ObjectInfo:
        ordered = in_order(key, parts)
        return await asyncio.to_thread(finish_parts, self._root, key, state, ordered, only_if_new=only_if_new)

    async def abort_parts(self, key: str, state: PartState) -> None:
        await asyncio.to_thread(abort_parts, self._root, key, state)

    async def list_unfinished(self) -> AsyncGenerator[Unfinished]:
        for one in await asyncio.to_thread(list_unfinished, self._root):
            yield one

    async def delete(self, key: str) -> None:
        await asyncio.to_thread(self._delete, key, None)

    async def delete_same(self, key: str, etag: str) -> None:
        await asyncio.to_thread(self._delete, key, etag)

    async def sign_get(
        self,
        key: str,  # noqa: ARG002
        *,
        expires_s: int,  # noqa: ARG002
        file_name: str | None = None,  # noqa: ARG002
        content_type: str | None = None,  # noqa: ARG002
    ) -> str | None:
        return None

    async def check_listing(self) -> ListingPage:
        return await asyncio.to_thread(lambda: take_page(glance(self._root), FEW_KEYS))

    async def probe_multipart(self, key: str, body: bytes) -> None:
        async with await self.begin_upload(key, content_type="") as upload:
            await upload.write(body)

    async def close(self) -> None:
        pass

    def _head(self, key: str) -> ObjectInfo:
        file, info = self._open(key)
        file.close()
        return info

    def _open(self, key: str) -> tuple[FileIO, ObjectInfo]:
        segments = segments_of(self._root, key)
        with explained(self._root, key), parent_of(self._root, segments) as folder:
            file = open_file(folder, segments[-1])
            return file, info_of(key, os.fstat(file.fileno()))

    def _begin(
        self, key: str, start: int, end: int | None, read: Callable[[FileIO, ObjectInfo, int, int], bytes]
    ) -> tuple[FileIO, ObjectInfo, int, bytes]:
        """The open file, where to stop, and the first bytes, so that small files are read at once."""
        file, info = self._open(key)
        try:
            stop = _stop(info, start, end)
            first = read(file, info, start, min(stop, start + _FIRST_BYTES)) if start < stop else b""
        except BaseException:
            file.close()
            raise
        return file, info, stop, first

    async def _chunks(
        self, file: FileIO, info: ObjectInfo, start: int, stop: int, first: bytes
    ) -> AsyncGenerator[bytes]:
        if first:
            yield first
        position = start + len(first)
        while position < stop:
            chunk = await asyncio.to_thread(self._read, file, info, position, stop)
            position += len(chunk)
            yield chunk

    def _read(self, file: FileIO, info: ObjectInfo, position: int, stop: int) -> bytes:
        with explained(self._root, info.key):
            chunk = os.pread(file.fileno(), min(_CHUNK_BYTES, stop - position), position)
            if not chunk or etag_of(os.fstat(file.fileno())) != info.etag:
                raise Unavailable(f'"{info.key}" in folder "{self._root.path}" changed while it was read.')
            return chunk

    def _read_cached(self, file: FileIO, info: ObjectInfo, position: int, stop: int) -> bytes:
        """What is in memory of it, without waiting for the disk."""
        # It gives its bytes without a copy; to fault in memory for another took ten times as long as to read.
        buffer = BytesIO(bytes(stop - position))
        try:
            with buffer.getbuffer() as space:
                length = os.preadv(file.fileno(), [space], position, os.RWF_NOWAIT)
        except OSError:  # nothing is, or this file system cannot tell
            return b""
        buffer.truncate(length)
        return buffer.getvalue() if etag_of(os.fstat(file.fileno())) == info.etag else b""

    def _delete(self, key: str, etag: str | None) -> None:
        segments = segments_of(self._root, key)
        os.close(open_root(self._root))  # a folder that is not mounted cannot say that a file is gone
        with explained(self._root, key):
            self._delete_file(key, segments, etag)

    def _delete_file(self, key: str, segments: list[bytes], etag: str | None) -> None:
        with suppress(FileNotFoundError, NotADirectoryError), parent_of(self._root, segments) as folder:
            if is_file(folder, segments[-1]):
                status = os.stat(segments[-1], dir_fd=folder, follow_symlinks=False)
                if etag is not None and etag_of(status) != etag:
                    raise changed(key)
                os.unlink(segments[-1], dir_fd=folder)
                os.fsync(folder)
