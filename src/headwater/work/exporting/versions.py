"""Versions: since when an export of changes tells what has changed."""

import asyncio
from dataclasses import replace
from typing import Any

from psycopg import AsyncConnection

from headwater.catalog import exports
from headwater.catalog.exports import Export
from headwater.wire.exports import Asked
from headwater.work.exporting.run import Run
from headwater.work.workplace import Workplace

_ASK_EVERY_S = 0.05


async def prepare(place: Workplace, export: Export) -> Export:
    """Fix the horizon of the version that it will make, before anything is read. Safe to repeat."""
    asked = Asked.of(export.asked)
    if not asked.is_versioned or asked.horizon is not None:
        return export
    await _note_deletions(place, export.dataset_id)
    async with place.pool.connection() as conn:
        cluster = await exports.cluster(conn)
        asked = replace(asked, horizon=await exports.horizon(conn), cluster=cluster)
        if asked.is_diff and asked.from_version is not None:
            found = await exports.find_horizon(conn, export.dataset_id, asked.from_version, cluster)
            # A version of before a restore: all that there is may have changed since.
            asked = replace(asked, from_horizon=found, is_diff=found is not None)
        more = {name: value for name, value in asked.to_json().items() if value != export.asked.get(name)}
        await exports.add_asked(conn, export.command_id, more)
        await exports.set_last(conn, export.command_id, await exports.last_item(conn, export.dataset_id))
        after = await exports.find(conn, export.command_id)
        assert after is not None
        return after


async def _note_deletions(place: Workplace, dataset_id: int) -> None:
    """Whoever deletes items from now on leaves a note: those that began before have ended when this returns."""
    async with place.pool.connection() as conn:
        if await exports.newest_version(conn, dataset_id):
            return
        await exports.note_deletions(conn, dataset_id)
    async with place.pool.connection() as conn:
        others = await exports.next_transaction(conn)
    while True:
        async with place.pool.connection() as conn:
            if await exports.horizon(conn) >= others:
                return
        await asyncio.sleep(_ASK_EVERY_S)


async def make(conn: AsyncConnection[Any], run: Run) -> int | None:
    """The version that a versioned export is of, once."""
    asked = Asked.of(run.export.asked)
    if not asked.is_versioned or asked.horizon is None or asked.cluster is None:
        return None
    return await exports.add_version(conn, run.export.dataset_id, asked.horizon, asked.cluster)
