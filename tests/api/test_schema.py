"""The schema of a dataset's metadata, facets, and metadata that is not searched."""

import json
import random
from typing import Any

import pytest

from headwater.catalog import datasets, schema
from tests.api.world import World, message, unique


async def with_items(world: World, *metadata: dict[str, Any], folder: str = "/a") -> str:
    dataset_id = await world.new_dataset()
    for number, user in enumerate(metadata):
        path = f"{folder}/{number}.txt"
        await world.upload(dataset_id, path, b"text", metadata=json.dumps({"user": user}))
    return dataset_id


async def schema_of(world: World, dataset_id: str) -> dict[str, Any]:
    answer = await world.owner.get(f"/datasets/{dataset_id}/schema")
    assert answer.status_code == 200, answer.text
    return answer.json()


def path_of(told: dict[str, Any], path: str) -> dict[str, Any]:
    return next(one for one in told["paths"] if one["path"] == path)


async def test_the_schema_tells_paths_types_frequencies_and_examples(world: World) -> None:
    dataset_id = await with_items(
        world,
        {"camera": "front", "lens": {"mm": 35}, "tags": ["day", "dry"], "boxes": [{"w": 1}, {"w": 2.5}]},
        {"camera": "front", "lens": {"mm": 50}, "tags": "night", "a.b": 1},
        {"camera": 3, "ok": True, "none": None, "long": "x" * 500},
    )
    told = await schema_of(world, dataset_id)
    assert told["itemsCount"] == 3
    assert told["sample"] == {"items": 3, "isComplete": True}
    camera = path_of(told, "metadata.user.camera")
    assert camera["types"] == {"string": 2, "integer": 1}
    assert [camera["items"], camera["share"], camera["distinctValues"]] == [3, 1.0, 2]
    assert camera["examples"] == [{"value": "front", "items": 2}, {"value": 3, "items": 1}]
    assert path_of(told, "metadata.user.lens.mm") | {"examples": []} == {
        "path": "metadata.user.lens.mm", "items": 2, "share": 0.666667, "isExact": False, "types": {"integer": 2},
        "distinctValues": 2, "examples": [], "minimum": 35, "maximum": 50, "isSearchable": True, "isIndexed": False,
    }  # fmt: skip
    assert path_of(told, "metadata.user.lens")["types"] == {"object": 2}
    tags = path_of(told, "metadata.user.tags")
    assert [tags["types"], tags["elementTypes"]] == [{"array": 1, "string": 1}, {"string": 1}]
    assert {one["value"] for one in tags["examples"]} == {"day", "dry", "night"}
    assert path_of(told, "metadata.user.boxes.w")["types"] == {"integer": 1, "number": 1}
    assert path_of(told, "metadata.user.ok")["examples"] == [{"value": True, "items": 1}]
    assert path_of(told, "metadata.user.a.b")["isSearchable"] is False
    assert len(path_of(told, "metadata.user.long")["examples"][0]["value"]) == 100
    assert path_of(told, "metadata.system.size")["examples"] == [{"value": 4, "items": 3}]
    assert path_of(told, "metadata.system.mimetype")["examples"] == [{"value": "text/plain", "items": 3}]
    assert path_of(told, "metadata.system.etl.state")["examples"] == [{"value": "waiting", "items": 3}]


async def test_the_schema_of_nothing_is_empty(world: World) -> None:
    told = await schema_of(world, await world.new_dataset())
    assert told == {
        "itemsCount": 0, "sample": {"items": 0, "isComplete": True}, "paths": [], "hasMorePaths": False,
        "unsearchablePaths": [],
    }  # fmt: skip


async def test_metadata_with_endless_keys_has_a_schema_with_an_end(world: World) -> None:
    users = [{f"key {number} {n}": n for n in range(1_500)} for number in range(3)]
    told = await schema_of(world, await with_items(world, *users))
    assert [len(told["paths"]), told["hasMorePaths"]] == [2_000, True]


async def test_what_is_hidden_and_what_is_others_is_not_in_it(world: World) -> None:
    dataset_id = await with_items(world, {"mine": 1})
    await with_items(world, {"theirs": 1})
    await world.upload(dataset_id, "/.dataloop/x.txt", b"x", metadata=json.dumps({"user": {"hidden": 1}}))
    paths = [one["path"] for one in (await schema_of(world, dataset_id))["paths"]]
    assert "metadata.user.mine" in paths
    assert not {"metadata.user.theirs", "metadata.user.hidden"} & set(paths)


async def fill(world: World, dataset_id: str, ids: list[int]) -> None:
    """Rows with these ids, each with its own number as metadata."""
    number = int(dataset_id, 16)
    await world.execute(
        """
        INSERT INTO item (dataset_id, id, folder_id, size_bytes, path, etag, user_metadata)
        SELECT %s, id, 0, 1, '/' || id, '', jsonb_build_object('half', id %% 2) FROM unnest(%s::bigint[]) AS given (id)
        """,
        number,
        ids,
    )
    await world.execute("UPDATE dataset_counter SET items = %s WHERE dataset_id = %s", len(ids), number)


@pytest.mark.parametrize("spread", ["in one run", "in two runs", "here and there"])
async def test_a_sample_is_spread_over_all_items(world: World, spread: str) -> None:
    """Each is as likely as any other: a tenth of the items, wherever it lies, is about a tenth of the sample."""
    first = {"in one run": 10**9, "in two runs": 2 * 10**9, "here and there": 4 * 10**9}[spread]
    ids = {
        "in one run": [first + n for n in range(40_000)],
        "in two runs": [first + n for n in range(36_000)] + [first + 10**9 + n for n in range(4_000)],
        "here and there": [first + n * 997 for n in range(40_000)],
    }[spread]
    dataset_id = await world.new_dataset()
    await fill(world, dataset_id, ids)
    async with world.pool.connection() as conn:
        dataset = await datasets.load_dataset(conn, int(dataset_id, 16))
        chosen, _ = await schema.sample_ids(conn, dataset, random.Random(1))
        sample = await schema.draw_sample(conn, dataset)
    assert 2_000 <= len(chosen) <= schema.SAMPLE_ITEMS
    late = sum(one >= ids[36_000] for one in chosen) / len(chosen)
    assert 0.05 < late < 0.16
    assert not sample.is_complete
    told = path_of(await schema_of(world, dataset_id), "metadata.user.half")
    assert told["types"] == {"integer": len(sample.items)}
    assert told["share"] == 1.0


# What is not searched.


async def unsearchable(world: World, dataset_id: str, **change: list[str]) -> Any:
    return await world.owner.post(f"/datasets/{dataset_id}/schema/items", json={"unsearchablePaths": change})


async def query(world: World, dataset_id: str, condition: dict[str, Any], **more: Any) -> Any:
    return await world.owner.post(f"/datasets/{dataset_id}/query", json={"filter": {"$and": [condition]}} | more)


async def test_unsearchable_paths_are_refused_in_filters_until_they_are_searched_again(world: World) -> None:
    dataset_id = await with_items(world, {"secret": {"a": 1}, "other": 2}, {"secret": {"a": 2}, "other": 2})
    assert (await world.owner.post(f"/datasets/{dataset_id}/items/collections", json={"name": "x"})).status_code == 200
    answer = await unsearchable(world, dataset_id, add=["metadata.user.secret"])
    assert answer.json()["status"] == "success"
    assert answer.json()["spec"]["unsearchablePaths"] == ["metadata.user.secret"]
    told = await schema_of(world, dataset_id)
    assert told["unsearchablePaths"] == ["metadata.user.secret"]
    assert path_of(told, "metadata.user.secret.a")["isSearchable"] is False
    assert path_of(told, "metadata.user.other")["isSearchable"] is True
    for condition in (
        {"metadata.user.secret": 1},
        {"metadata.user.secret.a": {"$gt": 1}},
        {"$or": [{"metadata.user.other": 2}, {"metadata.user.secret.a": {"$exists": True}}]},
    ):
        refused = message(await query(world, dataset_id, condition), 400)
        assert "taken out of searching" in refused
        refused = message(await query(world, dataset_id, condition, delete=True), 400)
        assert "taken out of searching" in refused
        body = {"exportType": "json", "itemsQuery": {"filter": {"$and": [condition]}}}
        refused = message(await world.owner.post(f"/datasets/{dataset_id}/export", json=body), 400)
        assert "taken out of searching" in refused
        body = {"query": {"filter": {"$and": [condition]}}, "collections": ["x"]}
        refused = message(await world.owner.post(f"/datasets/{dataset_id}/items/collections/bulk-add", json=body), 400)
        assert "taken out of searching" in refused
        joined = {"on": {"resource": "items", "local": "id", "forigen": "itemId"}, "filter": {"$and": [condition]}}
        of_annotations = {"resource": "annotations", "filter": {}, "join": joined}
        refused = message(await world.owner.post(f"/datasets/{dataset_id}/query", json=of_annotations), 400)
        assert "taken out of searching" in refused
    sort = {"metadata.user.secret.a": "ascending"}
    assert "taken out" in message(await query(world, dataset_id, {"type": "file"}, sort=sort), 400)
    assert (await query(world, dataset_id, {"metadata.user.other": 2})).json()["totalItemsCount"] == 2
    assert (await query(world, dataset_id, {"metadata.user.secrets": 2})).json()["totalItemsCount"] == 0
    assert (await unsearchable(world, dataset_id, remove=["metadata.user.secret"])).status_code == 200
    found = await query(world, dataset_id, {"metadata.user.secret.a": 2})
    assert [item["filename"] for item in found.json()["items"]] == ["/a/1.txt"]


@pytest.mark.parametrize(
    ("change", "status", "told"),
    [
        ({"add": ["filename"]}, 400, "begin with metadata.user."),
        ({"add": ["metadata.user"]}, 400, "begin with metadata.user."),
        ({"add": ["metadata.user.a..b"]}, 400, "begin with metadata.user."),
        ({"add": ["metadata.user." + "x" * 2_000]}, 400, "1,000 characters"),
        ({"add": ["metadata.user" + ".x" * 60]}, 400, "50 levels"),
        ({"add": ["metadata.user.\0"]}, 400, "NUL"),
        ({"add": [f"metadata.user.x{n}" for n in range(101)]}, 400, "at most 100"),
        ({"add": [5]}, 400, "add"),
        ({"remove": ["metadata.user.x"]}, 404, "is no unsearchable path"),
    ],
)
async def test_paths_that_cannot_be_are_refused(world: World, change: Any, status: int, told: str) -> None:
    dataset_id = await world.new_dataset()
    assert told in message(await unsearchable(world, dataset_id, **change), status)
    assert (await schema_of(world, dataset_id))["unsearchablePaths"] == []


async def test_the_columns_of_an_unsearchable_path_go(world: World) -> None:
    dataset_id = await world.new_dataset(name=unique("columns"))
    number = int(dataset_id, 16)
    await world.execute("INSERT INTO column_index (dataset_id, hash_key) VALUES (%s, '')", number)
    paths = ["metadata.user.a", "metadata.user.a.b", "metadata.user.ab", "metadata.system.size"]
    for path in paths:
        await world.execute(
            "INSERT INTO column_path (dataset_id, path, encoding) VALUES (%s, %s, 'codes')", number, path
        )
    await unsearchable(world, dataset_id, add=["metadata.user.a"])
    left = await world.execute("SELECT path FROM column_path WHERE dataset_id = %s ORDER BY number", number)
    assert [path for (path,) in left] == ["metadata.user.ab", "metadata.system.size"]
