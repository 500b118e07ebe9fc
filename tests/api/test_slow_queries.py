"""Slow queries are noted by their shape, with the index that would help; hopeless ones are stopped."""

import shlex
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest

from headwater.app import create_app
from headwater.catalog import organizations, slow_queries
from headwater.settings import Settings
from tests.api.world import message
from tests.work.world import make_dataset

SECRET = "a value that nobody logs"


@asynccontextmanager
async def asking(settings: Settings, url: str) -> AsyncIterator[tuple[Any, httpx.AsyncClient, int]]:
    """An application, somebody who asks it, and a dataset of 3,000 items."""
    app = create_app(settings, url)
    async with app.router.lifespan_context(app):
        async with app.state.server.place.pool.connection() as conn:
            owner = await organizations.get_owner(conn)
            dataset = await make_dataset(conn)
            await conn.execute(
                """
                INSERT INTO item (dataset_id, folder_id, size_bytes, path, etag, user_metadata)
                SELECT %s, 1, 1, '/' || n, '', jsonb_build_object('n', n, 'text', repeat('ab', 1000))
                FROM generate_series(1, 3000) AS n
                """,
                [dataset.id],
            )
        token = app.state.server.signer.sign(account_id=owner.id, email=owner.email)
        async with httpx.AsyncClient(
            transport=httpx.ASGITransport(app=app),
            base_url="http://headwater.test/api/v1",
            headers={"authorization": f"Bearer {token}"},
        ) as client:
            yield app, client, dataset.id


async def test_a_slow_query_is_noted_without_its_values(
    database_url: str, settings_for: Callable[..., Settings], caplog: pytest.LogCaptureFixture
) -> None:
    async with asking(settings_for(slow_query_s=0), database_url) as (app, client, dataset_id):
        body = {
            "filter": {"$and": [{"hidden": False}, {"metadata.user.text": SECRET}, {"metadata.user.n": {"$gt": 7}}]},
            "sort": {"metadata.user.n": "descending"},
        }
        for _ in range(2):
            answer = await client.post(f"/datasets/{dataset_id:024x}/query", json=body)
            assert answer.json()["totalItemsCount"] == 0
        async with app.state.server.place.pool.connection() as conn:
            (noted,) = await slow_queries.slow_queries(conn, dataset_id)
        indexes = f"/datasets/{dataset_id:024x}/indexes"
        helpful = (await client.get(indexes)).json()["suggestions"]
        assert {(one["path"], one["queries"], one["command"]) for one in helpful} == {
            (path, 2, f"headwater index add {dataset_id:024x} {path}")
            for path in ("metadata.user.n", "metadata.user.text")
        }
        added = (await client.post(indexes, json={"path": "metadata.user.n"})).json()
        assert [one["path"] for one in added["suggestions"]] == ["metadata.user.text"]
        assert noted.shape == "and(hidden eq, metadata.user.n gt, metadata.user.text eq) by metadata.user.n descending"
        assert noted.times == 2
        assert app.state.server.queries.slow == 2
    told = [record.getMessage() for record in caplog.records if "slow query" in record.getMessage()]
    assert len(told) == 2
    assert all(f"headwater index add {dataset_id:024x} metadata.user." in line for line in told)
    assert SECRET not in caplog.text


async def test_names_of_fields_write_no_lines_of_a_log_and_no_commands(
    database_url: str, settings_for: Callable[..., Settings], caplog: pytest.LogCaptureFixture
) -> None:
    async with asking(settings_for(slow_query_s=0), database_url) as (_, client, dataset_id):
        for name in ("a\nWARNING: all is lost", "b\r\x1b[2J", "c; rm -rf $HOME", "d'`id`", "e\u202e"):
            answer = await client.post(
                f"/datasets/{dataset_id:024x}/query", json={"filter": {f"metadata.user.{name}": 1}}
            )
            assert answer.json()["totalItemsCount"] == 0
    told = [record.getMessage() for record in caplog.records if "slow query" in record.getMessage()]
    assert len(told) == 5
    assert all(line.isprintable() for line in told)
    commands = [shlex.split(line.partition("; headwater ")[2]) for line in told]
    index = ["index", "add", f"{dataset_id:024x}"]
    assert commands == [
        [],
        [],
        [*index, "metadata.user.c; rm -rf $HOME"],
        [*index, "metadata.user.d'`id`"],
        [],
    ]


async def test_a_query_without_end_is_stopped_and_leaves_nothing_behind(
    database_url: str, settings_for: Callable[..., Settings]
) -> None:
    async with asking(settings_for(query_timeout_s=0.2), database_url) as (app, client, dataset_id):
        slow = {"metadata.user.text": {"$in": ["*" + f"a*b*{n}c" + "*" for n in range(300)]}}
        for path, body in (
            ("query", {"filter": slow, "sort": {"metadata.user.n": "ascending"}}),
            ("query", {"filter": slow, "pageSize": 0}),
            ("facets", {"filter": slow, "fields": ["metadata.user.n"]}),
        ):
            said = message(await client.post(f"/datasets/{dataset_id:024x}/{path}", json=body), 408)
            assert "stopped" in said
            assert f"headwater index add {dataset_id:024x} metadata.user.text" in said
        assert app.state.server.queries.stopped == 3
        async with app.state.server.place.pool.connection() as conn:
            cursor = await conn.execute(
                "SELECT query FROM pg_stat_activity WHERE datname = current_database() AND state = 'active'"
                " AND pid <> pg_backend_pid() AND query LIKE '%%user_metadata%%'"
            )
            assert await cursor.fetchall() == []
            assert await (await conn.execute("SHOW statement_timeout")).fetchone() == ("0",)
        answer = await client.post(f"/datasets/{dataset_id:024x}/query", json={"pageSize": 1})
        assert answer.json()["totalItemsCount"] == 3000


async def test_the_log_keeps_the_latest_shapes(conn: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slow_queries, "_MOST_SHAPES", 3)
    dataset = await make_dataset(conn)
    for n in range(5):
        await slow_queries.record(conn, dataset.id, shape=f"shape {n}", plan="rows", uncovered=[], seconds=1, rows=None)
        await conn.execute(
            "UPDATE slow_query SET last_at = last_at - interval '1 h' WHERE dataset_id = %s", [dataset.id]
        )
    kept = await slow_queries.slow_queries(conn, dataset.id)
    assert {one.shape for one in kept} == {"shape 2", "shape 3", "shape 4"}
