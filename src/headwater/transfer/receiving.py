"""Receiving: the files of a dataset, many at once, into a folder with the same structure.

What is there with the same size is not fetched again; large files that broke off go on where they stopped, as long as
they are still the same. A file gets its name when all of it is there.
"""

import asyncio
import hashlib
import os
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import aiohttp

from headwater.errors import BadRequest, Conflict, FailedDependency, HeadwaterError, Unauthorized, Unavailable
from headwater.transfer.journal import Entry
from headwater.transfer.link import Link, Tries
from headwater.transfer.parts import first_of
from headwater.transfer.places import Places
from headwater.transfer.progress import Progress
from headwater.transfer.reading import why

PARALLEL = 16

_PAGE = 1_000
_LARGE_BYTES = 8 * 1024 * 1024  # from here on it is worth to go on
_WRITTEN_BYTES = 1024 * 1024
_FATAL = (Unauthorized, Unavailable)
_RESTARTS = 3  # of one file that changes while it is fetched


@dataclass(frozen=True, slots=True)
class Wanted:
    id: str
    path: str
    size_bytes: int | None  # None: of a link, whose target may have another size than is known
    etag: str | None
    is_missing: bool

    @classmethod
    def of(cls, item: dict[str, Any]) -> "Wanted":
        system = item["metadata"]["system"]
        is_link = (system.get("shebang") or {}).get("dltype") == "link"
        size_bytes = None if is_link else system.get("size")
        return cls(item["id"], item["filename"], size_bytes, system.get("etag"), bool(system.get("missing")))

    @property
    def version(self) -> dict[str, Any]:
        return {"id": self.id, "etag": self.etag, "size": self.size_bytes}


@dataclass(slots=True)
class Receiving:
    link: Link
    dataset_id: str
    conditions: list[dict[str, Any]]
    folder: Path
    progress: Progress
    is_overwriting: bool = False
    is_rehearsal: bool = False
    parallel: int = PARALLEL
    was_stopped: bool = False
    planned_bytes: int = 0  # what a rehearsal found to be fetched
    chosen: Sequence[Wanted] | None = None  # these and no others; None: what the conditions choose
    _task: asyncio.Task[None] | None = None
    _items: asyncio.Queue[Wanted | None] = field(default_factory=lambda: asyncio.Queue(_PAGE))

    async def run(self) -> None:
        """Raises what ended it for all files: Unavailable, Unauthorized, Forbidden, BadRequest, NotFound."""
        places = Places(self.folder)  # in a rehearsal it may not be there
        self._task = asyncio.create_task(self._run_stages(places))
        try:
            await asyncio.wait([self._task])
        except asyncio.CancelledError:
            self._task.cancel()
            raise
        if not self._task.cancelled() and (error := self._task.exception()) is not None:
            raise first_of(error)

    def stop(self) -> None:
        self.was_stopped = True
        if self._task is not None:
            self._task.cancel()

    async def _run_stages(self, places: Places) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(self._list_all())
            for _ in range(self.parallel):
                group.create_task(self._receive_all(places))

    async def _list_all(self) -> None:
        if self.chosen is None:
            async for item in self._listed():
                await self._items.put(Wanted.of(item))
        for wanted in self.chosen or ():
            await self._items.put(wanted)
        for _ in range(self.parallel):
            await self._items.put(None)

    async def _listed(self) -> AsyncIterator[dict[str, Any]]:
        """By id: what is added meanwhile comes last, and nothing is skipped."""
        conditions = [{"hidden": False}, {"type": "file"}, *self.conditions]
        after: list[dict[str, Any]] = []
        while True:
            query = {"filter": {"$and": conditions + after}, "sort": {"id": "ascending"}, "page": 0, "pageSize": _PAGE}
            page = await self.link.ask("POST", f"/datasets/{self.dataset_id}/query", query)
            if not self.progress.is_counted:
                self.progress.files, self.progress.is_counted = page["totalItemsCount"], True
            for item in page["items"]:
                yield item
            if not page["hasNextPage"]:
                return
            after = [{"id": {"$gt": page["items"][-1]["id"]}}]

    async def _receive_all(self, places: Places) -> None:
        while (wanted := await self._items.get()) is not None:
            if wanted.is_missing:
                self.progress.miss(wanted.path, "Its object is missing from the bucket.")
                continue
            try:
                await self._receive(places, wanted)
            except _FATAL:
                raise
            except (OSError, HeadwaterError) as error:
                self.progress.fail(wanted.path, why(error), wanted.size_bytes or 0)

    async def _receive(self, places: Places, wanted: Wanted) -> None:
        target = places.place(wanted.path)
        if not self.is_overwriting and _is_there(target, wanted):
            self.progress.settle("skip", wanted.size_bytes or 0)
        elif self.is_rehearsal:
            self.planned_bytes += wanted.size_bytes or 0
            self.progress.settle("created", wanted.size_bytes or 0)
        else:
            target.parent.mkdir(parents=True, exist_ok=True)
            fetch = _Fetch(self.link, wanted, target, self.progress)
            await fetch.run()
            self.progress.settle("created", (wanted.size_bytes or 0) - fetch.counted_bytes)


def _is_there(target: Path, wanted: Wanted) -> bool:
    """Raises BadRequest for a file of another size: it may be the user's own."""
    try:
        size_bytes = target.stat().st_size
    except FileNotFoundError:
        return False
    if target.is_dir():
        raise BadRequest(f"{target} is a folder, where a file has to be.")
    if wanted.size_bytes is not None and size_bytes != wanted.size_bytes:
        raise BadRequest(
            f"{target} is there with {size_bytes:,} bytes instead of {wanted.size_bytes:,}. Replace it: --overwrite"
        )
    return True


@dataclass(slots=True)
class _Fetch:
    """One file."""

    link: Link
    wanted: Wanted
    target: Path
    progress: Progress
    counted_bytes: int = 0

    async def run(self) -> None:
        """Raises OSError, HeadwaterError."""
        with self._part.open("ab") as file:
            self._hold(file)
            try:
                await self._fetch(file)
                if os.name == "nt":  # where nothing that is open gets another name
                    file.close()
                self._part.replace(self.target)
                self._state.drop()
            except BaseException:
                if self._resumable(file) is None:
                    with suppress(OSError):
                        self._part.unlink()
                raise

    def _hold(self, file: BinaryIO) -> None:
        """Two that write one file would leave holes in it. Raises Conflict."""
        try:
            if sys.platform != "win32":
                import fcntl  # noqa: PLC0415 - not on Windows

                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            is_ours = os.path.samestat(os.fstat(file.fileno()), self._part.stat())
        except (BlockingIOError, FileNotFoundError):
            is_ours = False
        if not is_ours:
            raise Conflict("Another download fetches it just now.")

    async def _fetch(self, file: BinaryIO) -> None:
        tries = self.link.tries()
        seen = self._resumable(file)
        restarts = 0
        while True:
            if seen is None:
                file.seek(0)
                file.truncate()
            try:
                seen, is_whole = await self._go_on(file, seen, tries)
            except (aiohttp.ClientError, TimeoutError, ConnectionError) as error:
                await self.link.wait(tries, self.link.url, error)
                seen = self._resumable(file)
                continue
            if is_whole:
                return
            restarts += 1
            if restarts > _RESTARTS:
                raise Conflict("It changes while it is fetched. Try again later.")

    async def _go_on(self, file: BinaryIO, seen: str | None, tries: Tries) -> tuple[str | None, bool]:
        """Fetch what is left. Not whole: it is another object than before, and has to be begun anew."""
        start = file.tell()
        self._recount(start)
        headers = {"Range": f"bytes={start}-"} if start else {}
        async with self.link.stream(f"/items/{self.wanted.id}/stream", headers, tries) as response:
            etag = response.headers.get("ETag", "")
            total_bytes = _total_bytes(response)
            is_same = seen is None or (seen == etag and response.status == 206)
            if not is_same or (start and response.status != 206):
                self._state.drop()
                return None, False
            if self.wanted.size_bytes is not None and total_bytes not in (None, self.wanted.size_bytes):
                raise FailedDependency(
                    f"Its bucket has {total_bytes:,} bytes, the dataset knows of {self.wanted.size_bytes:,}. "
                    "Sync the dataset, then download again."
                )
            if (self.wanted.size_bytes or 0) >= _LARGE_BYTES and seen is None:
                self._state.write(self.wanted.version | {"seen": etag})
            await self._write(file, response)
        if total_bytes is not None and file.tell() != total_bytes:
            raise aiohttp.ClientPayloadError(f"{file.tell():,} of {total_bytes:,} bytes came")
        return etag, True

    async def _write(self, file: BinaryIO, response: aiohttp.ClientResponse) -> None:
        held: list[bytes] = []
        held_bytes = 0
        try:
            async for chunk in response.content.iter_any():
                held.append(chunk)
                held_bytes += len(chunk)
                self._recount(self.counted_bytes + len(chunk))
                self.progress.passed_bytes += len(chunk)
                if held_bytes >= _WRITTEN_BYTES:
                    whole, held, held_bytes = b"".join(held), [], 0
                    await asyncio.to_thread(file.write, whole)
        finally:  # what has come is kept, also when it breaks off
            file.write(b"".join(held))
            file.flush()

    def _recount(self, there_bytes: int) -> None:
        self.progress.settled_bytes += there_bytes - self.counted_bytes
        self.counted_bytes = there_bytes

    def _resumable(self, file: BinaryIO) -> str | None:
        """The ETag under which a part of this very version was fetched; None when there is nothing to go on with."""
        if (self.wanted.size_bytes or 0) < _LARGE_BYTES or file.closed or not file.tell():
            return None
        known = self._state.read() or {}
        is_same = {key: known.get(key) for key in self.wanted.version} == self.wanted.version
        return str(known["seen"]) if is_same and "seen" in known else None

    @property
    def _part(self) -> Path:
        digest = hashlib.sha256(self.target.name.encode()).hexdigest()[:16]
        return self.target.with_name(f".{digest}.headwater-part")

    @property
    def _state(self) -> Entry:
        return Entry(Path(f"{self._part}.json"))


def _total_bytes(response: aiohttp.ClientResponse) -> int | None:
    """Of the whole object; None where nobody tells."""
    if response.status == 206:
        total = response.headers.get("Content-Range", "").rpartition("/")[2]
        return int(total) if total.isdecimal() else None
    return response.content_length
