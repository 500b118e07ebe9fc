"""The life of a dataset's column index: begun, made ready, kept up, dropped."""

import secrets
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from psycopg import AsyncConnection
from psycopg.rows import class_row
from psycopg.sql import SQL, Identifier

from headwater.catalog.columns import tables
from headwater.catalog.columns.covering import cover_columns, drop_unused_paths
from headwater.catalog.columns.tables import COLUMNS

# A segment that hurts queries is built soon: it is touched as a whole, or so many of its items are.
_MANY_TOUCHED = 1_000
# But not while the statements of one change are still coming, to it or as large ones to other segments of the dataset,
# which building would slow; unless these go on and on.
_QUIET_S, _LONGEST_STREAM_S = 2, 30
_LARGE_ITEMS = 500  # of one statement in one segment
# The others are built at leisure, few at each look, so that a steady trickle of changes costs little.
_LEISURE_S, MOST_AT_LEISURE = 60, 1
_LOOK_LOCK = 0x17E5  # an advisory lock
_SHRUNK = 4  # times below the threshold: too small for columns


@dataclass(frozen=True, slots=True)
class IndexProgress:
    """Of a column index, as people are told of it."""

    is_ready: bool
    created_at: datetime
    built_at: datetime | None
    error: str | None  # why the last build failed
    built_segments: int  # that are as their items are, but for single ones
    segments: int
    waiting_items: int  # about how many items are to be built, or built anew


async def begin(conn: AsyncConnection[Any], dataset_id: int) -> bool:
    """From its commit on, changes of the dataset's items leave notes. False: it has an index already."""
    cursor = await conn.execute(
        "INSERT INTO column_index (dataset_id, hash_key) VALUES (%s, %s) ON CONFLICT DO NOTHING",
        [dataset_id, secrets.token_bytes(16)],
    )
    if cursor.rowcount:
        await cover_columns(conn, dataset_id)
    return bool(cursor.rowcount)


async def make_ready(conn: AsyncConnection[Any], dataset_id: int) -> bool:
    """Once all who may not know of the index have ended, everything that is there waits to be built. Safe to repeat.

    The caller's transaction has done nothing yet, began after the commit of `begin`, and ends after this; the first
    call only notes for whom to wait: all whose number is smaller than its own. (A snapshot's xmax would be too small:
    it is next to the last that has ended, not to the last that has begun.) False: not yet. True as well if there is no
    index any more.
    """
    cursor = await conn.execute(
        """
        UPDATE column_index
        SET awaited_xid = coalesce(awaited_xid, pg_current_xact_id()),
            ready_at = CASE WHEN pg_snapshot_xmin(pg_current_snapshot()) >= awaited_xid THEN now() END
        WHERE dataset_id = %s AND ready_at IS NULL
        RETURNING ready_at IS NOT NULL
        """,
        [dataset_id],
    )
    row = await cursor.fetchone()
    if row is None or not row[0]:
        return row is None
    await touch_all(conn, dataset_id)
    return True


async def touch_all(conn: AsyncConnection[Any], dataset_id: int) -> None:
    """Every segment with items, or that is built, waits to be built anew."""
    segments = set(await tables.segments_of_items(conn, dataset_id))
    cursor = await conn.execute("SELECT segment FROM column_segment WHERE dataset_id = %s", [dataset_id])
    segments |= {segment for (segment,) in await cursor.fetchall()}
    await conn.execute(
        "INSERT INTO column_touched (dataset_id, segment) SELECT %s, unnest(%s::bigint[])",
        [dataset_id, sorted(segments)],
    )


async def renew(conn: AsyncConnection[Any], dataset_id: int) -> bool:
    """All is built anew, and paths are sought anew: those that no item has any more make room. False: no index."""
    cursor = await conn.execute("UPDATE column_index SET paths_sought_at = NULL WHERE dataset_id = %s", [dataset_id])
    if not cursor.rowcount:
        return False
    await drop_unused_paths(conn, dataset_id)
    await touch_all(conn, dataset_id)
    return True


async def drop(conn: AsyncConnection[Any], dataset_id: int) -> bool:
    """Waits for a build that is under way. False: there was none. Safe to repeat."""
    cursor = await conn.execute("DELETE FROM column_index WHERE dataset_id = %s", [dataset_id])
    for table in ("column_path", "column_value", "column_segment", "column_chunk", "column_touched"):
        await conn.execute(SQL("DELETE FROM {} WHERE dataset_id = %s").format(Identifier(table)), [dataset_id])
    return bool(cursor.rowcount)


async def is_begun(conn: AsyncConnection[Any], dataset_id: int) -> bool:
    cursor = await conn.execute("SELECT FROM column_index WHERE dataset_id = %s", [dataset_id])
    return await cursor.fetchone() is not None


async def try_look(conn: AsyncConnection[Any]) -> bool:
    """Whether nobody else looks for what is due; then nobody does before this transaction ends."""
    cursor = await conn.execute("SELECT pg_try_advisory_xact_lock(%s, 0)", [_LOOK_LOCK])
    return bool((await cursor.fetchone() or (False,))[0])


async def begin_where_due(conn: AsyncConnection[Any], *, least_items: int) -> list[int]:
    """Datasets that have outgrown `least_items` get an index; those that have shrunk far below it lose theirs.

    While a dataset syncs none is begun, so that a first sync has the machine to itself. An index that somebody asked
    a path for stays. Returns the new ones. Nothing if `least_items` is 0.
    """
    if not least_items:
        return []
    cursor = await conn.execute(
        """
        SELECT dataset.id
        FROM dataset_counter AS counter
        JOIN dataset ON dataset.id = counter.dataset_id AND dataset.deleted_at IS NULL
        WHERE counter.items >= %s
            AND NOT EXISTS (SELECT FROM column_index WHERE column_index.dataset_id = dataset.id)
            AND NOT EXISTS (SELECT FROM scan WHERE scan.dataset_id = dataset.id AND scan.state = 'running')
        """,
        [least_items],
    )
    begun = [dataset_id for (dataset_id,) in await cursor.fetchall() if await begin(conn, dataset_id)]
    cursor = await conn.execute(
        """
        SELECT column_index.dataset_id
        FROM column_index
        JOIN dataset_counter AS counter USING (dataset_id)
        WHERE counter.items < %s AND NOT EXISTS (
            SELECT FROM column_path
            WHERE column_path.dataset_id = column_index.dataset_id AND column_path.is_pinned
        )
        """,
        [least_items // _SHRUNK],
    )
    for (dataset_id,) in await cursor.fetchall():
        await drop(conn, dataset_id)
    return begun


async def find_due(conn: AsyncConnection[Any]) -> list[int]:
    """Datasets with something to build now. Also cleans up after transactions that ended after their index did."""
    await conn.execute(
        """
        DELETE FROM column_touched
        WHERE NOT EXISTS (SELECT FROM column_index WHERE column_index.dataset_id = column_touched.dataset_id)
        """
    )
    cursor = await conn.execute(
        """
        SELECT dataset_id, ready_at IS NULL OR paths_sought_at IS NULL
        FROM column_index
        WHERE ready_at IS NULL OR paths_sought_at IS NULL
            OR EXISTS (SELECT FROM column_touched WHERE column_touched.dataset_id = column_index.dataset_id)
        ORDER BY dataset_id
        """
    )
    return [
        dataset_id for dataset_id, is_new in await cursor.fetchall() if is_new or await due_segments(conn, dataset_id)
    ]


async def due_segments(
    conn: AsyncConnection[Any], dataset_id: int, *, at_once: bool = False, at_leisure: int = MOST_AT_LEISURE
) -> list[int]:
    """What to build now: what is urgent, and then so many `at_leisure`. `at_once`: whatever is not as its items are."""
    cursor = await conn.execute(
        """
        WITH touched AS (
            SELECT segment, bool_or(item_ids IS NULL) AS is_whole, coalesce(sum(cardinality(item_ids)), 0) AS items,
                extract(epoch FROM clock_timestamp() - min(touched_at)) AS oldest_s,
                extract(epoch FROM clock_timestamp() - max(touched_at)) AS newest_s
            FROM column_touched
            WHERE dataset_id = %(dataset_id)s
            GROUP BY segment
        ), stream AS (
            SELECT extract(epoch FROM clock_timestamp() - max(touched_at)) AS newest_s
            FROM column_touched
            WHERE dataset_id = %(dataset_id)s AND cardinality(item_ids) >= %(large)s
        ), incomplete AS (
            SELECT segment
            FROM column_segment AS built
            WHERE dataset_id = %(dataset_id)s AND EXISTS (
                SELECT FROM column_path AS path
                WHERE path.dataset_id = %(dataset_id)s AND NOT path.is_excluded
                    AND path.number <> ALL(built.path_numbers)
                    AND (built.met_paths IS NULL OR path.path = ANY(built.met_paths) OR path.path = ANY(%(columns)s))
            )
        ), judged AS (
            SELECT segment, is_whole, items, oldest_s >= %(leisure_s)s AS is_old,
                incomplete.segment IS NOT NULL OR (
                    (is_whole OR items >= %(many)s)
                    AND (least(touched.newest_s, stream.newest_s) >= %(quiet_s)s OR oldest_s >= %(stream_s)s)
                ) AS is_urgent
            FROM touched FULL JOIN incomplete USING (segment) CROSS JOIN stream
        )
        SELECT segment, is_urgent
        FROM judged
        WHERE is_urgent OR is_old OR %(at_once)s
        ORDER BY is_urgent DESC, is_whole DESC NULLS LAST, items DESC NULLS LAST, segment
        """,
        {
            "dataset_id": dataset_id,
            "many": _MANY_TOUCHED,
            "large": _LARGE_ITEMS,
            "quiet_s": _QUIET_S,
            "stream_s": _LONGEST_STREAM_S,
            "leisure_s": _LEISURE_S,
            "at_once": at_once,
            "columns": list(COLUMNS),
        },
    )
    rows = await cursor.fetchall()
    urgent = [segment for segment, is_urgent in rows if is_urgent]
    others = [segment for segment, is_urgent in rows if not is_urgent]
    return urgent + (others if at_once else others[:at_leisure])


async def note_error(conn: AsyncConnection[Any], dataset_id: int, error: str | None) -> None:
    """Why building does not go on; None: it does."""
    await conn.execute(
        "UPDATE column_index SET error = %(error)s WHERE dataset_id = %(id)s AND error IS DISTINCT FROM %(error)s",
        {"error": error, "id": dataset_id},
    )


async def progress(conn: AsyncConnection[Any], dataset_id: int) -> IndexProgress | None:
    """None: it has no column index."""
    cursor = conn.cursor(row_factory=class_row(IndexProgress))
    await cursor.execute(
        """
        WITH touched AS (
            SELECT segment, bool_or(item_ids IS NULL) AS is_whole, coalesce(sum(cardinality(item_ids)), 0) AS items
            FROM column_touched
            WHERE dataset_id = %(dataset_id)s
            GROUP BY segment
        ), segments AS (
            SELECT segment, coalesce(is_whole, FALSE) AS is_whole, built.rows IS NOT NULL AS is_built,
                CASE WHEN is_whole THEN coalesce(built.rows, 65536) ELSE coalesce(items, 0) END AS waiting
            FROM touched
            FULL JOIN (SELECT segment, rows FROM column_segment WHERE dataset_id = %(dataset_id)s) AS built
                USING (segment)
        )
        SELECT ready_at IS NOT NULL AS is_ready, created_at, built_at, error,
            (SELECT count(*) FROM segments WHERE is_built AND NOT is_whole) AS built_segments,
            (SELECT count(*) FROM segments) AS segments,
            least(
                (SELECT coalesce(sum(waiting), 0)::bigint FROM segments),
                (SELECT items FROM dataset_counter WHERE dataset_counter.dataset_id = %(dataset_id)s)
            ) AS waiting_items
        FROM column_index
        WHERE dataset_id = %(dataset_id)s
        """,
        {"dataset_id": dataset_id},
    )
    return await cursor.fetchone()
