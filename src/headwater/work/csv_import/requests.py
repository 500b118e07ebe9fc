"""Takes CSV files in, goes on with imports that stopped, and removes what is kept of those that ended long ago."""

from collections.abc import AsyncIterator
from dataclasses import asdict, dataclass, replace
from datetime import timedelta
from typing import Any
from uuid import uuid4

from psycopg import AsyncConnection

from headwater import queue
from headwater.catalog import commands, csv_imports
from headwater.catalog.accounts import Account
from headwater.catalog.csv_imports import CsvImport
from headwater.catalog.datasets import Dataset
from headwater.errors import BadRequest, Conflict, NotFound
from headwater.ids import to_wire
from headwater.storage.stores import Doomed, Store
from headwater.wire import csv_rows
from headwater.work.csv_import.encodings import Census
from headwater.work.csv_import.reading import SEPARATORS, Outline, read_outline
from headwater.work.csv_import.results import piece_key, source_key
from headwater.work.upload import check_writable, checked_path
from headwater.work.workplace import Workplace

TASK = "import_csv"
QUEUE = "imports"
KIND = "ImportCsv"
CLEAN_TASK = "drop_csv_imports"
CLEAN_AT = "41 * * * *"  # cron, in UTC
_KEPT_AFTER_SUCCESS = timedelta(days=7)
_KEPT_FOR_RESUMING = timedelta(days=90)
_HEAD_BYTES = 256 * 1024
_LONGEST_HEADER_BYTES = 32 * 1024 * 1024
_DELETED_AT_ONCE = 1_000


def check_separator(text: str) -> str:
    """Raises BadRequest."""
    found = {"tab": "\t", "\\t": "\t", "comma": ",", "semicolon": ";", "pipe": "|"}.get(text.lower(), text)
    if found not in SEPARATORS:
        raise BadRequest(f"separator: {text[:20]!r} is none of , ; | and tab.")
    return found


@dataclass(frozen=True, slots=True)
class NewImport:
    """A file that is about to come."""

    name: str
    folder: str  # '' for one named after the file
    encoding: str | None  # of `check_encoding`; None: found out
    separator: str | None
    is_dry_run: bool
    most_bytes: int

    @property
    def target(self) -> str:
        """The folder as items' paths begin. Raises BadRequest."""
        base = self.name.replace("\\", "/").rpartition("/")[2]
        given = self.folder if self.folder.strip("/") else (base.rpartition(".")[0] or base)
        if self.folder and not self.folder.strip("/"):
            return ""
        return checked_path("/" + given.strip("/"))


async def request_import(
    place: Workplace, dataset: Dataset, caller: Account, new: NewImport, chunks: AsyncIterator[bytes]
) -> tuple[int, bool]:
    """Keep the file and start its command, or go on with an import of the same file that stopped, or still runs.

    Returns the command's id and whether it is new. Raises BadRequest for what is no CSV file of an import, and leaves
    nothing behind then.
    """
    (await check_writable(place, dataset)).check(checked_path(new.target + "/x.jpg"))
    key = f"imports/{uuid4().hex}"
    census = Census()
    is_kept = False
    async with place.places.of_own(dataset.id) as store:
        try:
            async with await store.begin_upload(f"{key}.csv", content_type="text/csv") as upload:
                async for chunk in chunks:
                    census.feed(chunk)
                    _check_size(census.size_bytes, new.most_bytes)
                    await upload.write(chunk)
                if not census.size_bytes:
                    raise BadRequest("The file is empty.")
                await upload.finish()
            outline = await _outline(store, f"{key}.csv", new.encoding or census.encoding(), new.separator)
            found = _described(dataset, caller, new, census, outline, key)
            async with place.pool.connection() as conn:
                command_id, is_kept = await _started_or_resumed(conn, dataset, found)
        finally:
            if not is_kept:
                await store.delete(f"{key}.csv")
    return command_id, is_kept


def _check_size(size_bytes: int, most_bytes: int) -> None:
    if size_bytes > most_bytes:
        raise BadRequest(
            f"The file is longer than {most_bytes:,} bytes, the most that this server takes. Cut it in two, or ask its "
            "operator to raise HEADWATER_CSV_BYTES."
        )


async def _outline(store: Store, key: str, encoding: str, separator: str | None) -> Outline:
    """Raises BadRequest for a file whose first row names no columns."""
    size_bytes = (await store.head(key)).size_bytes
    length = _HEAD_BYTES
    while True:
        async with store.get(key, end=min(length, size_bytes)) as reader:
            head = await reader.read()
        outline = read_outline(head, encoding, separator, csv_rows.count_known, is_whole=length >= size_bytes)
        if outline is not None:
            return outline
        if length > _LONGEST_HEADER_BYTES:
            raise BadRequest(
                f"The first row, which names the columns, is longer than {_LONGEST_HEADER_BYTES:,} bytes, or a quote "
                "in it is never closed."
            )
        length *= 8


def _described(
    dataset: Dataset, caller: Account, new: NewImport, census: Census, outline: Outline, key: str
) -> CsvImport:
    """Raises BadRequest for a header that names no columns of ours."""
    columns = csv_rows.read_header(outline.header, outline.layout.separator)
    return CsvImport(
        command_id=0,
        dataset_id=dataset.id,
        creator_id=caller.id,
        name=new.name,
        folder=new.target,
        is_dry_run=new.is_dry_run,
        digest=census.digest,
        size_bytes=census.size_bytes,
        encoding=outline.layout.encoding,
        separator=outline.layout.separator,
        skips_spaces=outline.layout.skips_spaces,
        columns=asdict(columns),
        key=key,
        point_byte=outline.rows.byte,
        point_row=outline.rows.row,
        settled_row=outline.rows.row - 1,
        pieces=0,
        created=0,
        skipped=0,
        refused=0,
        is_dropped=False,
    )


async def _started_or_resumed(conn: AsyncConnection[Any], dataset: Dataset, new: CsvImport) -> tuple[int, bool]:
    """The command's id, and whether it is new: only then its file is needed."""
    await csv_imports.lock_file(conn, dataset.id, new.digest)
    before = await csv_imports.find_unfinished(conn, new)
    if before is not None:
        await _go_on(conn, before)
        return before.command_id, False
    command_id = await commands.start_command(
        conn,
        project_id=dataset.project_id,
        dataset_id=dataset.id,
        kind=KIND,
        spec={"datasetId": to_wire(dataset.id), "import": told(new)},
        creator_id=new.creator_id,
    )
    await csv_imports.add(conn, replace(new, command_id=command_id))
    await _defer(conn, command_id)
    return command_id, True


def told(found: CsvImport) -> dict[str, Any]:
    """On the wire as the command's `spec.import`."""
    return {
        "file": found.name,
        "folder": found.folder or "/",
        "dryRun": found.is_dry_run,
        "encoding": found.encoding,
        "separator": found.separator,
        "sizeBytes": found.size_bytes,
        "rows": found.rows,
        "created": found.created,
        "skipped": found.skipped,
        "refused": found.refused,
    }


async def resume_import(conn: AsyncConnection[Any], dataset: Dataset, command_id: int) -> None:
    """Go on with one that was aborted or failed, where it stopped. One that runs is left alone.

    Raises NotFound, and Conflict for one that has nothing left to do.
    """
    found = await get_import(conn, dataset, command_id)
    command = await commands.lock_command(conn, command_id)
    if command is not None and command.status == "success":
        raise Conflict("This import has come to its end: every row has its verdict. Send the file again to repeat it.")
    if found.is_dropped:
        raise Conflict(f"The file of this import is kept no longer. Send {found.name} again.")
    await _go_on(conn, found)


async def get_import(conn: AsyncConnection[Any], dataset: Dataset, command_id: int) -> CsvImport:
    """Raises NotFound for one that is none of this dataset."""
    found = await csv_imports.find(conn, command_id)
    if found is None or found.dataset_id != dataset.id:
        raise NotFound(f"Dataset {dataset.name!r} has no import {to_wire(command_id)}.")
    return found


async def _go_on(conn: AsyncConnection[Any], found: CsvImport) -> None:
    await commands.reopen_command(conn, found.command_id)
    await _defer(conn, found.command_id)


async def _defer(conn: AsyncConnection[Any], command_id: int) -> None:
    await queue.defer(
        conn, TASK, queue=QUEUE, lock=f"csv:{command_id}", queueing_lock=f"csv:{command_id}", command_id=command_id
    )


async def drop_expired(place: Workplace) -> None:
    """Files and verdicts that were kept long enough: some days after a good end, longer after one that may go on."""
    while True:
        async with place.pool.connection() as conn:
            expired = await csv_imports.find_expired(
                conn, ended_well_for=_KEPT_AFTER_SUCCESS, ended_for=_KEPT_FOR_RESUMING
            )
        if not expired:
            return
        for found in expired:
            async with place.pool.connection() as conn:
                if await csv_imports.note_dropped(conn, found.command_id):
                    await drop_files(place, found)


async def drop_files(place: Workplace, found: CsvImport) -> None:
    """Safe to repeat."""
    keys = [source_key(found), *(piece_key(found, piece) for piece in range(found.pieces + 1))]
    async with place.places.of_own(found.dataset_id) as store:
        for first in range(0, len(keys), _DELETED_AT_ONCE):
            await store.delete_many([Doomed(key) for key in keys[first : first + _DELETED_AT_ONCE]])
