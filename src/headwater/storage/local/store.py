"""A folder as a store; every blocking call runs in a thread."""

import asyncio
import errno
import os
import secrets
import time
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager, contextmanager, suppress
from io import FileIO
from threading import Lock

from headwater.errors import BadRequest, Unavailable
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
from headwater.storage.stores import (
    FEW_KEYS,
    ListingPage,
    ObjectInfo,
    ObjectReader,
    Store,
    Upload,
    changed,
    check_range,
    first_after,
)

_CHUNK_BYTES = 1024**2
_UNFINISHED = ".dataloop/tmp/"  # a bucket's listing shows it, an index leaves it out
_FORGOTTEN_S = 24 * 3600  # nothing was written to an unfinished upload for so long: its process was killed


class LocalStore(Store):
    def __init__(self, root: Root, *, page_keys: int) -> None:
        self._root = root
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
        file, info = await asyncio.to_thread(self._open, key)
        try:
            is_whole = start == 0 and end is None
            stop = info.size_bytes if end is None else min(end, info.size_bytes)
            if start >= stop and not is_whole:
                raise BadRequest(
                    f'Bytes from {start} are not inside "{key}", which has {info.size_bytes}. Ask for less.'
                )
            content_range = None if is_whole else f"bytes {start}-{stop - 1}/{info.size_bytes}"
            yield ObjectReader(info, content_range, self._chunks(file, info, start, stop))
        finally:
            file.close()

    async def put(self, key: str, body: bytes, *, content_type: str) -> ObjectInfo:
        async with await self.begin_upload(key, content_type=content_type) as upload:
            await upload.write(body)
            return await upload.finish()

    async def begin_upload(self, key: str, *, content_type: str) -> Upload:  # noqa: ARG002 - files have no type
        return await asyncio.to_thread(LocalUpload, self._root, key)

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

    async def _chunks(self, file: FileIO, info: ObjectInfo, start: int, stop: int) -> AsyncGenerator[bytes]:
        position = start
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


class LocalUpload(Upload):
    """Writes beside the objects, in the same file system, and moves the finished file to its key."""

    def __init__(self, root: Root, key: str) -> None:
        self._root = root
        self._key = key
        self._segments = segments_of(root, key)
        self._unfinished = segments_of(root, _UNFINISHED + secrets.token_hex(16))
        self._is_over = False
        self._lock = Lock()  # a cancelled write still runs in its thread when we abort
        os.close(open_root(root))  # a missing root is not made
        with self._folder_of_unfinished(may_create=True) as folder:
            _remove_forgotten(folder)
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
            self._file = os.open(self._unfinished[-1], flags, 0o666, dir_fd=folder)

    async def write(self, chunk: bytes) -> None:
        await asyncio.to_thread(self._write, chunk)

    async def seal(self) -> None:
        await asyncio.to_thread(self._seal)

    async def finish(self) -> ObjectInfo:
        return await asyncio.to_thread(self._finish)

    async def abort(self) -> None:
        await asyncio.to_thread(self._abort)

    def _write(self, chunk: bytes) -> None:
        with self._lock, explained(self._root, self._key), memoryview(chunk) as view:
            written = 0
            while written < len(view):
                written += os.write(self._file, view[written:])

    def _seal(self) -> None:
        with self._lock, explained(self._root, self._key):
            os.fsync(self._file)

    def _finish(self) -> ObjectInfo:
        self._seal()
        with (
            self._lock,
            self._folder_of_unfinished() as source,
            parent_of(self._root, self._segments, may_create=True) as target,
        ):
            if not is_file(target, self._segments[-1], or_absent=True):
                raise FileExistsError(errno.EEXIST, "not a regular file")
            os.replace(self._unfinished[-1], self._segments[-1], src_dir_fd=source, dst_dir_fd=target)
            os.fsync(target)
            info = info_of(self._key, os.fstat(self._file))
            self._close()
        return info

    def _abort(self) -> None:
        with self._lock:
            if self._is_over:
                return
            self._close()
            with self._folder_of_unfinished() as folder, suppress(FileNotFoundError):
                os.unlink(self._unfinished[-1], dir_fd=folder)

    def _close(self) -> None:
        self._is_over = True
        os.close(self._file)
        self._file = -1  # a number that no other file can have

    @contextmanager
    def _folder_of_unfinished(self, *, may_create: bool = False) -> Generator[int]:
        with (
            explained(self._root, self._key),
            parent_of(self._root, self._unfinished, may_create=may_create) as folder,
        ):
            yield folder


def _remove_forgotten(folder: int) -> None:
    """Uploads that a killed process left in the folder of unfinished ones."""
    for name in os.listdir(folder):
        with suppress(OSError):  # another upload was quicker
            if os.stat(name, dir_fd=folder, follow_symlinks=False).st_mtime < time.time() - _FORGOTTEN_S:
                os.unlink(name, dir_fd=folder)
