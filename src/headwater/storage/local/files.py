"""Files and folders below one root, opened so that no key and no symbolic link leads out. All calls block."""

import errno
import os
import stat
from collections.abc import Generator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from io import FileIO
from pathlib import Path

from headwater.errors import (
    BadRequest,
    FailedDependency,
    HeadwaterError,
    StoreDenied,
    StoreMissing,
    Unavailable,
)
from headwater.storage.stores import ObjectInfo

_FOLDER_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_READ_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC  # a pipe must not hold us up
_LAST_NS = int(datetime(9999, 1, 1, tzinfo=UTC).timestamp()) * 10**9


@dataclass(frozen=True, slots=True)
class Root:
    """`path` may itself be a symbolic link; nothing below it is followed."""

    path: Path
    prefix: str  # '' or ending with a slash


def segments_of(root: Root, key: str) -> list[bytes]:
    """The names on the way from the root to the file. Raises BadRequest where a file cannot have that key."""
    try:
        segments = (root.prefix + key).encode().split(b"/")
    except UnicodeEncodeError as error:
        raise BadRequest(f"The key {key!r} is not valid Unicode text.") from error
    if any(segment in {b"", b".", b".."} or b"\0" in segment for segment in segments):
        raise BadRequest(
            f"A folder cannot hold the key {root.prefix + key!r}. Between its slashes use names other than "
            "'', '.' and '..', without NUL."
        )
    return segments


def open_root(root: Root) -> int:
    """A descriptor of the folder that the prefix names. Raises StoreMissing."""
    names = segments_of(root, "any")[:-1]
    with explained(root, ""):
        return _descend(root, names, may_create=False)


@contextmanager
def parent_of(root: Root, segments: list[bytes], *, may_create: bool = False) -> Generator[int]:
    """A descriptor of the folder in which the last segment is, or shall be, a file."""
    folder = _descend(root, segments[:-1], may_create=may_create)
    try:
        yield folder
    finally:
        os.close(folder)


def _descend(root: Root, names: list[bytes], *, may_create: bool) -> int:
    folder = os.open(root.path, _FOLDER_FLAGS)
    for name in names:
        try:
            below = _enter(folder, name, may_create=may_create)
        finally:
            os.close(folder)
        folder = below
    return folder


def _enter(folder: int, name: bytes, *, may_create: bool) -> int:
    if may_create:
        with suppress(FileExistsError):
            os.mkdir(name, dir_fd=folder)
            os.fsync(folder)
    return os.open(name, _FOLDER_FLAGS | os.O_NOFOLLOW, dir_fd=folder)


def is_file(folder: int, name: bytes, *, or_absent: bool = False) -> bool:
    try:
        return stat.S_ISREG(os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode)
    except FileNotFoundError:
        return or_absent


def open_file(folder: int, name: bytes) -> FileIO:
    """Raises FileNotFoundError for what is no regular file."""
    file = FileIO(os.open(name, _READ_FLAGS, dir_fd=folder))
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise FileNotFoundError(errno.ENOENT, "not a regular file")
    return file


def etag_of(status: os.stat_result) -> str:
    """Without the inode: a network mount may number its files anew each time."""
    return f"{status.st_mtime_ns:x}-{status.st_size:x}"


def modified_at(status: os.stat_result) -> datetime:
    """Clipped to the years that a datetime knows."""
    return datetime.fromtimestamp(min(max(status.st_mtime_ns, 0), _LAST_NS) / 10**9, UTC)


def info_of(key: str, status: os.stat_result) -> ObjectInfo:
    return ObjectInfo(key, status.st_size, etag_of(status), modified_at(status), None)


@contextmanager
def explained(root: Root, key: str) -> Generator[None]:
    """Turns errors of the operating system into ours."""
    try:
        yield
    except OSError as error:
        raise _explain(root, key, error) from error


def _explain(root: Root, key: str, error: OSError) -> HeadwaterError:  # noqa: PLR0911 - one a kind
    said = f'"{root.prefix}{key}" in folder "{root.path}" ({error.strerror})'
    match error.errno:
        case errno.ENOENT | errno.ENOTDIR | errno.ELOOP:
            if root.path.is_file():
                return BadRequest(f'"{root.path}" is a single file. Give the folder it lies in.')
            if not root.path.is_dir():
                return StoreMissing(f'There is no folder "{root.path}". Check its name, and that it is mounted.')
            return StoreMissing(f"There is no {said}. Symbolic links are not followed.")
        case errno.EACCES | errno.EPERM | errno.EROFS:
            return StoreDenied(f"Headwater's account may not do this with {said}. Allow it to, on the server.")
        case errno.ENOSPC | errno.EDQUOT:
            return Unavailable(f"No space is left for {said}. Nothing was written. Make room and try again.")
        case errno.EISDIR | errno.EEXIST | errno.ENOTEMPTY:
            return BadRequest(f"Something that is no file stands at {said}. Choose another name.")
        case errno.ENAMETOOLONG:
            return BadRequest(f"The file system cannot hold such a long name: {said}.")
        case errno.EIO | errno.ESTALE | errno.ETIMEDOUT | errno.ENOTCONN | errno.EHOSTDOWN | errno.EMFILE:
            return Unavailable(f"The file system failed at {said}. Try again later.")
        case _:
            return FailedDependency(f"The file system refused {said}.")
