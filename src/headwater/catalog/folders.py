"""Folders: every folder that an item's path names, made with the item; what directory trees read."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import groupby
from typing import Any, LiteralString

from psycopg import AsyncConnection
from psycopg.rows import class_row

from headwater.catalog.fields import FOLDER_IS_SHOWN

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
    """One that is shown."""
    cursor = conn.cursor(row_factory=class_row(Folder))
    await cursor.execute(_COLUMNS + "WHERE id = %s AND " + FOLDER_IS_SHOWN, [folder_id])
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
    """Every folder of a dataset that is shown, in the order of paths, but for the hidden one."""
    cursor = conn.cursor(row_factory=class_row(Folder))
    await cursor.execute(
        _COLUMNS
        + "WHERE dataset_id = %s AND path <> '/.dataloop' AND path NOT LIKE '/.dataloop/%%' AND "
        + FOLDER_IS_SHOWN
        + " ORDER BY path",
        [dataset_id],
    )
    return await cursor.fetchall()


async def make_folder(conn: AsyncConnection[Any], dataset_id: int, path: str, creator_id: int) -> Folder:
    """It is shown from now on, also with nothing in it. May be repeated."""
    await ensure_folders(conn, dataset_id, [path])
    await conn.execute(
        "UPDATE folder SET creator_id = %s WHERE dataset_id = %s AND path = %s AND creator_id IS NULL",
        [creator_id, dataset_id, path],
    )
    folder = await find_folder_at(conn, dataset_id, path)
    assert folder is not None
    return folder


async def unmake_folder(conn: AsyncConnection[Any], dataset_id: int, path: str) -> None:
    """It and all below it are shown no longer than there is something in them.

    Rows of folders never go: somebody may be about to put an item there.
    """
    await conn.execute("UPDATE folder SET creator_id = NULL WHERE " + _MADE, _within(dataset_id, path))


async def move_made(conn: AsyncConnection[Any], dataset_id: int, path: str, to: str) -> None:
    """What somebody made at `path` and below it, made below `to`."""
    cursor = await conn.execute("SELECT path, creator_id FROM folder WHERE " + _MADE, _within(dataset_id, path))
    made = {(to + old[len(path) :]) or ROOT: creator_id for old, creator_id in await cursor.fetchall()}
    await unmake_folder(conn, dataset_id, path)
    await ensure_folders(conn, dataset_id, made)
    await conn.execute(
        """
        UPDATE folder
        SET creator_id = made.creator_id
        FROM unnest(%s::text[], %s::bigint[]) AS made (path, creator_id)
        WHERE folder.dataset_id = %s AND folder.path = made.path
        """,
        [list(made), list(made.values()), dataset_id],
    )


_MADE: LiteralString = (
    "dataset_id = %(dataset_id)s AND creator_id IS NOT NULL"
    " AND (path = %(path)s OR path >= %(from)s AND path < %(until)s)"
)


def _within(dataset_id: int, path: str) -> dict[str, Any]:
    below = path.rstrip("/")
    return {"dataset_id": dataset_id, "path": path, "from": below + "/", "until": below + "0"}


async def purge(conn: AsyncConnection[Any], dataset_id: int) -> None:
    """Remove the folders of a deleted dataset."""
    await conn.execute("DELETE FROM folder WHERE dataset_id = %s", [dataset_id])
