"""Collections over HTTP: ten of a dataset, each in a slot of its own, whose marks go before it is given anew."""

import asyncio
from typing import Any
from urllib.parse import quote

import pytest

from headwater.catalog import item_collections
from headwater.work import item_collections as work
from tests.api.world import World, message

FIELD = "metadata.system.collections.c"


def url_of(dataset_id: str, rest: str = "") -> str:
    return f"/datasets/{dataset_id}/items/collections{rest}"


async def create(world: World, dataset_id: str, name: str, status: int = 200) -> dict[str, Any]:
    answer = await world.owner.post(url_of(dataset_id), json={"name": name})
    assert answer.status_code == status, answer.text
    return answer.json()


async def mark(world: World, dataset_id: str, what: dict[str, Any], *names: str, doing: str = "add") -> dict[str, Any]:
    body = {"query": {"filter": what}, "collections": list(names)}
    answer = await world.owner.post(url_of(dataset_id, f"/bulk-{doing}"), json=body)
    assert answer.status_code == 200, answer.text
    assert answer.json()["status"] == "success", answer.json()
    return answer.json()


async def found(world: World, dataset_id: str, what: dict[str, Any]) -> list[str]:
    answer = await world.owner.post(f"/datasets/{dataset_id}/query", json={"filter": {"type": "file", **what}})
    assert answer.status_code == 200, answer.text
    return sorted(item["filename"] for item in answer.json()["items"])


async def with_items(world: World, number: int = 3) -> str:
    dataset_id = await world.new_dataset()
    for each in range(number):
        await world.upload(dataset_id, f"/{each}.txt", b"text")
    return dataset_id


async def test_items_go_in_and_out(world: World) -> None:
    dataset_id = await with_items(world)
    assert await create(world, dataset_id, "best") == {f"{FIELD}0": {"name": "best"}}
    done = await mark(world, dataset_id, {"filename": "/0.txt"}, "best", "made along")
    assert done["spec"]["update"] == {"items": 1, "done": 1, "changed": 1, "tooLarge": 0}
    assert (await world.owner.get(url_of(dataset_id))).json() == {
        f"{FIELD}0": {"name": "best"},
        f"{FIELD}1": {"name": "made along"},
    }
    assert await found(world, dataset_id, {f"{FIELD}1": True}) == ["/0.txt"]
    unassigned = {f"collections{slot}": {"$exists": False} for slot in range(10)}
    assert await found(world, dataset_id, unassigned) == ["/1.txt", "/2.txt"]
    await mark(world, dataset_id, {}, "best", "made along", doing="remove")
    assert await found(world, dataset_id, unassigned) == ["/0.txt", "/1.txt", "/2.txt"]
    answer = await world.owner.post(
        url_of(dataset_id, "/bulk-remove"), json={"query": {"filter": {}}, "collections": ["nothing"]}
    )
    assert "Collections: 'best', 'made along'." in message(answer, 404)
    answer = await world.owner.post(url_of(dataset_id, "/bulk-add"), json={"query": {}, "collections": ["best"]})
    assert "filter is missing" in message(answer, 400)


async def test_a_new_collection_has_nothing_of_the_old_one(world: World) -> None:
    dataset_id = await with_items(world)
    await mark(world, dataset_id, {}, "old")
    command = (await world.owner.delete(url_of(dataset_id, "/old"))).json()
    assert command["status"] == "success"
    assert (await world.owner.get(url_of(dataset_id))).json() == {}
    assert await create(world, dataset_id, "new") == {f"{FIELD}0": {"name": "new"}}
    assert await found(world, dataset_id, {f"{FIELD}0": {"$exists": True}}) == []


async def test_what_is_being_deleted_keeps_slot_and_name_until_it_is_gone(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset_id = await with_items(world, 5)
    await mark(world, dataset_id, {}, "old")
    monkeypatch.setattr(work, "_PIECE_ITEMS", 2)
    real, pieces = work._empty_next, 0

    async def one_piece(*arguments: Any) -> bool:
        """The server falls silent after the first."""
        nonlocal pieces
        pieces += 1
        return await real(*arguments) if pieces == 1 else True

    monkeypatch.setattr(work, "_empty_next", one_piece)
    command = (await world.owner.delete(url_of(dataset_id, "/old"))).json()
    assert (command["status"], command["spec"]["update"]["done"]) == ("in-progress", 2)
    assert (await world.owner.get(url_of(dataset_id))).json() == {}
    assert "just being deleted" in (await create(world, dataset_id, "old", 409))["message"]
    assert list(await create(world, dataset_id, "other")) == [f"{FIELD}1"]
    assert (await world.owner.delete(url_of(dataset_id, "/old"))).json()["id"] == command["id"]
    body = {"query": {"filter": {}}, "collections": ["old"]}
    assert "just being deleted" in message(await world.owner.post(url_of(dataset_id, "/bulk-add"), json=body), 409)
    monkeypatch.setattr(work, "_empty_next", real)
    await world.owner.post(f"/commands/{command['id']}/abort")
    (job,) = await world.execute(
        "SELECT args FROM procrastinate_jobs WHERE task_name = %s AND args ->> 'command_id' = %s",
        work.TASK,
        str(int(command["id"], 16)),
    )
    await work.mark_items(world.app.state.server.place, **job[0])
    assert (await world.owner.get(f"/commands/{command['id']}")).json()["status"] == "aborted"
    assert len(await found(world, dataset_id, {f"{FIELD}0": True})) == 3  # it is back, with what is left of it
    assert sorted(one["name"] for one in (await world.owner.get(url_of(dataset_id))).json().values()) == [
        "old",
        "other",
    ]


async def _silent(*_: Any) -> bool:
    return True


@pytest.mark.parametrize("status", ["success", "created"])
async def test_nothing_is_added_to_a_collection_that_goes_meanwhile(
    world: World, monkeypatch: pytest.MonkeyPatch, status: str
) -> None:
    dataset_id = await with_items(world, 5)
    await create(world, dataset_id, "going")
    monkeypatch.setattr(work, "_PIECE_ITEMS", 2)
    real, pieces = work._mark_next, 0
    if status == "created":
        monkeypatch.setattr(work, "_empty_next", _silent)

    async def deleted_between(*arguments: Any) -> bool:
        nonlocal pieces
        pieces += 1
        if pieces == 2:
            assert (await world.owner.delete(url_of(dataset_id, "/going"))).json()["status"] == status
        return await real(*arguments)

    monkeypatch.setattr(work, "_mark_next", deleted_between)
    body = {"query": {"filter": {}}, "collections": ["going"]}
    command = (await world.owner.post(url_of(dataset_id, "/bulk-add"), json=body)).json()
    assert (command["status"], pieces) == ("failed", 2)
    assert "deleted meanwhile" in str(command["error"])
    left = await found(world, dataset_id, {f"{FIELD}0": {"$exists": True}})
    assert len(left) == (0 if status == "success" else 2)


async def test_of_many_created_at_once_each_has_its_own_slot_and_ten_are_the_most(world: World) -> None:
    dataset_id = await world.new_dataset()
    answers = await asyncio.gather(
        *(world.owner.post(url_of(dataset_id), json={"name": f"n{number % 6}"}) for number in range(12))
    )
    assert sorted(answer.status_code for answer in answers) == [200] * 6 + [409] * 6
    answers = await asyncio.gather(
        *(world.owner.post(url_of(dataset_id), json={"name": f"m{number}"}) for number in range(6))
    )
    assert sorted(answer.status_code for answer in answers) == [200] * 4 + [400] * 2
    there = (await world.owner.get(url_of(dataset_id))).json()
    assert list(there) == [f"{FIELD}{slot}" for slot in range(10)]
    assert "at most 10" in (await create(world, dataset_id, "another", 400))["message"]
    assert (await world.owner.delete(url_of(dataset_id, "/n3"))).json()["status"] == "success"
    await create(world, dataset_id, "another")


async def test_a_collection_that_many_ask_for_at_once_is_made_once(world: World) -> None:
    dataset_id = await with_items(world, 1)
    body = {"query": {"filter": {}}, "collections": ["best", " best"]}
    answers = await asyncio.gather(*(world.owner.post(url_of(dataset_id, "/bulk-add"), json=body) for _ in range(6)))
    assert [(answer.status_code, answer.json()["status"]) for answer in answers] == [(200, "success")] * 6
    assert (await world.owner.get(url_of(dataset_id))).json() == {f"{FIELD}0": {"name": "best"}}


@pytest.mark.parametrize(
    "name",
    ["day/night", "50%", "a b", "ä+b@c&d=e", "bulk-add", "it's", "x" * 255, "a.b", "...", "'; --", '[]{}|\\^`"<>'],
)
async def test_names_with_odd_characters_are_said_in_urls(world: World, name: str) -> None:
    dataset_id = await world.new_dataset()
    await create(world, dataset_id, name)
    renamed = await world.owner.patch(url_of(dataset_id, "/" + quote(name)), json={"name": name + "2"})
    if len(name) == 255:
        assert "1 to 255" in message(renamed, 400)
        return
    assert renamed.json() == {f"{FIELD}0": {"name": name + "2"}}
    assert (await world.owner.delete(url_of(dataset_id, "/" + quote(name + "2")))).status_code == 200
    assert (await world.owner.get(url_of(dataset_id))).json() == {}


@pytest.mark.parametrize(
    "name",
    ["", " ", "a?b", "a#b", "a%41", ".", "..", "a/../b", "/a", "a/", "a//b", "x" * 256, "a\0b", "a\nb", "\ud800"],
)
async def test_names_that_urls_would_lose_are_refused(world: World, name: str) -> None:
    dataset_id = await world.new_dataset()
    body = '{"name": "' + name.encode("unicode_escape").decode().replace("\\x", "\\u00") + '"}'
    answer = await world.owner.post(
        url_of(dataset_id), content=body.encode(), headers={"content-type": "application/json"}
    )
    message(answer, 400)
    assert (await world.owner.get(url_of(dataset_id))).json() == {}


@pytest.mark.parametrize("collections", [[], "best", [1], [None], ["a"] * 11, None, {"a": 1}])
async def test_bad_lists_of_collections_are_refused(world: World, collections: Any) -> None:
    for doing in ("add", "remove"):
        body = {"query": {"filter": {}}, "collections": collections}
        message(await world.owner.post(url_of(world.dataset_id, f"/bulk-{doing}"), json=body), 400)


async def test_collections_of_another_dataset_are_its_own(world: World) -> None:
    first, second = await with_items(world, 1), await with_items(world, 1)
    await mark(world, first, {}, "best")
    message(await world.owner.delete(url_of(second, "/best")), 404)
    message(await world.owner.patch(url_of(second, "/best"), json={"name": "x"}), 404)
    assert (await world.owner.get(url_of(second))).json() == {}
    async with world.pool.connection() as conn:
        assert [one.name for one in await item_collections.list_collections(conn, int(first, 16))] == ["best"]


async def test_a_read_only_dataset_keeps_its_collections(world: World) -> None:
    dataset_id = await with_items(world, 1)
    await mark(world, dataset_id, {}, "best")
    await world.owner.patch(f"/datasets/{dataset_id}", json={"readonly": True})
    assert "read-only" in message(await world.owner.delete(url_of(dataset_id, "/best")), 400)
    assert "read-only" in message(await world.owner.post(url_of(dataset_id), json={"name": "x"}), 400)


async def test_a_clone_has_the_collections_of_its_original(world: World) -> None:
    dataset_id = await with_items(world)
    await mark(world, dataset_id, {"filename": "/1.txt"}, "gone", "best")
    await world.owner.delete(url_of(dataset_id, "/gone"))
    for params, expected in (
        ({}, {f"{FIELD}1": {"name": "best"}}),
        ({"withMetadata": False}, {}),
    ):
        body = {"name": f"clone of {dataset_id} {params}", "filter": {}, "cloneDatasetParams": params}
        clone = (await world.owner.post(f"/datasets/{dataset_id}/clone", json=body)).json()
        assert clone["status"] == "success", clone
        clone_id = clone["spec"]["returnedModelId"]
        assert (await world.owner.get(url_of(clone_id))).json() == expected
        assert await found(world, clone_id, {f"{FIELD}1": True}) == (["/1.txt"] if expected else [])
    target = await with_items(world, 0)
    await mark(world, target, {}, "zero", "one")  # c1 means something else there
    body = {"name": "x", "filter": {}, "cloneDatasetParams": {"targetDatasetId": target}}
    assert (await world.owner.post(f"/datasets/{dataset_id}/clone", json=body)).json()["status"] == "success"
    assert len(await found(world, target, {})) == 3
    assert await found(world, target, {f"{FIELD}1": {"$exists": True}}) == []


async def test_a_split_takes_items_out_of_subsets_that_it_does_not_name(world: World) -> None:
    dataset_id = await with_items(world, 4)
    tags = {"validation": True, "night": True}
    update = {"update": {"metadata": {"system": {"tags": tags}}}, "systemSpace": True}
    body = {"query": {"filter": {}}, "updateQuery": update}
    assert (await world.owner.post(f"/datasets/{dataset_id}/items/bulk-update-metadata", json=body)).status_code == 200
    split = {"itemsQuery": {"filter": {}}, "MLSplitList": {"train": 50, "test": 50}}
    assert (await world.owner.post(f"/datasets/{dataset_id}/split", json=split)).json()["status"] == "success"
    items = (await world.owner.post(f"/datasets/{dataset_id}/query", json={"filter": {"type": "file"}})).json()["items"]
    found = sorted(sorted(item["metadata"]["system"]["tags"]) for item in items)
    assert found == [["night", "test"]] * 2 + [["night", "train"]] * 2
