"""Feature sets, vectors and similar items over HTTP."""

import asyncio
import math
import random
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import httpx
import pytest

from headwater.catalog import similarity
from headwater.work import feature_sets as work
from headwater.work import purging
from tests.api.world import NOBODY, World, message, unique

DEFAULT = {"$and": [{"hidden": False}, {"type": "file"}]}


async def new_set(world: World, size: int = 2, *, project: str | None = None, **given: Any) -> dict[str, Any]:
    body = {
        "name": unique("set"),
        "size": size,
        "type": "clip",
        "project": project or world.project_id,
        "modelId": None,
    }
    answer = await world.owner.post("/features/sets", json=body | {"entityType": "item"} | given)
    assert answer.status_code == 200, answer.text
    return answer.json()[0]


def vector(into: dict[str, Any], dataset_id: str, entity_id: str, value: Any, **given: Any) -> dict[str, Any]:
    body = {"entityId": entity_id, "datasetId": dataset_id, "value": value, "featureSetId": into["id"]}
    return body | {"project": into["project"]} | given


async def put(world: World, *bodies: dict[str, Any]) -> list[dict[str, Any]]:
    answer = await world.owner.post("/features/vectors", json=list(bodies))
    assert answer.status_code == 200, answer.text
    return answer.json()


async def with_items(world: World, number: int, **given: Any) -> tuple[str, list[str]]:
    dataset_id = await world.new_dataset(**given)
    found = [await world.upload(dataset_id, f"/{each // 4}/{each}.txt", b"text") for each in range(number)]
    return dataset_id, [item["id"] for item in found]


async def query(world: World, what: dict[str, Any], *, of: str = "vectors", **given: Any) -> dict[str, Any]:
    body = {"filter": what, "sort": {"id": "ascending"}} | given
    answer = await world.owner.post(f"/features/{of}/query", json=body)
    assert answer.status_code == 200, answer.text
    return answer.json()


async def similar(world: World, dataset_id: str, **asked: Any) -> dict[str, Any]:
    answer = await world.owner.post(f"/datasets/{dataset_id}/items/similar", json=asked)
    assert answer.status_code == 200, answer.text
    return answer.json()


async def test_a_set_is_made_found_changed_and_deleted(world: World) -> None:
    made = await new_set(world, 3, name="by clip", modelId="m1")
    assert made | {"name": "by clip", "size": 3, "type": "clip", "entityType": "item", "modelId": "m1"} == made
    assert (await world.owner.get(f"/features/sets/{made['id']}")).json() == made
    twice = {"name": "by clip", "size": 4, "type": "x", "project": world.project_id, "entityType": "item"}
    assert "already" in message(await world.owner.post("/features/sets", json=twice), 409)
    context = {"context": {"projects": [world.project_id]}}
    for what in ({"name": "by clip"}, {"id": {"$in": [made["id"]]}}, {"name": "by*", "size": {"$gt": 2}}):
        page = await query(world, {"$and": [what]}, of="sets", **context)
        assert (page["totalItemsCount"], page["items"], page["hasNextPage"]) == (1, [made], False)
    sent = made | {"name": "by clip 2", "size": 99, "entityType": "dataset"}  # the SDK sends all of it
    changed = (await world.owner.patch(f"/features/sets/{made['id']}", json=sent)).json()
    assert (changed["name"], changed["size"], changed["entityType"]) == ("by clip 2", 3, "item")
    dataset_id, (item_id,) = await with_items(world, 1)
    (one,) = await put(world, vector(made, dataset_id, item_id, [1, 2, 3]))
    assert (await world.owner.delete(f"/features/sets/{made['id']}")).json() == {"success": True}
    for path in (f"/features/sets/{made['id']}", f"/features/vectors/{one['id']}"):
        message(await world.owner.get(path), 404)
    assert (await query(world, {"entityId": item_id}))["items"] == []
    await work.drop_set(world.app.state.server.place, int(made["id"], 16))
    assert await world.execute("SELECT FROM feature_vector WHERE feature_set_id = %s", int(made["id"], 16)) == []
    assert await world.execute("SELECT FROM feature_set WHERE id = %s", int(made["id"], 16)) == []


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"size": 0}, "1 to 16,000"),
        ({"size": 16_001}, "1 to 16,000"),
        ({"size": 2.5}, "size"),
        ({"size": "2"}, "size"),
        ({"size": 10**30}, "1 to 16,000"),
        ({"name": ""}, "1 to 255"),
        ({"name": "a\0"}, "printable"),
        ({"type": "\n"}, "printable"),
        ({"entityType": "task"}, "item, annotation, dataset"),
        ({"modelId": "\0"}, "printable"),
        ({"modelId": 5}, "modelId"),
    ],
)
async def test_a_set_that_cannot_be_is_refused(world: World, wrong: dict[str, Any], told: str) -> None:
    body = {"name": unique("set"), "size": 2, "type": "x", "project": world.project_id} | wrong
    assert told in message(await world.owner.post("/features/sets", json=body), 400)


async def test_one_thing_has_one_vector_in_a_set_and_a_new_one_replaces_it(world: World) -> None:
    into = await new_set(world)
    dataset_id, (first, second) = await with_items(world, 2)
    body = [vector(into, dataset_id, first, [0.1, -2.5e-3], version="v1"), vector(into, dataset_id, second, [1, 2])]
    made = await put(world, *body)
    assert [one["value"] for one in made] == [[0.1, -0.0025], [1.0, 2.0]]
    assert [one["entityId"] for one in made] == [first, second]
    assert await put(world, *body) == made  # sent again
    (again,) = await put(world, vector(into, dataset_id, first, [7, 8], version="v2"))
    assert (again["id"], again["value"], again["version"]) == (made[0]["id"], [7.0, 8.0], "v2")
    a, b = await put(world, vector(into, dataset_id, first, [1, 1]), vector(into, dataset_id, first, [2, 2]))
    assert (a, a["value"]) == (b, [2.0, 2.0])
    assert (await world.owner.get(f"/features/vectors/{a['id']}")).json() == a
    assert (await world.owner.delete(f"/features/vectors/{a['id']}")).json() == {"success": True}
    message(await world.owner.get(f"/features/vectors/{a['id']}"), 404)
    message(await world.owner.delete(f"/features/vectors/{a['id']}"), 404)


async def test_many_requests_at_once_wait_for_no_other(world: World) -> None:
    into = await new_set(world)
    dataset_id = await world.new_dataset()
    rows = await world.execute(
        """
        INSERT INTO item (dataset_id, folder_id, size_bytes, path, etag)
        SELECT %s, 0, 1, '/' || number, 'x' FROM generate_series(1, 400) AS number RETURNING id
        """,
        int(dataset_id, 16),
    )
    ids = [f"{item_id:024x}" for (item_id,) in rows]

    def shuffled(number: int) -> list[dict[str, Any]]:
        places = random.sample(range(len(ids)), len(ids))
        return [vector(into, dataset_id, ids[place], [number, place]) for place in places]

    await asyncio.gather(*(put(world, *shuffled(number)) for number in range(8)))
    page = await query(world, {"featureSetId": into["id"]})
    assert {one["entityId"]: one["value"][1] for one in page["items"]} == {one: n for n, one in enumerate(ids)}
    assert len({one["value"][0] for one in page["items"]}) == 1  # of one request, as a whole


@pytest.mark.parametrize(
    ("value", "told"),
    [
        ("[NaN, 1]", "numbers of a vector"),
        ("[1, Infinity]", "[0].value[1] is inf"),
        ("[1, -1e16]", "[0].value[1]"),
        ("[1, " + "9" * 1_000 + "]", "value"),
        ("[1]", "has 1 numbers"),
        ("[1, 2, 3]", "has 3 numbers"),
        ("[]", "has 0 numbers"),
        ('["1", "2"]', "value"),
        ("[true, false]", "value"),
        ("[null, 1]", "value"),
        ("[[1], [2]]", "value"),
        ('"text"', "value"),
        ('{"a": 1}', "value"),
        ("null", "value"),
        ("[" * 10_000 + "]" * 10_000, ""),
    ],
)
async def test_what_is_no_vector_of_the_set_is_refused(world: World, value: str, told: str) -> None:
    into = await new_set(world)
    dataset_id, (item_id,) = await with_items(world, 1)
    before, after = '[{"entityId": "%s", "datasetId": "%s", "featureSetId": "%s", "value": ', "}]"
    body = before % (item_id, dataset_id, into["id"]) + value + after
    answer = await world.owner.post(
        "/features/vectors", content=body.encode(), headers={"content-type": "application/json"}
    )
    assert told in message(answer, 400)
    assert (await query(world, {"featureSetId": into["id"]}))["items"] == []


async def test_vectors_are_of_things_of_the_project_that_are_there(world: World) -> None:
    into = await new_set(world)
    dataset_id, (item_id,) = await with_items(world, 1)
    other_id, (other_item_id,) = await with_items(world, 1)
    elsewhere = await new_set(world, project=await world.new_project())
    good = vector(into, dataset_id, item_id, [1, 2])
    for wrong, status, told in (
        ({"entityId": other_item_id}, 404, "no item"),
        ({"entityId": NOBODY}, 404, "no item"),
        ({"entityId": "nothing"}, 404, "No entity"),
        ({"datasetId": NOBODY}, 404, "No dataset"),
        ({"datasetId": other_id}, 404, "no item"),
        ({"featureSetId": NOBODY}, 404, "No feature set"),
        ({"featureSetId": elsewhere["id"]}, 400, "another project"),
        ({"parentId": "x"}, 404, "No feature vector"),
        ({"version": "a\0"}, 400, "NUL"),
        ({"version": "a" * 256}, 400, "version"),
        ({"datasetId": None}, 404, "No dataset"),
    ):
        answer = await world.owner.post("/features/vectors", json=[good, good | wrong])
        assert told in message(answer, status), wrong
    assert "at least 1" in message(await world.owner.post("/features/vectors", json=[]), 400)
    message(await world.owner.post("/features/vectors", json=good), 400)
    assert (await query(world, {"featureSetId": into["id"]}))["items"] == []  # all or none
    await world.owner.patch(f"/datasets/{dataset_id}", json={"readonly": True})
    assert "read-only" in message(await world.owner.post("/features/vectors", json=[good]), 400)


async def test_vectors_are_found_page_by_page_by_ids(world: World) -> None:
    into, another = await new_set(world), await new_set(world)
    dataset_id, ids = await with_items(world, 7)
    made = await put(world, *(vector(into, dataset_id, one, [number, 0]) for number, one in enumerate(ids)))
    await put(world, vector(another, dataset_id, ids[0], [5, 5], version="x"))
    found: list[dict[str, Any]] = []
    after: list[dict[str, Any]] = []
    while True:
        page = await query(
            world,
            {"$and": [{"featureSetId": into["id"]}, {"datasetId": dataset_id}, *after]},
            pageSize=3,
            context={"projects": [world.project_id]},
            resource="feature_vectors",
        )
        found += page["items"]
        if not page["hasNextPage"]:
            break
        after = [{"id": {"$gt": page["items"][-1]["id"]}}]
    assert found == made
    both = await query(world, {"entityId": ids[0]})
    assert [one["featureSetId"] for one in both["items"]] == [into["id"], another["id"]]
    assert (await query(world, {"version": {"$exists": True}, "entityId": {"$in": ids}}))["totalItemsCount"] == 1
    counted = await query(world, {"featureSetId": into["id"]}, pageSize=0)
    assert (counted["totalItemsCount"], counted["items"], counted["hasNextPage"]) == (7, [], False)
    body = {"projectId": world.project_id, "datasetIds": [dataset_id]}
    counts = (await world.owner.post("/features/vectors/project-count-aggregation", json=body)).json()
    assert counts == [{"featureSetId": into["id"], "count": 7}, {"featureSetId": another["id"], "count": 1}]


@pytest.mark.parametrize("of", ["sets", "vectors"])
@pytest.mark.parametrize(
    "body",
    [
        {"filter": {"creator_id": 1}},
        {"filter": {"id": {"$regex": "a"}}},
        {"filter": []},
        {"sort": {"nothing": "ascending"}},
        {"sort": {"id": "up"}},
        {"sort": []},
        {"sort": {"id": {}}},
        {"page": -1},
        {"page": 10**30},
        {"pageSize": "x"},
        {"context": []},
        {"context": {"projects": "x"}},
        {"join": {"on": {}}},
        {"delete": True},
        {"update": {"a": 1}},
    ],
)
async def test_bad_queries_are_refused(world: World, of: str, body: dict[str, Any]) -> None:
    message(await world.owner.post(f"/features/{of}/query", json=body), 400)


async def test_nobody_sees_sets_and_vectors_of_others(world: World) -> None:
    project_id = await world.new_project()
    into = await new_set(world, project=project_id)
    dataset_id, (item_id,) = await with_items(world, 1, projects=[project_id])
    (made,) = await put(world, vector(into, dataset_id, item_id, [1, 2]))
    for who in ("stranger", "outsider", "developer"):
        client: httpx.AsyncClient = world.callers[who]
        for path in (f"/features/sets/{into['id']}", f"/features/vectors/{made['id']}"):
            message(await client.get(path), 404)
            message(await client.delete(path), 404)
        for of, hidden in (("sets", into), ("vectors", made)):
            page = (await client.post(f"/features/{of}/query", json={"filter": {"id": hidden["id"]}})).json()
            assert (page["totalItemsCount"], page["items"]) == (0, [])
            asked = {"context": {"projects": [project_id]}}
            message(await client.post(f"/features/{of}/query", json=asked), 404)
        asked = {"featureSetId": into["id"], "vector": [1, 2]}
        if who == "developer":  # of the project of another dataset
            message(await client.post(f"/datasets/{world.dataset_id}/items/similar", json=asked), 404)
        body = {"projectId": project_id, "datasetIds": [dataset_id]}
        message(await client.post("/features/vectors/project-count-aggregation", json=body), 404)
    body = {"projectId": world.project_id, "datasetIds": [dataset_id]}
    message(await world.owner.post("/features/vectors/project-count-aggregation", json=body), 404)
    asked = {"featureSetId": into["id"], "vector": [1, 2]}  # one may read both, and they do not belong together
    message(await world.owner.post(f"/datasets/{world.dataset_id}/items/similar", json=asked), 404)


async def test_vectors_go_with_what_they_are_of(world: World) -> None:
    of_items, of_annotations = await new_set(world), await new_set(world, entityType="annotation")
    of_datasets = await new_set(world, entityType="dataset")
    dataset_id, ids = await with_items(world, 4)
    box = {"type": "box", "label": "cat", "coordinates": [{"x": 1, "y": 1, "z": 0}, {"x": 2, "y": 2, "z": 0}]}
    annotations = [
        (await world.owner.post(f"/items/{one}/annotations", json=[box | {"metadata": {}}])).json()[0]["id"]
        for one in ids
    ]
    await put(world, *(vector(of_items, dataset_id, one, [1, 1]) for one in ids))
    await put(world, *(vector(of_annotations, dataset_id, one, [1, 1]) for one in annotations))
    await put(world, vector(of_datasets, dataset_id, dataset_id, [1, 1]) | {"datasetId": None})

    async def left() -> list[int]:
        sets = (of_items, of_annotations, of_datasets)
        counts = [
            await world.execute("SELECT count(*) FROM feature_vector WHERE feature_set_id = %s", int(one["id"], 16))
            for one in sets
        ]
        return [count for ((count,),) in counts]

    assert await left() == [4, 4, 1]
    assert (await world.owner.delete(f"/annotations/{annotations[0]}")).status_code == 200
    assert await left() == [4, 3, 1]
    assert (await world.owner.delete(f"/items/{ids[1]}")).status_code == 200
    assert await left() == [3, 2, 1]
    doomed = {"filter": {"$and": [{"id": {"$in": ids[2:3]}}]}, "delete": True}
    assert (await world.owner.post(f"/datasets/{dataset_id}/query", json=doomed)).status_code == 200
    assert await left() == [2, 1, 1]
    await world.owner.delete(f"/datasets/{dataset_id}")
    assert (await query(world, {"featureSetId": of_datasets["id"]}))["items"] == []
    await purging.purge_dataset(world.app.state.server.place, int(dataset_id, 16))
    assert await left() == [0, 0, 0]


def distance(metric: str, a: list[float], b: list[float]) -> float:
    dot = sum(x * y for x, y in zip(a, b, strict=True))
    match metric:
        case "euclidean":
            return math.dist(a, b)
        case "cosine":
            return 1 - dot / math.hypot(*a) / math.hypot(*b)
        case _:
            return -dot


@pytest.fixture
async def cloud(world: World) -> tuple[str, dict[str, Any], dict[str, list[float]]]:
    """A dataset, a set, and the vectors of its items; one item has none."""
    into = await new_set(world, 3)
    dataset_id, ids = await with_items(world, 15)
    chance = random.Random(5)
    values = {one: [round(chance.uniform(-1, 1), 3) for _ in range(3)] for one in ids[:-1]}
    await put(world, *(vector(into, dataset_id, one, value) for one, value in values.items()))
    return dataset_id, into, values


@pytest.mark.parametrize("metric", ["euclidean", "cosine", "inner_product"])
async def test_the_nearest_items_come_first(world: World, cloud: Any, metric: str) -> None:
    dataset_id, into, values = cloud
    sought = [0.3, -0.2, 0.9]
    found = await similar(world, dataset_id, featureSetId=into["id"], vector=sought, metric=metric, limit=20)
    expected = sorted(values, key=lambda one: distance(metric, sought, values[one]))
    assert [one["item"]["id"] for one in found["items"]] == expected
    assert found["exact"]
    for one in found["items"]:
        assert one["distance"] == pytest.approx(distance(metric, sought, values[one["item"]["id"]]), abs=1e-5)
    some = await similar(
        world,
        dataset_id,
        featureSetId=into["id"],
        vector=sought,
        metric=metric,
        limit=4,
        filter={"$and": [{"dir": "/1"}, {"type": "file"}]},
    )
    inside = [one for one in expected if one in list(values)[4:8]]
    assert [one["item"]["id"] for one in some["items"]] == inside


async def test_items_near_to_an_item_are_the_others(world: World, cloud: Any) -> None:
    dataset_id, into, values = cloud
    first, *others = values
    found = await similar(world, dataset_id, featureSetId=into["id"], itemId=first, limit=5)
    expected = sorted(others, key=lambda one: distance("euclidean", values[first], values[one]))
    assert [one["item"]["id"] for one in found["items"]] == expected[:5]
    nothing = {"featureSetId": into["id"], "itemId": NOBODY}
    assert "no vector" in message(await world.owner.post(f"/datasets/{dataset_id}/items/similar", json=nothing), 404)


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({}, "one of the two"),
        ({"vector": [1, 2, 3], "itemId": NOBODY}, "one of the two"),
        ({"vector": [1, 2]}, "has 2 numbers"),
        ({"vector": [0, 0, 0], "metric": "cosine"}, "no direction"),
        ({"vector": [1, 2, 1e300]}, "numbers of a vector"),
        ({"vector": [1, 2, 3], "metric": "hamming"}, "metric"),
        ({"vector": [1, 2, 3], "limit": 0}, "limit"),
        ({"vector": [1, 2, 3], "limit": 1_001}, "limit"),
        ({"vector": [1, 2, 3], "filter": {"nothing": 1}}, "no field"),
        ({"vector": [1, 2, 3], "filter": {"type": "dir"}}, "folders"),
        ({"vector": [1, 2, 3], "filters": {}}, "filters"),
    ],
)
async def test_bad_searches_are_refused(world: World, wrong: dict[str, Any], told: str) -> None:
    asked = {"featureSetId": (await new_set(world, 3))["id"]} | wrong
    assert told in message(await world.owner.post(f"/datasets/{world.dataset_id}/items/similar", json=asked), 400)


async def test_what_has_no_direction_is_in_no_order_by_cosine(world: World) -> None:
    into = await new_set(world)
    dataset_id, (first, second) = await with_items(world, 2)
    await put(world, vector(into, dataset_id, first, [0, 0]), vector(into, dataset_id, second, [1, 0]))
    found = await similar(world, dataset_id, featureSetId=into["id"], vector=[0, 1], metric="cosine")
    assert [(one["item"]["id"], one["distance"]) for one in found["items"]] == [(second, 1.0)]


async def test_numbers_too_small_to_be_kept_are_0_in_searches_as_in_vectors(world: World) -> None:
    into = await new_set(world)
    dataset_id, (first, second) = await with_items(world, 2)
    await put(world, vector(into, dataset_id, first, [1e-60, 1]), vector(into, dataset_id, second, [1, 1e-60]))
    found = await similar(world, dataset_id, featureSetId=into["id"], vector=[1, 1e-60])
    assert [one["item"]["id"] for one in found["items"]] == [second, first]
    assert found["items"][0]["distance"] == 0
    nowhere = {"featureSetId": into["id"], "vector": [1e-60, -1e-60], "metric": "cosine"}
    told = await world.owner.post(f"/datasets/{dataset_id}/items/similar", json=nowhere)
    assert "no direction" in message(told, 400)


async def test_annotations_are_not_ordered_as_items(world: World) -> None:
    into = await new_set(world, entityType="annotation")
    asked = {"featureSetId": into["id"], "vector": [1, 2]}
    told = message(await world.owner.post(f"/datasets/{world.dataset_id}/items/similar", json=asked), 400)
    assert "vectors of annotations" in told


async def index(world: World, into: dict[str, Any], **asked: Any) -> dict[str, Any]:
    """The command that makes its index, after its job has run."""
    command = (await world.owner.post(f"/features/sets/{into['id']}/index", json=asked)).json()
    ((job,),) = await world.execute(
        "SELECT args FROM procrastinate_jobs WHERE task_name = %s AND args ->> 'command_id' = %s",
        work.INDEX_TASK,
        str(int(command["id"], 16)),
    )
    await work.index_set(world.app.state.server.place, **job)
    return (await world.owner.get(f"/commands/{command['id']}")).json()


@pytest.mark.parametrize(("size", "metric"), [(3, "euclidean"), (3, "cosine"), (3, "inner_product"), (2_500, "cosine")])
async def test_an_index_finds_what_measuring_finds(world: World, size: int, metric: str) -> None:
    into = await new_set(world, size)
    dataset_id, ids = await with_items(world, 40)
    chance = random.Random(7)
    values = {one: [round(chance.uniform(-1, 1), 3) for _ in range(size)] for one in ids}
    await put(world, *(vector(into, dataset_id, one, value) for one, value in values.items()))
    asked = {"featureSetId": into["id"], "vector": values[ids[0]], "metric": metric, "limit": 5}
    exact = await similar(world, dataset_id, **asked)
    command = await index(world, into, metric=metric)
    assert (command["status"], command["spec"]["metric"]) == ("success", metric)
    assert (await world.owner.get(f"/features/sets/{into['id']}")).json()["index"] == metric
    by_index = await similar(world, dataset_id, **asked)
    assert (exact["exact"], by_index["exact"]) == (True, False)
    assert by_index["items"] == exact["items"]
    other = next(one for one in ("euclidean", "cosine") if one != metric)
    assert (await similar(world, dataset_id, **asked | {"metric": other}))["exact"]  # the index is for one metric
    # More than there are, or than a filter leaves, is found by measuring.
    few = await similar(world, dataset_id, **asked, filter={"dir": "/2"})
    assert (few["exact"], len(few["items"])) == (True, 4)
    # So it is where the index comes upon fewer candidates than it is asked for: nearer ones may be among the others.
    some = await similar(world, dataset_id, **asked, filter={"dir": {"$in": ["/2", "/5", "/6"]}})
    assert (some["exact"], len(some["items"])) == (True, 5)
    await world.owner.delete(f"/items/{exact['items'][0]['item']['id']}")
    again = await similar(world, dataset_id, **asked | {"limit": 4})
    assert (again["exact"], again["items"]) == (False, exact["items"][1:])


@pytest.fixture
def set_up(world: World) -> Iterator[Callable[..., None]]:
    """`set_up(name=value)`: other settings for one test."""
    server = world.app.state.server

    def change(**given: Any) -> None:
        world.app.state.server = replace(server, settings=server.settings.model_copy(update=given))

    yield change
    world.app.state.server = server


async def test_an_index_is_made_by_itself_once_it_is_worth_it(world: World, set_up: Callable[..., None]) -> None:
    set_up(feature_index_from=4)
    into = await new_set(world)
    dataset_id, ids = await with_items(world, 6)

    async def jobs() -> list[tuple[Any, ...]]:
        return await world.execute(
            "SELECT args FROM procrastinate_jobs WHERE task_name = %s AND args ->> 'set_id' = %s",
            work.INDEX_TASK,
            str(int(into["id"], 16)),
        )

    await put(world, *(vector(into, dataset_id, one, [1, 1]) for one in ids[:3]))
    assert await jobs() == []
    answers = await asyncio.gather(
        *(put(world, vector(into, dataset_id, one, [1, 1])) for one in ids[3:]),
        *(put(world, vector(into, dataset_id, one, [2, 2])) for one in ids[3:]),
    )
    assert len(answers) == 6
    ((job,),) = await jobs()  # one of many
    await work.index_set(world.app.state.server.place, **job)
    await work.index_set(world.app.state.server.place, **job)  # a job may run twice
    assert (await world.owner.get(f"/features/sets/{into['id']}")).json()["index"] == "euclidean"


async def test_an_index_that_is_aborted_or_whose_set_is_deleted_is_gone(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    into = await new_set(world)
    dataset_id, ids = await with_items(world, 2)
    await put(world, *(vector(into, dataset_id, one, [1, 1]) for one in ids))

    async def indexes() -> list[tuple[Any, ...]]:
        return await world.execute(
            "SELECT indexname FROM pg_indexes WHERE indexname = %s", f"feature_vector_hnsw_{int(into['id'], 16)}"
        )

    real = work._make

    async def endless(*arguments: Any) -> None:
        await real(*arguments)
        await world.owner.post(f"/commands/{commands[-1]}/abort")
        await asyncio.Event().wait()

    monkeypatch.setattr(work, "_make", endless)
    commands = [(await world.owner.post(f"/features/sets/{into['id']}/index", json={})).json()["id"]]
    assert (await world.owner.post(f"/features/sets/{into['id']}/index", json={})).json()["id"] == commands[0]
    place, set_id = world.app.state.server.place, int(into["id"], 16)
    await work.index_set(place, command_id=int(commands[0], 16), set_id=set_id, metric="euclidean")
    assert (await world.owner.get(f"/commands/{commands[0]}")).json()["status"] == "aborted"
    assert await indexes() == []
    assert (await world.owner.get(f"/features/sets/{into['id']}")).json()["index"] is None
    monkeypatch.setattr(work, "_make", real)
    assert (await index(world, into))["status"] == "success"
    assert len(await indexes()) == 1
    await world.owner.delete(f"/features/sets/{into['id']}")
    await work.drop_set(place, set_id)
    await work.drop_set(place, set_id)
    assert await indexes() == []


async def test_vectors_that_are_too_long_have_no_index_and_are_searched_all_the_same(world: World) -> None:
    into = await new_set(world, 4_001)
    dataset_id, (item_id,) = await with_items(world, 1)
    await put(world, vector(into, dataset_id, item_id, [1] * 4_001))
    told = message(await world.owner.post(f"/features/sets/{into['id']}/index", json={}), 400)
    assert "at most 4,000" in told
    found = await similar(world, dataset_id, featureSetId=into["id"], vector=[0] * 4_001)
    assert found["items"][0]["distance"] == pytest.approx(math.sqrt(4_001), rel=1e-6)
    halves = await new_set(world, 2_001)
    answer = await world.owner.post(
        "/features/vectors", json=[vector(halves, dataset_id, item_id, [70_000] + [1] * 2_000)]
    )
    assert "65,504" in message(answer, 400)


def joined(into: dict[str, Any], euclid: Any, *, what: Any = None, **given: Any) -> dict[str, Any]:
    on = {"resource": "feature_vectors", "local": "entityId", "forigen": "id"}
    join = {"on": on, "filter": {"value": {"$euclid": euclid}, "featureSetId": into["id"]} | given}
    return {"filter": what or DEFAULT, "page": 0, "pageSize": 4, "resource": "items", "join": join}


async def test_a_query_joined_with_vectors_is_in_their_order(world: World, cloud: Any) -> None:
    dataset_id, into, values = cloud
    sought = [0.3, -0.2, 0.9]
    expected = sorted(values, key=lambda one: math.dist(sought, values[one]))
    (of,) = (await query(world, {"entityId": expected[3], "featureSetId": into["id"]}))["items"]
    bound = math.dist(sought, values[expected[6]]) + 1e-6
    near_fourth = sorted(values, key=lambda one: math.dist(values[expected[3]], values[one]))
    for euclid, order in (
        ({"input": sought, "$euclidSort": {"eu_dist": "ascending"}}, expected),
        ({"input": sought}, expected),
        ({"input": sought, "$euclidSort": {"eu_dist": "descending"}}, expected[::-1]),
        ({"input": sought, "$euclidFilter": {"$lte": bound}}, expected[:7]),
        ({"input": sought, "$euclidFilter": {"$gt": bound, "$lt": 99}}, expected[7:]),
        ({"input": of["id"], "$euclidSort": {"eu_dist": "ascending"}}, near_fourth),
    ):
        body = joined(into, euclid, datasetId=dataset_id)
        pages = [
            (await world.owner.post(f"/datasets/{dataset_id}/query", json=body | {"page": page})).json()
            for page in range(4)
        ]
        assert [item["id"] for page in pages for item in page["items"]] == order
        assert {page["totalItemsCount"] for page in pages} == {len(order)}
        assert [page["hasNextPage"] for page in pages] == [4 * number + 4 < len(order) for number in range(4)]
    body = joined(into, {"input": sought}, what={"$and": [*DEFAULT["$and"], {"dir": "/2"}]})
    (only,) = [(await world.owner.post(f"/datasets/{dataset_id}/query", json=body)).json()]
    assert [item["id"] for item in only["items"]] == [one for one in expected if one in list(values)[8:12]]


@pytest.mark.parametrize(
    "wrong",
    [
        {"input": [1, 2]},
        {"input": ["a", 1, 2]},
        {"input": [1, 2, 10**400]},
        {"input": None},
        {"input": [1, 2, 3], "$euclidSort": {"eu_dist": "up"}},
        {"input": [1, 2, 3], "$euclidSort": {"eu_dist": []}},
        {"input": [1, 2, 3], "$euclidSort": {}},
        {"input": [1, 2, 3], "$euclidFilter": {"$near": 1}},
        {"input": [1, 2, 3], "$euclidFilter": {"$lt": "x"}},
        {"input": [1, 2, 3], "$euclidFilter": 5},
        {"input": [1, 2, 3], "other": 1},
        [],
        None,
    ],
)
async def test_bad_joins_are_refused(world: World, wrong: Any) -> None:
    body = joined(await new_set(world, 3), wrong)
    message(await world.owner.post(f"/datasets/{world.dataset_id}/query", json=body), 400)


async def test_what_is_in_an_order_of_distance_is_not_deleted(world: World) -> None:
    into = await new_set(world, 1)
    for change in ({"delete": True}, {"update": {"metadata": {"user": {"a": 1}}}}):
        body = joined(into, {"input": [1]}) | change
        told = message(await world.owner.post(f"/datasets/{world.dataset_id}/query", json=body), 400)
        assert "has no order" in told


async def test_a_search_that_takes_too_long_is_stopped(
    world: World, set_up: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    into = await new_set(world)
    dataset_id, (item_id,) = await with_items(world, 1)
    await put(world, vector(into, dataset_id, item_id, [1, 2]))
    set_up(query_timeout_s=0.001)
    real = similarity._measured

    async def slowly(conn: Any, *arguments: Any) -> Any:
        await conn.execute("SELECT pg_sleep(10)")
        return await real(conn, *arguments)

    monkeypatch.setattr(similarity, "_measured", slowly)
    asked = {"featureSetId": into["id"], "vector": [1, 2]}
    told = message(await world.owner.post(f"/datasets/{dataset_id}/items/similar", json=asked), 408)
    assert "/index" in told
    message(await world.owner.post(f"/datasets/{dataset_id}/query", json=joined(into, {"input": [1, 2]})), 408)
