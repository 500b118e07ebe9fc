"""Similarity: items in the order of how near their vectors are to one that is given, within any filter.

Exact, unless the set has an HNSW index for the metric asked for: then the index gives candidates, more than are wanted,
and these are measured exactly. Where a filter leaves so few items that the index does not come upon them soon, all that
it leaves are measured; and so is all that the index cannot promise: far pages, distances as conditions, the farthest
first.

The index is pgvector's, partial for its set. Between 2,001 and 4,000 numbers it keeps them with half the precision;
above that there is none.
"""

import math
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, LiteralString

import numpy as np
from psycopg import AsyncConnection
from psycopg.errors import DatabaseError, QueryCanceled
from psycopg.sql import SQL, Composable, Composed, Identifier, Literal

from headwater.catalog import query
from headwater.catalog.feature_sets import FeatureSet, Metric
from headwater.catalog.features import HALVES_FROM, HALVES_TO
from headwater.errors import BadRequest, FailedDependency, QueryTooSlow

LARGEST_LIMIT = 1_000
_LEAST_VERSION = (0, 8)  # the first that goes on where a filter leaves too few
_FARTHEST = 1_000_000  # rows that a page may lie behind
_MOST_BY_INDEX = 1_000  # rows, those before the page included; more are measured one by one
_CANDIDATES, _MORE_THAN_WANTED = 20, 2
_LEAST_EF_SEARCH, _MOST_EF_SEARCH = 150, 1_000  # how many the index keeps in view; pgvector allows no more
# So much of the index is looked at while a filter leaves too few of what is near: then it leaves few at all, and to
# measure these costs less than to go on.
_SCANNED_PART, _LEAST_SCANNED = 0.01, 500

_OPERATORS: dict[Metric, LiteralString] = {"euclidean": "<->", "cosine": "<=>", "inner_product": "<#>"}
_CLASSES: dict[Metric, LiteralString] = {
    "euclidean": "{}_l2_ops",
    "cosine": "{}_cosine_ops",
    "inner_product": "{}_ip_ops",
}
_COMPARISONS: dict[str, LiteralString] = {"eq": "=", "gt": ">", "gte": ">=", "lt": "<", "lte": "<="}
METRICS: tuple[Metric, ...] = ("euclidean", "cosine", "inner_product")


@dataclass(frozen=True, slots=True)
class Nearest:
    """What is asked for."""

    vector: Sequence[float]
    metric: Metric = "euclidean"
    tree: query.Tree = query.EVERYTHING  # over items
    without_id: int | None = None  # an item that is left out
    distances: Mapping[str, float] = field(default_factory=dict[str, float])  # gt, gte, lt, lte, eq -> bound
    is_descending: bool = False


@dataclass(frozen=True, slots=True)
class Neighbours:
    found: list[tuple[int, float]]  # item, distance; the nearest first
    is_exact: bool


async def has_extension(conn: AsyncConnection[Any]) -> bool:
    """Whether searches work here; makes nothing."""
    version = await _extension_version(conn)
    return version is not None and version >= _LEAST_VERSION


async def ensure_extension(conn: AsyncConnection[Any]) -> None:
    """Raises FailedDependency with what to install."""
    version = await _extension_version(conn)
    refusal = ""
    if version is None:
        try:
            async with conn.transaction():
                await conn.execute("CREATE EXTENSION IF NOT EXISTS vector")
        except DatabaseError as error:
            refusal = f" PostgreSQL says: {error.diag.message_primary or type(error).__name__}"
        version = await _extension_version(conn)
    if version is None or version < _LEAST_VERSION:
        there = "" if version is None else f" Here is {'.'.join(map(str, version))}; ALTER EXTENSION vector UPDATE."
        raise FailedDependency(
            "Searching by similarity needs the extension vector (pgvector 0.8 or newer) in PostgreSQL: install it "
            "on its machine (package postgresql-NN-pgvector), then run CREATE EXTENSION vector in Headwater's database "
            f"as a superuser.{there}{refusal}"
        )


async def _extension_version(conn: AsyncConnection[Any]) -> tuple[int, ...] | None:
    cursor = await conn.execute("SELECT extversion FROM pg_extension WHERE extname = 'vector'")
    row = await cursor.fetchone()
    return None if row is None else tuple(int(part) for part in row[0].split(".")[:2])


@asynccontextmanager
async def within(conn: AsyncConnection[Any], timeout_s: float) -> AsyncGenerator[None]:
    """What is asked in this transaction has so long for each statement. Raises QueryTooSlow."""
    await conn.execute(SQL("SET LOCAL statement_timeout = {}").format(Literal(max(1, int(timeout_s * 1_000)))))
    try:
        yield
    except QueryCanceled:
        raise QueryTooSlow(
            f"The search took more than {timeout_s:g} s and was stopped. A filter that leaves fewer items is quicker, "
            "and so is an index of the feature set: POST /features/sets/{id}/index."
        ) from None


async def nearest(
    conn: AsyncConnection[Any], dataset_id: int, into: FeatureSet, asked: Nearest, *, limit: int, offset: int = 0
) -> Neighbours:
    """Items of the dataset that meet the filter and have a vector in the set. Raises BadRequest, FailedDependency.

    Of two that are equally near the older comes first. What has no direction has no cosine distance, and is left out.
    """
    await ensure_extension(conn)
    _check(into, asked, limit, offset)
    if (
        into.index_metric == asked.metric
        and not asked.distances
        and not asked.is_descending
        and 0 < offset + limit <= _MOST_BY_INDEX
    ):
        found = await _by_index(conn, dataset_id, into, asked, offset + limit)
        if found is not None:
            return Neighbours(found[offset:], is_exact=False)
    return Neighbours(await _measured(conn, dataset_id, into, asked, limit, offset), is_exact=True)


async def count(conn: AsyncConnection[Any], dataset_id: int, into: FeatureSet, asked: Nearest) -> int:
    """How many items there are in such an order: those with a vector that meet the filter."""
    await ensure_extension(conn)
    where, parameters = _where(dataset_id, into, asked)
    cursor = await conn.execute(SQL("SELECT count(*)") + _FROM + where, parameters, prepare=False)
    row = await cursor.fetchone()
    assert row is not None
    return row[0]


def _check(into: FeatureSet, asked: Nearest, limit: int, offset: int) -> None:
    if into.entity_type != "item":
        raise BadRequest(f"Feature set {into.name!r} has vectors of {into.entity_type}s, and items are to be ordered.")
    if not 0 <= limit <= LARGEST_LIMIT or offset > _FARTHEST:
        raise BadRequest(f"limit: at most {LARGEST_LIMIT:,} at once, and {_FARTHEST:,} from the first.")
    if asked.metric == "cosine" and not any(_kept(asked.vector)):
        raise BadRequest("vector: all its numbers are 0, and what has no direction has no cosine distance.")


_FROM = SQL(
    """
    FROM feature_vector
    JOIN item ON item.dataset_id = feature_vector.dataset_id AND item.id = feature_vector.entity_id
    WHERE
    """
)


def _where(dataset_id: int, into: FeatureSet, asked: Nearest) -> tuple[Composed, dict[str, object]]:
    where, parameters = query.compile_filter(asked.tree, dataset_id=dataset_id)
    parts: list[Composable] = [
        # Written out: only then it fits the index of the set.
        SQL("feature_vector.feature_set_id = {}").format(Literal(into.id)),
        SQL("feature_vector.dataset_id = %(dataset_id)s").format(),
        where,
    ]
    parameters |= {"dataset_id": dataset_id, "sought": _kept(asked.vector), "without_id": asked.without_id}
    if asked.without_id is not None:
        parts.append(SQL("item.id <> %(without_id)s").format())
    for number, (operator, bound) in enumerate(asked.distances.items()):
        name = f"bound_{number}"
        parameters[name] = bound
        comparison = SQL("{} " + _COMPARISONS[operator] + " %(" + name + ")s")  # pyright: ignore[reportArgumentType]
        parts.append(comparison.format(_distance(asked.metric)))
    return SQL(" AND ").join(parts), parameters


def _kept(vector: Sequence[float]) -> list[float]:
    """As a set would keep it: what is too small for 32 bits is 0."""
    return np.asarray(vector, dtype=np.float32).tolist()


def _distance(metric: Metric) -> Composed:
    return SQL("(feature_vector.value::vector " + _OPERATORS[metric] + " %(sought)s::real[]::vector)").format()


async def _measured(
    conn: AsyncConnection[Any], dataset_id: int, into: FeatureSet, asked: Nearest, limit: int, offset: int
) -> list[tuple[int, float]]:
    where, parameters = _where(dataset_id, into, asked)
    order = SQL(" ORDER BY distance DESC, item.id" if asked.is_descending else " ORDER BY distance, item.id")
    cursor = await conn.execute(
        SQL("SELECT item.id, {} AS distance").format(_distance(asked.metric))
        + _FROM
        + where
        + order
        + SQL(" LIMIT %(limit)s OFFSET %(offset)s"),
        parameters | {"limit": limit, "offset": offset},
        prepare=False,
    )
    return _comparable(await cursor.fetchall())


def _comparable(found: list[tuple[int, float]]) -> list[tuple[int, float]]:
    """Without those of no direction, which come last."""
    return [(item_id, distance) for item_id, distance in found if not math.isnan(distance)]


async def _by_index(
    conn: AsyncConnection[Any], dataset_id: int, into: FeatureSet, asked: Nearest, wanted: int
) -> list[tuple[int, float]] | None:
    """None where the index gave up before it had found all candidates: nearer ones may be among the others."""
    where, parameters = _where(dataset_id, into, asked)
    near = SQL("{} " + _OPERATORS[asked.metric] + " {}").format(
        _indexed(into.size, SQL("feature_vector.value")), _indexed(into.size, SQL("%(sought)s::real[]"))
    )
    candidates = _CANDIDATES + wanted * _MORE_THAN_WANTED
    async with conn.transaction(force_rollback=True):  # it reads only; the settings end with it
        await conn.execute(_by_index_only(candidates, await _most_scanned(conn, into.id, candidates)))
        cursor = await conn.execute(
            SQL("WITH candidate AS MATERIALIZED (SELECT item.id, {} AS distance").format(_distance(asked.metric))
            + _FROM
            + where
            + SQL(" ORDER BY ")
            + near
            + SQL(" LIMIT %(candidates)s) SELECT id, distance FROM candidate ORDER BY distance, id"),
            parameters | {"candidates": candidates},
            prepare=False,
        )
        found = _comparable(await cursor.fetchall())
    return found[:wanted] if len(found) == candidates else None


async def _most_scanned(conn: AsyncConnection[Any], set_id: int, candidates: int) -> int:
    cursor = await conn.execute("SELECT reltuples FROM pg_class WHERE oid = to_regclass(%s)", [index_name(set_id)])
    row = await cursor.fetchone()
    return max(_LEAST_SCANNED, 2 * candidates, int(_SCANNED_PART * row[0]) if row else 0)


def _by_index_only(candidates: int, most_scanned: int) -> Composed:
    """Walk the index, and look at each row's item by its id; go on where the filter leaves too few."""
    return SQL(
        """
        SET LOCAL enable_sort = off;
        SET LOCAL enable_seqscan = off;
        SET LOCAL enable_hashjoin = off;
        SET LOCAL enable_mergejoin = off;
        SET LOCAL enable_bitmapscan = off;
        SET LOCAL hnsw.iterative_scan = relaxed_order;
        SET LOCAL hnsw.max_scan_tuples = {};
        SET LOCAL hnsw.ef_search = {};
        """
    ).format(Literal(most_scanned), Literal(min(max(candidates, _LEAST_EF_SEARCH), _MOST_EF_SEARCH)))


# The index of a set.


def can_be_indexed(size: int) -> bool:
    return size <= HALVES_TO


def _indexed(size: int, value: Composable) -> Composed:
    """What an index over vectors of this size keeps, of any value: the same words wherever it is to be used."""
    kind = "halfvec" if size >= HALVES_FROM else "vector"
    return SQL("({}::{}({}))").format(value, Identifier(kind), Literal(size))


def index_name(set_id: int) -> str:
    return f"feature_vector_hnsw_{set_id}"


def creation(into: FeatureSet, metric: Metric) -> Composed:
    """CREATE INDEX … CONCURRENTLY, which stands alone: not in a transaction. It may take minutes, and stops nobody."""
    kind = "halfvec" if into.size >= HALVES_FROM else "vector"
    return SQL("CREATE INDEX CONCURRENTLY {} ON feature_vector USING hnsw ({} {}) WHERE feature_set_id = {}").format(
        Identifier(index_name(into.id)),
        _indexed(into.size, SQL("value")),
        Identifier(_CLASSES[metric].format(kind)),
        Literal(into.id),
    )


def removal(set_id: int) -> Composed:
    """DROP INDEX … CONCURRENTLY, which stands alone as well."""
    return SQL("DROP INDEX CONCURRENTLY IF EXISTS {}").format(Identifier(index_name(set_id)))


async def stop_building(conn: AsyncConnection[Any], set_id: int) -> None:
    """End what the database still does for a worker that died while it made, or removed, the index of a set."""
    await conn.execute(
        """
        SELECT pg_terminate_backend(pid, 10000)
        FROM pg_stat_activity
        WHERE datname = current_database() AND pid <> pg_backend_pid() AND state = 'active'
            AND (starts_with(query, 'CREATE INDEX CONCURRENTLY ' || %(name)s || ' ')
                OR query = 'DROP INDEX CONCURRENTLY IF EXISTS ' || %(name)s)
        """,
        {"name": f'"{index_name(set_id)}"'},
    )


# For who makes one: without parallel workers, whose shared memory containers seldom have.
BUILD_SETTINGS = SQL("SET maintenance_work_mem = '256MB'; SET max_parallel_maintenance_workers = 0")
USUAL_SETTINGS = SQL("RESET maintenance_work_mem; RESET max_parallel_maintenance_workers")


async def building_percent(conn: AsyncConnection[Any], set_id: int) -> float:
    """How far the building of a set's index has come: 0 before it begins."""
    cursor = await conn.execute(
        """
        SELECT coalesce(
            100.0 * CASE WHEN tuples_total > 0 THEN tuples_done::real / tuples_total
                ELSE blocks_done::real / nullif(blocks_total, 0) END,
            0
        )::real
        FROM pg_stat_progress_create_index
        WHERE datname = current_database() AND index_relid = to_regclass(%s)
        """,
        [index_name(set_id)],
    )
    row = await cursor.fetchone()
    return 0.0 if row is None else min(99.0, row[0])
