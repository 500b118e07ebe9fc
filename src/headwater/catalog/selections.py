"""Selections: what somebody chose of a dataset, by filter, ids, folder; long work takes it piece by piece."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from psycopg import AsyncConnection
from psycopg.sql import SQL, Composed

from headwater.catalog import query
from headwater.catalog.searchable import require_searchable_in


@dataclass(frozen=True, slots=True)
class Selection:
    """Items that are to be deleted: those that meet all that is given here."""

    tree: query.Tree = query.EVERYTHING
    ids: Sequence[int] | None = None
    folder: str | None = None  # with all that is below it
    is_missing: bool = False  # only ghosts …
    missing_until: datetime | None = None  # … since then or before
    is_shown: bool = False  # nothing of our own folder or the trash; sidecars go along

    def where(self, dataset_id: int) -> tuple[Composed, dict[str, object]]:
        """What stands behind WHERE in a query FROM item. Raises BadRequest."""
        where, parameters = query.compile_filter(self.tree, dataset_id=dataset_id)
        parts = [where]
        if self.ids is not None:
            parts.append(SQL("item.id = ANY(%(chosen_ids)s)").format())
            parameters["chosen_ids"] = list(self.ids)
        if self.folder is not None:
            parts.append(SQL("item.path >= %(folder_from)s AND item.path < %(folder_until)s").format())
            below = self.folder.rstrip("/")
            parameters |= {"folder_from": below + "/", "folder_until": below + "0"}  # the character after the slash
        if self.is_missing:
            parts.append(SQL("item.missing_since IS NOT NULL").format())
        if self.missing_until is not None:
            parts.append(SQL("item.missing_since <= %(missing_until)s").format())
            parameters["missing_until"] = self.missing_until
        if self.is_shown:
            parts.append(SQL("item.path NOT LIKE '/.dataloop/%%' AND item.trashed_at IS NULL").format())
        return SQL(" AND ").join(parts), parameters


@dataclass(frozen=True, slots=True)
class Summary:
    items: int
    size_bytes: int
    last_id: int  # items that come later have larger ones
    asked_at: datetime  # when it was summed up; ghosts that come later are missing since a later time
    examples: Sequence[str]


async def summarize(conn: AsyncConnection[Any], dataset_id: int, selection: Selection, *, examples: int) -> Summary:
    """How much is selected. Reads all of it. Raises BadRequest."""
    await require_searchable_in(conn, dataset_id, selection.tree)
    where, parameters = selection.where(dataset_id)
    cursor = await conn.execute(
        SQL("SELECT count(*), coalesce(sum(item.size_bytes), 0)::bigint, coalesce(max(item.id), 0), now() FROM item ")
        + SQL("WHERE ")
        + where,
        parameters,
        prepare=False,
    )
    row = await cursor.fetchone()
    assert row is not None
    cursor = await conn.execute(
        SQL("SELECT item.path FROM item WHERE ") + where + SQL(" ORDER BY item.path LIMIT %(examples)s"),
        parameters | {"examples": examples},
        prepare=False,
    )
    return Summary(*row, examples=[path for (path,) in await cursor.fetchall()])


async def next_selected(
    conn: AsyncConnection[Any], dataset_id: int, selection: Selection, *, after_id: int, last_id: int, limit: int
) -> list[tuple[int, str]]:
    """(id, path) of the next ones in the order of ids."""
    where, parameters = selection.where(dataset_id)
    bounds = SQL(" AND item.id > %(after_id)s AND item.id <= %(last_id)s ORDER BY item.id LIMIT %(limit)s")
    cursor = await conn.execute(
        SQL("SELECT item.id, item.path FROM item WHERE ") + where + bounds,
        parameters | {"after_id": after_id, "last_id": last_id, "limit": limit},
        prepare=False,
    )
    return await cursor.fetchall()


async def ids_at(conn: AsyncConnection[Any], dataset_id: int, paths: Sequence[str]) -> dict[str, int]:
    """Path -> id of those that there are."""
    cursor = await conn.execute(
        "SELECT path, id FROM item WHERE dataset_id = %s AND path = ANY(%s)", [dataset_id, list(paths)]
    )
    return dict(await cursor.fetchall())


async def matching(conn: AsyncConnection[Any], dataset_id: int, item_ids: Sequence[int], tree: query.Tree) -> list[int]:
    """Those of the items that match a filter, in the order of ids."""
    where, parameters = query.compile_filter(tree, dataset_id=dataset_id)
    cursor = await conn.execute(
        SQL("SELECT item.id FROM item WHERE item.id = ANY(%(among)s) AND ") + where + SQL(" ORDER BY item.id"),
        parameters | {"among": list(item_ids)},
    )
    return [item_id for (item_id,) in await cursor.fetchall()]
