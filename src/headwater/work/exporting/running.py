"""The job of an export: file by file, each committed together with the cursor behind what it has.

Killed anywhere, it goes on with the file it was writing. What an export reads is read page by page, each page as of one
moment: changes that are made meanwhile are in it or not, page by page, and no item comes twice.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

from psycopg import AsyncConnection

from headwater.catalog import commands, datasets, exports
from headwater.catalog.exports import Export, ExportFile
from headwater.errors import StoreMissing
from headwater.ids import to_wire
from headwater.mime_types import guess_mime_type
from headwater.storage.stores import ObjectInfo, Store
from headwater.wire.exports import Asked
from headwater.work.aborting import Aborted, until_aborted
from headwater.work.exporting import documents, parquet, versions, zipping
from headwater.work.exporting.dropping import clean, drop, pieces_folder, whole_folder
from headwater.work.exporting.manifests import file_told, last_files, manifest_of
from headwater.work.exporting.requests import told
from headwater.work.exporting.run import Run, Sink, Written
from headwater.work.upload import Landed, land
from headwater.work.workplace import Workplace

_ABORT_POLL_S = 0.3
_HEARTBEAT_S = 20.0
_COPIED_BYTES = 1024 * 1024


@dataclass(frozen=True, slots=True)
class _Format:
    write: Callable[[Run, Sink], Awaitable[Written]]
    phases: int
    extension: str
    is_joined: bool = False  # of pieces, at the end


_FORMATS = {
    "json": _Format(documents.write_array, 1, "json", is_joined=True),
    "zip": _Format(documents.write_archive, 1, "zip", is_joined=True),
    "ndjson": _Format(documents.write_lines, 1, "ndjson"),
    "diff": _Format(documents.write_lines, 2, "ndjson"),
    "parquet": _Format(parquet.write, 2, "parquet"),
}


class _Overtaken(Exception):
    """Another worker has written this file, or the command has ended."""


async def run_export(place: Workplace, command_id: int) -> None:
    """To the end of the command. Safe to repeat, and to run more than once side by side.

    Raises Unavailable when another try may help.
    """
    async with place.pool.connection() as conn:
        export = await exports.find(conn, command_id)
        if export is None or (await commands.load_command(conn, command_id)).has_ended:
            return
        is_aborted = await commands.is_abort_requested(conn, command_id)
    if is_aborted:
        await _abort(place, export)
        return
    try:
        await until_aborted(_export(place, export), _abort_requested(place, command_id))
    except _Overtaken:
        return
    except Aborted:
        await _abort(place, export)


async def _abort(place: Workplace, export: Export) -> None:
    async with place.pool.connection() as conn:
        error = "The export was aborted. Nothing is left of it."
        await commands.end_command(conn, export.command_id, "aborted", error=error)
    await drop(place, export)


async def give_up(place: Workplace, command_id: int, error: str) -> None:
    """Nothing is left of it but the reason."""
    async with place.pool.connection() as conn:
        export = await exports.find(conn, command_id)
        await commands.end_command(conn, command_id, "failed", error=error)
    if export is not None:
        await drop(place, export)


async def _abort_requested(place: Workplace, command_id: int) -> None:
    told_at = asyncio.get_running_loop().time()
    while True:
        async with place.pool.connection() as conn:
            if await commands.is_abort_requested(conn, command_id):
                return
            if asyncio.get_running_loop().time() - told_at > _HEARTBEAT_S:  # a large file takes its time
                told_at = asyncio.get_running_loop().time()
                await commands.note_progress(conn, command_id, progress_percent=0, spec={})
        await asyncio.sleep(_ABORT_POLL_S)


async def _export(place: Workplace, export: Export) -> None:
    export = await versions.prepare(place, export)
    export = await parquet.prepare(place, export)
    asked = Asked.of(export.asked)
    made = _FORMATS["diff" if asked.is_diff else asked.format]
    async with place.places.of_own(export.binaries_id) as store:
        run = Run(place, export, asked, asked.tree, asked.annotations_tree, store)
        while run.export.phase < made.phases:
            run = run.at(await _write_next(run, made))
        await (_join(run, made) if made.is_joined else _list(run))
        await clean(place, store, export.command_id)


async def _write_next(run: Run, made: _Format) -> Export:
    """One more file, and the cursor behind it."""
    folder = pieces_folder(run.export.command_id) if made.is_joined else whole_folder(run.export.command_id)
    key = f"{folder}{uuid4().hex}"
    is_kept = False
    try:
        async with await run.store.begin_upload(key, content_type="application/octet-stream") as upload:
            sink = Sink(upload)
            written = await made.write(run, sink)
            info = await upload.finish() if written.records or _is_table(run, written) else None
        async with run.place.pool.connection() as conn:
            after = await _commit(conn, run, made, written, sink, info)
        is_kept = info is not None
    finally:
        if not is_kept:
            await run.store.delete(key)
    return after


def _is_table(run: Run, written: Written) -> bool:
    """Whoever reads items-*.parquet and annotations-*.parquet finds both, with or without rows."""
    return run.asked.format == "parquet" and bool(written.name) and run.export.after_id == 0


async def _commit(
    conn: AsyncConnection[Any], run: Run, made: _Format, written: Written, sink: Sink, info: ObjectInfo | None
) -> Export:
    command_id = run.export.command_id
    command = await commands.lock_command(conn, command_id)
    if command is None or command.has_ended or not await exports.move_on(conn, run.export, written.progress):
        raise _Overtaken
    if info is not None:
        item_id, name = None, ""
        if not made.is_joined:
            name = await _next_name(conn, command_id, written.name, made.extension)
            item_id = await _landed(conn, run, name, info)
        file = ExportFile(
            name, info.key, item_id, written.records, sink.size_bytes, written.directory_bytes, sink.md5, sink.sha256
        )
        await exports.add_file(conn, command_id, file)
    after = await exports.find(conn, command_id)
    assert after is not None
    await commands.note_progress(conn, command_id, progress_percent=_percent(run, after), spec={"export": told(after)})
    return after


def _percent(run: Run, export: Export) -> float:
    if run.asked.is_diff:  # how many have changed is known at the end
        return 95 * export.after_id / max(1, export.last_id)
    return min(95.0, 95 * export.items / max(1, export.total))


async def _next_name(conn: AsyncConnection[Any], command_id: int, noun: str, extension: str) -> str:
    number = sum(file.name.startswith(f"{noun}-") for file in await exports.list_files(conn, command_id))
    return f"{noun}-{number:05}.{extension}"


async def _landed(conn: AsyncConnection[Any], run: Run, name: str, info: ObjectInfo) -> int:
    """The file as an item of Binaries. Raises QuotaExceeded, and NotFound when the project was deleted."""
    binaries = await datasets.load_dataset(conn, run.export.binaries_id)
    landed = Landed(
        path=f"/.dataloop/exports/{to_wire(run.export.command_id)}/{name}",
        mode="overwrite",
        own_key=info.key,
        info=info,
        system_metadata={"export": {"datasetId": to_wire(run.export.dataset_id), "format": run.asked.format}},
        mime_type=guess_mime_type(name),
    )
    (uploaded,) = await land(conn, binaries, None, [landed])
    return uploaded.item.id


# The end.


async def _join(run: Run, made: _Format) -> None:
    """The pieces as one file, which is the item that the SDK asks for."""
    async with run.place.pool.connection() as conn:
        pieces = [file for file in await exports.list_files(conn, run.export.command_id) if not file.name]
    joined = _joined_array(run.store, pieces) if run.asked.format == "json" else _joined_archive(run.store, pieces)
    try:
        await _end(run, f"export.{made.extension}", joined, {})
    except StoreMissing:  # the pieces of one that has ended are cleaned up
        async with run.place.pool.connection() as conn:
            if (await commands.load_command(conn, run.export.command_id)).has_ended:
                raise _Overtaken from None
        raise


async def _joined_array(store: Store, pieces: list[ExportFile]) -> AsyncIterator[bytes]:
    yield b"["
    is_first = True
    for piece in pieces:
        if piece.size_bytes:
            if not is_first:
                yield documents.BETWEEN
            is_first = False
            async for chunk in _read(store, piece.key, 0, piece.size_bytes):
                yield chunk
    yield b"]"


async def _joined_archive(store: Store, pieces: list[ExportFile]) -> AsyncIterator[bytes]:
    starts: list[int] = []
    start = 0
    for piece in pieces:
        starts.append(start)
        body_bytes = piece.size_bytes - piece.directory_bytes
        async for chunk in _read(store, piece.key, 0, body_bytes):
            yield chunk
        start += body_bytes
    directory_bytes = 0
    for piece, piece_start in zip(pieces, starts, strict=True):
        directory = [
            chunk async for chunk in _read(store, piece.key, piece.size_bytes - piece.directory_bytes, piece.size_bytes)
        ]
        moved = await asyncio.to_thread(_moved, b"".join(directory), piece_start)
        directory_bytes += len(moved)
        yield moved
    yield zipping.ending(sum(piece.records for piece in pieces), start, directory_bytes)


def _moved(directory: bytes, start: int) -> bytes:
    return b"".join(zipping.moved(directory, start))


async def _read(store: Store, key: str, start: int, end: int) -> AsyncIterator[bytes]:
    if start >= end:
        return
    async with store.get(key, start=start, end=end) as reader:
        async for chunk in reader:
            yield chunk


async def _list(run: Run) -> None:
    """What has to be said of the files, and the end."""
    async with run.place.pool.connection() as conn:
        files = await exports.list_files(conn, run.export.command_id)
    for name, body in await last_files(run, files):
        await _add_last(run, name, body)
    async with run.place.pool.connection() as conn:
        files = await exports.list_files(conn, run.export.command_id)
        version = await versions.make(conn, run)
    name, body, spec = manifest_of(run, files, version)

    async def chunks() -> AsyncIterator[bytes]:
        yield body

    await _end(run, name, chunks(), spec)


async def _add_last(run: Run, name: str, body: bytes) -> None:
    """A file that tells of the others, unless it is there from an earlier try."""
    async with run.place.pool.connection() as conn:
        if any(file.name == name for file in await exports.list_files(conn, run.export.command_id)):
            return
    key = f"{whole_folder(run.export.command_id)}{uuid4().hex}"
    is_kept = False
    try:
        async with await run.store.begin_upload(key, content_type=guess_mime_type(name)) as upload:
            sink = Sink(upload)
            await sink.write(body)
            info = await upload.finish()
        async with run.place.pool.connection() as conn:
            command = await commands.lock_command(conn, run.export.command_id)
            if command is None or command.has_ended:
                raise _Overtaken
            item_id = await _landed(conn, run, name, info)
            file = ExportFile(name, key, item_id, 0, sink.size_bytes, 0, sink.md5, sink.sha256)
            await exports.add_file(conn, run.export.command_id, file)
        is_kept = True
    finally:
        if not is_kept:
            await run.store.delete(key)


async def _end(run: Run, name: str, chunks: AsyncIterator[bytes], spec: dict[str, Any]) -> None:
    """Write the last file, which is the item that the command names, and end with success."""
    command_id = run.export.command_id
    key = f"{whole_folder(command_id)}{uuid4().hex}"
    is_kept = False
    try:
        async with await run.store.begin_upload(key, content_type=guess_mime_type(name)) as upload:
            sink = Sink(upload)
            async for chunk in chunks:
                await sink.write(chunk)
            info = await upload.finish()
        async with run.place.pool.connection() as conn:
            command = await commands.lock_command(conn, command_id)
            if command is None or command.has_ended:
                raise _Overtaken
            item_id = await _landed(conn, run, name, info)
            file = ExportFile(name, key, item_id, run.export.items, sink.size_bytes, 0, sink.md5, sink.sha256)
            await exports.add_file(conn, command_id, file)
            spec = {"files": [file_told(run.asked.base, file)]} | spec
            if "exportResult" in spec:
                spec["exportResult"]["manifestUrl"] = f"{run.asked.base}/items/{to_wire(item_id)}/stream"
            more = {"outputItemId": to_wire(item_id), "export": told(run.export) | {"sizeBytes": sink.size_bytes}}
            await commands.end_command(conn, command_id, "success", spec=more | spec)
        is_kept = True
    finally:
        if not is_kept:
            await run.store.delete(key)
