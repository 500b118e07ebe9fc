"""Tombstones: what was deleted here on purpose, so that no sync brings it back, and what became of its objects.

An object stays in its bucket, is to be deleted, was deleted, or was refused to us; the last is never forgotten by
itself. In our own storage a tombstone goes together with the object.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, LiteralString

from psycopg import AsyncConnection
from psycopg.rows import class_row

_TOLD_EVERY_S = 900
NO_OBJECT = "0x0"  # an etag of no object, as Azure writes them: what is there after all came later


@dataclass(frozen=True, slots=True)
class Tombstone:
    path: str
    object_key: str | None
    etag: str | None
    deleted_at: datetime
    object_asked_at: datetime | None
    object_deleted_at: datetime | None
    refused_at: datetime | None
    object_delete_error: str | None


@dataclass(frozen=True, slots=True)
class Counts:
    staying: int  # in the bucket, because nobody asked for more
    waiting: int  # to be deleted from the store
    refused: int


async def put(
    conn: AsyncConnection[Any],
    dataset_id: int,
    deleted: Sequence[tuple[str, str | None, str]],
    *,
    is_object_asked: bool,
) -> None:
    """For each (path, object key, etag) of rows that go in this transaction."""
    await conn.execute(
        """
        INSERT INTO tombstone (dataset_id, path, object_key, etag, object_asked_at)
        SELECT %(dataset_id)s, path, object_key, nullif(etag, ''), CASE WHEN %(is_asked)s THEN now() END
        FROM unnest(%(paths)s::text[], %(keys)s::text[], %(etags)s::text[]) AS given (path, object_key, etag)
        ORDER BY path
        ON CONFLICT (dataset_id, path) DO UPDATE
        SET deleted_at = now(), object_key = excluded.object_key, etag = excluded.etag,
            object_asked_at = excluded.object_asked_at, object_deleted_at = NULL, refused_at = NULL,
            object_delete_error = NULL
        """,
        {
            "dataset_id": dataset_id,
            "paths": [path for path, _, _ in deleted],
            "keys": [key for _, key, _ in deleted],
            "etags": [etag for _, _, etag in deleted],
            "is_asked": is_object_asked,
        },
    )


async def lock_waiting(conn: AsyncConnection[Any], dataset_id: int, paths: Sequence[str]) -> dict[str, str | None]:
    """Path -> etag of those whose object is still to go. Call it under the locks of the paths.

    Not those that are to stay: a job may be older than the deletion it finds. Until the end of the transaction nobody
    restores them.
    """
    cursor = await conn.execute(
        """
        SELECT path, etag
        FROM tombstone
        WHERE dataset_id = %s AND path = ANY(%s) AND object_deleted_at IS NULL AND object_asked_at IS NOT NULL
        ORDER BY path
        FOR UPDATE
        """,
        [dataset_id, list(paths)],
    )
    return dict(await cursor.fetchall())


async def etags_of(conn: AsyncConnection[Any], dataset_id: int, paths: Sequence[str]) -> dict[str, str | None]:
    """By path, of objects that may be there still; None: whichever is there."""
    cursor = await conn.execute(
        """
        SELECT path, etag
        FROM tombstone
        WHERE dataset_id = %s AND path = ANY(%s) AND object_deleted_at IS NULL
        """,
        [dataset_id, list(paths)],
    )
    return dict(await cursor.fetchall())


async def note_objects_deleted(conn: AsyncConnection[Any], dataset_id: int, paths: Sequence[str]) -> None:
    """They stay until a scan that began later has ended: one that runs may have listed the objects."""
    await conn.execute(
        """
        UPDATE tombstone
        SET object_deleted_at = clock_timestamp(), refused_at = NULL, object_delete_error = NULL
        WHERE dataset_id = %s AND path = ANY(%s)
        """,
        [dataset_id, list(paths)],
    )


async def note_objects_kept(conn: AsyncConnection[Any], dataset_id: int, paths: Sequence[str]) -> None:
    """Their deletion is no longer allowed, so they stay in the bucket."""
    await conn.execute(
        """
        UPDATE tombstone
        SET object_asked_at = NULL, refused_at = NULL, object_delete_error = NULL
        WHERE dataset_id = %s AND path = ANY(%s) AND object_deleted_at IS NULL
        """,
        [dataset_id, list(paths)],
    )


async def note_refused(conn: AsyncConnection[Any], dataset_id: int, errors: Mapping[str, str]) -> None:
    """The store would not delete the objects of these paths, and why."""
    await conn.execute(
        """
        UPDATE tombstone
        SET refused_at = clock_timestamp(), object_delete_error = given.error
        FROM unnest(%s::text[], %s::text[]) AS given (path, error)
        WHERE tombstone.dataset_id = %s AND tombstone.path = given.path AND tombstone.object_deleted_at IS NULL
        """,
        [list(errors), list(errors.values()), dataset_id],
    )


async def tell_refusals(conn: AsyncConnection[Any], dataset_id: int) -> bool:
    """Whether it is time to tell somebody that objects were refused; then it is not for a while."""
    cursor = await conn.execute(
        """
        UPDATE dataset
        SET refusals_told_at = now()
        WHERE id = %s AND deleted_at IS NULL
            AND (refusals_told_at IS NULL OR refusals_told_at < now() - make_interval(secs => %s))
        """,
        [dataset_id, _TOLD_EVERY_S],
    )
    return cursor.rowcount == 1


async def forget(conn: AsyncConnection[Any], dataset_id: int, paths: Sequence[str]) -> None:
    """A sync may make items of what is there."""
    await conn.execute("DELETE FROM tombstone WHERE dataset_id = %s AND path = ANY(%s)", [dataset_id, list(paths)])


async def lift(conn: AsyncConnection[Any], dataset_id: int, paths: Sequence[str], *, seen_at: datetime) -> None:
    """Of objects that were there at that time and are items again by somebody's wish: they are not deleted any more.

    Not of those that were deleted from the store since. Call it under the locks of the paths.
    """
    await conn.execute(
        """
        DELETE FROM tombstone
        WHERE dataset_id = %s AND path = ANY(%s) AND (object_deleted_at IS NULL OR object_deleted_at < %s)
        """,
        [dataset_id, list(paths), seen_at],
    )


async def forget_keys(conn: AsyncConnection[Any], dataset_id: int, keys: Mapping[str, str]) -> None:
    """Those of our own storage whose object is gone, by path; not what was deleted at the path since."""
    await conn.execute(
        """
        DELETE FROM tombstone
        USING unnest(%s::text[], %s::text[]) AS given (path, object_key)
        WHERE tombstone.dataset_id = %s AND tombstone.path = given.path AND tombstone.object_key = given.object_key
        """,
        [list(keys), list(keys.values()), dataset_id],
    )


_STATES: dict[str, LiteralString] = {
    "staying": "object_deleted_at IS NULL AND object_asked_at IS NULL",
    "waiting": "object_deleted_at IS NULL AND object_asked_at IS NOT NULL AND refused_at IS NULL",
    "refused": "object_deleted_at IS NULL AND refused_at IS NOT NULL",
    "any": "object_deleted_at IS NULL",
}


async def list_tombstones(
    conn: AsyncConnection[Any], dataset_id: int, *, state: str = "any", after: str = "", limit: int = 1_000
) -> list[Tombstone]:
    """In the order of paths; `state` is staying, waiting, refused, or any of them."""
    cursor = conn.cursor(row_factory=class_row(Tombstone))
    await cursor.execute(
        """
        SELECT path, object_key, etag, deleted_at, object_asked_at, object_deleted_at, refused_at, object_delete_error
        FROM tombstone
        WHERE dataset_id = %s AND path > %s AND """
        + _STATES[state]
        + " ORDER BY path LIMIT %s",
        [dataset_id, after, limit],
    )
    return await cursor.fetchall()


async def count_tombstones(conn: AsyncConnection[Any], dataset_id: int) -> Counts:
    """Reads all of them."""
    cursor = conn.cursor(row_factory=class_row(Counts))
    await cursor.execute(
        """
        SELECT
            count(*) FILTER (WHERE object_asked_at IS NULL) AS staying,
            count(*) FILTER (WHERE object_asked_at IS NOT NULL AND refused_at IS NULL) AS waiting,
            count(*) FILTER (WHERE refused_at IS NOT NULL) AS refused
        FROM tombstone
        WHERE dataset_id = %s AND object_deleted_at IS NULL
        """,
        [dataset_id],
    )
    counts = await cursor.fetchone()
    assert counts is not None
    return counts


async def restore(
    conn: AsyncConnection[Any], dataset_id: int, *, paths: Sequence[str] | None = None, folder: str | None = None
) -> int:
    """Forget those whose object is still there, so that a sync brings them back. Returns how many.

    What waits to be deleted from the bucket is not deleted then. Without `paths` and `folder`: all.
    """
    cursor = await conn.execute(
        """
        DELETE FROM tombstone
        WHERE dataset_id = %(dataset_id)s AND object_deleted_at IS NULL
            AND (%(paths)s::text[] IS NULL OR path = ANY(%(paths)s))
            AND (%(from)s::text IS NULL OR path >= %(from)s AND path < %(until)s)
        """,
        {
            "dataset_id": dataset_id,
            "paths": None if paths is None else list(paths),
            "from": None if folder is None else folder.rstrip("/") + "/",
            "until": None if folder is None else folder.rstrip("/") + "0",  # the character after the slash
        },
    )
    return cursor.rowcount
