"""Queries that mean no good: an answer or a sentence, in bounded time, nothing changed and nothing read by it."""

import asyncio
import json
from typing import Any

import httpx
import pytest

from headwater.catalog.fields import ANNOTATION_FIELDS, ITEM_FIELDS
from tests.api.hostile import BODIES, FORBIDDEN, TEXTS
from tests.api.world import World, message

_LONGEST_S = 60  # for a test that would hang
_CANARY = "canary-of-another-dataset"
_TABLES = ("item", "folder", "annotation", "dataset", "account", "project", "command", "procrastinate_jobs", "event")

pytestmark = pytest.mark.timeout(600)


@pytest.fixture(scope="module")
async def dataset_id(world: World) -> str:
    """With items and annotations that hostile filters meet, beside a dataset that they must not."""
    made_ids: list[str] = []
    for name in ("hostile", "hostile-beside"):
        dataset_id = await world.new_dataset(name=name)
        made_ids.append(dataset_id)
        canary = _CANARY if name == "hostile-beside" else "k"
        for number in range(3):
            metadata = json.dumps({"user": {"k": [canary, number], "$": {"a": 1}, "long": "a" * 50_000}})
            path = f"/{canary}/{number}.txt"
            item = await world.upload(dataset_id, path, canary.encode(), metadata=metadata)
            box = {"type": "box", "label": canary, "coordinates": [{"x": 1, "y": 2}, {"x": 3, "y": 4}]}
            made = await world.owner.post(f"/items/{item['id']}/annotations", json=[box, box])
            assert made.status_code == 200, made.text
    return made_ids[0]


async def _state(world: World) -> list[Any]:
    """What the database holds; not when somebody last asked."""
    counts = [f"SELECT '{table}', count(*), max(xmin::text::bigint) FROM {table}" for table in _TABLES]
    return await world.execute(" UNION ALL ".join(counts))


async def _sent(world: World, dataset_id: str, text: bytes) -> httpx.Response:
    headers = {"content-type": "application/json"}
    async with asyncio.timeout(_LONGEST_S):
        return await world.owner.post(f"/datasets/{dataset_id}/query", content=text, headers=headers)


def _judge(name: str, answer: httpx.Response) -> None:
    assert answer.status_code in (200, 400), f"{name}: {answer.status_code} {answer.text[:300]}"
    if answer.status_code == 400:
        assert len(message(answer, 400)) < 2_000, name
    assert _CANARY not in answer.text, name
    assert "Traceback" not in answer.text, name


@pytest.mark.parametrize("resource", ["items", "annotations"])
async def test_bodies_do_nothing(world: World, dataset_id: str, resource: str) -> None:
    before = await _state(world)
    for name, body in BODIES.items():
        given = body if "resource" in body else {**body, "resource": resource}
        _judge(name, await _sent(world, dataset_id, json.dumps(given).encode()))
    assert await _state(world) == before


async def test_texts_do_nothing(world: World, dataset_id: str) -> None:
    before = await _state(world)
    for name, text in TEXTS.items():
        _judge(name, await _sent(world, dataset_id, text))
    assert await _state(world) == before


@pytest.mark.parametrize("resource", ["items", "annotations"])
async def test_what_is_no_field_is_refused_wherever_it_stands(world: World, dataset_id: str, resource: str) -> None:
    fields = ITEM_FIELDS if resource == "items" else ANNOTATION_FIELDS
    for name in FORBIDDEN:
        assert name not in fields.named
        for body in (
            {"filter": {name: {"$exists": True}}},
            {"filter": {"$not": {name: {"$in": ["x"]}}}},
            {"sort": {name: "descending"}},
            {"intersect": {"query": {"filter": {name: "x*"}}}},
        ):
            text = json.dumps({**body, "resource": resource}).encode()
            told = message(await _sent(world, dataset_id, text), 400)
            assert len(told) < 2_000


async def test_no_filter_reaches_another_dataset(world: World, dataset_id: str) -> None:
    async def total(body: dict[str, Any]) -> int:
        answer = await _sent(world, dataset_id, json.dumps(body).encode())
        assert answer.status_code == 200, answer.text
        return answer.json()["totalItemsCount"]

    for conditions in ({}, {"$not": {"hidden": True}}, {"$or": [{"id": {"$exists": True}}, {"datasetId": "f" * 24}]}):
        assert await total({"filter": conditions}) == 3
        assert (
            await total({"filter": conditions if "hidden" not in str(conditions) else {}, "resource": "annotations"})
            == 6
        )
    for conditions in (
        {"metadata.user.k": _CANARY},
        {"filename": f"/{_CANARY}/**"},
        {"dir": f"/{_CANARY}"},
        {"label": _CANARY},
        {"join": {"filter": {"label": _CANARY}}},
    ):
        assert await total({"filter": conditions}) == 0
    assert await total({"resource": "annotations", "filter": {"label": _CANARY}}) == 0
    assert await total({"resource": "annotations", "join": {"filter": {"metadata.user.k": _CANARY}}}) == 0
    assert await total({"filter": {"metadata.system.object_key": {"$exists": True}}}) == 0
