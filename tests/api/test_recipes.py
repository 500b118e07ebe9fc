"""Recipes, ontologies, labels and attributes over HTTP: who may, what is refused, and what side by side loses nothing."""

import asyncio
from typing import Any

import httpx
import pytest

from headwater.catalog import projects
from tests.api.world import NOBODY, World, message, unique


async def new_ontology(world: World, *tags: str, project_ids: list[str] | None = None) -> str:
    roots = [{"value": {"tag": tag}} for tag in tags]
    body = {"roots": roots, "projectIds": project_ids or [world.project_id]}
    answer = await world.owner.post("/ontologies", json=body)
    assert answer.status_code == 200, answer.text
    return answer.json()["id"]


async def new_recipe(world: World, *ontology_ids: str, project_ids: list[str] | None = None) -> str:
    body = {"title": unique("recipe"), "projectIds": project_ids or [world.project_id], "ontologyIds": ontology_ids}
    answer = await world.owner.post("/recipes", json=body)
    assert answer.status_code == 200, answer.text
    return answer.json()["id"]


async def labels_of(world: World, ontology_id: str) -> list[str]:
    return [root["value"]["tag"] for root in (await world.owner.get(f"/ontologies/{ontology_id}")).json()["roots"]]


async def test_lists_are_pages(world: World) -> None:
    ids = [await new_recipe(world) for _ in range(3)]
    url = f"/recipes?projects={world.project_id}&ids={','.join(ids)}&&pageOffset=%d&pageSize=2"
    first, second = [(await world.owner.get(url % page)).json() for page in (0, 1)]
    assert [recipe["id"] for recipe in first["items"] + second["items"]] == ids
    assert [page["totalItemsCount"] for page in (first, second)] == [3, 3]
    assert [page["hasNextPage"] for page in (first, second)] == [True, False]
