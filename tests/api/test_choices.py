"""One filter chooses the same items, whatever is asked or done with it."""

import itertools
import json
from typing import Any

import pytest
from hypothesis import example, given

from tests.api.world import World
from tests.catalog.matching import examples, queries

USERS: list[dict[str, Any]] = [
    {},
    {"k": "a", "n": 1},
    {"k": ["a", "b"], "n": 5.5},
    {"k": {"n": 1, "a b": True}},
    {"k": [{"n": 1}, {"a b": "x"}]},
    {"k": None, "%": 0},
    {"n": "a*b", '"': {"k": "é"}},
]
LABELS = [[], ["cat"], ["dog", "cat"], ["cat.tail"], [], ["é"], [""]]
_runs = itertools.count(1)


@pytest.fixture(scope="module")
async def dataset_id(world: World) -> str:
    made = await world.new_dataset()
    for number, (user, labels) in enumerate(zip(USERS, LABELS, strict=True)):
        path = ["/a/x.jpg", "/a/b/y.jpg", "/noext", "/a b/%", "/Z/é", "/a/b/x.jpg", "/😀/_"][number]
        item = await world.upload(made, path, b"x" * number, metadata=json.dumps({"user": user}))
        boxes = [
            {"type": "box", "label": label, "coordinates": [{"x": 1, "y": 2}, {"x": 5, "y": 1}]} for label in labels
        ]
        if boxes:
            answer = await world.owner.post(f"/items/{item['id']}/annotations", json=boxes)
            assert answer.status_code == 200, answer.text
    return made


async def asked(world: World, dataset_id: str, way: str, **body: Any) -> dict[str, Any]:
    answer = await world.owner.post(f"/datasets/{dataset_id}/{way}", json=body)
    assert answer.status_code == 200, (way, body, answer.text)
    return answer.json()


async def marked(world: World, dataset_id: str, condition: str, name: str) -> list[str]:
    rows = await world.execute(
        f"SELECT id FROM item WHERE dataset_id = %s AND {condition} ORDER BY id", int(dataset_id, 16), name
    )
    return [f"{number:024x}" for (number,) in rows]


@examples(8)
@example(query={"filter": {"$or": [{"type": ""}]}})
@example(query={"filter": {"metadata.user.k": "a"}, "join": {"filter": {"label": "cat"}}, "except": {"query": {}}})
@example(query={"filter": {}, "join": {"filter": {"label": "cat"}}, "except": {"query": {"filter": {"name": "y.jpg"}}}})
@given(query=queries)
async def test_whatever_takes_a_filter_takes_the_same_items(
    world: World, dataset_id: str, query: dict[str, Any]
) -> None:
    query = query | {"filter": {"$and": [query["filter"], {"type": "file"}, {"hidden": False}]}}
    name = f"run{next(_runs)}"
    page = await asked(world, dataset_id, "query", **query, sort={"id": "ascending"})
    chosen = [item["id"] for item in page["items"]]
    counts = {
        "page": page["totalItemsCount"],
        "count": (await asked(world, dataset_id, "query", **query, pageSize=0))["totalItemsCount"],
        "facets": (await asked(world, dataset_id, "facets", **query, fields=["name"]))["itemsCount"],
    }
    beside = [{key: query[key]} for key in ("join", "intersect", "except") if key in query]
    one_filter = {"$and": [query["filter"], *beside]}
    set_mark = {"update": {"metadata": {"user": {"mark": name}}}}
    for way, body in (
        ("delete-items", {"filter": one_filter}),
        ("items/bulk-update-metadata", {"query": query, "updateQuery": set_mark}),
        ("move-items", {"filter": one_filter, "to": "/to"}),
        ("clone", {"name": name, "filter": query}),
    ):
        counts[way] = (await asked(world, dataset_id, way, **body, dryRun=True))["items"]
    assert counts == dict.fromkeys(counts, len(chosen))

    exported = await asked(world, dataset_id, "export", exportType="json", itemsQuery=query)
    file = await world.owner.get(f"/items/{exported['spec']['outputItemId']}/stream")
    assert [item["id"] for item in file.json()] == chosen
    await asked(world, dataset_id, "split", itemsQuery=query, MLSplitList={name: 100})
    assert await marked(world, dataset_id, "system_metadata -> 'tags' ? %s", name) == chosen
    cloned = await asked(world, dataset_id, "clone", name=f"clone {name} of {dataset_id}", filter=query)
    assert cloned["status"] == "success"
    clone_id = cloned["spec"]["returnedModelId"]
    names = await asked(world, clone_id, "query", filter={"type": "file"}, sort={"filename": "ascending"})
    assert [item["filename"] for item in names["items"]] == sorted(item["filename"] for item in page["items"])
    await asked(world, dataset_id, "query", **query, **set_mark)
    assert await marked(world, dataset_id, "user_metadata ->> 'mark' = %s", name) == chosen


async def test_whatever_takes_a_query_keeps_to_its_context(world: World, dataset_id: str) -> None:
    shown: dict[str, Any] = {"filter": {"$and": [{"type": "file"}, {"hidden": False}]}}
    project_id = (await world.owner.get(f"/datasets/{dataset_id}")).json()["projects"][0]
    elsewhere = await world.new_dataset()
    for context, items in (
        ({"datasets": [elsewhere]}, 0),
        ({"projects": [elsewhere]}, 0),
        ({"projects": [project_id], "datasets": []}, 0),
        ({"datasets": [elsewhere, dataset_id], "projects": [project_id]}, len(USERS)),
    ):
        query, name = shown | {"context": context}, f"context{next(_runs)}"
        set_mark = {"update": {"metadata": {"user": {"mark": name}}}}
        update = {"query": query, "updateQuery": set_mark}
        counts = [
            (await asked(world, dataset_id, "query", **query))["totalItemsCount"],
            (await asked(world, dataset_id, "facets", **query, fields=["name"]))["itemsCount"],
            (await asked(world, dataset_id, "items/bulk-update-metadata", **update, dryRun=True))["items"],
            (await asked(world, dataset_id, "clone", name=name, filter=query, dryRun=True))["items"],
        ]
        await asked(world, dataset_id, "items/bulk-update-metadata", **update)
        counts.append(len(await marked(world, dataset_id, "user_metadata ->> 'mark' = %s", name)))
        await asked(world, dataset_id, "query", **query, update={"metadata": {"user": {"mark": "q" + name}}})
        counts.append(len(await marked(world, dataset_id, "user_metadata ->> 'mark' = %s", "q" + name)))
        await asked(world, dataset_id, "split", itemsQuery=query, MLSplitList={name: 100})
        counts.append(len(await marked(world, dataset_id, "system_metadata -> 'tags' ? %s", name)))
        await asked(world, dataset_id, "items/collections/bulk-add", query=query, collections=[name])
        (field,) = (await world.owner.get(f"/datasets/{dataset_id}/items/collections")).json()
        collected = {"filter": {field: {"$exists": True}}}
        counts.append((await asked(world, dataset_id, "query", **collected))["totalItemsCount"])
        await world.owner.delete(f"/datasets/{dataset_id}/items/collections/{name}")
        exported = await asked(world, dataset_id, "export", exportType="json", itemsQuery=query)
        file = await world.owner.get(f"/items/{exported['spec']['outputItemId']}/stream")
        counts.append(len(file.json()))
        exported = await asked(world, dataset_id, "export/v3", filters={"itemsQuery": query})
        counts.append(exported["spec"]["exportResult"]["totalRecords"])
        assert counts == [items] * len(counts), context
