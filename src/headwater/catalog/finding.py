"""Pages and counts of items and folders that a filter asks for: by columns where they know, by rows where not.

Answers are exact and of one snapshot: what was touched since the columns were built, and what they do not tell, is
asked of the rows and merged. The caller's transaction begins with `begin`.
"""

import json
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import psycopg
from psycopg import AsyncConnection
from psycopg.rows import class_row
from psycopg.sql import SQL, Composed, Literal

from headwater.catalog import query
from headwater.catalog.columns import conditions, tables
from headwater.catalog.columns.cache import Columns, Deadline
from headwater.catalog.columns.encoding import SEGMENT_BITS
from headwater.catalog.columns.reading import Matches, Reader
from headwater.catalog.fields import DIR_FIELDS, ITEM_FIELDS, checked_keys
from headwater.catalog.folders import Folder, load_folders
from headwater.catalog.items import SELECT_ITEM, Item, fetch_page, load_items
from headwater.catalog.query import And, Condition, Page, Tree
from headwater.errors import QueryTooSlow

_MOST_ASKED = 50_000  # rows that are asked or ordered one by one, by their ids
_FEW = 5_000  # rows that are ordered by SQL without a look at columns
_WALKED = 20_000  # rows that are read in their order in the hope that a page is among them
_ALL = 10**9
_DEFAULT_TIMEOUT_S = 30.0

ValueCounts = list[tuple[Any, int]]  # JSON values, and how many items have each


@dataclass(slots=True)
class Asking:
    """How a query is to be answered, and how it was."""

    columns: Columns | None = None  # None: by rows
    timeout_s: float = _DEFAULT_TIMEOUT_S
    plan: str = "rows"
    uncovered: dict[str, None] = field(default_factory=dict[str, None])  # paths that an index would help
    has_columns: bool = False  # whether the dataset has an index
    rows: int | None = None  # that fulfil the filter, where that is known
    deadline: Deadline = field(init=False)

    def __post_init__(self) -> None:
        self.deadline = Deadline(self.timeout_s)

    @property
    def elapsed_s(self) -> float:
        return self.deadline.elapsed_s


@dataclass(frozen=True, slots=True)
class Found:
    rows: Sequence[Item | Folder]
    has_next: bool
    total: int | None = None  # None: not known yet


@asynccontextmanager
async def begin(conn: AsyncConnection[Any], asking: Asking) -> AsyncGenerator[None]:
    """One snapshot, and an end: what takes too long is stopped. Only before the transaction's first statement.

    Raises QueryTooSlow.
    """
    await tables.begin_reading(conn)
    await _limit(conn, asking)
    try:
        yield
    except psycopg.errors.QueryCanceled:
        raise QueryTooSlow(_TOO_SLOW.format(asking.timeout_s)) from None


@asynccontextmanager
async def within(conn: AsyncConnection[Any], timeout_s: float) -> AsyncGenerator[None]:
    """Each statement in it may take so long, those after it what they take. Raises QueryTooSlow."""
    await conn.execute(SQL("SET LOCAL statement_timeout = {}").format(Literal(max(1, int(timeout_s * 1000)))))
    try:
        yield
    except psycopg.errors.QueryCanceled:
        raise QueryTooSlow(_TOO_SLOW.format(timeout_s)) from None
    await conn.execute("SET LOCAL statement_timeout TO DEFAULT")


_TOO_SLOW = "The query took more than {:g} s and was stopped."


async def _limit(conn: AsyncConnection[Any], asking: Asking) -> None:
    """Statements of the transaction may take the time that is left."""
    asking.deadline.check()
    left_ms = max(1, int(asking.deadline.left_s * 1000))
    await conn.execute(SQL("SET LOCAL statement_timeout = {}").format(Literal(left_ms)))


async def find_page(
    conn: AsyncConnection[Any],
    dataset_id: int,
    files: Tree | None,
    dirs: Tree | None,
    page: Page,
    *,
    reader_id: int | None = None,
    asking: Asking | None = None,
) -> Found:
    """One page of what a query asks for: files, folders, or both (then in the order of ids).

    Raises BadRequest and QueryTooSlow.
    """
    asking = asking or Asking()
    if files is not None and dirs is None:
        return await _find_files(conn, dataset_id, files, page, reader_id, asking)
    if page.page_size == 0:
        return Found([], has_next=False)
    if files is not None and dirs is not None:
        rows: Sequence[Item | Folder] = await _find_both(conn, dataset_id, files, dirs, page, reader_id)
    elif dirs is not None:
        where, parameters = query.compile_filter(dirs, dataset_id=dataset_id, fields=DIR_FIELDS)
        order, limits = query.compile_page(page, DIR_FIELDS, lookahead=1)
        columns = SQL("SELECT id, dataset_id, path, parent_id, created_at FROM folder WHERE ")
        folder_cursor = conn.cursor(row_factory=class_row(Folder))
        await folder_cursor.execute(columns + where + SQL(" ") + order, parameters | limits, prepare=False)
        rows = await folder_cursor.fetchall()
    else:
        rows = []
    return Found(rows[: page.page_size], has_next=len(rows) > page.page_size)


async def _find_files(
    conn: AsyncConnection[Any], dataset_id: int, tree: Tree, page: Page, reader_id: int | None, asking: Asking
) -> Found:
    _ = query.compile_filter(tree, dataset_id=dataset_id)  # refuses what cannot be asked
    _ = query.compile_page(page)
    if asking.columns is not None and not _is_listing(tree, page):
        found = await _find_in_columns(conn, dataset_id, tree, page, reader_id, asking)
        if found is not None:
            return found
    if page.page_size == 0:
        return Found([], has_next=False)
    return await _find_in_rows(conn, dataset_id, tree, page, reader_id, asking)


def _is_listing(tree: Tree, page: Page) -> bool:
    """Nearly all items, in the order of ids: there is no quicker way than to read them."""
    parts = tree.parts if isinstance(tree, And) else (tree,)
    return (
        page.page_size > 0
        and (page.page + 1) * page.page_size < _WALKED
        and all(name == "id" for name, _ in page.sort)
        and all(isinstance(part, Condition) and part.field in ("hidden", "id") for part in parts)
    )


# By columns.


@dataclass(frozen=True, slots=True)
class _Answer:
    """Which items fulfil a filter."""

    reader: Reader
    matches: Matches  # by columns
    others: Sequence[int]  # ids, as the rows say; in SQL's order where one was asked for

    @property
    def total(self) -> int:
        return self.matches.true + len(self.others)


async def _ask_columns(
    conn: AsyncConnection[Any],
    dataset_id: int,
    tree: Tree,
    asking: Asking,
    sort: Sequence[tuple[str, bool]] = (),
) -> _Answer | None:
    """None: there are no columns, or they leave too much to be asked of the rows."""
    if asking.columns is None or (state := await tables.load_state(conn, dataset_id)) is None:
        return None
    asking.has_columns = True
    rows = sum(segment.rows for segment in state.segments.values())
    if len(state.touched_items) + (len(state.touched_segments) << SEGMENT_BITS) > max(rows, 10 * _MOST_ASKED):
        return None  # being built
    reader = Reader(conn, state, asking.columns, asking.deadline)
    matches = await reader.matching(tree)
    asking.uncovered |= reader.uncovered
    unknown = matches.unknown
    if unknown > _MOST_ASKED:
        return None
    others: list[int] = []
    touched = matches.touched
    asked = state.touched_items.tolist() if touched is None else touched.unknown
    if unknown or len(asked) or state.touched_segments:
        where, parameters = query.compile_filter(tree, dataset_id=dataset_id)
        outside, more = tables.outside(state, asked)
        order, limits = _order_by(sort) if sort else (SQL("").format(), dict[str, object]())
        parameters |= more | limits | {"unknown_ids": await reader.unknown_ids(matches) if unknown else []}
        either = SQL("({} OR item.id = ANY(%(unknown_ids)s::bigint[]))").format(outside)
        statement = SQL("SELECT item.id FROM item WHERE {} AND {} {}").format(where, either, order)
        await _limit(conn, asking)
        cursor = conn.cursor(binary=True)
        await cursor.execute(statement, parameters, prepare=False)
        others = [item_id for (item_id,) in await cursor.fetchall()]
    if touched is not None and touched.true:
        others += touched.true
        others = await _in_order(conn, dataset_id, others, sort, asking) if sort else others
    asking.plan = "columns" if not unknown else "columns, then rows"
    answer = _Answer(reader, matches, others)
    asking.rows = answer.total
    return answer


async def _find_in_columns(
    conn: AsyncConnection[Any], dataset_id: int, tree: Tree, page: Page, reader_id: int | None, asking: Asking
) -> Found | None:
    sort = _sort_of(page)
    answer = await _ask_columns(conn, dataset_id, tree, asking, sort if page.page_size else ())
    if answer is None:
        return None
    if page.page_size == 0:
        return Found([], has_next=False, total=answer.total)
    first = page.page * page.page_size
    through = first + page.page_size + 1
    ids = await _ids_of_page(conn, dataset_id, answer, sort, first, through, asking)
    if ids is None:
        found = await _find_in_rows(conn, dataset_id, tree, page, reader_id, asking)
        return Found(found.rows, found.has_next, answer.total)
    rows = await _load(conn, dataset_id, ids[: page.page_size], reader_id)
    return Found(rows, has_next=len(ids) > page.page_size, total=answer.total)


async def _ids_of_page(  # noqa: PLR0911 - one way after the other
    conn: AsyncConnection[Any],
    dataset_id: int,
    answer: _Answer,
    sort: Sequence[tuple[str, bool]],
    first: int,
    through: int,
    asking: Asking,
) -> list[int] | None:
    """Those at the ranks of the page. None: the columns do not know."""
    if first >= answer.total:
        return []
    if answer.total <= _FEW and sort[0][0] != "id":
        return await _ordered(conn, dataset_id, answer, sort, first, through, asking)
    if await answer.reader.orders_by_text(sort):
        found = await _ids_by_text(conn, dataset_id, answer, sort, first, through, asking)
        if found is not None:
            return found
    ranked = await answer.reader.ranked(answer.matches, sort, most_unordered=_MOST_ASKED)
    if ranked is None:
        asking.uncovered |= {name: None for name in answer.reader.uncovered if name != "filename"}
        if answer.total <= _MOST_ASKED:
            return await _ordered(conn, dataset_id, answer, sort, first, through, asking)
        return None
    # An item of the page has a rank among those in columns that is smaller than its own by at most the others' number.
    others = answer.others if not ranked.unordered_ids else [*answer.others, *ranked.unordered_ids]
    nearest = others if ranked.unordered_ids else others[:through]
    if len(nearest) > _MOST_ASKED:
        return None
    skipped = max(0, first - len(nearest))
    candidates = await answer.reader.rank(ranked, skipped, through)
    if nearest:
        candidates = await _in_order(conn, dataset_id, [*candidates, *nearest], sort, asking)
    return candidates[first - skipped : through - skipped]


async def _ids_by_text(
    conn: AsyncConnection[Any],
    dataset_id: int,
    answer: _Answer,
    sort: Sequence[tuple[str, bool]],
    first: int,
    through: int,
    asking: Asking,
) -> list[int] | None:
    nearest = answer.others[:through]
    found = await answer.reader.near(answer.matches, sort, first, through, others=len(nearest))
    candidates = [*found.ids, *found.unordered_ids, *nearest]
    if len(candidates) > _MOST_ASKED:
        return None
    merged = await _in_order(conn, dataset_id, candidates, sort, asking)
    return merged[first - found.before : through - found.before]


async def _ordered(
    conn: AsyncConnection[Any],
    dataset_id: int,
    answer: _Answer,
    sort: Sequence[tuple[str, bool]],
    first: int,
    through: int,
    asking: Asking,
) -> list[int]:
    """All that were found, as SQL orders them."""
    ids = [*await answer.reader.true_ids(answer.matches), *answer.others]
    return (await _in_order(conn, dataset_id, ids, sort, asking))[first:through]


async def _in_order(
    conn: AsyncConnection[Any], dataset_id: int, ids: Sequence[int], sort: Sequence[tuple[str, bool]], asking: Asking
) -> list[int]:
    if sort[0][0] == "id":
        return sorted(ids, reverse=sort[0][1])
    order, parameters = _order_by(sort)
    await _limit(conn, asking)
    cursor = conn.cursor(binary=True)
    await cursor.execute(
        SQL("SELECT item.id FROM item WHERE item.dataset_id = %(dataset_id)s AND item.id = ANY(%(ids)s) ") + order,
        {"dataset_id": dataset_id, "ids": list(ids)} | parameters,
        prepare=False,
    )
    return [item_id for (item_id,) in await cursor.fetchall()]


def _sort_of(page: Page) -> tuple[tuple[str, bool], ...]:
    """A total order, and no more than it takes."""
    sort: dict[str, bool] = {}
    descending = False
    for name, descending in page.sort:
        sort.setdefault(name, descending)
        if ITEM_FIELDS.find(name).unique:
            return tuple(sort.items())
    return (*sort.items(), ("id", descending))


def _order_by(sort: tuple[tuple[str, bool], ...] | Sequence[tuple[str, bool]]) -> query.Compiled:
    """Of all there are: for a LIMIT PostgreSQL may walk an index."""
    return query.compile_page(Page(tuple(sort), 0, _ALL))


async def _load(conn: AsyncConnection[Any], dataset_id: int, ids: Sequence[int], reader_id: int | None) -> list[Item]:
    """In the order of the ids."""
    if not ids:
        return []
    statement = SQL(SELECT_ITEM) + SQL("WHERE item.dataset_id = %(dataset_id)s AND item.id = ANY(%(ids)s)").format()
    found = await fetch_page(conn, statement, {"dataset_id": dataset_id, "ids": list(ids)}, reader_id=reader_id)
    rows = {row.id: row for row in found}
    return [rows[item_id] for item_id in ids if item_id in rows]


# By rows.


async def _find_in_rows(
    conn: AsyncConnection[Any], dataset_id: int, tree: Tree, page: Page, reader_id: int | None, asking: Asking
) -> Found:
    """An order that an index has tempts PostgreSQL to read the whole of it for a page of what is rare.

    So the first rows of it are looked through, and when they do not hold the page, all that fulfils the filter is
    gathered and sorted.
    """
    await _limit(conn, asking)
    (name, _), *more = _sort_of(page)
    if _is_listing(tree, page) or more or name not in ("id", "filename"):
        asking.plan = "rows"
        where, parameters = query.compile_filter(tree, dataset_id=dataset_id)
        order, limits = query.compile_page(page, lookahead=1)
        statement = SQL(SELECT_ITEM) + SQL("WHERE ") + where + SQL(" ") + order
        rows = await fetch_page(conn, statement, parameters | limits, reader_id=reader_id)
        return Found(rows[: page.page_size], has_next=len(rows) > page.page_size)
    ids = await _walk(conn, dataset_id, tree, page)
    asking.plan = "walk"
    if len(ids) <= page.page_size:
        await _limit(conn, asking)
        ids = await _gather(conn, dataset_id, tree, page)
        asking.plan = "gather"
    rows = await _load(conn, dataset_id, ids[: page.page_size], reader_id)
    return Found(rows, has_next=len(ids) > page.page_size)


async def _walk(conn: AsyncConnection[Any], dataset_id: int, tree: Tree, page: Page) -> list[int]:
    """The page and one more, or fewer where there are not so many among the first rows."""
    ((name, descending),) = _sort_of(page)
    where, parameters = query.compile_filter(tree, dataset_id=dataset_id)
    order, limits = query.compile_page(page, lookahead=1)
    column = SQL("item.path") if name == "filename" else SQL("item.id")
    statement = SQL(
        "SELECT item.id FROM (SELECT * FROM item WHERE item.dataset_id = %(dataset_id)s"
        " ORDER BY {} {} LIMIT %(walked)s) AS item WHERE {} {}"
    ).format(column, SQL("DESC" if descending else "ASC"), where, order)
    walked = max(_WALKED, 2 * (page.page + 1) * page.page_size)
    await conn.execute("SET LOCAL enable_sort = off")
    cursor = await conn.execute(statement, parameters | limits | {"walked": walked}, prepare=False)
    ids = [item_id for (item_id,) in await cursor.fetchall()]
    await conn.execute("SET LOCAL enable_sort = on")
    return ids


async def _gather(conn: AsyncConnection[Any], dataset_id: int, tree: Tree, page: Page) -> list[int]:
    where, parameters = query.compile_filter(tree, dataset_id=dataset_id)
    order, limits = query.compile_page(page, lookahead=1)
    await conn.execute("SET LOCAL enable_indexscan = off; SET LOCAL enable_indexonlyscan = off")
    cursor = await conn.execute(
        SQL("SELECT item.id FROM item WHERE ") + where + SQL(" ") + order, parameters | limits, prepare=False
    )
    ids = [item_id for (item_id,) in await cursor.fetchall()]
    await conn.execute("SET LOCAL enable_indexscan = on; SET LOCAL enable_indexonlyscan = on")
    return ids


async def _find_both(
    conn: AsyncConnection[Any],
    dataset_id: int,
    files: Tree,
    dirs: Tree,
    page: Page,
    reader_id: int | None,
) -> list[Item | Folder]:
    """Files and folders share their ids, so the page lies among the first ids of both."""
    first = page.page * page.page_size
    through = first + page.page_size + 1
    file_where, file_parameters = query.compile_filter(files, dataset_id=dataset_id)
    dir_where, dir_parameters = query.compile_filter(dirs, dataset_id=dataset_id, fields=DIR_FIELDS)
    file_ids = await conn.execute(
        SQL("SELECT id FROM item WHERE ") + file_where + SQL(" ORDER BY id LIMIT %(through)s"),
        file_parameters | {"through": through},
    )
    ids = [row_id for (row_id,) in await file_ids.fetchall()]
    dir_ids = await conn.execute(
        SQL("SELECT id FROM folder WHERE ") + dir_where + SQL(" ORDER BY id LIMIT %(through)s"),
        dir_parameters | {"through": through},
    )
    ids += [row_id for (row_id,) in await dir_ids.fetchall()]
    ids = sorted(ids)[first:through]
    files_found = await load_items(conn, dataset_id, ids, reader_id=reader_id)
    rows: list[Item | Folder] = [*files_found, *await load_folders(conn, dataset_id, ids)]
    return sorted(rows, key=lambda row: row.id)


# Counts.


async def count_found(
    conn: AsyncConnection[Any],
    dataset_id: int,
    files: Tree | None,
    dirs: Tree | None,
    *,
    asking: Asking | None = None,
) -> int:
    """Exact. It may read all that it counts: ask the dataset's counters where they know."""
    asking = asking or Asking()
    total = 0
    if files is not None:
        where, parameters = query.compile_filter(files, dataset_id=dataset_id)
        if (answer := await _ask_columns(conn, dataset_id, files, asking)) is not None:
            total += answer.total
        else:
            await _limit(conn, asking)
            total += await _count(conn, SQL("SELECT count(*) FROM item WHERE ") + where, parameters)
    if dirs is not None:
        where, parameters = query.compile_filter(dirs, dataset_id=dataset_id, fields=DIR_FIELDS)
        total += await _count(conn, SQL("SELECT count(*) FROM folder WHERE ") + where, parameters)
    return total


async def _count(conn: AsyncConnection[Any], statement: Composed, parameters: dict[str, object]) -> int:
    row = await (await conn.execute(statement, parameters, prepare=False)).fetchone()
    assert row is not None
    return row[0]


async def count_by(
    conn: AsyncConnection[Any],
    dataset_id: int,
    tree: Tree,
    path: str,
    limit: int,
    *,
    asking: Asking | None = None,
) -> tuple[ValueCounts, int]:
    """How many of the items that fulfil a filter have each value of a field, and how many values there are.

    Those with most items first, equal ones in the order of their JSON. A list counts for each of its elements, once;
    items without the field count nowhere. Raises BadRequest and QueryTooSlow.
    """
    asking = asking or Asking()
    where, parameters = query.compile_filter(tree, dataset_id=dataset_id)
    values, value_parameters = _values_of(path)
    answer = await _ask_columns(conn, dataset_id, tree, asking)
    tally = None if answer is None else await answer.reader.tally(answer.matches, path)
    if answer is None or tally is None:
        asking.plan = "rows"
        if answer is not None:
            asking.uncovered |= {path: None}
        await _limit(conn, asking)
        return await _count_rows(conn, values, where, parameters | value_parameters, limit)
    asked = [*answer.others, *tally.unknown_ids]
    if len(asked) > _MOST_ASKED * 10:
        return await _count_rows(conn, values, where, parameters | value_parameters, limit)
    if asked:
        chosen = SQL("item.dataset_id = %(dataset_id)s AND item.id = ANY(%(asked)s)").format()
        given: dict[str, object] = {"dataset_id": dataset_id, "asked": asked}
        await _limit(conn, asking)
        found, _ = await _count_rows(conn, values, chosen, given | value_parameters, _ALL)
        for value, number in found:
            tally.add(conditions.exact(value), number)
    return tally.best(limit)


def _values_of(path: str) -> tuple[Composed, dict[str, object]]:
    """A SELECT of the different values that an item has of a field, as JSON."""
    known = ITEM_FIELDS.find(path)
    if known.kind == "json":
        keys = "".join("." + json.dumps(key, ensure_ascii=False) for key in checked_keys(known.keys))
        found = SQL("SELECT DISTINCT found.value FROM jsonb_path_query({}, %(counted)s::jsonpath) AS found (value)")
        return found.format(SQL(known.sql)), {"counted": f"${keys}[*][*]"}
    if path == "label":
        return SQL(
            "SELECT DISTINCT to_jsonb(annotation.label) FROM annotation"
            " WHERE annotation.dataset_id = item.dataset_id AND annotation.item_id = item.id"
        ).format(), {}
    shown = SQL(known.sort_sql or known.sql) if known.within else SQL(known.sql)
    if known.kind == "timestamp":
        shown = SQL("""to_char({} AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"')""").format(shown)
    elif known.kind == "id":
        shown = SQL("lpad(to_hex({}), 24, '0')").format(shown)
    return SQL("SELECT to_jsonb(shown.value) FROM (SELECT {}) AS shown (value) WHERE shown.value IS NOT NULL").format(
        shown
    ), {}


async def _count_rows(
    conn: AsyncConnection[Any], values: Composed, where: Composed, parameters: dict[str, object], limit: int
) -> tuple[ValueCounts, int]:
    cursor = await conn.execute(
        SQL(
            """
            SELECT counted.value::text, count(*), count(*) OVER ()
            FROM item
            CROSS JOIN LATERAL ({}) AS counted (value)
            WHERE {}
            GROUP BY counted.value
            ORDER BY count(*) DESC, counted.value::text COLLATE "C"
            LIMIT %(most)s
            """
        ).format(values, where),
        parameters | {"most": limit},
        prepare=False,
    )
    rows = await cursor.fetchall()
    counts = [(conditions.plain(conditions.load(text)), number) for text, number, _ in rows]
    return counts, rows[0][2] if rows else 0
