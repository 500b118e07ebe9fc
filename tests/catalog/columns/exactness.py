"""Says whether a column index tells, together with the rows of what is touched, exactly what the rows tell."""

import json
from decimal import Decimal
from functools import cache
from typing import Any

from psycopg import AsyncConnection
from psycopg.sql import SQL

from headwater.catalog.columns import encoding, tables
from headwater.catalog.columns.building import document_of
from headwater.catalog.columns.conditions import values_at
from headwater.catalog.columns.encoding import LONGEST_TEXT, Codes, Hashes, Integers, Numbers, Paths, Texts
from headwater.catalog.columns.filling import LONGEST_VALUE_BYTES
from headwater.catalog.columns.tables import COLUMNS, DOCUMENTS, TIMES, IndexState

ABSENT, UNKNOWN = "<absent>", "<unknown>"
SOUGHT = [f"metadata.user.{keys}" for keys in ("few", "new0", "new1", "deep.b", "deep.b.c", "hard.b", "never", "few.x")]


async def check(conn: AsyncConnection, dataset_id: int) -> IndexState | None:
    """In a snapshot of its own. Raises AssertionError. Returns what a reader would see."""
    async with conn.transaction():
        await tables.begin_reading(conn)
        state = await tables.load_state(conn, dataset_id)
        if state is not None:
            await _check(conn, state)
        return state


async def _check(conn: AsyncConnection, state: IndexState) -> None:
    rows = await _rows(conn, state.dataset_id)
    where, parameters = tables.outside(state)
    cursor = await conn.execute(
        SQL("SELECT id FROM item WHERE dataset_id = %(dataset_id)s AND ") + where,
        parameters | {"dataset_id": state.dataset_id},
    )
    asked = {item_id for (item_id,) in await cursor.fetchall()}
    told: set[int] = set()
    touched = set(state.touched_items.tolist())
    offsets = await tables.load_offsets(conn, state.dataset_id, state.segments)
    for segment in state.segments.values():
        places = encoding.decode_offsets(offsets[segment.number], segment.rows).tolist()
        ids = [segment.first_id + place for place in places]
        assert ids == sorted(set(ids))
        told |= set(ids) - touched
        for name in SOUGHT:
            absent = await tables.load_absent(conn, state.dataset_id, [segment.number], name)
            if absent[segment.number]:
                for item_id in set(ids) - touched:
                    prefix, keys = document_of(name)
                    assert not list(values_at(rows[item_id][prefix], keys)), (name, item_id)
        for path in state.paths.values():
            if path.number in segment.path_numbers:
                kept = await _column(conn, state, segment.number, segment.rows, path)
                for item_id, value in zip(ids, kept, strict=True):
                    if item_id not in touched:
                        assert item_id in rows, f"{item_id} is gone, and nobody has touched it"
                        expected = _expected(rows[item_id], path.path)
                        assert _fits(state, path, value, expected), (path, item_id, value, expected)
    assert not told & asked
    assert told | asked == set(rows)


async def _rows(conn: AsyncConnection, dataset_id: int) -> dict[int, dict[str, Any]]:
    names = [*COLUMNS, *DOCUMENTS]
    expressions = [
        f"(extract(epoch FROM {sql}) * 1000000)::bigint" if name in TIMES else sql for name, (_, sql) in COLUMNS.items()
    ] + [f"{sql}::text" for sql in DOCUMENTS.values()]
    cursor = await conn.execute(f"SELECT id, {', '.join(expressions)} FROM item WHERE dataset_id = %s", [dataset_id])
    rows = {item_id: dict(zip(names, values, strict=True)) for item_id, *values in await cursor.fetchall()}
    for row in rows.values():
        for name in DOCUMENTS:
            row[name] = None if row[name] is None else _parse(row[name])
    return rows


@cache
def _parse(text: str) -> Any:
    return json.loads(text, parse_float=Decimal)


async def _column(conn: AsyncConnection, state: IndexState, segment: int, rows: int, path: Any) -> list[Any]:
    data = (await tables.load_chunks(conn, state.dataset_id, [segment], path.number))[segment]
    match encoding.decode(path.encoding, data, rows):
        case Codes(codes):
            values = dict(await tables.load_values(conn, state.dataset_id, path.number))
            values |= {encoding.ABSENT: ABSENT, encoding.UNKNOWN: UNKNOWN}
            return [values[code] for code in codes.tolist()]
        case Integers() as chunk:
            known = [True] * rows if chunk.valid is None else chunk.valid.tolist()
            return [value if there else ABSENT for value, there in zip(chunk.int64().tolist(), known, strict=True)]
        case Numbers() as chunk:
            column: list[Any] = [
                v if there else ABSENT for v, there in zip(chunk.values.tolist(), chunk.valid, strict=True)
            ]
            for row, value in chunk.exceptions.items():
                column[row] = value
            for row in chunk.unknown.tolist():
                column[row] = UNKNOWN
            return column
        case Texts() as chunk:
            texts = chunk.texts.to_pylist()
            assert texts == sorted(texts, key=str.encode)
            kept: list[Any] = [ABSENT] * rows
            for row, text in zip(chunk.order.tolist(), texts, strict=True):
                kept[row] = text
            for row, value in chunk.exceptions.items():
                kept[row] = value
            for row in chunk.unknown.tolist():
                kept[row] = UNKNOWN
            return kept
        case Hashes(hashes):
            return [ABSENT if one == 0 else UNKNOWN if one == 1 else one for one in hashes.tolist()]
        case Paths() as chunk:
            texts = chunk.texts.to_pylist()
            assert [texts[row] for row in chunk.order] == sorted(texts, key=lambda text: text.encode())
            return texts


def _expected(row: dict[str, Any], path: str) -> Any:
    if path in COLUMNS:
        return ABSENT if row[path] is None else row[path]
    prefix, keys = document_of(path)
    if row[prefix] is None:
        return ABSENT
    value = row[prefix]
    for key in keys:
        if isinstance(value, list):
            return UNKNOWN
        if not isinstance(value, dict) or key not in value:
            return ABSENT
        value = value[key]
    return value


def _fits(state: IndexState, path: Any, kept: Any, expected: Any) -> bool:
    if kept == UNKNOWN:
        return expected == UNKNOWN or _is_hard(path, expected)
    if expected == UNKNOWN or ABSENT in (kept, expected):
        return kept == expected
    plain = _plain(expected)
    if path.encoding == "hashes":
        return kept == encoding.hash_value(state.hash_key, plain)
    return encoding.canonical(kept) == encoding.canonical(plain) and not _is_inexact(expected)


def _is_hard(path: Any, value: Any) -> bool:
    """A column need not tell it."""
    if path.encoding == "texts" and isinstance(value, str) and len(value) > LONGEST_TEXT:
        return True
    is_long = len(encoding.canonical(_plain(value))) > LONGEST_VALUE_BYTES
    return is_long or _is_inexact(value) or (path.encoding == "hashes" and isinstance(value, list | dict))


def _plain(value: Any) -> Any:
    match value:
        case Decimal():
            return float(value)
        case list():
            return [_plain(element) for element in value]
        case dict():
            return {key: _plain(element) for key, element in value.items()}
        case _:
            return value


def _is_inexact(value: Any) -> bool:
    match value:
        case Decimal():
            return Decimal(repr(float(value))) != value
        case list():
            return any(map(_is_inexact, value))
        case dict():
            return any(map(_is_inexact, value.values()))
        case _:
            return False
