"""What of vectors works on a PostgreSQL that has no pgvector, or does not let us make it."""

from typing import Any

import psycopg
import pytest
from psycopg import AsyncConnection
from psycopg.conninfo import make_conninfo

from headwater.catalog import datasets, feature_sets, features, organizations, projects, similarity
from headwater.catalog.feature_sets import FeatureSet
from headwater.catalog.features import NewVector
from headwater.catalog.query import EVERYTHING, Page
from headwater.catalog.similarity import Nearest
from headwater.db.migrate import migrate
from headwater.errors import FailedDependency
from headwater.work import feature_sets as work


async def _set_with_a_vector(conn: AsyncConnection[Any]) -> tuple[int, FeatureSet]:
    """(dataset, set of its own vectors)"""
    owner = await organizations.get_owner(conn)
    project = await projects.create_project(conn, owner, "without")
    dataset = await datasets.create_dataset(conn, owner, project_id=project.id, driver_id=None, name="without")
    into = await feature_sets.create_set(
        conn, owner, project.id, name="s", size=2, kind="x", entity_type="dataset", model_id=None
    )
    await features.put_vectors(conn, owner, into, [NewVector(dataset.id, dataset.id, [0.5, 1.5])])
    return dataset.id, into


async def test_without_pgvector_all_but_searches_works(cluster: str) -> None:
    with psycopg.connect(cluster, autocommit=True) as admin:
        admin.execute("CREATE ROLE plain LOGIN")
        admin.execute("CREATE DATABASE plain OWNER plain")
    base, _, options = cluster.partition("?")
    url = f"{base.rpartition('/')[0]}/plain?{options}"
    async with await AsyncConnection.connect(make_conninfo(url, user="plain")) as conn:
        await migrate(conn)
        await organizations.install(
            conn, name="Plain", email="plain@headwater.test", password="a long password", data_point_limit=None
        )
        dataset_id, into = await _set_with_a_vector(conn)
        found, total = await features.find_vectors(conn, EVERYTHING, Page((("id", False),), 0, 10), set_ids=[into.id])
        assert (total, [one.value for one in found]) == (1, [[0.5, 1.5]])
        with pytest.raises(FailedDependency, match=r"pgvector 0\.8.*CREATE EXTENSION vector.*permission denied"):
            await similarity.nearest(conn, dataset_id, into, Nearest([1, 2]), limit=1)
        with pytest.raises(FailedDependency, match="pgvector"):
            await work.request_index(conn, into, "cosine", caller_id=None)
        await work.index_if_grown(conn, into, from_vectors=1)  # it comes by itself, or not at all
        assert await feature_sets.lock_set(conn, into.id) == (None, None)
        await conn.commit()
    # Once somebody has made it, searches work, without another start.
    with psycopg.connect(url, autocommit=True) as admin:
        admin.execute("CREATE EXTENSION vector")
    async with await AsyncConnection.connect(make_conninfo(url, user="plain")) as conn:
        assert await similarity.has_extension(conn)
        await similarity.ensure_extension(conn)


async def test_it_is_made_where_that_is_allowed(database_url: str) -> None:
    async with await AsyncConnection.connect(database_url) as conn:
        assert await similarity.has_extension(conn)
        await conn.execute("DROP EXTENSION vector")
        assert not await similarity.has_extension(conn)
        await similarity.ensure_extension(conn)
        assert await similarity.has_extension(conn)
