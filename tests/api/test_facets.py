"""Facets: how many items have which value."""

import json
from typing import Any

import pytest

from tests.api.world import World, message


async def facets(world: World, dataset_id: str, *fields: Any, **more: Any) -> list[dict[str, Any]]:
    answer = await world.owner.post(f"/datasets/{dataset_id}/facets", json={"fields": fields} | more)
    assert answer.status_code == 200, answer.text
    return answer.json()["facets"]


def counts(facet: dict[str, Any]) -> list[tuple[Any, int]]:
    return [(one["value"], one["items"]) for one in facet["values"]]


@pytest.fixture(scope="module")
async def dataset_id(world: World) -> str:
    made = await world.new_dataset()
    for number, path in enumerate(["/a/1.txt", "/a/b/2.txt", "/a/b/c/3.jpg", "/d/4.txt", "/5.txt", "/a-b/6.txt"]):
        user = {"n": number % 2, "tags": ["all", f"t{number}"], "deep": {"x": "yes"} if number == 3 else {}}
        content = b"\xff\xd8\xff\xe0" if path.endswith(".jpg") else b"text"
        await world.upload(made, path, content, metadata=json.dumps({"user": user}))
    await world.upload(made, "/.dataloop/hidden.txt", b"text", metadata=json.dumps({"user": {"n": 7}}))
    return made


async def test_values_are_counted_the_most_frequent_first(world: World, dataset_id: str) -> None:
    mime, n, tags, deep, creator, state = await facets(
        world, dataset_id, "metadata.system.mimetype", "metadata.user.n", "metadata.user.tags", "metadata.user.deep.x",
        "creator", "metadata.system.etl.state", limit=3,
    )  # fmt: skip
    assert counts(mime) == [("text/plain", 5), ("image/jpeg", 1)]
    assert counts(n) == [(0, 3), (1, 3)]
    assert counts(tags) == [("all", 6), ("t0", 1), ("t1", 1)]
    assert tags["more"] == 4
    assert counts(deep) == [("yes", 1)]
    assert counts(creator) == [("owner@headwater.test", 6)]
    assert counts(state) == [("waiting", 6)]


async def test_only_what_the_filter_finds_is_counted(world: World, dataset_id: str) -> None:
    body = {"filter": {"$and": [{"metadata.user.n": 1}]}, "fields": ["metadata.user.tags"]}
    answer = (await world.owner.post(f"/datasets/{dataset_id}/facets", json=body)).json()
    assert answer["itemsCount"] == 3
    assert counts(answer["facets"][0]) == [("all", 3), ("t1", 1), ("t3", 1), ("t5", 1)]
    (hidden,) = await facets(world, dataset_id, "metadata.user.n", filter={"$and": [{"hidden": True}]})
    assert counts(hidden) == [(7, 1)]


async def test_folders_are_counted_with_all_that_is_below_them(world: World, dataset_id: str) -> None:
    root, a, b = await facets(
        world, dataset_id, "dir", {"field": "dir", "folder": "/a"}, {"field": "dir", "folder": "/a/b/c"}
    )
    assert counts(root) == [("/a", 3), ("/a-b", 1), ("/d", 1)]
    assert counts(a) == [("/a/b", 2)]
    assert [b["folder"], counts(b)] == ["/a/b/c", []]
    (inner,) = await facets(world, dataset_id, {"field": "dir", "folder": "/a/b"})
    assert counts(inner) == [("/a/b/c", 1)]
    (found,) = await facets(world, dataset_id, "dir", filter={"$and": [{"metadata.user.n": 1}]}, limit=1)
    assert [counts(found), found["more"]] == [[("/a", 1)], 2]


async def test_labels_are_counted_by_items_and_by_annotations(world: World) -> None:
    dataset_id = await world.new_dataset()
    for number in range(3):
        item = await world.upload(dataset_id, f"/{number}.txt", b"text")
        body = [{"type": "class", "label": "cat"}] * (number + 1) + [{"type": "box", "label": "dog", "coordinates": [
            {"x": 1, "y": 1, "z": 0}, {"x": 2, "y": 2, "z": 0}]}] * (number == 2)  # fmt: skip
        assert (await world.owner.post(f"/items/{item['id']}/annotations", json=body)).status_code == 200
    label, kind, status = await facets(world, dataset_id, "label", "annotationType", "annotationStatus")
    assert label["values"] == [
        {"value": "cat", "items": 3, "annotations": 6},
        {"value": "dog", "items": 1, "annotations": 1},
    ]
    assert [one["value"] for one in kind["values"]] == ["class", "box"]
    assert status["values"] == []
    (found,) = await facets(world, dataset_id, "label", filter={"$and": [{"filename": "/0.txt"}]})
    assert found["values"] == [{"value": "cat", "items": 1, "annotations": 1}]


@pytest.mark.parametrize(
    ("body", "told"),
    [
        ({"fields": []}, "fields"),
        ({"fields": ["id"]}, "different for every item"),
        ({"fields": ["filename"]}, "different for every item"),
        ({"fields": ["no such field"]}, "no field 'no such field'"),
        ({"fields": ["metadata.user.\0"]}, "NUL"),
        ({"fields": ["metadata.user." + "a." * 60 + "a"]}, "too deep"),
        ({"fields": ["dir"] * 21}, "fields"),
        ({"fields": ["label"], "limit": 1_001}, "limit"),
        ({"fields": ["label"], "limit": -1}, "limit"),
        ({"fields": ["label"], "filter": {"$and": [{"x": 1}]}}, "no field 'x'"),
        ({"fields": ["label"], "filter": {"$and": [{"type": "dir"}, {"filename": {"$wrong": 1}}]}}, "$wrong"),
        ({"fields": [{"field": "dir", "folder": "/\0"}]}, "NUL"),
        ({"fields": [{"folder": "/"}]}, "fields"),
    ],
)
async def test_what_cannot_be_counted_is_refused(world: World, dataset_id: str, body: Any, told: str) -> None:
    assert told in message(await world.owner.post(f"/datasets/{dataset_id}/facets", json=body), 400)


async def test_a_folder_that_is_not_there_is_told(world: World, dataset_id: str) -> None:
    body = {"fields": [{"field": "dir", "folder": "/none"}]}
    assert "'/none'" in message(await world.owner.post(f"/datasets/{dataset_id}/facets", json=body), 404)


async def test_what_is_not_searched_is_not_counted(world: World) -> None:
    dataset_id = await world.new_dataset()
    await world.owner.post(
        f"/datasets/{dataset_id}/schema/items", json={"unsearchablePaths": {"add": ["metadata.user.x"]}}
    )
    answer = await world.owner.post(f"/datasets/{dataset_id}/facets", json={"fields": ["metadata.user.x.y"]})
    assert "taken out of searching" in message(answer, 400)
