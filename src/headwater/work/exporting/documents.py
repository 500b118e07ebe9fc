"""Items with their annotations as JSON: an array in pieces, files of a ZIP archive in pieces, or lines."""

import asyncio
import hashlib
import json
import posixpath
import re
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson
from psycopg import AsyncConnection

from headwater.catalog import annotations, exports, features
from headwater.catalog.annotations import Annotation
from headwater.catalog.exports import PAGE_ITEMS, Progress
from headwater.catalog.features import FeatureVector
from headwater.catalog.items import Item, load_items
from headwater.wire import exports as wire
from headwater.work.exporting import zipping
from headwater.work.exporting.run import Run, Sink, Written

_PIECE_ITEMS = 20_000
_PIECE_BYTES = 64 * 1024 * 1024
_FILE_RECORDS = 100_000  # of a file of lines, unless somebody says how many files there are to be
BETWEEN = b",\n"  # pieces of an array
_LONGEST_PART_BYTES = 255 - len(".json")  # of names of files and folders, nearly everywhere
# Empty, here, above, a drive; Windows splits at backslashes, too.
_LEADS_AWAY = re.compile(r"(?:^|(?<=\\))(?:\.{0,2}(?=\\|$)|[A-Za-z]:)")


@dataclass(frozen=True, slots=True)
class _Page:
    entries: list[dict[str, Any]]
    after_id: int
    is_last: bool
    items: int = 0
    annotations: int = 0
    removed: int = 0
    clashing: set[int] = field(default_factory=set[int])  # items whose name in an archive another one has


async def write_array(run: Run, sink: Sink) -> Written:
    """A piece of the array, without its brackets."""
    tally = _Tally(run)
    async for page in _pages(run, _PIECE_ITEMS):
        body = await asyncio.to_thread(_dumped, page.entries, BETWEEN)
        if body:
            await sink.write(BETWEEN + body if sink.size_bytes else body)
        tally.add(page)
        if sink.size_bytes >= _PIECE_BYTES:
            break
    return tally.written("")


async def write_archive(run: Run, sink: Sink) -> Written:
    """A piece of the archive, and its directory behind it."""
    tally = _Tally(run)
    piece = zipping.Piece()
    async for page in _pages(run, _PIECE_ITEMS):
        await asyncio.to_thread(_add_files, piece, page, run.asked.names)
        await sink.write(bytes(piece.body))
        piece.body.clear()
        tally.add(page)
        if piece.size_bytes >= _PIECE_BYTES:
            break
    await sink.write(bytes(piece.directory))
    return tally.written("", directory_bytes=len(piece.directory))


async def write_lines(run: Run, sink: Sink) -> Written:
    """A file of lines; in an export of changes the items that are no more come last."""
    tally = _Tally(run)
    most = _FILE_RECORDS
    if run.asked.partitions is not None and not run.asked.is_diff:
        most = max(1, -(-run.export.total // run.asked.partitions))
    pages = _deleted(run, most) if run.export.phase == 1 else _pages(run, most)
    async for page in pages:
        body = await asyncio.to_thread(_dumped, page.entries, b"\n")
        if body:
            await sink.write(body + b"\n")
        tally.add(page)
    return tally.written("deleted" if run.export.phase == 1 else "items")


class _Tally:
    """What has been written of one file."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._items = self._annotations = self._removed = 0
        self._after_id, self._is_last = run.export.after_id, False

    def add(self, page: _Page) -> None:
        self._items += page.items
        self._annotations += page.annotations
        self._removed += page.removed
        self._after_id, self._is_last = page.after_id, page.is_last

    def written(self, name: str, *, directory_bytes: int = 0) -> Written:
        phase = self._run.export.phase
        progress = Progress(
            phase=phase + 1 if self._is_last else phase,
            after_id=0 if self._is_last else self._after_id,
            items=self._items,
            annotations=self._annotations,
            removed=self._removed,
        )
        return Written(name, self._items + self._removed, progress, directory_bytes)


async def _pages(run: Run, most: int) -> AsyncIterator[_Page]:
    """What comes behind the cursor, up to so many records."""
    after_id, left, is_last = run.export.after_id, most, False
    read = _next_changed if run.asked.is_diff else _next_items
    while left > 0 and not is_last:
        async with run.place.pool.connection() as conn:
            await exports.read_one_moment(conn)
            page = await read(conn, run, after_id, min(left, PAGE_ITEMS))
        after_id, is_last, left = page.after_id, page.is_last, left - len(page.entries)
        yield page


async def _next_items(conn: AsyncConnection[Any], run: Run, after_id: int, limit: int) -> _Page:
    found = await exports.next_items(
        conn,
        run.export.dataset_id,
        run.tree,
        after_id=after_id,
        last_id=run.export.last_id,
        limit=limit,
        reader_id=run.asked.reader_id,
    )
    entries, number = await _entries(conn, run, found)
    is_last = len(found) < limit
    clashing = set[int]()
    if run.asked.format == "zip" and run.asked.names == "V1":
        stems = {item.id: posixpath.splitext(item.path)[0] for item in found}
        clashing = await exports.second_of_stems(conn, run.export.dataset_id, run.tree, stems)
    after = found[-1].id if found else after_id
    return _Page(entries, after, is_last, items=len(found), annotations=number, clashing=clashing)


async def _next_changed(conn: AsyncConnection[Any], run: Run, after_id: int, limit: int) -> _Page:
    assert run.asked.from_horizon is not None
    changed = await exports.next_changed(
        conn,
        run.export.dataset_id,
        run.tree,
        horizon_id=run.asked.from_horizon,
        after_id=after_id,
        last_id=run.export.last_id,
        limit=limit,
    )
    ids = [one.id for one in changed if one.is_chosen]
    found = await load_items(conn, run.export.dataset_id, ids, reader_id=run.asked.reader_id)
    entries, number = await _entries(conn, run, found)
    gone = [wire.removed(one.id, one.path) for one in changed if not one.is_chosen]
    return _Page(
        entries + gone,
        changed[-1].id if changed else after_id,
        len(changed) < limit,
        items=len(found),
        annotations=number,
        removed=len(gone),
    )


async def _deleted(run: Run, most: int) -> AsyncIterator[_Page]:
    assert run.asked.from_horizon is not None
    after_id, left, is_last = run.export.after_id, most, False
    while left > 0 and not is_last:
        limit = min(left, PAGE_ITEMS)
        async with run.place.pool.connection() as conn:
            found = await exports.next_deleted(
                conn, run.export.dataset_id, horizon_id=run.asked.from_horizon, after_id=after_id, limit=limit
            )
        after_id = found[-1][0] if found else after_id
        is_last, left = len(found) < limit, left - len(found)
        yield _Page([wire.removed(item_id, path) for item_id, path in found], after_id, is_last, removed=len(found))


async def _entries(conn: AsyncConnection[Any], run: Run, found: Sequence[Item]) -> tuple[list[dict[str, Any]], int]:
    said: dict[int, list[Annotation]] = {}
    if run.asked.has_annotations:
        ids = [item.id for item in found if item.annotations_count]
        said = await annotations.of_items(conn, run.export.dataset_id, ids)
        if run.annotations_tree is not None:
            kept = await exports.matching_annotations(conn, run.export.dataset_id, ids, run.annotations_tree)
            said = {item_id: [one for one in theirs if one.id in kept] for item_id, theirs in said.items()}
    vectors: dict[int, list[FeatureVector]] | None = None
    if run.asked.has_vectors:
        ids = [item.id for item in found]
        vectors = await features.of_items(conn, run.export.dataset_id, ids, run.asked.vectors_tree)
    base = run.asked.base
    entries = [
        wire.entry(item, said.get(item.id, []), base, None if vectors is None else vectors.get(item.id, []))
        for item in found
    ]
    return entries, sum(map(len, said.values()))


def _dumped(entries: Sequence[dict[str, Any]], between: bytes) -> bytes:
    return between.join(map(dumped, entries))


def dumped(value: Any) -> bytes:
    """As JSON. Numbers may be longer than orjson writes them."""
    try:
        return orjson.dumps(value)
    except TypeError:
        return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()


def _add_files(piece: zipping.Piece, page: "_Page", names: str) -> None:
    for told in page.entries:
        path, item_id = told["filename"], told["id"]
        if names == "V1":
            path = posixpath.splitext(path)[0]
            if int(item_id, 16) in page.clashing:
                path = f"{told['filename']}.{item_id}"
        piece.add(_inside(path) + ".json", dumped(wire.zip_entry(told)))


def _inside(path: str) -> str:
    """Nothing of it leads out of the folder where an archive is unpacked, or is too long for a file there."""
    return "/".join(map(_safe, path.removeprefix("/").split("/")))


def _safe(part: str) -> str:
    """Two parts that differ stay different."""
    is_harmless = not _LEADS_AWAY.search(part) and len(part.encode()) <= _LONGEST_PART_BYTES
    if is_harmless:
        return part
    digest = hashlib.sha256(part.encode()).hexdigest()[:16]
    shown = _LEADS_AWAY.sub("_", part).encode()[: _LONGEST_PART_BYTES - len(digest) - 1].decode(errors="ignore")
    return f"{shown}~{digest}"
