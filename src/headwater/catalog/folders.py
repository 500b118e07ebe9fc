"""Folders: every folder that an item's path names, made with the item; what directory trees read."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import groupby
from typing import Any

from psycopg import AsyncConnection
from psycopg.rows import class_row

ROOT = "/"


@dataclass(frozen=True, slots=True)
class Folder:
    id: int
    dataset_id: int
    path: str
    parent_id: int | None
    created_at: datetime


def folder_of(path: str) -> str:
    """The folder of an item's path. Keys are exact, so `/a//b` lies in `/a/`, which lies in `/a`.

    A folder of slashes alone gets one more, to tell the root `/` from the folder of `//b`, which is `//`.
    """
    folder = path.rpartition("/")[0]
    return folder if folder.strip("/") else folder + "/"


def parent_of(folder: str) -> str | None:
    """None for the root."""
    if not folder.strip("/"):
        return folder[:-1] or None
    return folder_of(folder)


def name_of(path: str) -> str:
    return path.rpartition("/")[2]


async def ensure_folders(conn: AsyncConnection[Any], dataset_id: int, paths: Iterable[str]) -> dict[str, int]:
    """Ids of the folders, made with all their parents where they are missing. Safe to repeat and side by side.

    Call it once in a transaction: who makes the very same folders waits, and all make them in one order.
    """
    wanted = set(paths)
    found = await _ids_of(conn, dataset_id, wanted)
    if len(found) == len(wanted):
        return found
    lineage = _with_parents(wanted)
    found = await _ids_of(conn, dataset_id, lineage)
    depths = {path: _depth(path) for path in lineage - found.keys()}
    for _, level in groupby(sorted(depths, key=lambda path: (depths[path], path)), depths.__getitem__):
        found |= await _make_level(conn, dataset_id, list(level), found)
    return found


def _depth(path: str) -> int:
    """How many folders lie above it."""
    depth, parent = 0, parent_of(path)
    while parent is not None:
        depth, parent = depth + 1, parent_of(parent)
    return depth


async def _make_level(
    conn: AsyncConnection[Any], dataset_id: int, paths: list[str], found: dict[str, int]
) -> dict[str, int]:
    """Ids of folders whose parents are there; those that another transaction makes meanwhile are waited for."""
    parents = [None if (parent := parent_of(path)) is None else found[parent] for path in paths]
    cursor = await conn.execute(
        """
        INSERT INTO folder (dataset_id, path, parent_id)
        SELECT %s, path, parent_id
        FROM unnest(%s::text[], %s::bigint[]) WITH ORDINALITY AS new (path, parent_id, n)
        ORDER BY n
        ON CONFLICT (dataset_id, path) DO NOTHING
        RETURNING path, id
        """,
        [dataset_id, paths, parents],
    )
    made = dict(await cursor.fetchall())
    others = set(paths) - made.keys()
    return made | await _ids_of(conn, dataset_id, others) if others else made


def _with_parents(paths: Iterable[str]) -> set[str]:
    lineage: set[str] = set()
    for path in paths:
        current: str | None = path
        while current is not None and current not in lineage:
            lineage.add(current)
            current = parent_of(current)
    return lineage


async def _ids_of(conn: AsyncConnection[Any], dataset_id: int, paths: set[str]) -> dict[str, int]:
    cursor = await conn.execute(
        "SELECT path, id FROM folder WHERE dataset_id = %s AND path = ANY(%s)", [dataset_id, list(paths)]
    )
    return dict(await cursor.fetchall())


_COLUMNS = "SELECT id, dataset_id, path, parent_id, created_at FROM folder "


async def find_folder(conn: AsyncConnection[Any], folder_id: int) -> Folder | None:
    cursor = conn.cursor(row_factory=class_row(Folder))
    await cursor.execute(_COLUMNS + "WHERE id = %s", [folder_id])
    return await cursor.fetchone()


async def find_folder_at(conn: AsyncConnection[Any], dataset_id: int, path: str) -> Folder | None:
    cursor = conn.cursor(row_factory=class_row(Folder))
    await cursor.execute(_COLUMNS + "WHERE dataset_id = %s AND path = %s", [dataset_id, path])
    return await cursor.fetchone()


async def load_folders(conn: AsyncConnection[Any], dataset_id: int, folder_ids: Sequence[int]) -> list[Folder]:
    """Those that are there, in the order of ids."""
    cursor = conn.cursor(row_factory=class_row(Folder))
    await cursor.execute(
        _COLUMNS + "WHERE dataset_id = %s AND id = ANY(%s) ORDER BY id", [dataset_id, list(folder_ids)]
    )
    return await cursor.fetchall()


async def list_folders(conn: AsyncConnection[Any], dataset_id: int) -> list[Folder]:
    """Every folder of a dataset in the order of paths, but for the hidden one and those that only hold trash."""
    cursor = conn.cursor(row_factory=class_row(Folder))
    await cursor.execute(
        _COLUMNS
        + """
        WHERE dataset_id = %s AND path <> '/.dataloop' AND path NOT LIKE '/.dataloop/%%'
        ORDER BY path
        """,
        [dataset_id],
    )
    found = await cursor.fetchall()
    bare = await _bare_above_trash(conn, dataset_id)
    if not bare:
        return found
    shown: set[int | None] = set()
    for folder in sorted(found, key=lambda folder: -len(folder.path)):  # what is deeper comes first
        if folder.id not in bare or folder.id in shown or folder.parent_id is None:
            shown |= {folder.id, folder.parent_id}
    return [folder for folder in found if folder.id in shown]


async def _bare_above_trash(conn: AsyncConnection[Any], dataset_id: int) -> set[int]:
    """Folders that hold nothing but trash, and those above them that hold no file themselves."""
    cursor = await conn.execute(
        """
        WITH RECURSIVE above (id) AS (
            SELECT DISTINCT folder_id FROM item WHERE dataset_id = %(dataset_id)s AND trashed_at IS NOT NULL
            UNION
            SELECT folder.parent_id
            FROM above
            JOIN folder ON folder.dataset_id = %(dataset_id)s AND folder.id = above.id AND folder.parent_id IS NOT NULL
        )
        SELECT above.id
        FROM above
        WHERE NOT EXISTS (
            SELECT
            FROM item
            WHERE item.dataset_id = %(dataset_id)s AND item.folder_id = above.id AND item.trashed_at IS NULL
        )
        """,
        {"dataset_id": dataset_id},
    )
    return {folder_id for (folder_id,) in await cursor.fetchall()}


async def purge(conn: AsyncConnection[Any], dataset_id: int) -> None:
    """Remove the folders of a deleted dataset."""
    await conn.execute("DELETE FROM folder WHERE dataset_id = %s", [dataset_id])
