"""Metrics: nothing without the operator's token, and with it what monitoring needs, as Prometheus reads it."""

from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from headwater.app import create_app
from headwater.catalog import commands, organizations
from headwater.settings import Settings
from tests.api.world import World, message
from tests.work.world import make_dataset

TOKEN = "a token of the operator's"


@pytest.fixture
async def app(database_url: str, settings_for: Callable[..., Settings]) -> AsyncIterator[Any]:
    made = create_app(settings_for(metrics_token=TOKEN, public_url="http://headwater.test"), database_url)
    async with made.router.lifespan_context(made):
        yield made


async def read(app: Any, authorization: str | None = f"Bearer {TOKEN}") -> httpx.Response:
    headers = {} if authorization is None else {"authorization": authorization}
    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(app=app, raise_app_exceptions=False), base_url="http://headwater.test"
    ) as client:
        return await client.get("/metrics", headers=headers)


async def figures(app: Any) -> dict[str, dict[tuple[str, ...], float]]:
    answer = await read(app)
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    return {
        family.name: {tuple(sample.labels.values()): sample.value for sample in family.samples}
        for family in text_string_to_metric_families(answer.text)
    }


async def test_metrics_are_off_until_the_operator_sets_a_token(world: World) -> None:
    for who in ("no token", "organisation owner"):
        answer = await world.callers[who].get("http://headwater.test/metrics")
        assert "HEADWATER_METRICS_TOKEN" in message(answer, 404)


@pytest.mark.parametrize("authorization", [None, "", TOKEN, f"Basic {TOKEN}", f"Bearer {TOKEN}x", "Bearer "])
async def test_without_the_token_nothing_is_told(app: Any, authorization: str | None) -> None:
    assert "headwater_" not in message(await read(app, authorization), 401)


async def test_what_a_dataset_is_watched_by(app: Any) -> None:
    pool = app.state.server.place.pool
    async with pool.connection() as conn:
        dataset = await make_dataset(conn)
        await conn.execute("UPDATE dataset SET name = %s WHERE id = %s", ['a "name"\nof two lines \\', dataset.id])
        await conn.execute("UPDATE dataset SET created_at = now() - interval '50 s' WHERE id = %s", [dataset.id])
        await conn.execute(
            """
            UPDATE dataset_counter
            SET items = 10, missing_items = 2, failed_items = 1, prepared_items = 4, bytes = 77
            WHERE dataset_id = %s
            """,
            [dataset.id],
        )

    async def of(name: str) -> float:
        ((labels, value),) = (await figures(app))[f"headwater_dataset_{name}"].items()
        assert labels[:2] == ('a "name"\nof two lines \\', f"{dataset.id:024x}")
        return value

    names = ("items", "missing_items", "failed_items", "waiting_items", "size_bytes")
    assert [await of(name) for name in names] == [10, 2, 1, 5, 77]
    assert 50 <= await of("last_sync_age_seconds") < 1000  # none was good: since it was made
    async with pool.connection() as conn:
        await conn.execute(
            "UPDATE dataset_counter SET synced_at = now() - interval '5000 s' WHERE dataset_id = %s", [dataset.id]
        )
        command_id = await commands.start_command(
            conn, project_id=dataset.project_id, dataset_id=dataset.id, kind="SyncDataset", spec={}, creator_id=None
        )
        await conn.execute(
            "INSERT INTO scan (dataset_id, command_id, objects_per_s) VALUES (%s, %s, 1234)", [dataset.id, command_id]
        )
    assert 5000 <= await of("last_sync_age_seconds") < 6000
    assert [await of(name) for name in ("sync_running", "sync_objects_per_second", "last_sync_failed")] == [1, 1234, 0]
    async with pool.connection() as conn:
        await conn.execute("UPDATE scan SET state = 'stopped' WHERE dataset_id = %s", [dataset.id])
        await commands.end_command(conn, command_id, "failed", error="The bucket said no.")
    assert [await of(name) for name in ("sync_running", "last_sync_failed")] == [0, 1]


async def test_queries_that_are_refused_are_counted_and_logged(app: Any, caplog: pytest.LogCaptureFixture) -> None:
    server = app.state.server
    async with server.place.pool.connection() as conn:
        owner = await organizations.get_owner(conn)
        dataset = await make_dataset(conn)
    token = server.signer.sign(account_id=owner.id, email=owner.email)
    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(app=app),
        base_url="http://headwater.test/api/v1",
        headers={"authorization": f"Bearer {token}"},
    ) as client:
        url = f"/datasets/{dataset.id:024x}/query"
        assert (await client.post(url, json={})).status_code == 200
        assert (await figures(app))["headwater_queries_refused"] == {(): 0}
        for resource in ("items", "annotations"):
            message(await client.post(url, json={"resource": resource, "filter": {"no such\nfield": 1}}), 400)
    assert (await figures(app))["headwater_queries_refused"] == {(): 2}
    told = [record.getMessage() for record in caplog.records if "refused a query" in record.getMessage()]
    assert len(told) == 2
    for line in told:
        assert f"account {owner.id} on dataset {dataset.id:024x}: There is no field" in line
        assert "\n" not in line


async def test_queues_show_what_waits_and_since_when(app: Any) -> None:
    assert (await figures(app))["headwater_jobs_waiting"] == {}
    async with app.state.server.place.pool.connection() as conn:
        await conn.execute(
            """
            INSERT INTO procrastinate_jobs (queue_name, task_name, args, scheduled_at)
            VALUES ('default', 'x', '{}', NULL), ('default', 'x', '{}', now() - interval '100 s'),
                ('sync', 'x', '{}', now() - interval '900 s'), ('sync', 'x', '{}', now() + interval '1 hour')
            """
        )
    found = await figures(app)
    assert found["headwater_jobs_waiting"] == {("default",): 2, ("sync",): 1}
    assert 900 <= found["headwater_jobs_oldest_age_seconds"]["sync",] < 1000
    assert found["headwater_commands_stalled"] == {(): 0}
    assert found["headwater_hints_waiting"] == {(): 0}
    assert found["headwater_database_connections"][()] >= 1
