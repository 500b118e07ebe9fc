"""100,000 vectors of 256 numbers: how fast they come in, and how fast and how right the nearest of them are found.

The vectors lie around 500 centres in 24 of many directions, as those that models make do; of vectors without any order
no index finds the nearest. The floor of coming in is a COPY of the same numbers, 1,000 a commit, into a table with the
same indexes, but for checks, rights and replacing. The floor of searches is measuring every vector, by the same
statement that a set without an index uses; recall is how many of the ten nearest by that are found by the index.
"""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import psycopg
import uvloop
from numpy.typing import NDArray

from bench.ground import Ground, installed, say, temporary_folder
from bench.report import Figure
from headwater.catalog import accounts, commands, feature_sets, features, organizations, projects, similarity
from headwater.catalog import datasets as catalog_datasets
from headwater.catalog.accounts import Account
from headwater.catalog.feature_sets import FeatureSet
from headwater.catalog.features import NewVector
from headwater.catalog.query import EVERYTHING, Condition, Tree
from headwater.catalog.similarity import Nearest
from headwater.work import feature_sets as work
from headwater.work.workplace import Workplace
from headwater.workplace import open_workplace

VECTORS, SIZE = 100_000, 256
_BATCH = 1_000
_CENTRES, _DIRECTIONS = 500, 24
_SEARCHES, _NEAREST = 50, 10
_LEAST_RECALL = 0.95


@dataclass(frozen=True, slots=True)
class _Stage:
    place: Workplace
    owner: Account
    dataset_id: int
    into: FeatureSet
    vectors: NDArray[np.float32]


def measure() -> Iterator[Figure]:
    with temporary_folder() as folder, installed(folder) as ground:
        yield from uvloop.run(_measure(ground))


async def _measure(ground: Ground) -> list[Figure]:
    async with open_workplace(ground.settings, ground.database_url, name="bench", max_connections=4) as place:
        stage = await _set_up(place)
        coming_in = await _time_coming_in(ground, stage)
        say(f"features: {VECTORS:,} vectors came in at {coming_in.value:,.0f}/s; by COPY {coming_in.floor:,.0f}/s")
        sought = _around_centres(_SEARCHES, seed=2)
        exact = {name: await _search(stage, sought, tree) for name, tree in _TREES.items()}
        built_s = await _index(stage)
        say(f"features: the index took {built_s:.1f} s")
        by_index = {name: await _search(stage, sought, tree) for name, tree in _TREES.items()}
    figures = [coming_in]
    for name, found in by_index.items():
        measured = exact[name]
        recall = float(np.mean([len(set(a) & set(b)) / _NEAREST for a, b in zip(found.ids, measured.ids, strict=True)]))
        say(f"features: {name}: {found.p95_ms:.1f} ms, measured {measured.p95_ms:.1f} ms, recall {recall:.3f}")
        figures.append(
            Figure(
                f"features.{name}",
                value=found.p95_ms,
                floor=measured.p95_ms,
                unit="ms (p95)",
                target=_TARGETS[name],
                is_limit=True,
                must_hold=recall >= _LEAST_RECALL,
                details={"recall": recall, "median_ms": found.median_ms, "exact_median_ms": measured.median_ms}
                | {"by_index": found.by_index, "index_took_s": built_s},
            )
        )
    return figures


# Filters that leave all items, every tenth, and every hundredth; and how long a search may take beside measuring.
_TREES: dict[str, Tree] = {
    "nearest": EVERYTHING,
    "nearest_of_a_tenth": Condition("metadata.user.tenth", "eq", 3),
    "nearest_of_a_hundredth": Condition("metadata.user.hundredth", "eq", 42),
}
_TARGETS = {"nearest": 0.25, "nearest_of_a_tenth": 1.0, "nearest_of_a_hundredth": 2.0}


def _around_centres(number: int, *, seed: int) -> NDArray[np.float32]:
    """The same centres for any seed."""
    fixed = np.random.default_rng(1)
    centres = fixed.normal(size=(_CENTRES, SIZE)).astype(np.float32)
    directions = fixed.normal(size=(_DIRECTIONS, SIZE)).astype(np.float32)
    chance = np.random.default_rng(seed)
    own = chance.normal(size=(number, _DIRECTIONS)).astype(np.float32) @ directions
    found = centres[chance.integers(_CENTRES, size=number)] + 0.3 * own
    return (found / np.linalg.norm(found, axis=1, keepdims=True)).astype(np.float32)


async def _set_up(place: Workplace) -> _Stage:
    async with place.pool.connection() as conn:
        owner = await organizations.get_owner(conn)
        assert await accounts.find_account(conn, owner.email)
        project = await projects.create_project(conn, owner, "features")
        dataset = await catalog_datasets.create_dataset(
            conn, owner, project_id=project.id, driver_id=None, name="features"
        )
        await conn.execute("INSERT INTO folder (dataset_id, path) VALUES (%s, '/')", [dataset.id])
        await conn.execute(
            """
            INSERT INTO item (dataset_id, folder_id, size_bytes, path, etag, user_metadata)
            SELECT %(id)s, (SELECT id FROM folder WHERE dataset_id = %(id)s), 1, '/' || number || '.jpg', 'x',
                jsonb_build_object('tenth', number %% 10, 'hundredth', number %% 100)
            FROM generate_series(1, %(items)s) AS number
            """,
            {"id": dataset.id, "items": VECTORS},
        )
        into = await feature_sets.create_set(
            conn, owner, project.id, name="bench", size=SIZE, kind="made", entity_type="item", model_id=None
        )
        await conn.execute("ANALYZE item")  # as autovacuum would before long
    return _Stage(place, owner, dataset.id, into, _around_centres(VECTORS, seed=3))


async def _time_coming_in(ground: Ground, stage: _Stage) -> Figure:
    async with stage.place.pool.connection() as conn:
        cursor = await conn.execute("SELECT id FROM item WHERE dataset_id = %s ORDER BY id", [stage.dataset_id])
        item_ids = [item_id for (item_id,) in await cursor.fetchall()]
    batches: list[list[NewVector]] = []
    for start in range(0, VECTORS, _BATCH):
        rows = stage.vectors[start : start + _BATCH].tolist()  # as they come out of JSON
        ids = item_ids[start : start + _BATCH]
        batches.append([NewVector(stage.dataset_id, one, row) for one, row in zip(ids, rows, strict=True)])
    floor_s = _time_floor(ground, item_ids, stage.vectors)
    began = time.perf_counter()
    for batch in batches:
        async with stage.place.pool.connection() as conn:
            await features.put_vectors(conn, stage.owner, stage.into, batch)
    took_s = time.perf_counter() - began
    async with stage.place.pool.connection() as conn:
        await conn.execute("ANALYZE feature_vector")
    return Figure("features.vectors", VECTORS / took_s, VECTORS / floor_s, "vectors/s", 0.5, details={"took_s": took_s})


def _time_floor(ground: Ground, item_ids: Sequence[int], vectors: NDArray[np.float32]) -> float:
    """Seconds of COPY, without the time it takes to write the numbers down."""
    lines = [
        f"1\t{item_id}\t1\t{item_id}\titem\t1\t{{{','.join(map(str, row))}}}\n"
        for item_id, row in zip(item_ids, vectors, strict=True)
    ]
    with psycopg.connect(ground.database_url) as conn:
        conn.execute("CREATE TABLE floor (LIKE feature_vector INCLUDING ALL)")
        conn.commit()
        began = time.perf_counter()
        for start in range(0, VECTORS, _BATCH):
            columns = "dataset_id, id, feature_set_id, entity_id, entity_type, creator_id, value"
            with conn.cursor().copy(f"COPY floor ({columns}) FROM STDIN") as copy:
                copy.write("".join(lines[start : start + _BATCH]))
            conn.commit()
        took_s = time.perf_counter() - began
        conn.execute("DROP TABLE floor")
    return took_s


@dataclass(frozen=True, slots=True)
class _Searched:
    ids: list[list[int]]
    took_ms: list[float]
    by_index: int

    @property
    def p95_ms(self) -> float:
        return float(np.percentile(self.took_ms, 95))

    @property
    def median_ms(self) -> float:
        return float(np.median(self.took_ms))


async def _search(stage: _Stage, sought: NDArray[np.float32], tree: Tree) -> _Searched:
    ids: list[list[int]] = []
    took_ms: list[float] = []
    by_index = 0
    async with stage.place.pool.connection() as conn:
        into = await feature_sets.get_set(conn, stage.owner, stage.into.id)
        for number in (0, *range(_SEARCHES)):  # the first warms up
            near = Nearest(sought[number].tolist(), tree=tree)
            began = time.perf_counter()
            found = await similarity.nearest(conn, stage.dataset_id, into, near, limit=_NEAREST)
            took_ms.append((time.perf_counter() - began) * 1_000)
            ids.append([item_id for item_id, _ in found.found])
            by_index += not found.is_exact
    return _Searched(ids[1:], took_ms[1:], by_index)


async def _index(stage: _Stage) -> float:
    """Seconds."""
    async with stage.place.pool.connection() as conn:
        command_id = await work.request_index(conn, stage.into, "euclidean", caller_id=stage.owner.id)
    began = time.perf_counter()
    arguments: dict[str, Any] = {"command_id": command_id, "set_id": stage.into.id, "metric": "euclidean"}
    await work.index_set(stage.place, **arguments)
    took_s = time.perf_counter() - began
    async with stage.place.pool.connection() as conn:
        assert (await commands.load_command(conn, command_id)).status == "success"
    return took_s
