"""The job of an import: piece by piece, rows become items and verdicts in one transaction with the file's cursor.

What rows need of the outside (a file behind a URL, an object in a bucket) is brought before, side by side, and without
a connection. Killed anywhere, it goes on behind the last row that has a verdict.
"""

import asyncio
import hashlib
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

from psycopg import AsyncConnection

from headwater.catalog import accounts, commands, csv_imports, datasets, items, quotas
from headwater.catalog.accounts import Account
from headwater.catalog.csv_imports import CsvImport, Settled, Standing
from headwater.catalog.datasets import Dataset
from headwater.catalog.items import Written
from headwater.catalog.links import Link
from headwater.errors import BadRequest, NotFound
from headwater.net.fetch import FetchFailed
from headwater.storage.stores import ObjectInfo, Store
from headwater.wire import csv_rows
from headwater.wire.csv_rows import Columns, Refused, Row
from headwater.wire.links import link_body
from headwater.work.aborting import Aborted, until_aborted
from headwater.work.csv_import.reading import Layout, Point, Reader, Record
from headwater.work.csv_import.requests import told
from headwater.work.csv_import.results import Verdict, piece_key, source_key, written
from headwater.work.deletion import drop_replaced
from headwater.work.upload import check_writable, checked_path
from headwater.work.upload.looking import find_strangers
from headwater.work.upload.paths import Door
from headwater.work.workplace import Workplace

_PIECE_ROWS = 1_000  # paths that are locked at once
_LINK_ROWS = 4_000  # links of our own storage, whose paths nobody locks
_PIECE_CHARS = 16 * 1024 * 1024
_AT_ONCE = 16
_LOCKING_AT_ONCE = 2  # transactions beside that of the piece
_MOST_FETCHED_BYTES = 5 * 1024**3
_FETCHED_WITHIN_S = 600.0
_TRIED_AGAIN_AFTER_S = 1.0
_ABORT_POLL_S = 0.3
_HEARTBEAT_S = 20.0
_EXAMPLES = 10  # refused rows that the command tells itself
_LINK_SUFFIX = "_link.json"  # of the SDK: what reads the bucket sees that it is no picture


class _Stays(Exception):
    """At the row's path something lies that is not the row's and is not replaced."""

    def __init__(self, standing: Standing | None = None) -> None:
        super().__init__()
        self.standing = standing  # None: an object without an item


class _Overtaken(Exception):
    """Another worker has settled these rows, or the command has ended."""


@dataclass(frozen=True, slots=True)
class _Wanted:
    """A row that may become an item."""

    number: int
    path: str
    row: Row
    written: Written | None  # of a link that needs no object


@dataclass(frozen=True, slots=True)
class _Piece:
    """Rows that are settled together: verdicts on those that say themselves that they cannot be, the rest by paths."""

    last: Record
    verdicts: list[Verdict]
    groups: dict[str, list[_Wanted]]

    @property
    def is_light(self) -> bool:
        """Whether all its items are rows and nothing else."""
        return all(one.written is not None for group in self.groups.values() for one in group)


@dataclass(slots=True)
class _Brought:
    """What became of the rows of a piece before any of them is an item."""

    verdicts: list[Verdict] = field(default_factory=list[Verdict])
    ready: dict[str, tuple[_Wanted, Written]] = field(default_factory=dict[str, tuple[_Wanted, Written]])
    doubles: list[tuple[_Wanted, _Wanted]] = field(default_factory=list[tuple[_Wanted, _Wanted]])  # and the first one

    @property
    def own_keys(self) -> dict[str, str]:
        """Objects in our own storage, by the paths of their items."""
        return {path: one.object_key for path, (_, one) in self.ready.items() if one.object_key is not None}


@dataclass
class _Run:
    place: Workplace
    found: CsvImport  # as it is after the last piece
    dataset: Dataset
    caller: Account
    door: Door
    columns: Columns
    examples: list[dict[str, Any]]
    brought: int = 0  # rows whose bytes have come, to tell that it lives
    locking: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(_LOCKING_AT_ONCE))
    names: dict[int, int] = field(default_factory=dict[int, int])  # of a dry run, which makes no items: path -> row

    @property
    def is_own(self) -> bool:
        return self.dataset.driver_id is None

    @property
    def mark(self) -> str:
        """Of the file, in the items that came from it."""
        return self.found.digest[:16]


async def import_rows(place: Workplace, command_id: int) -> None:
    """To the end of the command. Safe to repeat, and to run more than once side by side.

    Raises Unavailable when a store does not answer and another try may help, and what else stands in the way of all
    rows; what stands in the way of one row is its verdict.
    """
    run = await _begin(place, command_id)
    if run is None:
        return
    try:
        await until_aborted(_import(run), _abort_requested(run))
    except _Overtaken:
        return
    except Aborted:
        error = f"The import was aborted. {run.found.rows:,} rows have their verdict; what was created stays."
        await _end(run, "aborted", error=error)
    else:
        await _end(run, "success", warning=_warning(run))


async def give_up(place: Workplace, command_id: int, error: str) -> None:
    """What was created stays; the import can be resumed."""
    async with place.pool.connection() as conn:
        await commands.end_command(conn, command_id, "failed", error=error)


async def _begin(place: Workplace, command_id: int) -> _Run | None:
    """None for a command that has ended. Raises NotFound, BadRequest."""
    async with place.pool.connection() as conn:
        command = await commands.load_command(conn, command_id)
        if command.has_ended:
            return None
        found = await csv_imports.get(conn, command_id)
        dataset = await datasets.load_dataset(conn, found.dataset_id)
        caller = await accounts.get_account(conn, found.creator_id)
    if found.is_dropped:
        raise NotFound(f"The file {found.name} is kept no longer. Send it again.")
    door = await check_writable(place, dataset)
    examples = list(command.spec.get("import", {}).get("examples", []))
    return _Run(place, found, dataset, caller, door, Columns(**found.columns), examples)


async def _end(run: _Run, status: str, *, error: str | None = None, warning: str | None = None) -> None:
    async with run.place.pool.connection() as conn:
        await commands.end_command(conn, run.found.command_id, status, error=error, warning=warning)


def _warning(run: _Run) -> str | None:
    found, said = run.found, []
    if not found.rows:
        said.append("The file has no rows below its header.")
    if found.refused:
        said.append(
            f"{found.refused:,} of {found.rows:,} rows were refused; {found.created:,} were created, {found.skipped:,} "
            "were there already. The results say why, row by row."
        )
    if (unknown := run.columns.warning()) is not None:
        said.append(unknown)
    return " ".join(said) or None


async def _abort_requested(run: _Run) -> None:
    clock = asyncio.get_running_loop().time
    told_at, brought = clock(), run.brought
    while True:
        async with run.place.pool.connection() as conn:
            if await commands.is_abort_requested(conn, run.found.command_id):
                return
            if clock() - told_at > _HEARTBEAT_S and run.brought > brought:  # a piece of large files takes its time
                told_at, brought = clock(), run.brought
                await commands.note_progress(conn, run.found.command_id, progress_percent=0, spec={})
        await asyncio.sleep(_ABORT_POLL_S)


async def _import(run: _Run) -> None:
    places = run.place.places
    async with (
        places.of_own(run.dataset.id) as own,
        places.of_dataset(run.dataset.id) as store,
        aclosing(_one_ahead(_judged_pieces(run, own))) as pieces,
    ):
        async for piece in pieces:
            await _import_piece(run, own, store, piece)


async def _one_ahead(source: AsyncIterator[_Piece]) -> AsyncGenerator[_Piece]:
    """While one piece is being settled the next is being read."""

    async def following() -> _Piece | None:
        return await anext(source, None)

    task = asyncio.create_task(following())
    try:
        while (piece := await task) is not None:
            task = asyncio.create_task(following())
            yield piece
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def _judged_pieces(run: _Run, own: Store) -> AsyncIterator[_Piece]:
    async for records in _pieces(run, own):
        piece = await asyncio.to_thread(_judged, run, records)
        if piece.is_light or len(records) <= _PIECE_ROWS:
            yield piece
            continue
        for first in range(0, len(records), _PIECE_ROWS):
            yield await asyncio.to_thread(_judged, run, records[first : first + _PIECE_ROWS])


async def _pieces(run: _Run, own: Store) -> AsyncIterator[list[Record]]:
    """The records behind the cursor, some at a time."""
    found = run.found
    if found.point_byte >= found.size_bytes:
        return
    layout = Layout(found.encoding, found.separator, found.skips_spaces)
    reader = Reader(layout, Point(found.point_byte, found.point_row))
    piece: list[Record] = []
    chars = 0
    async for records in _records(own, source_key(found), reader, found.point_byte):
        for record in records:
            if record.row <= found.settled_row:
                continue
            piece.append(record)
            chars += sum(map(len, record.cells))
            if len(piece) >= (_LINK_ROWS if run.is_own else _PIECE_ROWS) or chars >= _PIECE_CHARS:
                yield piece
                piece, chars = [], 0
    if piece:
        yield piece


async def _records(own: Store, key: str, reader: Reader, start: int) -> AsyncIterator[list[Record]]:
    async with own.get(key, start=start) as body:
        async for chunk in body:
            if records := await asyncio.to_thread(reader.feed, chunk):
                yield records
    yield await asyncio.to_thread(reader.end)


async def _import_piece(run: _Run, own: Store, store: Store, piece: _Piece) -> None:
    brought = _Brought(verdicts=list(piece.verdicts))
    try:
        if piece.is_light:
            for path, (first, *others) in piece.groups.items():
                assert first.written is not None
                brought.ready[path] = first, first.written
                brought.doubles += [(other, first) for other in others]
        else:
            await _bring_all(run, store, brought, piece.groups)
        await _settle(run, own, store, piece, brought)
    except BaseException:
        await _drop_unused(run, store, brought.own_keys)
        raise


# Rows on their own.


def _judged(run: _Run, records: Sequence[Record]) -> _Piece:
    verdicts: list[Verdict] = []
    groups: dict[str, list[_Wanted]] = {}
    for record in records:
        if record.reason is None and csv_rows.is_blank(record.cells):
            continue
        try:
            wanted = _wanted(run, record)
        except Refused as error:
            name = csv_rows.shown_name(run.columns, record.cells)
            verdicts.append(Verdict(record.row, name, "refused", error.column, error.reason))
        else:
            groups.setdefault(wanted.path, []).append(wanted)
    return _Piece(records[-1], verdicts, groups)


def _wanted(run: _Run, record: Record) -> _Wanted:
    """Raises Refused."""
    if record.reason is not None:
        raise Refused("", record.reason)
    row = csv_rows.read_row(run.columns, record.cells)
    if row.url:
        try:
            run.place.fetcher.check_url(row.url)
        except BadRequest as error:
            raise Refused("URL", str(error)) from None
    suffix = _LINK_SUFFIX if row.action == "link" and not run.is_own else ""
    try:
        path = checked_path(f"{run.found.folder}/{row.name.lstrip('/')}{suffix}")
        run.door.check(path)
    except BadRequest as error:
        raise Refused("name", str(error)) from None
    is_bare = run.is_own and row.action == "link"
    return _Wanted(record.row, path, row, _written(run, record.row, path, row, None, None) if is_bare else None)


def _already(run: _Run, wanted: _Wanted, standing: Standing) -> Verdict:
    """The verdict on a row whose path is taken: by another row of this very file, or by whatever else."""
    if standing.digest == run.mark and standing.row is not None and standing.row != wanted.number:
        return _double(wanted, standing.row)
    return Verdict(wanted.number, wanted.row.name, "skipped", "", "The item is there already.", standing.item_id)


def _double(wanted: _Wanted, first: int) -> Verdict:
    return Verdict(wanted.number, wanted.row.name, "refused", "name", f"Row {first} has this name already.")


# What rows need of the outside.


async def _bring_all(run: _Run, store: Store, brought: _Brought, groups: dict[str, list[_Wanted]]) -> None:
    """Of each path the first row that can be had; the others are its doubles."""
    async with run.place.pool.connection() as conn:
        taken = await csv_imports.find_at(conn, run.dataset.id, list(groups))
    at_hand: list[Sequence[_Wanted]] = []
    fetched: list[Sequence[_Wanted]] = []
    for path, group in groups.items():
        if path in taken and not taken[path].is_missing:
            brought.verdicts += [_already(run, wanted, taken[path]) for wanted in group]
        elif run.found.is_dry_run or group[0].written is not None:
            first = group[0]
            brought.ready[path] = first, first.written or _written(run, first.number, path, first.row, None, None)
            brought.doubles += [(wanted, group[0]) for wanted in group[1:]]
        else:
            (fetched if any(_is_fetched(wanted.row) for wanted in group) else at_hand).append(group)
    if at_hand:
        async with _site(run, store, [group[0].path for group in at_hand]) as site:
            await _bring_each(run, store, brought, at_hand, site)
    await _bring_each(run, store, brought, fetched, None)


def _is_fetched(row: Row) -> bool:
    return row.action == "upload" and not row.body


@dataclass(frozen=True, slots=True)
class _Site:
    """What there is at paths whose locks we hold; of our own storage nothing, for its keys are new."""

    items: dict[str, Standing] = field(default_factory=dict[str, Standing])
    strangers: dict[str, ObjectInfo] = field(default_factory=dict[str, ObjectInfo])


@asynccontextmanager
async def _site(run: _Run, store: Store, paths: Sequence[str]) -> AsyncGenerator[_Site]:
    """Whoever writes to a bucket does so inside: nothing is replaced that another has just written."""
    if run.is_own:
        yield _Site()
        return
    async with run.locking, run.place.pool.connection() as conn:
        await items.lock_paths(conn, run.dataset.id, paths)
        found = await csv_imports.find_at(conn, run.dataset.id, paths)
        there = {path: standing for path, standing in found.items() if not standing.is_missing}
        free = [path for path in paths if path not in there]
        yield _Site(there, await find_strangers(conn, store, run.dataset, free))


async def _bring_each(
    run: _Run, store: Store, brought: _Brought, groups: Sequence[Sequence[_Wanted]], site: _Site | None
) -> None:
    slots = asyncio.Semaphore(_AT_ONCE)
    tasks = [asyncio.create_task(_bring(run, store, brought, group, slots, site)) for group in groups]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _bring(
    run: _Run,
    store: Store,
    brought: _Brought,
    group: Sequence[_Wanted],
    slots: asyncio.Semaphore,
    site: _Site | None,
) -> None:
    for number, wanted in enumerate(group):
        key = None if not run.is_own else f"objects/{uuid4().hex}"
        async with slots:
            try:
                info = await _stored(run, store, wanted, key or wanted.path[1:], site)
            except Refused as error:
                name = wanted.row.name
                brought.verdicts.append(Verdict(wanted.number, name, "refused", error.column, error.reason))
                continue
            except _Stays as stays:
                brought.verdicts += [_staying(run, other, stays.standing) for other in group[number:]]
                return
            finally:
                run.brought += 1
        brought.ready[wanted.path] = wanted, _written(run, wanted.number, wanted.path, wanted.row, key, info)
        brought.doubles += [(other, wanted) for other in group[number + 1 :]]
        return


def _staying(run: _Run, wanted: _Wanted, standing: Standing | None) -> Verdict:
    if standing is not None:
        return _already(run, wanted, standing)
    reason = "Another object of this name lies in the bucket and stays as it is; a sync makes it an item."
    return Verdict(wanted.number, wanted.row.name, "skipped", "", reason)


async def _stored(run: _Run, store: Store, wanted: _Wanted, key: str, site: _Site | None) -> ObjectInfo:
    """The object of the row, in the dataset's store. Raises Refused for what is to be said of this row alone, _Stays.

    Without a `site` its path is locked when its bytes have come.
    """
    row = wanted.row
    try:
        if site is None and _is_fetched(row):
            return await _fetched(run, store, key, wanted)
        body = link_body(_link(row)) if row.action == "link" else await asyncio.to_thread(row.decoded)
        content_type = "application/json" if row.action == "link" else row.mime_type
        if site is not None:
            return await _put(store, key, body, content_type, wanted, site)
        async with _site(run, store, [wanted.path]) as found:
            return await _put(store, key, body, content_type, wanted, found)
    except FetchFailed as error:
        raise Refused("URL", str(error)) from None
    except BadRequest as error:
        raise Refused("name", str(error)) from None


async def _put(store: Store, key: str, body: bytes, content_type: str, wanted: _Wanted, site: _Site) -> ObjectInfo:
    """Raises _Stays."""
    if (same := await _same(store, wanted.path, site, len(body), hashlib.sha256(body).digest())) is not None:
        return same
    return await store.put(key, body, content_type=content_type)


async def _same(store: Store, path: str, site: _Site, size_bytes: int, digest: bytes) -> ObjectInfo | None:
    """What lies there if it is what is to be written, as after a crash; None where nothing does. Raises _Stays."""
    if path in site.items:
        raise _Stays(site.items[path])
    there = site.strangers.get(path)
    if there is None:
        return None
    if there.size_bytes != size_bytes:
        raise _Stays
    found = hashlib.sha256()
    async with store.get(there.key) as reader:
        async for chunk in reader:
            found.update(chunk)
    if found.digest() != digest:
        raise _Stays
    return there


async def _fetched(run: _Run, store: Store, key: str, wanted: _Wanted) -> ObjectInfo:
    """Raises FetchFailed, _Stays."""
    try:
        return await _fetch(run, store, key, wanted)
    except FetchFailed as error:
        if not error.is_passing:
            raise
    await asyncio.sleep(_TRIED_AGAIN_AFTER_S)
    return await _fetch(run, store, key, wanted)


async def _fetch(run: _Run, store: Store, key: str, wanted: _Wanted) -> ObjectInfo:
    fetcher, row = run.place.fetcher, wanted.row
    digest, size_bytes = hashlib.sha256(), 0
    async with (
        fetcher.open(row.url, most_bytes=_MOST_FETCHED_BYTES, within_s=_FETCHED_WITHIN_S) as answer,
        await store.begin_upload(key, content_type=row.mime_type) as upload,
    ):
        async for chunk in answer:
            await upload.write(chunk)
            digest.update(chunk)
            size_bytes += len(chunk)
        await upload.seal()
        async with _site(run, store, [wanted.path]) as site:
            return await _same(store, wanted.path, site, size_bytes, digest.digest()) or await upload.finish()


def _link(row: Row) -> Link:
    return Link("url", row.url, row.mime_type)


def _written(run: _Run, number: int, path: str, row: Row, key: str | None, info: ObjectInfo | None) -> Written:
    """The row's item; without an object it is a link that needs none."""
    link = _link(row) if row.action == "link" else None
    body = b"" if link is None or info is not None else link_body(link)
    return Written(
        path=path,
        object_key=key if info is not None else None,
        size_bytes=len(body) if info is None else info.size_bytes,
        etag=hashlib.md5(body, usedforsecurity=False).hexdigest() if info is None else info.etag,
        modified_at=None if info is None else info.modified_at,
        mime_type=row.mime_type,
        description=row.description,
        user_metadata=row.metadata,
        system_metadata=(row.system_metadata or {}) | {"csv": {"file": run.mark, "row": number}},
        link=None if link is None else link.to_json(),
    )


async def _drop_unused(run: _Run, store: Store, own_keys: dict[str, str]) -> None:
    """Remove objects of our own storage without a row; a commit that we only did not hear of keeps its own."""
    if not own_keys:
        return
    async with run.place.pool.connection() as conn:
        await items.lock_paths(conn, run.dataset.id, list(own_keys))
        used = await csv_imports.used_keys(conn, run.dataset.id, list(own_keys))
        for key in set(own_keys.values()) - used:
            await store.delete(key)


# Items, verdicts and the cursor.


async def _settle(run: _Run, own: Store, store: Store, piece: _Piece, brought: _Brought) -> None:
    """In one transaction. Raises _Overtaken."""
    found, verdicts = run.found, list(brought.verdicts)
    async with run.place.pool.connection() as conn:
        command = await commands.lock_command(conn, found.command_id)
        if command is None or command.has_ended:
            raise _Overtaken
        if (await csv_imports.get(conn, found.command_id)).settled_row != found.settled_row:
            raise _Overtaken  # before anything is written over what the other wrote
        late = await _add_items(conn, run, brought, verdicts, is_light=piece.is_light)
        verdicts += [_of_double(run, wanted, first, late.get(first.path)) for wanted, first in brought.doubles]
        verdicts.sort(key=lambda one: one.row)
        if verdicts:
            await own.put(piece_key(found, found.pieces), written(verdicts), content_type="text/csv")
        settled = _settled(found, piece.last, verdicts)
        await csv_imports.settle(conn, found.command_id, settled)
        now = await csv_imports.get(conn, found.command_id)
        await _tell(conn, run, now, verdicts)
    run.found = now
    await _drop_unused(run, store, {path: key for path, key in brought.own_keys.items() if path in late})


def _of_double(run: _Run, wanted: _Wanted, first: _Wanted, late: Standing | str | None) -> Verdict:
    """The verdict on a row whose name an earlier one of the piece has."""
    if late is None:
        return _double(wanted, first.number)
    if isinstance(late, Standing):
        return _already(run, wanted, late)
    return Verdict(wanted.number, wanted.row.name, "refused", "", late)


def _settled(found: CsvImport, last: Record, verdicts: Sequence[Verdict]) -> Settled:
    outcomes = [one.outcome for one in verdicts]
    return Settled(
        point_byte=last.point.byte,
        point_row=last.point.row,
        settled_row=last.row,
        pieces=found.pieces + bool(verdicts),
        created=found.created + outcomes.count("created"),
        skipped=found.skipped + outcomes.count("skipped"),
        refused=found.refused + outcomes.count("refused"),
    )


async def _tell(conn: AsyncConnection[Any], run: _Run, now: CsvImport, verdicts: Sequence[Verdict]) -> None:
    refused = [one for one in verdicts if one.outcome == "refused"][: _EXAMPLES - len(run.examples)]
    run.examples += [
        {"row": one.row, "name": one.name, "column": one.column, "reason": one.reason[:300]} for one in refused
    ]
    await commands.note_progress(
        conn,
        now.command_id,
        progress_percent=min(99.0, 100 * now.point_byte / now.size_bytes),
        spec={"import": told(now) | {"examples": run.examples}},
    )
    await commands.announce_dataset(conn, now.dataset_id)


async def _add_items(
    conn: AsyncConnection[Any], run: _Run, brought: _Brought, verdicts: list[Verdict], *, is_light: bool
) -> dict[str, Standing | str]:
    """Items of what is ready. Returns the paths that came to nothing: what is there, or why it cannot be."""
    dataset, paths = run.dataset, list(brought.ready)
    if not paths:
        return {}
    if not is_light:
        await items.lock_paths(conn, dataset.id, paths)
    standing = await csv_imports.find_at(conn, dataset.id, paths)
    room = None if run.found.is_dry_run else await quotas.lock_room(conn, dataset.id)
    left = len(paths) if room is None else room.left
    added: list[Written] = []
    new = 0
    late: dict[str, Standing | str] = {}
    for path, (wanted, one) in brought.ready.items():
        there = standing.get(path)
        if there is not None and not there.is_missing:
            verdicts.append(_already(run, wanted, there))
            late[path] = there
        elif there is None and new >= left and room is not None:
            late[path] = reason = str(room.exceeded(1))
            verdicts.append(Verdict(wanted.number, wanted.row.name, "refused", "", reason))
        elif run.found.is_dry_run:
            verdicts.append(_told_in_dry_run(run, wanted))
        else:
            added.append(one)
            new += there is None
    if room is not None and new:
        await quotas.take_room(conn, room, new)
    if added and is_light:
        ids = await items.add_rows(conn, dataset.id, added, creator_id=run.caller.id)
        verdicts += [_created(brought, one.path, ids.get(one.path)) for one in added]
    elif added:
        ghosts = [standing[one.path].item_id for one in added if one.path in standing]
        before = await items.load_items(conn, dataset.id, ghosts)
        done = await items.put_rows(conn, dataset.id, added, creator_id=run.caller.id)
        verdicts += [_created(brought, path, item_id) for path, (item_id, _) in done.items()]
        await drop_replaced(conn, before)
    return late


def _created(brought: _Brought, path: str, item_id: int | None) -> Verdict:
    """Without an id another was quicker at this moment."""
    wanted, _ = brought.ready[path]
    if item_id is None:
        return Verdict(wanted.number, wanted.row.name, "skipped", "", "The item is there already.")
    return Verdict(wanted.number, wanted.row.name, "created", item_id=item_id)


_MOST_NAMES = 1_000_000  # that a dry run remembers


def _told_in_dry_run(run: _Run, wanted: _Wanted) -> Verdict:
    """No item marks the name as taken, so it is remembered here: a number for each of the first million."""
    number = hash(wanted.path)
    first = run.names.get(number)
    if first is not None and first != wanted.number:
        return _double(wanted, first)
    if len(run.names) < _MOST_NAMES:
        run.names[number] = wanted.number
    return Verdict(wanted.number, wanted.row.name, "created", reason="It would be created.")
