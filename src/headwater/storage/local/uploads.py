"""Files that are being written: beside the objects, in the same file system, moved to their keys at the end.

All functions block.
"""

import asyncio
import errno
import os
import secrets
import time
from collections.abc import Generator, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from threading import Lock

from headwater.errors import BadRequest, StoreMissing
from headwater.storage.local.files import Root, explained, info_of, is_file, open_root, parent_of, segments_of
from headwater.storage.stores import ObjectInfo, Part, PartState, Unfinished, Upload, changed, lost_parts

_UNFINISHED = ".dataloop/tmp/"  # a bucket's listing shows it, an index leaves it out
_PARTS = _UNFINISHED + "parts/"  # of objects that are written over days
_FORGOTTEN_S = 24 * 3600  # nothing was written to an unfinished upload for so long: its process was killed
_WRITE_FLAGS = os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC


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


def begin_parts(root: Root, key: str, part_bytes: int) -> PartState:
    """One file for all parts, each at its place."""
    segments_of(root, key)
    state: PartState = {"id": secrets.token_hex(16), "part_bytes": part_bytes}
    os.close(open_root(root))  # a missing root is not made
    with _folder_of_parts(root, key, state, may_create=True) as (folder, name):
        os.close(os.open(name, _WRITE_FLAGS | os.O_CREAT | os.O_EXCL, 0o666, dir_fd=folder))
        os.fsync(folder)
    return state


def put_part(root: Root, key: str, state: PartState, number: int, body: bytes) -> Part:
    """Raises BadRequest for more bytes than a part has."""
    part_bytes = int(state["part_bytes"])
    if len(body) > part_bytes:
        raise BadRequest(f'Part {number} of "{key}" has {len(body):,} bytes; at most {part_bytes:,} fit.')
    with _opened_parts(root, key, state) as (file, _, _), memoryview(body) as view:
        written = 0
        while written < len(view):
            written += os.pwrite(file, view[written:], (number - 1) * part_bytes + written)
        os.fsync(file)
    return Part(number, len(body), "")


def check_parts(root: Root, key: str, state: PartState) -> None:
    """Raises StoreMissing when the file of the parts is gone."""
    with _opened_parts(root, key, state):
        pass


def finish_parts(root: Root, key: str, state: PartState, parts: Sequence[Part], *, only_if_new: bool) -> ObjectInfo:
    """`parts` in their order."""
    segments = segments_of(root, key)
    size_bytes = sum(part.size_bytes for part in parts)
    try:
        with _opened_parts(root, key, state) as (file, source, name):
            if os.fstat(file).st_size < size_bytes:
                raise lost_parts(key)
            os.ftruncate(file, size_bytes)
            os.fsync(file)
            with parent_of(root, segments, may_create=True) as target:
                if not is_file(target, segments[-1], or_absent=True):
                    raise FileExistsError(errno.EEXIST, "not a regular file")
                _move(source, name, target, segments[-1], key, only_if_new=only_if_new)
                os.fsync(target)
            return info_of(key, os.fstat(file))
    except StoreMissing as missing:
        return _finished_before(root, key, size_bytes, missing)


def abort_parts(root: Root, key: str, state: PartState) -> None:
    with suppress(StoreMissing), _folder_of_parts(root, key, state) as (folder, name), suppress(FileNotFoundError):
        os.unlink(name, dir_fd=folder)


def list_unfinished(root: Root) -> list[Unfinished]:
    """By the keys of the files that hold the parts: nothing says what they were to become."""
    segments = segments_of(root, _PARTS + "any")
    try:
        with explained(root, _PARTS), parent_of(root, segments) as folder:
            names = os.listdir(folder)  # noqa: PTH208 - of a descriptor
            times = {name: os.stat(name, dir_fd=folder, follow_symlinks=False).st_mtime for name in names}
    except StoreMissing:
        return []
    return [
        Unfinished(_PARTS + name, {"id": name, "part_bytes": 0}, datetime.fromtimestamp(modified, UTC))
        for name, modified in sorted(times.items())
    ]


def _move(source: int, name: bytes, target: int, new_name: bytes, key: str, *, only_if_new: bool) -> None:
    if not only_if_new:
        os.replace(name, new_name, src_dir_fd=source, dst_dir_fd=target)
        return
    try:
        os.link(name, new_name, src_dir_fd=source, dst_dir_fd=target)
    except FileExistsError:
        there = os.stat(new_name, dir_fd=target, follow_symlinks=False)
        if not os.path.samestat(there, os.stat(name, dir_fd=source, follow_symlinks=False)):
            raise changed(key) from None
        # A crash came between this link and the next line.
    os.unlink(name, dir_fd=source)


def _finished_before(root: Root, key: str, size_bytes: int, missing: StoreMissing) -> ObjectInfo:
    """The object, if it has the size: the answer to an earlier call was lost."""
    segments = segments_of(root, key)
    os.close(open_root(root))
    try:
        with explained(root, key), parent_of(root, segments) as folder:
            info = info_of(key, os.stat(segments[-1], dir_fd=folder, follow_symlinks=False))
    except StoreMissing:
        raise lost_parts(key) from missing
    if info.size_bytes != size_bytes:
        raise lost_parts(key) from missing
    return info


@contextmanager
def _folder_of_parts(
    root: Root, key: str, state: PartState, *, may_create: bool = False
) -> Generator[tuple[int, bytes]]:
    """The folder, and the name in it."""
    segments = segments_of(root, _PARTS + str(state["id"]))
    with explained(root, key), parent_of(root, segments, may_create=may_create) as folder:
        yield folder, segments[-1]


@contextmanager
def _opened_parts(root: Root, key: str, state: PartState) -> Generator[tuple[int, int, bytes]]:
    """The file, its folder, and its name there. Raises StoreMissing."""
    with _folder_of_parts(root, key, state) as (folder, name):
        file = os.open(name, _WRITE_FLAGS, dir_fd=folder)
        try:
            yield file, folder, name
        finally:
            os.close(file)
