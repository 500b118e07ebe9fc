"""Lists the files below a folder in the byte order of their keys, as a bucket would. All calls block.

A folder's names are held in memory while it is listed, the rest of the tree is not.
"""

import os
import stat
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import replace
from itertools import islice

from headwater.errors import Unavailable
from headwater.storage.local.files import Root, etag_of, explained, modified_at, open_root
from headwater.storage.stores import ListingPage, unindexable_reason

_FOLDER_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_MOST_GLANCES = 1000

Found = tuple[bytes, os.stat_result]
"""The key and what lstat says."""


def walk(root: Root, prefix: bytes, start_after: bytes) -> Iterator[Found]:
    """Every file and symbolic link whose key begins with `prefix` and sorts after `start_after`.

    Raises whatever hinders it half-way: only an iterator that ended has seen everything.
    """
    folder = open_root(root)
    with explained(root, ""):
        identity = os.fstat(folder)
        yield from _walk_folder(folder, b"", prefix, start_after)
    _check_still_there(root, identity)


def _walk_folder(folder: int, path: bytes, prefix: bytes, start_after: bytes) -> Iterator[Found]:
    """Closes `folder`. `path` is its key: '' or ending with a slash."""
    try:
        for name in _names_after(folder, path, start_after):
            key = path + name
            if not key.startswith(prefix) and not prefix.startswith(key):
                continue
            if name.endswith(b"/"):
                below = _open_folder(folder, name[:-1])
                if below is not None:
                    yield from _walk_folder(below, key, prefix, start_after)
            elif key.startswith(prefix) and (status := _status(folder, name)):
                yield key, status
    finally:
        os.close(folder)


def glance(root: Root) -> Iterator[Found]:
    """Some files and symbolic links in no order, at a cost that does not grow with the folder."""
    with explained(root, ""):
        yield from (found for found in islice(_glance(open_root(root), b""), _MOST_GLANCES) if found is not None)


def _glance(folder: int, path: bytes) -> Iterator[Found | None]:
    """None for what is no object. Closes `folder`."""
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                name = os.fsencode(entry.name)
                yield None
                if not entry.is_dir(follow_symlinks=False):
                    status = _status(folder, name)
                    yield (path + name, status) if status else None
                elif (below := _open_folder(folder, name)) is not None:
                    yield from _glance(below, path + name + b"/")
    finally:
        os.close(folder)


def _names_after(folder: int, path: bytes, start_after: bytes) -> list[bytes]:
    """Names in key order, those of folders with a slash, without what lies wholly up to `start_after`."""
    names: list[bytes] = []
    with os.scandir(folder) as entries:
        for entry in entries:
            name = os.fsencode(entry.name)
            names.append(name + b"/" if entry.is_dir(follow_symlinks=False) else name)
    names.sort()
    if not start_after.startswith(path):
        return names
    rest = start_after[len(path) :]
    first = bisect_right(names, rest)
    # The folder in which `start_after` lies sorts before it, but its later part is still to be listed.
    holder = rest[: rest.find(b"/") + 1]
    return [holder, *names[first:]] if holder and holder in names[:first] else names[first:]


def _open_folder(folder: int, name: bytes) -> int | None:
    """None for a folder that was deleted since, or became something else."""
    try:
        return os.open(name, _FOLDER_FLAGS, dir_fd=folder)
    except (FileNotFoundError, NotADirectoryError):
        return None


def _status(folder: int, name: bytes) -> os.stat_result | None:
    """None for what is no object: pipes, sockets, devices, and what was deleted since."""
    try:
        status = os.stat(name, dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        return None
    return status if stat.S_ISREG(status.st_mode) or stat.S_ISLNK(status.st_mode) else None


def _check_still_there(root: Root, identity: os.stat_result) -> None:
    """A folder that was unmounted or replaced meanwhile has proven nothing."""
    folder = open_root(root)
    try:
        now = os.fstat(folder)
    finally:
        os.close(folder)
    if (now.st_dev, now.st_ino) != (identity.st_dev, identity.st_ino):
        raise Unavailable(f'The folder "{root.path}" was replaced or unmounted while it was listed. List it again.')


def take_page(found: Iterator[Found], page_keys: int) -> ListingPage:
    page = ListingPage(keys=[], sizes=[], etags=[], modified=[], unindexable=[], is_last=False)
    taken = list(islice(found, page_keys))
    for key, status in taken:
        reason = _reason_against(key, status)
        if reason is not None:
            page.unindexable.append((key.decode(errors="backslashreplace"), reason))
            continue
        page.keys.append(key.decode())
        page.sizes.append(status.st_size)
        page.etags.append(etag_of(status))
        page.modified.append(modified_at(status).isoformat())
    return page if len(taken) == page_keys else replace(page, is_last=True)


def _reason_against(key: bytes, status: os.stat_result) -> str | None:
    if stat.S_ISLNK(status.st_mode):
        return "It is a symbolic link; these are not followed."
    return unindexable_reason(key)
