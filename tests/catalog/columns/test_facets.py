"""What facets and schemas take from columns is what the rows say."""

import json
from collections.abc import Callable

import psycopg
import pytest
from psycopg import AsyncConnection

from headwater.catalog import datasets, facets, finding, folders, schema, searchable
from headwater.catalog.columns.cache import Columns
from headwater.catalog.finding import Asking
from headwater.catalog.query import EVERYTHING, Tree
from headwater.wire import schema as wire
from headwater.wire.query import parse_filter
from tests.catalog.columns.test_finding import _build

PATHS = ["/a/1", "/a/b/2", "/a/b/3", "/a/b/c/4", "/a//5", "/a-b/6", "//7", "///8", "/9", "/.dataloop/10"]


@pytest.fixture(scope="module")
def url(new_database: Callable[[], str]) -> str:
    made = new_database()
    with psycopg.connect(made, autocommit=True) as conn:
        conn.execute(
            "INSERT INTO project (organization_id, name, creator_id) SELECT organization.id, 'p', account.id"
            " FROM organization, account LIMIT 1"
        )
        conn.execute("INSERT INTO dataset (project_id, name, creator_id) SELECT id, 'd', creator_id FROM project")
        conn.execute("INSERT INTO dataset_counter (dataset_id, items) SELECT id, %s FROM dataset", [len(PATHS)])
    return made


async def fill(conn: AsyncConnection, dataset_id: int) -> None:
    async with conn.transaction():
        ids = await folders.ensure_folders(conn, dataset_id, {folders.folder_of(path) for path in PATHS})
        for number, path in enumerate(PATHS):
            user = {"odd": number % 2, "gone": {"x": number}} | ({"rare": 1} if number == 3 else {})
            await conn.execute(
                "INSERT INTO item (dataset_id, folder_id, size_bytes, path, etag, user_metadata)"
                " VALUES (%s, %s, 1, %s, '', %s)",
                [dataset_id, ids[folders.folder_of(path)], path, json.dumps(user)],
            )


async def counted(conn: AsyncConnection, dataset_id: int, tree: Tree, folder: str, asking: Asking) -> facets.Facet:
    async with conn.transaction(), finding.begin(conn, asking):
        await finding.count_found(conn, dataset_id, tree, None, asking=asking)
        return await facets.count_folders(conn, dataset_id, tree, folder, limit=100, asking=asking)


async def test_folders_and_schemas_from_columns_are_those_of_rows(url: str) -> None:
    async with await AsyncConnection.connect(url) as conn:
        await conn.set_autocommit(True)
        (row,) = await (await conn.execute("SELECT id FROM dataset WHERE name = 'd'")).fetchall()
        await fill(conn, row[0])
        await _build(conn, row[0])
        known: dict[str, dict[str, int]] = {}
        for tree in (EVERYTHING, parse_filter({"$and": [{"metadata.user.odd": 1}]})):
            for folder in ("/", "/a", "/a/b", "//", "/.dataloop"):
                asking = Asking(Columns(most_bytes=2**20))
                by_columns = await counted(conn, row[0], tree, folder, asking)
                assert asking.plan == "columns"
                assert by_columns == await counted(conn, row[0], tree, folder, Asking())
                known.setdefault(folder, {one.value: one.items for one in by_columns.values})
        assert known["/"] == {"/a": 5, "//": 2, "/a-b": 1, "/.dataloop": 1}
        assert known["/a"] == {"/a/b": 3, "/a/": 1}

        async with conn.transaction():
            dataset = await datasets.load_dataset(conn, row[0])
            covered, indexed = await schema.covered_paths(conn, row[0])
            told = {
                one["path"]: one
                for one in wire.schema(dataset, await schema.draw_sample(conn, dataset), covered, indexed)["paths"]
            }
        assert indexed == len(PATHS)
        rare = told["metadata.user.rare"]
        assert [rare["items"], rare["share"], rare["isExact"], rare["isIndexed"]] == [1, 0.1, True, True]
        assert told["metadata.user.odd"]["distinctValues"] == 2

        async with conn.transaction():
            await searchable.change_unsearchable(conn, row[0], add=["metadata.user.gone"])
        await conn.execute("UPDATE item SET size_bytes = 2 WHERE dataset_id = %s", [row[0]])
        await conn.execute("UPDATE column_index SET paths_sought_at = NULL")
        await _build(conn, row[0])
        async with conn.transaction():
            covered, _ = await schema.covered_paths(conn, row[0])
        assert "metadata.user.odd" in covered
        assert "metadata.user.gone.x" not in covered
