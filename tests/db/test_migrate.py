"""Migrations: repeatable, side by side, all or nothing."""

import asyncio
import secrets

import psycopg
import pytest
from psycopg import AsyncConnection, sql

from headwater.db import migrate as module
from headwater.db.migrate import migrate


@pytest.fixture
def empty_url(cluster):
    """A database that nobody has migrated."""
    name = f"empty_{secrets.token_hex(6)}"
    with psycopg.connect(cluster, autocommit=True) as conn:
        conn.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        yield cluster.replace("/headwater?", f"/{name}?")
        conn.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


async def schema(url: str) -> set[tuple]:
    async with await AsyncConnection.connect(url) as conn:
        cursor = await conn.execute(
            """
            SELECT table_name, column_name, data_type, is_nullable, column_default
            FROM information_schema.columns
            WHERE table_schema = 'public'
            UNION ALL
            SELECT tablename, indexname, indexdef, '', '' FROM pg_indexes WHERE schemaname = 'public'
            """
        )
        return set(await cursor.fetchall())


async def run(url: str) -> list[str]:
    async with await AsyncConnection.connect(url) as conn:
        return await migrate(conn)


async def test_a_new_database_gets_everything_and_the_second_time_nothing(empty_url):
    applied = await run(empty_url)
    assert "0001_foundation.sql" in applied
    assert "procrastinate" in applied
    before = await schema(empty_url)
    assert {"item", "scan", "procrastinate_jobs"} <= {table for table, *_ in before}
    async with await AsyncConnection.connect(empty_url) as conn:
        await conn.execute("INSERT INTO organization (name) VALUES ('kept')")
    assert await run(empty_url) == []
    assert await schema(empty_url) == before
    async with await AsyncConnection.connect(empty_url) as conn:
        assert await (await conn.execute("SELECT name FROM organization")).fetchall() == [("kept",)]


async def test_servers_that_start_at_once_take_turns(empty_url):
    applied = await asyncio.gather(*(run(empty_url) for _ in range(4)))
    assert sorted(map(bool, applied)) == [False, False, False, True]


async def test_a_migration_that_fails_leaves_nothing(empty_url, monkeypatch):
    scripts = module._scripts
    monkeypatch.setattr(
        module, "_scripts", lambda **given: [*scripts(**given), ("9999_bad.sql", "SELECT no_such_column")]
    )
    with pytest.raises(psycopg.errors.UndefinedColumn):
        await run(empty_url)
    assert await schema(empty_url) == set()
    monkeypatch.undo()
    assert await run(empty_url)


async def test_a_script_that_is_new_is_applied_alone(empty_url, monkeypatch):
    await run(empty_url)
    scripts = module._scripts
    monkeypatch.setattr(
        module, "_scripts", lambda **given: [*scripts(**given), ("9999_new.sql", "CREATE TABLE newer (id bigint)")]
    )
    assert await run(empty_url) == ["9999_new.sql"]
    assert await run(empty_url) == []


async def test_the_built_in_trigger_is_there_once(empty_url):
    await run(empty_url)
    await run(empty_url)
    async with await AsyncConnection.connect(empty_url) as conn:
        cursor = await conn.execute(
            "SELECT task, actions FROM trigger JOIN service ON service.id = trigger.service_id ORDER BY trigger.id"
        )
        assert await cursor.fetchall() == [("preprocess_items", ["Created", "Updated"])]


async def test_projects_from_before_get_their_binaries_and_no_dataset_of_people_is_lost(empty_url, monkeypatch):
    scripts = module._scripts
    monkeypatch.setattr(
        module,
        "_scripts",
        lambda **given: [script for script in scripts(**given) if not script[0].startswith("0029_")],
    )
    await run(empty_url)
    async with await AsyncConnection.connect(empty_url) as conn:
        await conn.execute(
            """
            INSERT INTO account (email) VALUES ('ann@x.org');
            INSERT INTO organization (name) VALUES ('x');
            INSERT INTO project (organization_id, name, creator_id, deleted_at)
            VALUES (1, 'without', 1, NULL), (1, 'of a client', 1, NULL), (1, 'cloned', 1, NULL), (1, 'gone', 1, now());
            INSERT INTO dataset (project_id, name, creator_id, origin)
            VALUES (2, 'Binaries', 1, NULL), (3, 'Binaries', 1, '{"kind": "clone", "datasets": [1]}');
            INSERT INTO dataset_counter (dataset_id) SELECT id FROM dataset
            """
        )
    monkeypatch.undo()
    await run(empty_url)
    async with await AsyncConnection.connect(empty_url) as conn:
        cursor = await conn.execute(
            "SELECT project_id, id, name, is_system, items FROM dataset JOIN dataset_counter ON dataset_id = id "
            "ORDER BY id"
        )
        assert await cursor.fetchall() == [
            (2, 1, "Binaries", True, 0),
            (3, 2, "Binaries (2)", False, 0),
            (1, 3, "Binaries", True, 0),
            (3, 4, "Binaries", True, 0),
        ]


async def test_datasets_from_before_get_a_recipe_each(empty_url, monkeypatch):
    scripts = module._scripts
    monkeypatch.setattr(
        module, "_scripts", lambda **given: [script for script in scripts(**given) if script[0] < "0026_"]
    )
    await run(empty_url)
    async with await AsyncConnection.connect(empty_url) as conn:
        await conn.execute(
            """
            INSERT INTO account (email) VALUES ('ann@x.org');
            INSERT INTO organization (name) VALUES ('x');
            INSERT INTO project (organization_id, name, creator_id) VALUES (1, 'p', 1);
            INSERT INTO dataset (project_id, name, creator_id, metadata, deleted_at)
            VALUES (1, 'a', 1, '{"system": {"recipes": ["x"], "kept": 1}}', NULL), (1, 'b', 1, '{}', NULL),
                (1, 'gone', 1, '{}', now());
            """
        )
    monkeypatch.undo()
    await run(empty_url)
    async with await AsyncConnection.connect(empty_url) as conn:
        cursor = await conn.execute(
            """
            SELECT
                dataset.name, dataset.metadata, recipe.title, recipe.project_ids, ontology.title,
                ontology.project_ids
            FROM dataset
            LEFT JOIN recipe ON ARRAY[recipe.id] = dataset.recipe_ids
            LEFT JOIN ontology ON ARRAY[ontology.id] = recipe.ontology_ids
            WHERE NOT is_system
            ORDER BY dataset.id
            """
        )
        assert await cursor.fetchall() == [
            ("a", {"system": {"kept": 1}}, "a Default Recipe", [1], "a Default Ontology", [1]),
            ("b", {}, "b Default Recipe", [1], "b Default Ontology", [1]),
            ("gone", {}, None, None, None, None),
        ]
