"""Resumable uploads: how far each has come, durably, and which request may go on with it.

The offset is what lies in the store as parts and, after them, in the tail here; both move together. Whoever changes
an upload holds its lease, and every change asks for it again: a request that was taken for dead changes nothing.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from psycopg import AsyncConnection
from psycopg.rows import class_row
from psycopg.types.json import Jsonb

from headwater.storage.stores import Part, PartState

LEASE_S = 10
_ROW_BYTES = 1024**2
_TOLD_GONE_S = 24 * 3600  # an expired one is told as such for so long

_SELECT = """
SELECT
    id, dataset_id, account_id, path, mode, size_bytes, offset_bytes, crc32, wanted_crc32, told, description,
    user_metadata, system_metadata, link, object_key, part_bytes, part_state, hold_id, expires_at, item_id, outcome,
    ended_at, failure, expires_at < now() AS is_expired
FROM tus_upload
"""


@dataclass(frozen=True, slots=True)
class NewUpload:
    dataset_id: int
    account_id: int
    path: str
    mode: Literal["skip", "overwrite"]
    size_bytes: int
    told: str
    object_key: str
    part_bytes: int
    wanted_crc32: int | None = None
    description: str | None = None
    user_metadata: dict[str, Any] | None = None
    system_metadata: dict[str, Any] | None = None
    hold_id: int | None = None


@dataclass(frozen=True, slots=True)
class ResumableUpload:
    id: int
    dataset_id: int
    account_id: int
    path: str
    mode: Literal["skip", "overwrite"]
    size_bytes: int
    offset_bytes: int
    crc32: int
    wanted_crc32: int | None
    told: str
    description: str | None
    user_metadata: dict[str, Any] | None
    system_metadata: dict[str, Any] | None
    link: dict[str, Any] | None
    object_key: str
    part_bytes: int
    part_state: PartState | None
    hold_id: int | None
    expires_at: datetime
    item_id: int | None
    outcome: Literal["created", "overwrite", "skip"] | None
    ended_at: datetime | None
    failure: str | None
    is_expired: bool

    @property
    def is_complete(self) -> bool:
        """All bytes are here; the item may still have to be made."""
        return self.offset_bytes == self.size_bytes


@dataclass(frozen=True, slots=True)
class Progress:
    """What became durable, to be kept together."""

    offset_bytes: int
    crc32: int
    parts: Sequence[Part]  # new ones
    tail_start_bytes: int  # where the tail begins: after the parts
    new_tail: bytes  # what comes after the tail that is kept already
    link: dict[str, Any] | None = None


async def add_upload(conn: AsyncConnection[Any], new: NewUpload, *, expires_in_s: int) -> ResumableUpload:
    cursor = await conn.execute(
        """
        INSERT INTO tus_upload (
            dataset_id, account_id, path, mode, size_bytes, told, object_key, part_bytes, wanted_crc32, description,
            user_metadata, system_metadata, hold_id, expires_at
        )
        VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, now() + make_interval(secs => %s))
        RETURNING id
        """,
        [
            new.dataset_id,
            new.account_id,
            new.path,
            new.mode,
            new.size_bytes,
            new.told,
            new.object_key,
            new.part_bytes,
            new.wanted_crc32,
            new.description,
            None if new.user_metadata is None else Jsonb(new.user_metadata),
            None if new.system_metadata is None else Jsonb(new.system_metadata),
            new.hold_id,
            expires_in_s,
        ],
    )
    row = await cursor.fetchone()
    assert row is not None
    found = await find_upload(conn, row[0])
    assert found is not None
    return found


async def find_upload(conn: AsyncConnection[Any], upload_id: int) -> ResumableUpload | None:
    cursor = conn.cursor(row_factory=class_row(ResumableUpload))
    await cursor.execute(_SELECT + "WHERE id = %s", [upload_id])
    return await cursor.fetchone()


# The lease


async def claim(conn: AsyncConnection[Any], upload_id: int, holder: int) -> bool:
    """Hold the upload for `LEASE_S`. False while another does, who is told that somebody waits."""
    cursor = await conn.execute(
        """
        UPDATE tus_upload
        SET holder = %s, held_until = clock_timestamp() + make_interval(secs => %s), is_wanted = false
        WHERE id = %s AND (holder IS NULL OR held_until < clock_timestamp())
        """,
        [holder, LEASE_S, upload_id],
    )
    if cursor.rowcount:
        return True
    await conn.execute("UPDATE tus_upload SET is_wanted = true WHERE id = %s AND NOT is_wanted", [upload_id])
    return False


async def renew(conn: AsyncConnection[Any], holders: Sequence[int]) -> dict[int, bool]:
    """Of those that still hold, whether somebody waits for the upload."""
    cursor = await conn.execute(
        """
        UPDATE tus_upload
        SET held_until = clock_timestamp() + make_interval(secs => %s)
        WHERE holder = ANY(%s)
        RETURNING holder, is_wanted
        """,
        [LEASE_S, list(holders)],
    )
    return {row[0]: row[1] for row in await cursor.fetchall()}


async def release(conn: AsyncConnection[Any], upload_id: int, holder: int) -> None:
    await conn.execute(
        "UPDATE tus_upload SET holder = NULL, held_until = NULL, is_wanted = false WHERE id = %s AND holder = %s",
        [upload_id, holder],
    )


async def keep_hold(conn: AsyncConnection[Any], upload_id: int, holder: int) -> bool:
    """Nobody takes the upload over before this transaction ends. False when somebody has."""
    cursor = await conn.execute(
        "SELECT 1 FROM tus_upload WHERE id = %s AND holder = %s FOR UPDATE", [upload_id, holder]
    )
    return await cursor.fetchone() is not None


# How far it has come. Call these after `keep_hold`.


async def set_part_state(conn: AsyncConnection[Any], upload_id: int, state: PartState) -> None:
    await conn.execute("UPDATE tus_upload SET part_state = %s WHERE id = %s", [Jsonb(state), upload_id])


async def save_progress(conn: AsyncConnection[Any], upload_id: int, progress: Progress) -> None:
    if progress.parts:
        await conn.execute(
            """
            INSERT INTO tus_part (upload_id, number, size_bytes, etag)
            SELECT %s, number, size_bytes, etag
            FROM unnest(%s::int[], %s::bigint[], %s::text[]) AS put (number, size_bytes, etag)
            ON CONFLICT (upload_id, number) DO UPDATE SET size_bytes = excluded.size_bytes, etag = excluded.etag
            """,
            [
                upload_id,
                [part.number for part in progress.parts],
                [part.size_bytes for part in progress.parts],
                [part.etag for part in progress.parts],
            ],
        )
        await conn.execute(
            "DELETE FROM tus_tail WHERE upload_id = %s AND start_bytes < %s", [upload_id, progress.tail_start_bytes]
        )
    at = progress.offset_bytes - len(progress.new_tail)
    for start in range(0, len(progress.new_tail), _ROW_BYTES):
        await conn.execute(
            "INSERT INTO tus_tail (upload_id, start_bytes, body) VALUES (%s, %s, %s)",
            [upload_id, at + start, progress.new_tail[start : start + _ROW_BYTES]],
        )
    await conn.execute(
        "UPDATE tus_upload SET offset_bytes = %s, crc32 = %s, link = %s WHERE id = %s",
        [
            progress.offset_bytes,
            progress.crc32,
            None if progress.link is None else Jsonb(progress.link),
            upload_id,
        ],
    )


async def load_tail(conn: AsyncConnection[Any], upload_id: int) -> bytes:
    cursor = await conn.execute("SELECT body FROM tus_tail WHERE upload_id = %s ORDER BY start_bytes", [upload_id])
    return b"".join([bytes(row[0]) for row in await cursor.fetchall()])


async def load_parts(conn: AsyncConnection[Any], upload_id: int) -> list[Part]:
    cursor = conn.cursor(row_factory=class_row(Part))
    await cursor.execute(
        "SELECT number, size_bytes, etag FROM tus_part WHERE upload_id = %s ORDER BY number", [upload_id]
    )
    return await cursor.fetchall()


async def set_finished(conn: AsyncConnection[Any], upload_id: int, item_id: int, outcome: str) -> None:
    """It is told until it expires."""
    await conn.execute(
        "UPDATE tus_upload SET item_id = %s, outcome = %s, ended_at = now(), hold_id = NULL WHERE id = %s",
        [item_id, outcome, upload_id],
    )
    await conn.execute("DELETE FROM tus_part WHERE upload_id = %s", [upload_id])


async def set_failed(conn: AsyncConnection[Any], upload_id: int, failure: str) -> None:
    """It gets no item; what is left of it in the store still has to go."""
    await conn.execute(
        "UPDATE tus_upload SET failure = %s, ended_at = now() WHERE id = %s AND ended_at IS NULL", [failure, upload_id]
    )


# What has to be cleaned


async def end_all(conn: AsyncConnection[Any], dataset_id: int, failure: str) -> None:
    """Nobody goes on with any upload to the dataset: whoever holds one changes nothing any more."""
    await conn.execute(
        """
        UPDATE tus_upload
        SET failure = %s, ended_at = now(), holder = NULL, held_until = NULL
        WHERE dataset_id = %s AND ended_at IS NULL
        """,
        [failure, dataset_id],
    )


async def find_ended(conn: AsyncConnection[Any], dataset_id: int) -> list[ResumableUpload]:
    """Uploads to the dataset that became no item of theirs, and of which something may be left."""
    cursor = conn.cursor(row_factory=class_row(ResumableUpload))
    await cursor.execute(
        _SELECT
        + """
        WHERE dataset_id = %s AND ended_at IS NOT NULL AND (item_id IS NULL OR outcome = 'skip')
            AND (part_state IS NOT NULL OR hold_id IS NOT NULL)
        """,
        [dataset_id],
    )
    return await cursor.fetchall()


async def find_left(conn: AsyncConnection[Any], *, after_id: int, most: int) -> list[ResumableUpload]:
    """Expired ones and those that were given up, of which something may be left in the store, or a place held.

    In the order of ids, those behind `after_id`.
    """
    cursor = conn.cursor(row_factory=class_row(ResumableUpload))
    await cursor.execute(
        _SELECT
        + """
        WHERE id > %s AND (expires_at < now() OR ended_at IS NOT NULL) AND (held_until IS NULL OR held_until < now())
            AND CASE
                WHEN item_id IS NULL THEN part_state IS NOT NULL OR hold_id IS NOT NULL OR ended_at IS NULL
                ELSE outcome = 'skip' AND part_state IS NOT NULL
            END
        ORDER BY id
        LIMIT %s
        """,
        [after_id, most],
    )
    return await cursor.fetchall()


async def set_cleaned(conn: AsyncConnection[Any], upload_id: int) -> None:
    """Nothing of it is left in the store."""
    await conn.execute(
        """
        UPDATE tus_upload
        SET part_state = NULL, hold_id = NULL, ended_at = coalesce(ended_at, now()),
            failure = CASE WHEN item_id IS NULL THEN coalesce(failure, 'It has expired.') END
        WHERE id = %s
        """,
        [upload_id],
    )
    await conn.execute("DELETE FROM tus_part WHERE upload_id = %s", [upload_id])
    await conn.execute("DELETE FROM tus_tail WHERE upload_id = %s", [upload_id])


async def delete_upload(conn: AsyncConnection[Any], upload_id: int) -> None:
    await conn.execute("DELETE FROM tus_upload WHERE id = %s", [upload_id])


async def delete_forgotten(conn: AsyncConnection[Any]) -> None:
    """Those that expired long ago, once nothing is left of them."""
    await conn.execute(
        """
        DELETE FROM tus_upload
        WHERE expires_at < now() - make_interval(secs => %s) AND (item_id IS NOT NULL OR part_state IS NULL)
            AND ended_at IS NOT NULL
        """,
        [_TOLD_GONE_S],
    )


async def find_states(conn: AsyncConnection[Any], dataset_id: int) -> list[ResumableUpload]:
    """Uploads to the dataset that have begun parts and are not finished."""
    cursor = conn.cursor(row_factory=class_row(ResumableUpload))
    await cursor.execute(_SELECT + "WHERE dataset_id = %s AND part_state IS NOT NULL AND item_id IS NULL", [dataset_id])
    return await cursor.fetchall()
