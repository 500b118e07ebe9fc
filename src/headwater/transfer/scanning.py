"""Scanning: which files of this machine are to be sent, and which path in the dataset each gets.

A folder brings its name along, as the SDK has it and rsync: `pics` becomes `/to/pics/…`. With a slash at its end, and
for `.`, only what is in it counts: `pics/` becomes `/to/…`. Links are followed, but not in circles.
"""

import os
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from headwater.errors import BadRequest

SIDECAR = ".json"


@dataclass(frozen=True, slots=True)
class Found:
    file: str  # where it lies
    path: str  # where it goes
    size_bytes: int
    mtime_ns: int
    sidecar: str | None = None  # the file with its metadata


@dataclass(frozen=True, slots=True)
class Unusable:
    file: str  # printable
    reason: str


@dataclass(frozen=True, slots=True)
class _Folder:
    file: str
    path: str  # with a slash at its end
    inside: str  # below what was named, for patterns
    above: "tuple[tuple[int, int], object] | None"  # device and number of each folder above it, the nearest first


@dataclass(frozen=True, slots=True)
class Scan:
    roots: Sequence[str]
    to: str = "/"
    exclude: Sequence[str] = ()
    with_sidecars: bool = False

    def check(self) -> None:
        """Raises BadRequest for a root that is not there, and for two that would become one item or folder."""
        taken: dict[str, str] = {}
        for root in self.roots:
            if not Path(root).exists():
                raise BadRequest(f"There is no file or folder {printable(root)}.")
            name = _name_of(root)
            if name and (other := taken.get(name)) is not None:
                raise BadRequest(
                    f"{printable(other)} and {printable(root)} would both become {self._start}{printable(name)}. "
                    "Upload them one after the other, with another --to."
                )
            taken[name] = root

    @property
    def _start(self) -> str:
        inner = self.to.strip("/")
        return f"/{inner}/" if inner else "/"

    def __iter__(self) -> Iterator[Found | Unusable]:
        for root in self.roots:
            name = _name_of(root)
            if name and self._is_excluded(name, name):
                continue
            try:
                status = Path(root).stat()
            except OSError as error:
                yield Unusable(printable(root), _why(error))
                continue
            if stat.S_ISDIR(status.st_mode):
                path = f"{self._start}{name}/" if name else self._start
                yield from self._below(_Folder(root, path, "", None))
            elif not (self.with_sidecars and _is_sidecar(root)):
                sidecar = root + SIDECAR if self.with_sidecars and Path(root + SIDECAR).is_file() else None
                yield _judged(root, self._start + name, status, sidecar)

    def _below(self, folder: _Folder) -> Iterator[Found | Unusable]:
        waiting = [folder]
        while waiting:
            now = waiting.pop()
            try:
                own = Path(now.file).stat()
                above = ((own.st_dev, own.st_ino), now.above)
                if _is_in(now.above, above[0]):
                    yield Unusable(printable(now.file), "It is a link to a folder that it lies in.")
                    continue
                with os.scandir(now.file) as entries:
                    yield from self._entries(now, entries, above, waiting)
            except OSError as error:
                yield Unusable(printable(now.file), _why(error))

    def _entries(
        self, folder: _Folder, entries: Iterator[os.DirEntry[str]], above: object, waiting: list[_Folder]
    ) -> Iterator[Found | Unusable]:
        if self.with_sidecars:
            listed = list(entries)
            names = {entry.name for entry in listed if _is_file(entry)}
            sidecars = {name + SIDECAR for name in names} & names
            entries = iter([entry for entry in listed if entry.name not in sidecars])
        else:
            sidecars = set[str]()
        for entry in entries:
            inside = folder.inside + entry.name
            if self._is_excluded(entry.name, inside):
                continue
            try:
                if entry.is_dir():
                    waiting.append(_Folder(entry.path, f"{folder.path}{entry.name}/", f"{inside}/", above))  # pyright: ignore[reportArgumentType]
                    continue
                status = entry.stat()
            except OSError as error:
                yield Unusable(printable(entry.path), _why(error))
                continue
            sidecar = entry.path + SIDECAR if entry.name + SIDECAR in sidecars else None
            yield _judged(entry.path, folder.path + entry.name, status, sidecar)

    def _is_excluded(self, name: str, inside: str) -> bool:
        """A pattern with a slash is for the path below what was named; one without for any name."""
        return any(
            fnmatchcase(inside if "/" in pattern else name, pattern.strip("/") if "/" in pattern else pattern)
            for pattern in self.exclude
        )


def _is_sidecar(root: str) -> bool:
    return root.endswith(SIDECAR) and Path(root.removesuffix(SIDECAR)).is_file()


def _is_file(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_file()
    except OSError:  # it will be told
        return False


def _is_in(above: object, folder: tuple[int, int]) -> bool:
    while above is not None:
        nearest, above = above  # pyright: ignore[reportGeneralTypeIssues]
        if nearest == folder:
            return True
    return False


def _name_of(root: str) -> str:
    """What the item or folder is named; '' where only the contents count."""
    is_contents = root.endswith(("/", os.sep))
    name = "" if is_contents else os.path.basename(root)  # noqa: PTH119 - Path drops a slash at the end, and dots
    return "" if name in (".", "..") else name


def _judged(file: str, path: str, status: os.stat_result, sidecar: str | None) -> Found | Unusable:
    if not stat.S_ISREG(status.st_mode):
        return Unusable(printable(file), "It is no file: a socket, a pipe or a device.")
    try:
        path.encode()
    except UnicodeEncodeError:
        return Unusable(printable(file), "Its name is not UTF-8. Rename it.")
    return Found(file, path, status.st_size, status.st_mtime_ns, sidecar)


def printable(file: str) -> str:
    return os.fsencode(file).decode(errors="backslashreplace")


def _why(error: OSError) -> str:
    return f"{error.strerror or error}."
