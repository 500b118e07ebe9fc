"""Pages and counts of items and folders that a filter asks for."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from psycopg import AsyncConnection
from psycopg.rows import class_row
from psycopg.sql import SQL, Composed

from headwater.catalog import query
from headwater.catalog.fields import DIR_FIELDS
from headwater.catalog.folders import Folder, load_folders
from headwater.catalog.items import SELECT_ITEM, Item, fetch_page, load_items


@dataclass(frozen=True, slots=True)
class Found:
    rows: Sequence[Item | Folder]
    has_next: bool


async def find_page(
    conn: AsyncConnection[Any],
    dataset_id: int,
    files: query.Tree | None,
    dirs: query.Tree | None,
    page: query.Page,
    *,
    reader_id: int | None = None,
) -> Found:
    """One page of what a query asks for: files, folders, or both (then in the order of ids)."""
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
    elif files is not None:
        where, parameters = query.compile_filter(files, dataset_id=dataset_id)
        order, limits = query.compile_page(page, lookahead=1)
        statement = SQL(SELECT_ITEM) + SQL("WHERE ") + where + SQL(" ") + order
        rows = await fetch_page(conn, statement, parameters | limits, reader_id=reader_id)
    else:
        rows = []
    return Found(rows[: page.page_size], has_next=len(rows) > page.page_size)


async def _find_both(
    conn: AsyncConnection[Any],
    dataset_id: int,
    files: query.Tree,
    dirs: query.Tree,
    page: query.Page,
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


async def count_found(
    conn: AsyncConnection[Any], dataset_id: int, files: query.Tree | None, dirs: query.Tree | None
) -> int:
    """Exact. Reads what it counts: ask the dataset's counters where they know."""
    total = 0
    if files is not None:
        where, parameters = query.compile_filter(files, dataset_id=dataset_id)
        total += await _count(conn, SQL("SELECT count(*) FROM item WHERE ") + where, parameters)
    if dirs is not None:
        where, parameters = query.compile_filter(dirs, dataset_id=dataset_id, fields=DIR_FIELDS)
        total += await _count(conn, SQL("SELECT count(*) FROM folder WHERE ") + where, parameters)
    return total


async def _count(conn: AsyncConnection[Any], statement: Composed, parameters: dict[str, object]) -> int:
    row = await (await conn.execute(statement, parameters, prepare=False)).fetchone()
    assert row is not None
    return row[0]
