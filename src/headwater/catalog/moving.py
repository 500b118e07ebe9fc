"""Moving: items of our own storage get other paths. No byte is touched, because keys there follow no path."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from psycopg import AsyncConnection
from psycopg.sql import SQL

from headwater.catalog.folders import ensure_folders, folder_of
from headwater.catalog.items import lock_paths
from headwater.catalog.selections import Selection


@dataclass(frozen=True, slots=True)
class Move:
    item_id: int
    path: str  # where it is; an item that is elsewhere by now is left there
    new_path: str


async def lock_moves(conn: AsyncConnection[Any], dataset_id: int, moves: Sequence[Move]) -> None:
    """Nobody writes at the old paths and the new ones before this transaction ends; at most 500 moves, once."""
    await lock_paths(conn, dataset_id, [path for move in moves for path in (move.path, move.new_path)])


async def move_items(
    conn: AsyncConnection[Any], dataset_id: int, moves: Sequence[Move], *, updated_by_id: int | None
) -> tuple[int, list[Move]]:
    """How many were moved, and those that stay because another item is at their new path. Call it under `lock_moves`.

    Of several that want the same path the one with the smallest id gets it. An item keeps its original name in its
    metadata. No event: its content is the same.
    """
    wanted = [move for move in moves if move.path != move.new_path]
    if not wanted:
        return 0, []
    folders = [folder_of(move.new_path) for move in wanted]
    folder_ids = await ensure_folders(conn, dataset_id, folders)
    given = {
        "dataset_id": dataset_id,
        "ids": [move.item_id for move in wanted],
        "paths": [move.path for move in wanted],
        "new_paths": [move.new_path for move in wanted],
        "folder_ids": [folder_ids[folder] for folder in folders],
        "updated_by_id": updated_by_id,
    }
    cursor = await conn.execute(
        """
        WITH wanted AS (
            SELECT *, row_number() OVER (PARTITION BY new_path ORDER BY id) AS turn
            FROM unnest(%(ids)s::bigint[], %(paths)s::text[], %(new_paths)s::text[], %(folder_ids)s::bigint[])
                AS given (id, path, new_path, folder_id)
        ), locked AS (
            SELECT wanted.*
            FROM wanted
            JOIN item ON item.dataset_id = %(dataset_id)s AND item.id = wanted.id AND item.path = wanted.path
            WHERE wanted.turn = 1 AND NOT EXISTS (
                SELECT FROM item AS taken WHERE taken.dataset_id = %(dataset_id)s AND taken.path = wanted.new_path
            )
            ORDER BY wanted.id
            FOR UPDATE OF item
        )
        UPDATE item
        SET path = locked.new_path, folder_id = locked.folder_id, updated_at = now(),
            updated_by_id = coalesce(%(updated_by_id)s, item.updated_by_id),
            system_metadata = jsonb_build_object('originalname', split_part(item.path, '/', -1))
                || coalesce(item.system_metadata, '{}')
        FROM locked
        WHERE item.dataset_id = %(dataset_id)s AND item.id = locked.id
        RETURNING item.id
        """,
        given,
    )
    moved = {item_id for (item_id,) in await cursor.fetchall()}
    cursor = await conn.execute(
        """
        SELECT item.id
        FROM unnest(%(ids)s::bigint[], %(paths)s::text[]) AS given (id, path)
        JOIN item ON item.dataset_id = %(dataset_id)s AND item.id = given.id AND item.path = given.path
        """,
        given,
    )
    left = {item_id for (item_id,) in await cursor.fetchall()} - moved
    return len(moved), [move for move in wanted if move.item_id in left]


async def count_conflicts(
    conn: AsyncConnection[Any], dataset_id: int, selection: Selection, *, folder: str | None, to: str
) -> int:
    """How many of these would stay, because another item is at their new path. Reads all of them.

    With a `folder` that is moved, what is below it keeps its place in it; else all come into `to` by their names.
    """
    where, parameters = selection.where(dataset_id)
    if folder is None:
        new_path = SQL("%(move_to)s || '/' || split_part(item.path, '/', -1)")
    else:
        new_path = SQL("%(move_to)s || substr(item.path, %(move_skip)s)")
    cursor = await conn.execute(
        SQL(
            """
            SELECT count(*) FILTER (WHERE turn > 1 OR EXISTS (
                SELECT FROM item AS taken
                WHERE taken.dataset_id = %(move_dataset)s AND taken.path = new_path AND taken.id <> moved.id
            ))
            FROM (
                SELECT item.id, """
        )
        + new_path
        + SQL(""" AS new_path, row_number() OVER (PARTITION BY """)
        + new_path
        + SQL(" ORDER BY item.id) AS turn FROM item WHERE item.path <> ")
        + new_path
        + SQL(" AND ")
        + where
        + SQL(") AS moved"),
        parameters | {"move_dataset": dataset_id, "move_to": to, "move_skip": 1 if folder is None else len(folder) + 1},
        prepare=False,
    )
    row = await cursor.fetchone()
    assert row is not None
    return row[0]
