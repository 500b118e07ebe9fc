"""Metadata of many items at once: one patch over each, in pieces of a command."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from psycopg import AsyncConnection
from psycopg.types.json import Jsonb

LARGEST_BYTES = 1_000_000  # of the user metadata of one item, as JSON text; of its system metadata as well


_FEW_KEYS = 100  # removing each of more costs more than a join


@dataclass(frozen=True, slots=True)
class Patched:
    changed: int
    too_large: int  # left as they were: with the patch their metadata would be larger than the limit


async def commit_unawaited(conn: AsyncConnection[Any]) -> None:
    """Let this transaction commit without waiting for the disk; a later commit that waits, waits for both.

    For a piece of a command whose progress commits along: after a crash both are there or neither is.
    """
    await conn.execute("SET LOCAL synchronous_commit = off")


async def lock_items(conn: AsyncConnection[Any], dataset_id: int, item_ids: Sequence[int]) -> None:
    """For who patches them in more than one step: all in the order of ids, or two of these wait for each other."""
    await conn.execute(
        "SELECT FROM item WHERE dataset_id = %s AND id = ANY(%s) ORDER BY id FOR UPDATE", [dataset_id, list(item_ids)]
    )


async def patch_items(
    conn: AsyncConnection[Any],
    dataset_id: int,
    item_ids: Sequence[int],
    *,
    user: dict[str, Any],
    system: dict[str, Any],
    updated_by_id: int | None,
) -> Patched:
    """Put the patches over the metadata of these items, deeply; null removes a key. Repeatable.

    Items that have it so already are not written. No event: an Updated event is for new bytes.
    """
    cursor = await conn.execute(
        """
        WITH before AS (
            SELECT
                id, coalesce(user_metadata, '{}') AS user_metadata,
                coalesce(system_metadata, '{}') AS system_metadata
            FROM item
            WHERE dataset_id = %(dataset_id)s AND id = ANY(%(ids)s)
            ORDER BY id
            FOR UPDATE
        ), merged AS MATERIALIZED (
            SELECT
                id, user_metadata AS user_before, system_metadata AS system_before,
                CASE %(user_deep)s
                    WHEN '{}' THEN user_metadata - %(user_gone)s::text[] || %(user_flat)s
                    ELSE jsonb_deep_merge(user_metadata - %(user_gone)s::text[] || %(user_flat)s, %(user_deep)s)
                END AS user_after,
                CASE %(system)s
                    WHEN '{}' THEN system_metadata
                    ELSE jsonb_deep_merge(system_metadata, %(system)s)
                END AS system_after
            FROM before
        ), fitting AS MATERIALIZED (
            SELECT
                compared.*,
                greatest(
                    CASE WHEN is_user_changed THEN octet_length(user_after::text) END,
                    CASE WHEN is_system_changed THEN octet_length(system_after::text) END
                ) > %(largest)s AS is_too_large
            FROM (
                SELECT
                    merged.*, user_after <> user_before AS is_user_changed,
                    system_after <> system_before AS is_system_changed
                FROM merged
            ) AS compared
            WHERE is_user_changed OR is_system_changed
        ), written AS (
            UPDATE item
            SET user_metadata = fitting.user_after, system_metadata = fitting.system_after, updated_at = now(),
                metadata_edited_at = CASE WHEN is_user_changed THEN now() ELSE item.metadata_edited_at END,
                updated_by_id = %(updated_by_id)s
            FROM fitting
            WHERE item.dataset_id = %(dataset_id)s AND item.id = fitting.id AND NOT is_too_large
        )
        SELECT count(*) FILTER (WHERE NOT is_too_large), count(*) FILTER (WHERE is_too_large) FROM fitting
        """,
        {
            "dataset_id": dataset_id,
            "ids": list(item_ids),
            **_by_kind(user),
            "system": Jsonb(system),
            "largest": LARGEST_BYTES,
            "updated_by_id": updated_by_id,
        },
    )
    row = await cursor.fetchone()
    assert row is not None
    return Patched(*row)


def _by_kind(patch: dict[str, Any]) -> dict[str, object]:
    """What of a patch is quicker without our function: the keys to remove, and what is not nested."""
    is_small = len(patch) <= _FEW_KEYS
    gone = [key for key, value in patch.items() if is_small and value is None]
    flat = {key: value for key, value in patch.items() if is_small and not isinstance(value, dict | None)}
    deep = {key: value for key, value in patch.items() if not is_small or isinstance(value, dict)}
    return {"user_gone": gone, "user_flat": Jsonb(flat), "user_deep": Jsonb(deep)}
