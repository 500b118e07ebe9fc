"""One segment of a dataset's items becomes columns, in one repeatable-read transaction.

It removes the notes of what was touched that it sees, and reads the rows that it sees: what commits later has left
notes that it did not see. Two builds of one dataset are one after the other, or the second fails and is repeated.
"""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from psycopg import AsyncConnection, sql

from headwater.catalog.columns import encoding, tables
from headwater.catalog.columns.documents import ABSENT, Meeting, PathTree, Seen, columns_of, parse, tree_of
from headwater.catalog.columns.encoding import SEGMENT_BITS, Chunk, Codes, Encoding
from headwater.catalog.columns.filling import Dictionary, Filler, HashesFiller, filler_of, present_in, transcode
from headwater.catalog.columns.tables import COLUMNS, DOCUMENTS, TIMES, CoveredPath

_PIECE_ROWS = 8_192
_PIECE_BYTES = 4 * 1024**2  # of documents as PostgreSQL stores them, which is compressed
_NO_INTEGER = -9_223_372_036_854_775_808  # stands for NULL
_POSTGRES_EPOCH_US = 946_684_800_000_000  # 2000-01-01

Dictionaries = dict[int, Dictionary]  # by the number of their path


class Outgrown(Exception):
    """These paths have more values than codes have room for, or hashes of texts: nothing was built.

    `change_encoding` to these.
    """

    def __init__(self, paths: Sequence[tuple[CoveredPath, Encoding]]) -> None:
        super().__init__(", ".join(path.path for path, _ in paths))
        self.paths = paths


@dataclass(frozen=True, slots=True)
class Built:
    rows: int
    found: Mapping[str, Seen]  # paths of documents that are not covered


@dataclass(slots=True)
class Making:
    """A segment that is being made: what has been read of it so far, as columns."""

    paths: Sequence[CoveredPath]
    hash_key: bytes
    dictionaries: Dictionaries
    meeting: Meeting
    fillers: dict[int, Filler] = field(default_factory=dict[int, Filler])
    trees: dict[str, PathTree] = field(default_factory=dict[str, PathTree])
    integers: dict[int, list[NDArray[np.int64]]] = field(default_factory=dict[int, list[NDArray[np.int64]]])
    texts: dict[int, list[str]] = field(default_factory=dict[int, list[str]])
    ids: list[NDArray[np.int64]] = field(default_factory=list[NDArray[np.int64]])

    def __post_init__(self) -> None:
        below: dict[str, dict[tuple[str, ...], int]] = {prefix: {} for prefix in DOCUMENTS}
        for path in self.paths:
            if path.path not in COLUMNS:
                prefix, keys = document_of(path.path)
                below[prefix][keys] = path.number
            match path.encoding:
                case "integers":
                    self.integers[path.number] = []
                case "paths":
                    self.texts[path.number] = []
                case kind:
                    self.fillers[path.number] = filler_of(kind, self.dictionaries.get(path.number), self.hash_key)
        self.trees = {prefix: tree_of(paths) for prefix, paths in below.items()}

    def columns(self) -> list[CoveredPath]:
        return [path for path in self.paths if path.path in COLUMNS]

    def add(
        self, ids: NDArray[np.int64], values: Mapping[int, Any], documents: Mapping[str, Sequence[str | None]]
    ) -> None:
        """A piece: values of columns by their paths' numbers, documents by their prefixes."""
        self.ids.append(ids)
        for number, column in values.items():
            if number in self.integers:
                self.integers[number].append(column)
            elif number in self.texts:
                self.texts[number].extend(column)
            else:
                self.fillers[number].add([ABSENT if value is None else value for value in column])
        for prefix, texts in documents.items():
            parsed = parse(texts)
            self.meeting.add(prefix, parsed)
            for number, column in columns_of(parsed, self.trees[prefix]):
                self.fillers[number].add(column)

    def outgrown(self) -> list[tuple[CoveredPath, Encoding]]:
        found: list[tuple[CoveredPath, Encoding]] = []
        for path in self.paths:
            dictionary, filler = self.dictionaries.get(path.number), self.fillers.get(path.number)
            if dictionary is not None and dictionary.is_full:
                found.append((path, dictionary.next_encoding()))
            elif isinstance(filler, HashesFiller) and filler.is_text():
                found.append((path, "texts"))
        return found

    def chunks(self) -> dict[int, Chunk]:
        made: dict[int, Chunk] = {}
        for number, filler in self.fillers.items():
            made[number] = filler.chunk()
        for number, parts in self.integers.items():
            values = np.concatenate(parts)
            made[number] = encoding.integers_of(values, values != _NO_INTEGER)
        for number, texts in self.texts.items():
            made[number] = encoding.paths_of(texts)
        return made

    def encoded(self) -> dict[int, tuple[bytes, int]]:
        """The bytes and how many rows have a value, by number of path; nothing for what no document has."""
        met = self.meeting.paths
        absent = {
            path.number for path in self.paths if met is not None and path.path not in COLUMNS and path.path not in met
        }
        chunks = {number: chunk for number, chunk in self.chunks().items() if number not in absent}
        return {number: (encoding.encode(chunk), present_in(chunk)) for number, chunk in chunks.items()}

    def offsets(self) -> NDArray[np.uint16]:
        ids = np.concatenate(self.ids)
        if not (np.diff(ids) > 0).all():
            raise AssertionError("PostgreSQL gave items in another order than that of their ids")
        return (ids & (encoding.SEGMENT_ITEMS - 1)).astype(np.uint16)


def document_of(path: str) -> tuple[str, tuple[str, ...]]:
    """In which document it lies, and its keys there. Raises KeyError if in none."""
    for prefix in DOCUMENTS:
        if path.startswith(prefix + "."):
            return prefix, tuple(path[len(prefix) + 1 :].split("."))
    raise KeyError(path)


async def build_segment(
    conn: AsyncConnection[Any], dataset_id: int, segment: int, dictionaries: Dictionaries
) -> Built | None:
    """The columns of a segment as its rows are now. None: the dataset has no column index that could be built.

    The caller's transaction has done nothing yet, and ends after this. Raises Outgrown, or psycopg's
    SerializationFailure and UniqueViolation when another build came in between: roll back, forget the `dictionaries`,
    which are kept from build to build, and try again.
    """
    await tables.begin_reading(conn)
    cursor = await conn.execute(
        """
        UPDATE column_index SET built_at = now() WHERE dataset_id = %s AND ready_at IS NOT NULL RETURNING hash_key
        """,
        [dataset_id],
    )
    if (row := await cursor.fetchone()) is None:
        return None
    await conn.execute("DELETE FROM column_touched WHERE dataset_id = %s AND segment = %s", [dataset_id, segment])
    paths = await tables.load_paths(conn, dataset_id)
    for path in paths:
        if path.encoding == "codes" and path.number not in dictionaries:
            dictionaries[path.number] = Dictionary(await tables.load_values(conn, dataset_id, path.number))
    known = await tables.load_known_paths(conn, dataset_id)
    making = Making(paths, row[0], dictionaries, Meeting(known))
    for first_id, last_id in await _pieces(conn, dataset_id, segment):
        piece = await read_piece(conn, dataset_id, first_id, last_id, making.columns())
        assert piece is not None
        await asyncio.to_thread(making.add, *piece)
    if outgrown := making.outgrown():
        raise Outgrown(outgrown)
    await _save(conn, dataset_id, segment, making)
    return Built(sum(map(len, making.ids)), making.meeting.found)


async def _pieces(conn: AsyncConnection[Any], dataset_id: int, segment: int) -> list[tuple[int, int]]:
    """First and last ids of pieces that fit into memory."""
    first_id = segment << SEGMENT_BITS
    cursor = conn.cursor(binary=True)
    await cursor.execute(
        """
        SELECT min(id), max(id)
        FROM (
            SELECT id, floor(
                row_number() OVER w / %(rows)s::float8
                + sum(
                    coalesce(pg_column_size(user_metadata), 0) + coalesce(pg_column_size(system_metadata), 0)
                    + coalesce(pg_column_size(description), 0)
                ) OVER w / %(bytes)s::float8
            ) AS piece
            FROM item
            WHERE dataset_id = %(dataset_id)s AND id BETWEEN %(first_id)s AND %(last_id)s
            WINDOW w AS (ORDER BY id ROWS UNBOUNDED PRECEDING)
        ) AS numbered
        GROUP BY piece
        ORDER BY min(id)
        """,
        {
            "rows": _PIECE_ROWS,
            "bytes": _PIECE_BYTES,
            "dataset_id": dataset_id,
            "first_id": first_id,
            "last_id": first_id + encoding.SEGMENT_ITEMS - 1,
        },
        prepare=False,
    )
    return await cursor.fetchall()


async def read_piece(
    conn: AsyncConnection[Any],
    dataset_id: int,
    first_id: int,
    last_id: int,
    columns: Sequence[CoveredPath],
    *,
    ids: Sequence[int] | None = None,
) -> tuple[NDArray[np.int64], dict[int, Any], dict[str, list[str | None]]] | None:
    """What `Making.add` takes, as one row of arrays: some 20 times as fast as a row an item. None: there are none.

    `ids`: of these alone.
    """
    read = [_column_of(path) for path in columns]
    read += [(sql.SQL(document), sql.SQL("array_agg({}::text)")) for document in DOCUMENTS.values()]
    names = [sql.Identifier(f"column_{number}") for number in range(len(read))]
    statement = sql.SQL(
        """
        SELECT string_agg(int8send(id), ''), {}
        FROM (
            SELECT item.id, {}
            FROM item
            WHERE item.dataset_id = %s AND item.id BETWEEN %s AND %s {}
            ORDER BY item.id
        ) AS piece
        """
    ).format(
        sql.SQL(", ").join(gathered.format(name) for (_, gathered), name in zip(read, names, strict=True)),
        sql.SQL(", ").join(
            sql.SQL("{} AS {}").format(value, name) for (value, _), name in zip(read, names, strict=True)
        ),
        sql.SQL("" if ids is None else "AND item.id = ANY(%s)"),
    )
    cursor = conn.cursor(binary=True)
    given = [dataset_id, first_id, last_id] if ids is None else [dataset_id, first_id, last_id, list(ids)]
    await cursor.execute(statement, given, prepare=False)
    row = await cursor.fetchone()
    if row is None or row[0] is None:
        return None
    found, values, documents = row[0], row[1 : len(columns) + 1], row[len(columns) + 1 :]
    by_number = {path.number: _loaded(path, value) for path, value in zip(columns, values, strict=True)}
    return _integers(found), by_number, dict(zip(DOCUMENTS, documents, strict=True))


def _column_of(path: CoveredPath) -> tuple[sql.SQL, sql.SQL]:
    """Its expression for one row, and how a piece of them is sent: integers as their bytes, one after the other."""
    _, expression = COLUMNS[path.path]
    if path.encoding != "integers":
        return sql.SQL(expression), sql.SQL("array_agg({})")
    if path.path in TIMES:
        return sql.SQL(expression), sql.SQL("string_agg(timestamptz_send(coalesce({}, '-infinity')), '')")
    return sql.SQL(expression), sql.SQL("string_agg(int8send(coalesce({}::bigint, -9223372036854775808)), '')")


def _loaded(path: CoveredPath, value: Any) -> Any:
    if path.encoding != "integers":
        return value
    integers = _integers(value)
    if path.path in TIMES:
        integers[integers != _NO_INTEGER] += _POSTGRES_EPOCH_US
    return integers


def _integers(data: bytes) -> NDArray[np.int64]:
    return np.frombuffer(data, ">i8").astype(np.int64)


async def _save(conn: AsyncConnection[Any], dataset_id: int, segment: int, making: Making) -> None:
    if not making.ids:
        await conn.execute("DELETE FROM column_segment WHERE dataset_id = %s AND segment = %s", [dataset_id, segment])
        await conn.execute("DELETE FROM column_chunk WHERE dataset_id = %s AND segment = %s", [dataset_id, segment])
        return
    offsets = making.offsets()
    for number, dictionary in making.dictionaries.items():
        await _save_values(conn, dataset_id, number, dictionary)
    chunks = await asyncio.to_thread(making.encoded)
    for number, (data, present) in chunks.items():
        await _save_chunk(conn, dataset_id, segment, number, data, present)
    await conn.execute(
        "DELETE FROM column_chunk WHERE dataset_id = %s AND segment = %s AND path_number <> ALL(%s)",
        [dataset_id, segment, list(chunks)],
    )
    await conn.execute(
        """
        INSERT INTO column_segment (dataset_id, segment, rows, offsets, path_numbers, met_paths)
        VALUES (%(dataset_id)s, %(segment)s, %(rows)s, %(offsets)b, %(path_numbers)s, %(met_paths)s)
        ON CONFLICT (dataset_id, segment) DO UPDATE
        SET version = excluded.version, rows = excluded.rows, offsets = excluded.offsets,
            path_numbers = excluded.path_numbers, met_paths = excluded.met_paths
        """,
        {
            "dataset_id": dataset_id,
            "segment": segment,
            "rows": len(offsets),
            "offsets": encoding.encode_offsets(offsets),
            "path_numbers": list(chunks),
            "met_paths": None if making.meeting.paths is None else sorted(making.meeting.paths),
        },
    )


async def _save_values(conn: AsyncConnection[Any], dataset_id: int, number: int, dictionary: Dictionary) -> None:
    if dictionary.added:
        await conn.execute(
            """
            INSERT INTO column_value (dataset_id, path_number, code, value)
            SELECT %s, %s, code, value::jsonb FROM unnest(%s::integer[], %b::text[]) AS added (code, value)
            """,
            [
                dataset_id,
                number,
                [code for code, _ in dictionary.added],
                [text.decode() for _, text in dictionary.added],
            ],
        )
        dictionary.added.clear()


async def _save_chunk(
    conn: AsyncConnection[Any], dataset_id: int, segment: int, number: int, data: bytes, present: int
) -> None:
    """Where it is as it was, nothing is written."""
    await conn.execute(
        """
        INSERT INTO column_chunk AS chunk (dataset_id, path_number, segment, data, present)
        VALUES (%s, %s, %s, %b, %s)
        ON CONFLICT (dataset_id, path_number, segment) DO UPDATE
        SET data = excluded.data, present = excluded.present
        WHERE chunk.data <> excluded.data
        """,
        [dataset_id, number, segment, data, present],
    )


async def change_encoding(conn: AsyncConnection[Any], dataset_id: int, path: CoveredPath, kind: Encoding) -> None:
    """A path in codes goes on as numbers, texts or hashes, under a new number.

    What is built stays built: its chunks are translated. Those of hashes cannot be: they are gone, and their segments
    due. The caller's transaction has done nothing yet, and ends after this. Raises as `build_segment`.
    """
    await tables.begin_reading(conn)
    cursor = await conn.execute(
        "UPDATE column_index SET built_at = now() WHERE dataset_id = %s RETURNING hash_key", [dataset_id]
    )
    row = await cursor.fetchone()
    if row is None or path not in await tables.load_paths(conn, dataset_id):
        return
    values = dict(await tables.load_values(conn, dataset_id, path.number))
    await conn.execute("DELETE FROM column_path WHERE dataset_id = %s AND number = %s", [dataset_id, path.number])
    cursor = await conn.execute(
        """
        INSERT INTO column_path (dataset_id, path, encoding, is_pinned) VALUES (%s, %s, %s, %s) RETURNING number
        """,
        [dataset_id, path.path, kind, path.is_pinned],
    )
    (number,) = await cursor.fetchone() or (0,)
    cursor = await conn.execute(
        "SELECT segment, rows FROM column_segment WHERE dataset_id = %s AND %s = ANY(path_numbers)",
        [dataset_id, path.number],
    )
    for segment, rows in await cursor.fetchall() if path.encoding == "codes" else ():
        data = (await tables.load_chunks(conn, dataset_id, [segment], path.number))[segment]
        filler = filler_of(kind, None, row[0])
        chunk = await asyncio.to_thread(_transcoded, data, rows, values, filler)
        await _save_chunk(conn, dataset_id, segment, number, encoding.encode(chunk), present_in(chunk))
    await conn.execute(
        """
        UPDATE column_segment
        SET path_numbers = CASE WHEN %(is_translated)s THEN array_replace(path_numbers, %(old)s, %(new)s)
            ELSE array_remove(path_numbers, %(old)s) END
        WHERE dataset_id = %(dataset_id)s AND %(old)s = ANY(path_numbers)
        """,
        {
            "old": path.number,
            "new": number,
            "dataset_id": dataset_id,
            "is_translated": path.encoding == "codes",
        },
    )
    await tables.delete_chunks(conn, dataset_id, [path.number])


def _transcoded(data: bytes, rows: int, values: Mapping[int, Any], filler: Filler) -> Chunk:
    chunk = encoding.decode("codes", data, rows)
    assert isinstance(chunk, Codes)
    return transcode(chunk, values, filler)
