"""CSV imports: how a file is written, how far its rows are settled, and what is at the paths they name."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from psycopg import AsyncConnection
from psycopg.rows import class_row
from psycopg.types.json import Jsonb

from headwater.errors import NotFound


@dataclass(frozen=True, slots=True)
class CsvImport:
    command_id: int
    dataset_id: int
    creator_id: int
    name: str
    folder: str
    is_dry_run: bool
    digest: str
    size_bytes: int
    encoding: str
    separator: str
    skips_spaces: bool
    columns: dict[str, Any]
    key: str
    point_byte: int
    point_row: int
    settled_row: int
    pieces: int
    created: int
    skipped: int
    refused: int
    is_dropped: bool

    @property
    def rows(self) -> int:
        """How many have a verdict."""
        return self.created + self.skipped + self.refused


@dataclass(frozen=True, slots=True)
class Settled:
    """How far an import is after another piece of its rows."""

    point_byte: int
    point_row: int
    settled_row: int
    pieces: int
    created: int
    skipped: int
    refused: int


_SELECT = """
SELECT
    csv_import.command_id, csv_import.dataset_id, csv_import.creator_id, csv_import.name, csv_import.folder,
    csv_import.is_dry_run, csv_import.digest, csv_import.size_bytes, csv_import.encoding, csv_import.separator,
    csv_import.skips_spaces, csv_import.columns, csv_import.key, csv_import.point_byte, csv_import.point_row,
    csv_import.settled_row, csv_import.pieces, csv_import.created, csv_import.skipped, csv_import.refused,
    csv_import.dropped_at IS NOT NULL AS is_dropped
FROM csv_import
"""


async def add(conn: AsyncConnection[Any], new: CsvImport) -> None:
    """Beside its command, which is there already."""
    await conn.execute(
        """
        INSERT INTO csv_import (
            command_id, dataset_id, creator_id, name, folder, is_dry_run, digest, size_bytes, encoding, separator,
            skips_spaces, columns, key, point_byte, point_row, settled_row
        )
        VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)
        """,
        [
            new.command_id,
            new.dataset_id,
            new.creator_id,
            new.name,
            new.folder,
            new.is_dry_run,
            new.digest,
            new.size_bytes,
            new.encoding,
            new.separator,
            new.skips_spaces,
            Jsonb(new.columns),
            new.key,
            new.point_byte,
            new.point_row,
            new.settled_row,
        ],
    )


async def find(conn: AsyncConnection[Any], command_id: int) -> CsvImport | None:
    cursor = conn.cursor(row_factory=class_row(CsvImport))
    await cursor.execute(_SELECT + "WHERE csv_import.command_id = %s", [command_id])
    return await cursor.fetchone()


async def get(conn: AsyncConnection[Any], command_id: int) -> CsvImport:
    """Raises NotFound."""
    found = await find(conn, command_id)
    if found is None:
        raise NotFound(f"The command {command_id:024x} is no import of a CSV file.")
    return found


async def lock_file(conn: AsyncConnection[Any], dataset_id: int, digest: str) -> None:
    """Until the end of the transaction nobody else begins to import this file into this dataset."""
    await conn.execute("SELECT pg_advisory_xact_lock(hashtextextended(%s, 0))", [f"csv:{dataset_id}:{digest}"])


async def find_unfinished(conn: AsyncConnection[Any], new: CsvImport) -> CsvImport | None:
    """An import of the same file into the same folder that runs, or ended before its last row."""
    cursor = conn.cursor(row_factory=class_row(CsvImport))
    await cursor.execute(
        _SELECT
        + """
        JOIN command ON command.id = csv_import.command_id
        WHERE csv_import.dataset_id = %s AND csv_import.digest = %s AND csv_import.dropped_at IS NULL
            AND csv_import.name = %s AND csv_import.folder = %s AND csv_import.is_dry_run = %s
            AND csv_import.encoding = %s AND csv_import.separator = %s AND command.status <> 'success'
        ORDER BY csv_import.command_id DESC
        LIMIT 1
        """,
        [new.dataset_id, new.digest, new.name, new.folder, new.is_dry_run, new.encoding, new.separator],
    )
    return await cursor.fetchone()


async def settle(conn: AsyncConnection[Any], command_id: int, settled: Settled) -> None:
    """Move the cursor on, under the lock of the command, in the transaction of the rows."""
    await conn.execute(
        """
        UPDATE csv_import
        SET point_byte = %s, point_row = %s, settled_row = %s, pieces = %s, created = %s, skipped = %s, refused = %s
        WHERE command_id = %s
        """,
        [
            settled.point_byte,
            settled.point_row,
            settled.settled_row,
            settled.pieces,
            settled.created,
            settled.skipped,
            settled.refused,
            command_id,
        ],
    )


async def find_expired(
    conn: AsyncConnection[Any], *, ended_well_for: timedelta, ended_for: timedelta
) -> list[CsvImport]:
    """Those whose files have been kept long enough since their end; at most 100."""
    cursor = conn.cursor(row_factory=class_row(CsvImport))
    await cursor.execute(
        _SELECT
        + """
        JOIN command ON command.id = csv_import.command_id
        WHERE csv_import.dropped_at IS NULL AND command.status NOT IN ('created', 'in-progress')
            AND command.updated_at < now() - CASE WHEN command.status = 'success' THEN %s ELSE %s END
        ORDER BY csv_import.command_id
        LIMIT 100
        """,
        [ended_well_for, ended_for],
    )
    return await cursor.fetchall()


async def note_dropped(conn: AsyncConnection[Any], command_id: int) -> bool:
    """Nobody goes on with it from now on. False when somebody does just now."""
    cursor = await conn.execute(
        """
        UPDATE csv_import
        SET dropped_at = now()
        FROM command
        WHERE csv_import.command_id = %s AND command.id = csv_import.command_id
            AND command.status NOT IN ('created', 'in-progress')
        """,
        [command_id],
    )
    return bool(cursor.rowcount)


@dataclass(frozen=True, slots=True)
class Standing:
    """What is at a path."""

    item_id: int
    is_missing: bool  # a ghost: nothing is kept for it
    digest: str | None  # of the CSV file that it came from, and the row
    row: int | None


async def find_at(conn: AsyncConnection[Any], dataset_id: int, paths: Sequence[str]) -> dict[str, Standing]:
    """What is at these paths; the others are free."""
    cursor = await conn.execute(
        """
        SELECT path, id, missing_since IS NOT NULL, system_metadata -> 'csv' ->> 'file',
            system_metadata -> 'csv' ->> 'row'
        FROM item
        WHERE dataset_id = %s AND path = ANY(%s)
        """,
        [dataset_id, list(paths)],
    )
    return {
        path: Standing(item_id, is_missing, digest, int(row) if row and row.isdecimal() else None)
        for path, item_id, is_missing, digest, row in await cursor.fetchall()
    }


async def used_keys(conn: AsyncConnection[Any], dataset_id: int, paths: Sequence[str]) -> set[str]:
    """Keys in our own storage that the items at these paths have."""
    cursor = await conn.execute(
        "SELECT object_key FROM item WHERE dataset_id = %s AND path = ANY(%s) AND object_key IS NOT NULL",
        [dataset_id, list(paths)],
    )
    return {key for (key,) in await cursor.fetchall()}
