"""Feature sets that grow get an index, by a command; those that are deleted lose their vectors, piece by piece."""

import asyncio
from typing import Any

from psycopg import AsyncConnection

from headwater import queue
from headwater.catalog import commands, feature_sets, features, similarity
from headwater.catalog.feature_sets import FeatureSet, Metric
from headwater.errors import BadRequest
from headwater.ids import to_wire
from headwater.work.aborting import Aborted, until_aborted
from headwater.work.workplace import Workplace

INDEX_TASK, DROP_TASK = "index_feature_set", "drop_feature_set"
INDEX_QUEUE = "imports"  # of what may take hours
KIND = "IndexFeatureSet"
_PIECE_VECTORS = 5_000
_LOOK_EVERY_S = 1.0


async def request_index(conn: AsyncConnection[Any], into: FeatureSet, metric: Metric, *, caller_id: int | None) -> int:
    """Start a command that makes the set's index anew, for this metric; while one runs, it is that one. Returns its id.

    Raises BadRequest for vectors that are too long, FailedDependency without the extension.
    """
    if not similarity.can_be_indexed(into.size):
        raise BadRequest(
            f"Feature set {into.name!r} has vectors of {into.size:,} numbers, and an index holds at most "
            f"{features.HALVES_TO:,}. Searches in it measure every vector."
        )
    await similarity.ensure_extension(conn)
    _, running_id = await feature_sets.lock_set(conn, into.id) or (None, None)
    if running_id is not None and not (await commands.load_command(conn, running_id)).has_ended:
        return running_id
    command_id = await commands.start_command(
        conn,
        project_id=into.project_id,
        dataset_id=None,
        kind=KIND,
        spec={"featureSetId": to_wire(into.id), "metric": metric},
        creator_id=caller_id,
    )
    await feature_sets.note_indexing(conn, into.id, command_id)
    await queue.defer(
        conn, INDEX_TASK, queue=INDEX_QUEUE, lock=_lock(into.id), command_id=command_id, set_id=into.id, metric=metric
    )
    return command_id


def _lock(set_id: int) -> str:
    return f"feature-set-{set_id}"


async def index_if_grown(conn: AsyncConnection[Any], into: FeatureSet, *, from_vectors: int) -> None:
    """The first index of a set comes by itself, once it is worth it."""
    if (
        into.index_metric is None
        and into.indexing_command_id is None
        and into.entity_type == "item"
        and similarity.can_be_indexed(into.size)
        and await similarity.has_extension(conn)
        and await features.has_at_least(conn, into.id, from_vectors)
        and await feature_sets.lock_set(conn, into.id) == (None, None)
    ):
        await request_index(conn, into, "euclidean", caller_id=None)


async def index_set(place: Workplace, *, command_id: int, set_id: int, metric: Metric) -> None:
    """A job: the index anew. What it had made when it died is thrown away. Safe to repeat."""
    async with place.pool.connection() as conn:
        command = await commands.load_command(conn, command_id)
        into = await feature_sets.load_set(conn, set_id)
        if command.has_ended or into is None:
            await commands.end_command(conn, command_id, "aborted", error="The feature set was deleted.")
            return
        await feature_sets.note_index(conn, set_id, None)
    try:
        await until_aborted(_make(place, into, metric), _watch(place, command_id, set_id))
    except Aborted:
        await _end(place, command_id, set_id, "aborted", "Aborted. Searches in the set measure every vector.")
        return
    async with place.pool.connection() as conn:
        await feature_sets.note_index(conn, set_id, metric)
        await commands.end_command(conn, command_id, "success")


async def _make(place: Workplace, into: FeatureSet, metric: Metric) -> None:
    async with place.pool.connection() as conn:
        await conn.set_autocommit(True)
        try:
            await conn.execute(similarity.BUILD_SETTINGS)
            await similarity.stop_building(conn, into.id)
            await conn.execute(similarity.removal(into.id))
            await conn.execute(similarity.creation(into, metric))
        finally:
            if not conn.closed:
                await conn.execute(similarity.USUAL_SETTINGS)
                await conn.set_autocommit(False)


async def _watch(place: Workplace, command_id: int, set_id: int) -> None:
    """Tell how far it has come, until somebody asks to abort."""
    while True:
        async with place.pool.connection() as conn:
            percent = await similarity.building_percent(conn, set_id)
            if await commands.note_progress(conn, command_id, progress_percent=percent, spec={}):
                return
            if await commands.is_abort_requested(conn, command_id):
                return
        await asyncio.sleep(_LOOK_EVERY_S)


async def _end(place: Workplace, command_id: int, set_id: int, status: str, error: str) -> None:
    async with place.pool.connection() as conn:
        await commands.end_command(conn, command_id, status, error=error)
    await _drop_index(place, set_id)


async def give_up(place: Workplace, command_id: int, set_id: int, error: str) -> None:
    """Searches in the set measure every vector. It is tried again when somebody asks."""
    await _end(place, command_id, set_id, "failed", error)


async def _drop_index(place: Workplace, set_id: int) -> None:
    async with place.pool.connection() as conn:
        await feature_sets.note_index(conn, set_id, None)
    async with place.pool.connection() as conn:
        await conn.set_autocommit(True)
        try:
            await similarity.stop_building(conn, set_id)
            await conn.execute(similarity.removal(set_id))
        finally:
            if not conn.closed:
                await conn.set_autocommit(False)


async def delete_set(conn: AsyncConnection[Any], set_id: int) -> None:
    """Out of sight at once; the rest is a job."""
    await feature_sets.delete_set(conn, set_id)
    await defer_drop(conn, set_id)


async def defer_drop(conn: AsyncConnection[Any], set_id: int) -> None:
    await queue.defer(conn, DROP_TASK, lock=_lock(set_id), set_id=set_id)


async def drop_set(place: Workplace, set_id: int) -> None:
    """A job: vectors, index and row of a deleted set. Safe to repeat."""
    async with place.pool.connection() as conn:
        if await feature_sets.load_set(conn, set_id) is not None:
            return
    await _drop_index(place, set_id)
    deleted = _PIECE_VECTORS
    while deleted:
        async with place.pool.connection() as conn:
            deleted = await features.delete_some(conn, set_id, limit=_PIECE_VECTORS)
    async with place.pool.connection() as conn:
        await feature_sets.forget_set(conn, set_id)
