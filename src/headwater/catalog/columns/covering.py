"""Which paths have columns: the fields of `tables.COLUMNS`, what occurs in metadata, and what somebody asked for."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, LiteralString

from psycopg import AsyncConnection
from psycopg.rows import class_row
from psycopg.sql import SQL

from headwater.catalog.columns import tables
from headwater.catalog.columns.documents import Seen, find_paths, parse
from headwater.catalog.columns.encoding import MOST_VALUES, SEGMENT_BITS, Encoding
from headwater.catalog.columns.filling import encoding_of
from headwater.catalog.columns.tables import COLUMNS, DOCUMENTS
from headwater.catalog.fields import ITEM_FIELDS, check_text
from headwater.errors import BadRequest

MOST_FOUND = 300  # paths that are covered because they occur
MOST_PINNED = 100
_LONGEST_PATH = 1_000
_SAMPLE_SEGMENTS, _SAMPLE_ROWS = 20, 500
_LARGEST_SAMPLED_BYTES = 65_536  # of a document, as PostgreSQL stores it
_MOST_ALIKE = 0.5  # with more different values in a sample, codes will have no room for all


@dataclass(frozen=True, slots=True)
class IndexedPath:
    """What is told of one that is covered."""

    path: str
    encoding: Encoding
    is_pinned: bool
    values: int | None  # different ones, of codes; some may be of rows that have changed since
    present: int  # rows that have it, as of the builds
    size_bytes: int
    segments: int  # where it is built


async def list_paths(conn: AsyncConnection[Any], dataset_id: int) -> list[IndexedPath]:
    """In the order of paths."""
    cursor = conn.cursor(row_factory=class_row(IndexedPath))
    await cursor.execute(
        """
        SELECT path.path, path.encoding, path.is_pinned, dictionary.values,
            coalesce(chunks.present, 0) AS present,
            coalesce(chunks.size_bytes, 0) + coalesce(dictionary.size_bytes, 0) AS size_bytes,
            coalesce(chunks.segments, 0) AS segments
        FROM column_path AS path
        LEFT JOIN (
            SELECT path_number, sum(present)::bigint AS present, sum(octet_length(data))::bigint AS size_bytes,
                count(*) AS segments
            FROM column_chunk
            WHERE dataset_id = %(dataset_id)s
            GROUP BY path_number
        ) AS chunks ON chunks.path_number = path.number
        LEFT JOIN (
            SELECT path_number, count(*) AS values, sum(pg_column_size(value))::bigint AS size_bytes
            FROM column_value
            WHERE dataset_id = %(dataset_id)s
            GROUP BY path_number
        ) AS dictionary ON dictionary.path_number = path.number
        WHERE path.dataset_id = %(dataset_id)s AND NOT path.is_excluded
        ORDER BY path.path
        """,
        {"dataset_id": dataset_id},
    )
    return await cursor.fetchall()


def check_path(path: str) -> None:
    """That a filter can name it and that it can be covered. Raises BadRequest."""
    check_text(path)
    if len(path) > _LONGEST_PATH:
        raise BadRequest(f"The path {path[:80]!r}… is longer than {_LONGEST_PATH:,} characters.")
    field = ITEM_FIELDS.find(path)
    if path not in COLUMNS and (path in ITEM_FIELDS.named or field.kind != "json"):
        raise BadRequest(
            f"{path} cannot be indexed: only what lies in metadata.user and metadata.system can, such as"
            " metadata.user.camera. These fields are indexed always: " + ", ".join(COLUMNS) + "."
        )


async def pin_path(conn: AsyncConnection[Any], dataset_id: int, path: str) -> None:
    """It is covered from the next builds on, and stays so. Raises BadRequest."""
    check_path(path)
    await _lock(conn, dataset_id)
    cursor = await conn.execute(
        "SELECT count(*) FROM column_path WHERE dataset_id = %s AND is_pinned AND NOT is_excluded AND path <> %s",
        [dataset_id, path],
    )
    if (await cursor.fetchone() or (0,))[0] >= MOST_PINNED:
        raise BadRequest(
            f"{MOST_PINNED} paths of this dataset are indexed on request, more do not go: remove one first."
        )
    await conn.execute(
        """
        INSERT INTO column_path (dataset_id, path, encoding, is_pinned) VALUES (%s, %s, %s, TRUE)
        ON CONFLICT (dataset_id, path) DO UPDATE SET is_pinned = TRUE, is_excluded = FALSE
        """,
        [dataset_id, path, COLUMNS[path][0] if path in COLUMNS else "codes"],
    )


async def exclude_path(conn: AsyncConnection[Any], dataset_id: int, path: str) -> bool:
    """It is not covered any more, and not again by itself. False: it was not. Raises BadRequest."""
    check_path(path)
    if path in COLUMNS:
        raise BadRequest(f"{path} is a field of every item and always indexed.")
    await _lock(conn, dataset_id)
    cursor = await conn.execute(
        """
        DELETE FROM column_path WHERE dataset_id = %s AND path = %s AND NOT is_excluded RETURNING number
        """,
        [dataset_id, path],
    )
    numbers = [number for (number,) in await cursor.fetchall()]
    if not numbers:
        return False
    await conn.execute(
        "INSERT INTO column_path (dataset_id, path, encoding, is_excluded) VALUES (%s, %s, 'codes', TRUE)",
        [dataset_id, path],
    )
    await tables.delete_chunks(conn, dataset_id, numbers)
    return True


async def forget_path(conn: AsyncConnection[Any], dataset_id: int, path: str) -> bool:
    """Its columns are built anew, from codes on. False: it is not covered. Raises BadRequest."""
    check_path(path)
    await _lock(conn, dataset_id)
    cursor = await conn.execute(
        """
        DELETE FROM column_path WHERE dataset_id = %s AND path = %s AND NOT is_excluded RETURNING number, is_pinned
        """,
        [dataset_id, path],
    )
    if (row := await cursor.fetchone()) is None:
        return False
    await conn.execute(
        "INSERT INTO column_path (dataset_id, path, encoding, is_pinned) VALUES (%s, %s, %s, %s)",
        [dataset_id, path, COLUMNS[path][0] if path in COLUMNS else "codes", row[1]],
    )
    await tables.delete_chunks(conn, dataset_id, [row[0]])
    return True


async def drop_unused_paths(conn: AsyncConnection[Any], dataset_id: int) -> None:
    """Those that nobody asked for, and no item has."""
    cursor = await conn.execute(
        """
        DELETE FROM column_path AS path
        WHERE dataset_id = %s AND NOT is_pinned AND NOT is_excluded AND path.path <> ALL(%s) AND NOT EXISTS (
            SELECT FROM column_chunk AS chunk
            WHERE chunk.dataset_id = path.dataset_id AND chunk.path_number = path.number AND chunk.present > 0
        )
        RETURNING number
        """,
        [dataset_id, list(COLUMNS)],
    )
    await tables.delete_chunks(conn, dataset_id, [number for (number,) in await cursor.fetchall()])


async def _lock(conn: AsyncConnection[Any], dataset_id: int) -> bool:
    """Builds wait until the caller's transaction ends, and it for the one that is under way. False: there is none."""
    cursor = await conn.execute("SELECT FROM column_index WHERE dataset_id = %s FOR UPDATE", [dataset_id])
    return await cursor.fetchone() is not None


async def cover_columns(conn: AsyncConnection[Any], dataset_id: int) -> None:
    """The fields of every item, those that a newer version has added among them. Safe to repeat."""
    await conn.execute(
        """
        INSERT INTO column_path (dataset_id, path, encoding)
        SELECT %s, path, encoding FROM unnest(%s::text[], %s::text[]) AS given (path, encoding)
        ON CONFLICT (dataset_id, path) DO NOTHING
        """,
        [dataset_id, list(COLUMNS), [kind for kind, _ in COLUMNS.values()]],
    )


async def cover_found(conn: AsyncConnection[Any], dataset_id: int, found: Mapping[str, Seen]) -> list[str]:
    """Cover these paths of documents, the most frequent ones first, as far as there is room. Returns them."""
    if not found or not await _lock(conn, dataset_id):
        return []
    cursor = await conn.execute(
        "SELECT path, is_pinned OR is_excluded FROM column_path WHERE dataset_id = %s", [dataset_id]
    )
    known = dict(await cursor.fetchall())
    cursor = await conn.execute("SELECT unsearchable_paths FROM dataset WHERE id = %s", [dataset_id])
    (unsearchable,) = await cursor.fetchone() or ([],)
    below = tuple(f"{path}." for path in unsearchable)
    room = MOST_FOUND - sum(path not in COLUMNS and not is_chosen for path, is_chosen in known.items())
    new = [
        (path, seen)
        for path, seen in found.items()
        if path not in known and path not in ITEM_FIELDS.named and not f"{path}.".startswith(below)
    ]
    chosen = sorted(new, key=lambda one: (-one[1].count, one[0]))[: max(0, room)]
    cursor = await conn.execute(
        "SELECT coalesce(sum(items), 0) FROM dataset_counter WHERE dataset_id = %s", [dataset_id]
    )
    (items,) = await cursor.fetchone() or (0,)
    for path, seen in chosen:
        await conn.execute(
            """
            INSERT INTO column_path (dataset_id, path, encoding) VALUES (%s, %s, %s)
            ON CONFLICT (dataset_id, path) DO NOTHING
            """,
            [dataset_id, path, _encoding_of(seen, items)],
        )
    return [path for path, _ in chosen]


def _encoding_of(seen: Seen, items: int) -> Encoding:
    is_varied = len(seen.values) > max(_SAMPLE_ROWS, _MOST_ALIKE * seen.count) and items > 2 * MOST_VALUES
    return encoding_of(seen.numbers, seen.texts, seen.count) if is_varied else "codes"


async def seek_paths_once(conn: AsyncConnection[Any], dataset_id: int) -> bool:
    """Cover the fields of every item and what a sample of the items has. False: that was done before."""
    cursor = await conn.execute(
        "UPDATE column_index SET paths_sought_at = now() WHERE dataset_id = %s AND paths_sought_at IS NULL",
        [dataset_id],
    )
    if not cursor.rowcount:
        return False
    await cover_columns(conn, dataset_id)
    segments = await tables.segments_of_items(conn, dataset_id)
    step = max(1, len(segments) // _SAMPLE_SEGMENTS)
    found: dict[str, Seen] = {}
    for segment in segments[::step][:_SAMPLE_SEGMENTS]:
        for prefix, document in DOCUMENTS.items():
            texts = await _sample(conn, dataset_id, segment << SEGMENT_BITS, document)
            for path, seen in (await asyncio.to_thread(find_paths, prefix, parse(texts))).items():
                found.setdefault(path, Seen()).add(seen)
    await cover_found(conn, dataset_id, found)
    return True


async def _sample(
    conn: AsyncConnection[Any], dataset_id: int, first_id: int, document: LiteralString
) -> list[str | None]:
    statement = SQL(
        """
        SELECT CASE WHEN pg_column_size({document}) <= %s THEN {document}::text END
        FROM item
        WHERE item.dataset_id = %s AND item.id >= %s
        ORDER BY item.id
        LIMIT %s
        """
    ).format(document=SQL(document))
    cursor = await conn.execute(statement, [_LARGEST_SAMPLED_BYTES, dataset_id, first_id, _SAMPLE_ROWS], prepare=False)
    return [text for (text,) in await cursor.fetchall()]
