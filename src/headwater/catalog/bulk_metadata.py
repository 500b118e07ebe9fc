"""Metadata of many items at once: one patch over each, in pieces of a command."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

from psycopg import AsyncConnection
from psycopg.sql import SQL, Composable, Identifier, Placeholder
from psycopg.types.json import Jsonb

LARGEST_BYTES = 1_000_000  # of the user metadata of one item, as JSON text; of its system metadata as well
# A patch with no more than these becomes SQL; a larger one goes through a function, which costs more for each item.
_FEW_KEYS, _FEW_OBJECTS, _FEW_LEVELS = 100, 10, 4


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
    statement = SQL(
        """
        WITH before AS (
            SELECT
                id, coalesce(user_metadata, '{{}}') AS user_metadata,
                coalesce(system_metadata, '{{}}') AS system_metadata
            FROM item
            WHERE dataset_id = %(dataset_id)s AND id = ANY(%(ids)s)
            ORDER BY id
            FOR UPDATE
        ), merged AS MATERIALIZED (
            SELECT
                id, user_metadata AS user_before, system_metadata AS system_before,
                {user_after} AS user_after, {system_after} AS system_after
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
        """
    )
    parameters: dict[str, object] = {
        "dataset_id": dataset_id,
        "ids": list(item_ids),
        "largest": LARGEST_BYTES,
        "updated_by_id": updated_by_id,
    }
    user_after = merged_sql(Identifier("user_metadata"), user, parameters)
    system_after = merged_sql(Identifier("system_metadata"), system, parameters)
    cursor = await conn.execute(statement.format(user_after=user_after, system_after=system_after), parameters)
    row = await cursor.fetchone()
    assert row is not None
    return Patched(*row)


def merged_sql(held: Composable, patch: dict[str, Any], parameters: dict[str, object]) -> Composable:
    """SQL of an object with the patch put over it, as `jsonb_deep_merge` has it; its parameters are added."""
    if not patch:
        return held
    if _is_small(patch):
        return _put_over(held, patch, parameters)
    return SQL("jsonb_deep_merge({}, {})").format(held, _given(Jsonb(patch), parameters))


def _is_small(patch: dict[str, Any]) -> bool:
    keys = objects = levels = 0
    level = [patch]
    while level and levels <= _FEW_LEVELS:
        keys, objects, levels = keys + sum(map(len, level)), objects + len(level), levels + 1
        level = [value for one in level for value in one.values() if isinstance(value, dict)]
    return keys <= _FEW_KEYS and objects <= _FEW_OBJECTS and levels <= _FEW_LEVELS


def _put_over(held: Composable, patch: dict[str, Any], parameters: dict[str, object]) -> Composable:
    """What is no object gives way to one."""
    merged: Composable = SQL("CASE jsonb_typeof({0}) WHEN 'object' THEN {0} ELSE '{{}}' END").format(held)
    if gone := [key for key, value in patch.items() if value is None]:
        merged = SQL("({}) - {}::text[]").format(merged, _given(gone, parameters))
    if flat := {key: value for key, value in patch.items() if not isinstance(value, dict | None)}:
        merged = SQL("({}) || {}").format(merged, _given(Jsonb(flat), parameters))
    deep: list[Composable] = []
    for key, value in patch.items():
        if isinstance(value, dict):
            name = SQL("{}::text").format(_given(key, parameters))
            inner = SQL("{} -> {}").format(held, name)  # NULL if `held` is no object
            deep += [name, _put_over(inner, cast("dict[str, Any]", value), parameters)]
    if deep:
        merged = SQL("({}) || jsonb_build_object({})").format(merged, SQL(", ").join(deep))
    return merged


def _given(value: object, parameters: dict[str, object]) -> Placeholder:
    name = f"given_{len(parameters)}"
    parameters[name] = value
    return Placeholder(name)
