"""The column index as it is kept: what is covered, what is built, what has been touched since.

Everything a reader loads has to come from ONE repeatable-read snapshot, together with the rows: `begin_reading`. Then

    every item of the dataset is either in a segment of `IndexState.segments` and not touched: its columns are exactly
    its row; or touched, by its id or with its whole segment: ask its row. A touched id may be of an item that is gone.

Numbers of paths and versions of segments are never used again, in the whole database: what is cached by (segment,
path number, version), or of the values of a path number, is never wrong.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any, LiteralString, cast

import numpy as np
from numpy.typing import NDArray
from psycopg import AsyncConnection, sql
from psycopg.rows import class_row

from headwater.catalog.columns.encoding import SEGMENT_BITS, Encoding

# The fields of fields.py that are covered always, each as an expression of the item's own row. Where it is NULL, the
# row is absent. `integers` of the fields dir and creator are item.folder_id and item.creator_id; times are in µs since
# 1970 as they are kept, which is what fields.py sorts by: filters compare whole milliseconds of them.
COLUMNS: Mapping[str, tuple[Encoding, LiteralString]] = {
    "filename": ("paths", "item.path"),
    "dir": ("integers", "item.folder_id"),
    "creator": ("integers", "item.creator_id"),
    "hidden": ("codes", "(item.hidden OR item.trashed_at IS NOT NULL)"),
    "annotationsCount": ("integers", "item.annotations_count"),
    "description": ("codes", "item.description"),
    "createdAt": ("integers", "item.created_at"),
    "updatedAt": ("integers", "item.updated_at"),
    "metadata.system.size": ("integers", "item.size_bytes"),
    "metadata.system.mimetype": ("codes", "item.mime_type"),
    "metadata.system.width": ("integers", "item.width_px"),
    "metadata.system.height": ("integers", "item.height_px"),
    "metadata.system.etl.state": (
        "codes",
        "(CASE item.etl_state WHEN 0 THEN 'waiting' ELSE item.system_metadata #>> '{etl,state}' END)",
    ),
    "metadata.system.missing": ("codes", "(item.missing_since IS NOT NULL)"),
    "metadata.system.missingSince": ("integers", "item.missing_since"),
    "metadata.system.trashedAt": ("integers", "item.trashed_at"),
}
TIMES = frozenset({"createdAt", "updatedAt", "metadata.system.missingSince", "metadata.system.trashedAt"})
# What lies below these is covered where it occurs in items, and is JSON of any kind.
DOCUMENTS: Mapping[str, LiteralString] = {
    "metadata.user": "item.user_metadata",
    "metadata.system": "item.system_metadata",
}


@dataclass(frozen=True, slots=True)
class CoveredPath:
    """One that filters name, such as filename, hidden or metadata.user.a.b."""

    number: int
    path: str
    encoding: Encoding
    is_pinned: bool


@dataclass(frozen=True, slots=True)
class Segment:
    """The items with `id >> 16 == number` that it was built of."""

    number: int
    version: int
    rows: int
    path_numbers: frozenset[int]  # those that have a chunk; of others see `load_absent`

    @property
    def first_id(self) -> int:
        return self.number << SEGMENT_BITS


@dataclass(frozen=True, slots=True, eq=False)
class IndexState:
    dataset_id: int
    hash_key: bytes
    paths: Mapping[str, CoveredPath]
    segments: Mapping[int, Segment]  # in the order of numbers, without those that are touched as a whole
    touched_items: NDArray[np.int64]  # ids, rising; none of a segment that is touched as a whole
    touched_segments: tuple[int, ...]  # numbers, rising; all their items are to be asked in SQL
    notes: bytes  # the same for the same notes: then the rows of what is touched are the same

    def without(self, path: str) -> list[Segment]:
        """Those that have no chunk of it."""
        covered = self.paths.get(path)
        if covered is None:
            return list(self.segments.values())
        return [one for one in self.segments.values() if covered.number not in one.path_numbers]


async def begin_reading(conn: AsyncConnection[Any]) -> None:
    """The caller's transaction sees one snapshot from here on. Only as its first statement."""
    await conn.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")


async def load_state(conn: AsyncConnection[Any], dataset_id: int) -> IndexState | None:
    """None: it has no column index that may be used."""
    cursor = await conn.execute(
        "SELECT hash_key FROM column_index WHERE dataset_id = %s AND ready_at IS NOT NULL", [dataset_id]
    )
    if (row := await cursor.fetchone()) is None:
        return None
    covered = {path.path: path for path in await load_paths(conn, dataset_id)}
    ids, whole, notes = await _load_touched(conn, dataset_id)
    built = conn.cursor(binary=True)
    await built.execute(
        "SELECT segment, version, rows, path_numbers FROM column_segment WHERE dataset_id = %s ORDER BY segment",
        [dataset_id],
    )
    segments = {
        number: Segment(number, version, rows, frozenset(numbers))
        for number, version, rows, numbers in await built.fetchall()
        if number not in whole
    }
    return IndexState(dataset_id, row[0], covered, segments, ids, tuple(sorted(whole)), notes)


async def load_paths(conn: AsyncConnection[Any], dataset_id: int) -> list[CoveredPath]:
    """In the order of numbers."""
    cursor = conn.cursor(row_factory=class_row(CoveredPath))
    await cursor.execute(
        """
        SELECT number, path, encoding, is_pinned
        FROM column_path
        WHERE dataset_id = %s AND NOT is_excluded
        ORDER BY number
        """,
        [dataset_id],
    )
    return await cursor.fetchall()


async def load_known_paths(conn: AsyncConnection[Any], dataset_id: int) -> list[str]:
    """What is covered, and what somebody does not want to be."""
    cursor = await conn.execute("SELECT path FROM column_path WHERE dataset_id = %s", [dataset_id])
    return [path for (path,) in await cursor.fetchall()]


async def load_absent(
    conn: AsyncConnection[Any], dataset_id: int, segments: Collection[int], path: str
) -> dict[int, bool]:
    """By segment, whether none of the documents that it was built of has anything at a path in metadata."""
    cursor = await conn.execute(
        """
        SELECT segment, met_paths IS NOT NULL AND %s <> ALL(met_paths)
        FROM column_segment
        WHERE dataset_id = %s AND segment = ANY(%s)
        """,
        [path, dataset_id, list(segments)],
    )
    return dict(cast("list[tuple[int, bool]]", await cursor.fetchall()))


async def _load_touched(conn: AsyncConnection[Any], dataset_id: int) -> tuple[NDArray[np.int64], set[int], bytes]:
    cursor = conn.cursor(binary=True)
    await cursor.execute(
        "SELECT segment, item_ids, xmin::text || ctid::text FROM column_touched WHERE dataset_id = %s", [dataset_id]
    )
    rows = await cursor.fetchall()
    whole = {segment for segment, ids, _ in rows if ids is None}
    touched = [item_id for segment, ids, _ in rows if segment not in whole for item_id in ids]
    notes = blake2b(",".join(sorted(note for _, _, note in rows)).encode(), digest_size=16).digest()
    return np.unique(np.array(touched, np.int64)), whole, notes


async def load_offsets(conn: AsyncConnection[Any], dataset_id: int, segments: Collection[int]) -> dict[int, bytes]:
    """By segment, for `encoding.decode_offsets`: which item each of its rows is."""
    cursor = conn.cursor(binary=True)
    await cursor.execute(
        "SELECT segment, offsets FROM column_segment WHERE dataset_id = %s AND segment = ANY(%s)",
        [dataset_id, list(segments)],
    )
    return dict(cast("list[tuple[int, bytes]]", await cursor.fetchall()))


async def load_chunks(
    conn: AsyncConnection[Any], dataset_id: int, segments: Collection[int], path_number: int
) -> dict[int, bytes]:
    """By segment, for `encoding.decode`. Megabytes: ask for some segments at a time."""
    cursor = conn.cursor(binary=True)
    await cursor.execute(
        """
        SELECT segment, data
        FROM column_chunk
        WHERE dataset_id = %s AND path_number = %s AND segment = ANY(%s)
        """,
        [dataset_id, path_number, list(segments)],
    )
    return dict(cast("list[tuple[int, bytes]]", await cursor.fetchall()))


async def load_spans(
    conn: AsyncConnection[Any], dataset_id: int, spans: Sequence[tuple[int, int, int]], path_number: int
) -> dict[tuple[int, int], bytes]:
    """Parts of chunks, (segment, begin, size_bytes), by segment and begin. Nothing else of the chunks is read."""
    cursor = conn.cursor(binary=True)
    await cursor.execute(
        """
        SELECT segment, begin, substring(data FROM begin + 1 FOR size_bytes)
        FROM unnest(%s::bigint[], %s::integer[], %s::integer[]) AS span (segment, begin, size_bytes)
        JOIN column_chunk AS chunk USING (segment)
        WHERE chunk.dataset_id = %s AND chunk.path_number = %s
        """,
        [*map(list, zip(*spans, strict=True)), dataset_id, path_number],
    )
    return {(segment, begin): data for segment, begin, data in await cursor.fetchall()}


async def load_values(
    conn: AsyncConnection[Any], dataset_id: int, path_number: int, *, after: int = 0
) -> list[tuple[int, Any]]:
    """(code, JSON value) of a path in codes, in the order of codes, from the one behind `after`.

    There may be values that no row has any more.
    """
    cursor = await conn.execute(
        """
        SELECT code, value
        FROM column_value
        WHERE dataset_id = %s AND path_number = %s AND code > %s
        ORDER BY code
        """,
        [dataset_id, path_number, after],
    )
    return await cursor.fetchall()


async def load_ranks(conn: AsyncConnection[Any], dataset_id: int, path_number: int) -> list[int]:
    """The codes of a path in the order that SQL gives their values, ascending."""
    cursor = await conn.execute(
        "SELECT code FROM column_value WHERE dataset_id = %s AND path_number = %s ORDER BY value",
        [dataset_id, path_number],
    )
    return [code for (code,) in await cursor.fetchall()]


async def has_byte_order(conn: AsyncConnection[Any]) -> bool:
    """Whether the database orders texts in JSON by their bytes, as columns do."""
    cursor = await conn.execute(
        """
        SELECT CASE datlocprovider
            WHEN 'c' THEN datcollate IN ('C', 'POSIX', 'C.UTF-8', 'C.utf8')
            WHEN 'b' THEN true
            ELSE false
        END
        FROM pg_database
        WHERE datname = current_database()
        """
    )
    return bool((await cursor.fetchone() or (False,))[0])


async def segments_of_items(conn: AsyncConnection[Any], dataset_id: int) -> list[int]:
    """Those in which there are items now, rising. One look into the index for each."""
    cursor = await conn.execute(
        """
        WITH RECURSIVE inhabited AS (
            (SELECT id >> 16 AS segment FROM item WHERE dataset_id = %(dataset_id)s ORDER BY id LIMIT 1)
            UNION ALL
            SELECT next.segment
            FROM inhabited, LATERAL (
                SELECT id >> 16 AS segment
                FROM item
                WHERE dataset_id = %(dataset_id)s AND id >= (inhabited.segment + 1) << 16
                ORDER BY id
                LIMIT 1
            ) AS next
        )
        SELECT segment FROM inhabited
        """,
        {"dataset_id": dataset_id},
    )
    return [segment for (segment,) in await cursor.fetchall()]


async def delete_chunks(conn: AsyncConnection[Any], dataset_id: int, path_numbers: Collection[int]) -> None:
    """And the values of these paths. Their rows of column_path, and the segments, are the caller's."""
    numbers = list(path_numbers)
    for table in ("column_chunk", "column_value"):
        await conn.execute(
            sql.SQL("DELETE FROM {} WHERE dataset_id = %s AND path_number = ANY(%s)").format(sql.Identifier(table)),
            [dataset_id, numbers],
        )


def outside(state: IndexState, items: Sequence[int] | None = None) -> tuple[sql.Composed, dict[str, object]]:
    """A condition on `item`, for the items that are to be asked in SQL, and its parameters.

    `items`: of those that were touched one by one, these alone.
    """
    tests: list[sql.Composable] = []
    asked = state.touched_items.tolist() if items is None else list(items)
    if asked:
        tests.append(sql.SQL("item.id = ANY(%(columns_touched)s::bigint[])"))
    for number in state.touched_segments:
        first = number << SEGMENT_BITS
        last = first + (1 << SEGMENT_BITS) - 1
        tests.append(sql.SQL("item.id BETWEEN {} AND {}").format(sql.Literal(first), sql.Literal(last)))
    where = sql.SQL("({})").format(sql.SQL(" OR ").join(tests)) if tests else sql.SQL("({})").format(sql.SQL("FALSE"))
    return where, {"columns_touched": asked}
