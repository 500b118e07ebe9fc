"""Queries of a dataset over the API: pages of items and of annotations, contexts, and changes of what is chosen."""

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from headwater.catalog.query import Condition, HasAnnotation
from tests.api.world import World, message

BOX = {"type": "box", "coordinates": [{"x": 1, "y": 2}, {"x": 3, "y": 4}]}


@pytest.fixture
async def dataset_id(world: World) -> str:
    """/0.txt … /4.txt with as many annotations as their number: boxes, `even` or `odd` by turns."""
    dataset_id = await world.new_dataset()
    for number in range(5):
        item = await world.upload(dataset_id, f"/{number}.txt", b"text")
        if number:
            boxes = [{**BOX, "label": "odd" if each % 2 else "even"} for each in range(number)]
            made = await world.owner.post(f"/items/{item['id']}/annotations", json=boxes)
            assert made.status_code == 200, made.text
    return dataset_id


async def asked(world: World, dataset_id: str, who: str = "organisation owner", **body: Any) -> dict[str, Any]:
    answer = await world.callers[who].post(f"/datasets/{dataset_id}/query", json=body)
    assert answer.status_code == 200, answer.text
    return answer.json()


async def names(world: World, dataset_id: str, **body: Any) -> list[str]:
    page = await asked(world, dataset_id, **body)
    found = [item.get("name") or item["label"] for item in page["items"]]
    assert page["totalItemsCount"] >= len(found)
    return found


async def test_annotations_come_in_pages_by_number_and_by_id(world: World, dataset_id: str) -> None:
    body: dict[str, Any] = {"resource": "annotations", "filter": {"$and": [{"type": {"$in": ["box"]}}]}}
    page = await asked(world, dataset_id, **body, page=1, pageSize=4, sort={"label": "descending"})
    shape = {name: page[name] for name in ("totalItemsCount", "totalPagesCount", "hasNextPage")}
    assert shape == {"totalItemsCount": 10, "totalPagesCount": 3, "hasNextPage": True}
    assert [found["label"] for found in page["items"]] == ["even"] * 4
    assert (await asked(world, dataset_id, **body, pageSize=0))["totalItemsCount"] == 10
    seen: list[str] = []
    while True:
        after = [{"id": {"$gt": seen[-1]}}] if seen else []
        conditions = {"$and": [*body["filter"]["$and"], *after]}
        page = await asked(
            world, dataset_id, resource="annotations", filter=conditions, pageSize=3, sort={"id": "ascending"}
        )
        assert page["totalItemsCount"] == 10 - len(seen)
        seen += [found["id"] for found in page["items"]]
        if not page["hasNextPage"]:
            break
    assert len(set(seen)) == 10
    assert seen == sorted(seen)


async def test_items_and_annotations_find_each_other(world: World, dataset_id: str) -> None:
    odd = {"join": {"filter": {"label": "odd"}}}
    assert await names(world, dataset_id, **odd) == ["2.txt", "3.txt", "4.txt"]
    assert await names(world, dataset_id, **{"except": {"query": odd}}) == ["0.txt", "1.txt"]
    of_two = {"resource": "annotations", "join": {"filter": {"name": "2.txt"}}}
    assert await names(world, dataset_id, **of_two) == ["even", "odd"]
    assert (await asked(world, dataset_id, **odd, pageSize=1))["totalItemsCount"] == 3


async def test_a_context_narrows_and_never_widens(world: World, dataset_id: str) -> None:
    other = await world.new_dataset()
    for resource, total in (("items", 5), ("annotations", 10)):
        for context, expected in (
            ({"projects": [world.project_id]}, total),
            ({"projects": [world.project_id], "datasets": [other, dataset_id]}, total),
            ({"datasets": [other]}, 0),
            ({"projects": []}, 0),
            ({"projects": ["not an id"]}, 0),
        ):
            page = await asked(world, dataset_id, resource=resource, filter={}, context=context)
            assert (page["totalItemsCount"], len(page["items"])) == (expected, expected)
    nothing = {"filter": {}, "context": {"datasets": [other]}}
    assert (await asked(world, dataset_id, **nothing, delete=True))["status"] == "success"
    assert (await asked(world, dataset_id, **nothing, resource="annotations", delete=True))["status"] == "success"
    update = {"update": {"metadata": {"user": {"n": 1}}}}
    assert (await asked(world, dataset_id, **nothing, **update))["status"] == "success"
    assert (await asked(world, dataset_id, filter={}))["totalItemsCount"] == 5
    assert (await asked(world, dataset_id, filter={}, resource="annotations"))["totalItemsCount"] == 10
    assert await names(world, dataset_id, filter={"metadata.user.n": 1}) == []


async def test_items_are_changed_and_deleted_by_joins_and_sets(world: World, dataset_id: str) -> None:
    update = {"metadata": {"user": {"odd": True}}}
    await asked(world, dataset_id, filter={}, join={"filter": {"label": "odd"}}, update=update)
    marked = {"filter": {"metadata.user.odd": True}}
    assert await names(world, dataset_id, **marked) == ["2.txt", "3.txt", "4.txt"]
    three = {"query": {"filter": {"name": "3.txt"}}}
    await asked(world, dataset_id, filter={"name": {"$in": ["1.txt", "3.txt", "4.txt"]}}, intersect=three, delete=True)
    await asked(world, dataset_id, **marked, **{"except": {"query": {"filter": {"name": "4.txt"}}}}, delete=True)
    assert await names(world, dataset_id, filter={}) == ["0.txt", "1.txt", "4.txt"]


async def test_annotations_are_changed_and_deleted_by_the_items_they_are_of(world: World, dataset_id: str) -> None:
    of_four = {"resource": "annotations", "filter": {"label": "odd"}, "join": {"filter": {"name": "4.txt"}}}
    done = await asked(world, dataset_id, **of_four, update={"metadata": {"user": {"seen": True}}})
    assert done["status"] == "success"
    seen = {"resource": "annotations", "filter": {"metadata.user.seen": True}}
    assert await names(world, dataset_id, **seen) == ["odd", "odd"]
    done = await asked(world, dataset_id, **seen, delete=True, who="annotator")
    assert done["status"] == "success"
    assert (await asked(world, dataset_id, resource="annotations"))["totalItemsCount"] == 8
    assert (await asked(world, dataset_id, filter={"annotationsCount": 2}))["totalItemsCount"] == 2
    unsaid = await world.owner.post(f"/datasets/{dataset_id}/query", json={"resource": "annotations", "delete": True})
    assert "filter is missing" in message(unsaid, 400)


async def test_a_stranger_learns_nothing_of_a_dataset(world: World, dataset_id: str) -> None:
    for body in (
        {},
        {"resource": "annotations"},
        {"context": {"datasets": [dataset_id]}},
        {"filter": {}, "delete": True},
    ):
        message(await world.callers["stranger"].post(f"/datasets/{dataset_id}/query", json=body), 404)


async def test_a_change_whose_items_take_too_long_to_find_is_refused(world: World, dataset_id: str) -> None:
    """Nothing is changed, nothing goes on, and what is asked next has its time again."""
    await world.execute(
        """
        INSERT INTO item (dataset_id, folder_id, size_bytes, path, etag, user_metadata)
        SELECT dataset_id, folder_id, 1, '/' || n, '', jsonb_build_object('k', repeat('a', 20000) || n)
        FROM item, generate_series(1, 300) AS n
        WHERE dataset_id = %s AND path = '/0.txt'
        """,
        int(dataset_id, 16),
    )
    server = world.app.state.server
    slow = {"metadata.user.k": "*a" * 19 + "b"}
    query, update = {"filter": {"$not": slow}}, {"update": {"metadata": {"user": {"n": 1}}}}
    before = await world.execute("SELECT count(*) FROM command")
    world.app.state.server = replace(server, settings=server.settings.model_copy(update={"query_timeout_s": 0.0005}))
    try:
        for way, body in (
            ("query", query | {"delete": True}),
            ("query", query | update),
            ("items/bulk-update-metadata", {"query": query, "updateQuery": update}),
            ("items/bulk-update-metadata", {"query": query, "updateQuery": update, "dryRun": True}),
            ("delete-items", {"filter": query["filter"], "dryRun": True}),
            ("move-items", {"filter": query["filter"], "to": "/to"}),
            ("split", {"itemsQuery": query, "MLSplitList": {"train": 100}}),
            ("items/collections/bulk-add", {"query": query, "collections": ["slow"]}),
        ):
            told = message(await world.owner.post(f"/datasets/{dataset_id}/{way}", json=body), 408)
            assert "was stopped. Nothing was changed." in told
    finally:
        world.app.state.server = server
    assert await world.execute("SELECT count(*) FROM command") == before
    assert (await asked(world, dataset_id, filter={}, pageSize=0))["totalItemsCount"] == 305
    assert (await asked(world, dataset_id, filter={"metadata.user.k": "a*"}, delete=True))["status"] == "success"
    assert (await asked(world, dataset_id, filter={}))["totalItemsCount"] == 5


async def test_patterns_that_look_back_end_in_time(world: World) -> None:
    """Long texts of one character, and patterns that almost match them: as much work as a matcher can be given."""
    dataset_id = await world.new_dataset()
    await world.upload(dataset_id, "/first.txt", b"text")
    await world.execute(
        """
        INSERT INTO item (dataset_id, folder_id, size_bytes, path, etag, user_metadata)
        SELECT dataset_id, folder_id, 1, '/' || repeat('a', 900) || n, '',
            jsonb_build_object('k', repeat('a', 20000) || n)
        FROM item, generate_series(1, 300) AS n
        WHERE dataset_id = %s
        """,
        int(dataset_id, 16),
    )
    limit = world.app.state.server.settings.query_timeout_s
    for field in ("metadata.user.k", "filename", "name"):
        for pattern in (
            "*a" * 19 + "b",
            "*" + "a" * 1_000 + "b*",
            "/*a*a*a*a*a*a*a*a*a*a*a*a/b",
            "**" + "a*" * 18 + "**b",
        ):
            async with asyncio.timeout(limit + 30):
                answer = await world.owner.post(f"/datasets/{dataset_id}/query", json={"filter": {field: pattern}})
            assert answer.status_code in (200, 408), answer.text
            if answer.status_code == 200:
                assert answer.json()["totalItemsCount"] == 0


def test_a_slow_query_of_annotations_suggests_no_index_of_items() -> None:
    from headwater.catalog.slow_queries import paths_of

    assert paths_of(HasAnnotation(Condition("metadata.user.k", "eq", 1))) == []
