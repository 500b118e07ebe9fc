"""Planned uploads: what clients are about to write to a bucket themselves, so that a commit is believed only so far."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from psycopg import AsyncConnection
from psycopg.rows import class_row
from psycopg.types.json import Jsonb


@dataclass(frozen=True, slots=True)
class Planned:
    id: int
    dataset_id: int
    path: str
    mode: Literal["skip", "overwrite"]
    size_bytes: int
    part_bytes: int | None
    part_state: dict[str, Any] | None
    hold_id: int | None
    planned_at: datetime
    expires_at: datetime
    item_id: int | None
    outcome: Literal["created", "overwrite", "skip"] | None


_COLUMNS = """
id, dataset_id, path, mode, size_bytes, part_bytes, part_state, hold_id, planned_at, expires_at, item_id, outcome
"""


@dataclass(frozen=True, slots=True)
class New:
    path: str
    size_bytes: int
    part_bytes: int | None
    hold_id: int | None


async def add(
    conn: AsyncConnection[Any],
    dataset_id: int,
    account_id: int,
    mode: str,
    files: Sequence[New],
    expires_at: datetime,
) -> dict[str, int]:
    """Their ids, by path."""
    cursor = await conn.execute(
        """
        INSERT INTO planned_upload
            (dataset_id, account_id, mode, expires_at, path, size_bytes, part_bytes, hold_id)
        SELECT %s, %s, %s, %s, path, size_bytes, part_bytes, hold_id
        FROM unnest(%s::text[], %s::bigint[], %s::bigint[], %s::bigint[])
            AS given (path, size_bytes, part_bytes, hold_id)
        RETURNING path, id
        """,
        [
            dataset_id,
            account_id,
            mode,
            expires_at,
            [file.path for file in files],
            [file.size_bytes for file in files],
            [file.part_bytes for file in files],
            [file.hold_id for file in files],
        ],
    )
    return dict(await cursor.fetchall())


async def load(
    conn: AsyncConnection[Any], dataset_id: int, account_id: int, upload_ids: Sequence[int], *, locked: bool = False
) -> dict[int, Planned]:
    """Those that this account planned in this dataset, by id; `locked` keeps others off until the transaction ends."""
    cursor = conn.cursor(row_factory=class_row(Planned))
    await cursor.execute(
        f"SELECT {_COLUMNS} FROM planned_upload"
        " WHERE dataset_id = %s AND account_id = %s AND id = ANY(%s) ORDER BY id" + (" FOR UPDATE" if locked else ""),
        [dataset_id, account_id, list(upload_ids)],
    )
    return {planned.id: planned for planned in await cursor.fetchall()}


async def begin(conn: AsyncConnection[Any], upload_id: int, part_state: dict[str, Any]) -> bool:
    """Keep what the store needs for its parts. False: somebody else was quicker, or it is gone."""
    cursor = await conn.execute(
        "UPDATE planned_upload SET part_state = %s WHERE id = %s AND part_state IS NULL AND outcome IS NULL",
        [Jsonb(part_state), upload_id],
    )
    return bool(cursor.rowcount)


async def keep_until(conn: AsyncConnection[Any], upload_id: int, expires_at: datetime) -> None:
    """Somebody is at work on it."""
    await conn.execute("UPDATE planned_upload SET expires_at = %s WHERE id = %s", [expires_at, upload_id])


async def note_committed(conn: AsyncConnection[Any], committed: Sequence[tuple[int, int, str]]) -> None:
    """For each (id, item's id, outcome)."""
    await conn.execute(
        """
        UPDATE planned_upload
        SET item_id = given.item_id, outcome = given.outcome, hold_id = NULL
        FROM unnest(%s::bigint[], %s::bigint[], %s::text[]) AS given (id, item_id, outcome)
        WHERE planned_upload.id = given.id
        """,
        [[one[0] for one in committed], [one[1] for one in committed], [one[2] for one in committed]],
    )


async def find_expired(conn: AsyncConnection[Any], *, after_id: int, limit: int) -> list[Planned]:
    """In the order of ids, those behind `after_id`."""
    cursor = conn.cursor(row_factory=class_row(Planned))
    await cursor.execute(
        f"SELECT {_COLUMNS} FROM planned_upload WHERE id > %s AND expires_at < now() ORDER BY id LIMIT %s",
        [after_id, limit],
    )
    return await cursor.fetchall()


async def find_open(conn: AsyncConnection[Any], dataset_id: int) -> list[Planned]:
    """What nobody has committed yet, whoever planned it."""
    cursor = conn.cursor(row_factory=class_row(Planned))
    await cursor.execute(
        f"SELECT {_COLUMNS} FROM planned_upload WHERE dataset_id = %s AND outcome IS NULL", [dataset_id]
    )
    return await cursor.fetchall()


async def forget(conn: AsyncConnection[Any], upload_ids: Sequence[int]) -> None:
    await conn.execute("DELETE FROM planned_upload WHERE id = ANY(%s)", [list(upload_ids)])
