"""Sidecars: objects `name.ext.json` that hold the user metadata of `name.ext`, where a dataset's rules say so.

What a sidecar holds is kept with its row, and what it gave with the row of the item, so that either may come first and
what it no longer holds can be taken back.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from psycopg import AsyncConnection
from psycopg.types.json import Jsonb

from headwater.catalog.datasets import CounterChange, count
from headwater.catalog.events import record_items

# For Python and PostgreSQL alike: an extension as files have them (jpg, 7z, mp4), and .json behind it.
NAME = r"[^/]\.[0-9]?[A-Za-z][A-Za-z0-9]{0,8}\.json\Z"
_NAME = re.compile(NAME)


def is_named_so(path: str) -> bool:
    return _NAME.search(path) is not None


def target_of(path: str) -> str:
    """The path of the item that a sidecar speaks of."""
    return path.removesuffix(".json")


@dataclass(frozen=True, slots=True)
class ReadSidecar:
    item_id: int
    etag: str  # of the object that was read
    content: dict[str, Any]


async def are_on(conn: AsyncConnection[Any], dataset_id: int) -> bool:
    """Whether the dataset takes metadata from sidecars."""
    cursor = await conn.execute(
        "SELECT coalesce((sync_rules ->> 'sidecars')::boolean, false) FROM dataset WHERE id = %s", [dataset_id]
    )
    row = await cursor.fetchone()
    return row is not None and row[0]


async def keep(conn: AsyncConnection[Any], dataset_id: int, read: Sequence[ReadSidecar]) -> None:
    """What was read of sidecars, unless they have changed since."""
    await conn.execute(
        """
        UPDATE item
        SET sidecar_content = given.content
        FROM unnest(%(ids)s::bigint[], %(etags)s::text[], %(contents)s::jsonb[]) AS given (id, etag, content)
        WHERE item.dataset_id = %(dataset_id)s AND item.id = given.id AND item.etag = given.etag
        """,
        {
            "dataset_id": dataset_id,
            "ids": [one.item_id for one in read],
            "etags": [one.etag for one in read],
            "contents": [Jsonb(one.content) for one in read],
        },
    )


async def give(conn: AsyncConnection[Any], dataset_id: int, paths: Sequence[str]) -> int:
    """The items at these paths what their sidecars hold, over what they have. Returns how many changed. Repeatable.

    What a sidecar gave and no longer holds is taken back where nobody has changed it. A sidecar that is older than a
    person's last edit of the item's metadata is silent; so is one that is missing.
    """
    cursor = await conn.execute(
        """
        WITH speaking AS (
            SELECT target.id, sidecar.sidecar_content AS content
            FROM unnest(%(paths)s::text[]) AS asked (path)
            JOIN item AS target ON target.dataset_id = %(dataset_id)s AND target.path = asked.path
            JOIN item AS sidecar
                ON sidecar.dataset_id = %(dataset_id)s AND sidecar.path = asked.path || '.json'
            WHERE sidecar.sidecar_content IS NOT NULL AND sidecar.missing_since IS NULL
                AND sidecar.sidecar_content IS DISTINCT FROM target.sidecar_given
                AND (
                    target.metadata_edited_at IS NULL
                    OR target.metadata_edited_at < coalesce(sidecar.modified_at, sidecar.changed_at)
                )
            ORDER BY target.id
            FOR UPDATE OF target
        )
        UPDATE item
        SET user_metadata = jsonb_deep_merge(
                jsonb_take_back(coalesce(item.user_metadata, '{}'), coalesce(item.sidecar_given, '{}')),
                speaking.content
            ),
            sidecar_given = speaking.content, updated_at = now()
        FROM speaking
        WHERE item.dataset_id = %(dataset_id)s AND item.id = speaking.id
        """,
        {"dataset_id": dataset_id, "paths": list(paths)},
    )
    return cursor.rowcount


async def hide(conn: AsyncConnection[Any], dataset_id: int, item_ids: Sequence[int]) -> None:
    """Sidecars among items, which default queries then do not find. Nothing in the trash, which is hidden anyway."""
    cursor = await conn.execute(
        """
        UPDATE item
        SET hidden = true, updated_at = now()
        WHERE dataset_id = %s AND id = ANY(%s) AND NOT hidden AND trashed_at IS NULL
        """,
        [dataset_id, list(item_ids)],
    )
    await count(conn, dataset_id, CounterChange(hidden_items=cursor.rowcount))


async def mark_next(
    conn: AsyncConnection[Any], dataset_id: int, *, after_id: int, limit: int, is_on: bool
) -> int | None:
    """Hide the sidecars among the next items and have them read; or show them again. Where it came to; None: the end.

    What they gave stays with their items. Repeatable.
    """
    cursor = await conn.execute(
        "SELECT max(id) FROM (SELECT id FROM item WHERE dataset_id = %s AND id > %s ORDER BY id LIMIT %s) AS piece",
        [dataset_id, after_id, limit],
    )
    row = await cursor.fetchone()
    if row is None or row[0] is None:
        return None
    cursor = await conn.execute(
        """
        WITH named AS (
            SELECT id, etl_state
            FROM item
            WHERE dataset_id = %(dataset_id)s AND id > %(after_id)s AND id <= %(last_id)s
                AND hidden <> %(is_on)s AND trashed_at IS NULL
                AND path ~ %(name)s AND path NOT LIKE '/.dataloop/%%'
            ORDER BY id
            FOR UPDATE
        )
        UPDATE item
        SET hidden = %(is_on)s, etl_state = CASE WHEN %(is_on)s THEN 0 ELSE item.etl_state END, updated_at = now()
        FROM named
        WHERE item.dataset_id = %(dataset_id)s AND item.id = named.id
        RETURNING item.id, named.etl_state
        """,
        {"dataset_id": dataset_id, "after_id": after_id, "last_id": row[0], "is_on": is_on, "name": NAME},
    )
    marked = await cursor.fetchall()
    change = CounterChange(hidden_items=len(marked) if is_on else -len(marked))
    if is_on:
        change.prepared_items = -sum(etl_state == 1 for _, etl_state in marked)
        change.failed_items = -sum(etl_state == 2 for _, etl_state in marked)
        await record_items(conn, dataset_id, "Updated", sorted(item_id for item_id, _ in marked))
    await count(conn, dataset_id, change)
    return row[0]
