"""Metadata and imports over HTTP: every door has the same limits, and what is refused leaves nothing behind."""

import json
from typing import Any

import pytest

from headwater.catalog import commands
from tests.api.world import World, message, upload

LARGE = {"a": "x" * 1_000_001}
AS_JSON = {"content-type": "application/json"}
BAD: list[tuple[Any, str]] = [
    (LARGE, "metadata.user is 1,000,010 bytes of JSON; 1,000,000 are the most"),
    ([1], "metadata.user is a JSON object"),
    ("text", "metadata.user is a JSON object"),
    ({"a": "\0"}, "NUL"),
    ({"a\0": 1}, "NUL"),
]


def deep(levels: int) -> dict[str, Any]:
    return {"a": deep(levels - 1)} if levels else {}


@pytest.mark.parametrize(("user", "told"), [*BAD, (deep(101), "nested more than 100")])
async def test_every_door_refuses_the_same_metadata(world: World, user: Any, told: str) -> None:
    dataset_id = await world.new_dataset()
    item = await world.upload(dataset_id, "/kept.txt", b"kept", metadata='{"user": {"n": 1}}')
    metadata = {"metadata": {"user": user}}
    uploaded = await upload(world.owner, dataset_id, "/new.txt", b"new", metadata=json.dumps(metadata["metadata"]))
    assert told in message(uploaded, 400)
    assert told in message(await world.owner.patch(f"/items/{item['id']}", json=metadata), 400)
    query = {"filter": {}, "update": metadata}
    assert told in message(await world.owner.post(f"/datasets/{dataset_id}/query", json=query), 400)
    body = {"query": {"filter": {}}, "updateQuery": {"update": metadata}}
    bulk = await world.owner.post(f"/datasets/{dataset_id}/items/bulk-update-metadata", json=body)
    assert told in message(bulk, 400)
    found = (await world.owner.post(f"/datasets/{dataset_id}/query", json={"filter": {"type": "file"}})).json()["items"]
    assert [(one["filename"], one["metadata"]["user"]) for one in found] == [("/kept.txt", {"n": 1})]


async def test_metadata_that_grows_too_large_by_small_steps_is_refused(world: World) -> None:
    item = await world.upload(await world.new_dataset(), "/a.txt", b"text")
    url = f"/items/{item['id']}"
    assert (await world.owner.patch(url, json={"metadata": {"user": {"a": "x" * 600_000}}})).status_code == 200
    refused = await world.owner.patch(url, json={"metadata": {"user": {"b": "x" * 600_000}}})
    assert "metadata.user is 1,2" in message(refused, 400)
    assert (await world.owner.patch(url, json={"metadata": {"user": {"a": None, "b": 1}}})).json()["metadata"][
        "user"
    ] == {"b": 1}


@pytest.mark.parametrize(
    ("update", "system_space", "told"),
    [
        ({"metadata": {"system": {"tags": {"a": True}}}}, False, "systemSpace"),
        ({"metadata": {"system": {"size": 1, "etl": {}, "thumbnailId": "x"}}}, True, "changes nothing"),
        ({"metadata": {"user": {}}}, False, "changes nothing"),
        ({"metadata": {"fps": 25}}, False, "the parts user and system"),
        ({"filename": "/b"}, False, "nothing else of many"),
        ({}, False, "nothing else of many"),
    ],
)
async def test_what_may_not_be_changed_of_many(world: World, update: Any, system_space: bool, told: str) -> None:
    query = {"filter": {}, "update": update, "systemSpace": system_space}
    assert told in message(await world.owner.post(f"/datasets/{world.dataset_id}/query", json=query), 400)
    body = {"query": {"filter": {}}, "updateQuery": {"update": update, "systemSpace": system_space}}
    url = f"/datasets/{world.dataset_id}/items/bulk-update-metadata"
    assert told in message(await world.owner.post(url, json=body), 400)


async def test_small_changes_are_done_when_they_are_answered(world: World) -> None:
    dataset_id = await world.new_dataset()
    for path in ("/a*.txt", "/ab.txt", "/b/c.txt"):
        await world.upload(dataset_id, path, b"text")
    update = {"updateQuery": {"update": {"metadata": {"user": {"n": 1}}}}}
    url = f"/datasets/{dataset_id}/items/bulk-update-metadata"
    tried = (
        await world.owner.post(url, json=update | {"query": {"filter": {}}, "folder": "/b", "dryRun": True})
    ).json()
    assert tried == {"dryRun": True, "items": 1, "examples": ["/b/c.txt"]}
    done = (await world.owner.post(url, json=update | {"query": {"filter": {}}, "paths": ["/a*.txt"]})).json()
    assert (done["status"], done["spec"]["update"]["changed"]) == ("success", 1)
    assert "filter is missing" in message(await world.owner.post(url, json=update | {"query": {}}), 400)
    for part in ("references", "$and"):  # would choose fewer than the filter
        narrowed = {"filter": {}, part: {"query": {"filter": {}}}}
        assert part in message(await world.owner.post(url, json=update | {"query": narrowed}), 400)
        split = {"itemsQuery": narrowed, "MLSplitList": {"train": 100}}
        assert part in message(await world.owner.post(f"/datasets/{dataset_id}/split", json=split), 400)


@pytest.mark.parametrize("name", ["", " ", "a\0", "\ud800", "a.b", "x" * 256])
async def test_a_subset_has_a_name_that_filters_can_say(world: World, name: str) -> None:
    body = json.dumps({"itemsQuery": {"filter": {}}, "MLSplitList": {name: 100}})
    answer = await world.owner.post(f"/datasets/{world.dataset_id}/split", content=body, headers=AS_JSON)
    message(answer, 400)


@pytest.mark.parametrize("shares", [{"train": 50}, {"train": 101, "test": -1}, {}, {"train": 50, " train": 50}])
async def test_shares_are_a_hundred_per_cent(world: World, shares: dict[str, int]) -> None:
    body = {"itemsQuery": {"filter": {}}, "MLSplitList": shares}
    assert "MLSplitList" in message(await world.owner.post(f"/datasets/{world.dataset_id}/split", json=body), 400)


async def test_only_a_change_of_user_metadata_is_an_edit(world: World) -> None:
    item = await world.upload(await world.new_dataset(), "/a.txt", b"text")

    async def edited() -> bool:
        ((at,),) = await world.execute("SELECT metadata_edited_at FROM item WHERE id = %s", int(item["id"], 16))
        return at is not None

    url = f"/items/{item['id']}?system=true"
    for body in (
        {"description": "x"},
        {"metadata": {"user": {}}},
        {"metadata": {"system": {"tags": {"a": True}}}},
    ):
        assert (await world.owner.patch(url, json=body)).status_code == 200
        assert not await edited()
    assert (await world.owner.patch(url, json={"metadata": {"user": {"n": 2}}})).status_code == 200
    assert await edited()


@pytest.mark.parametrize(
    ("kind", "status"), [("DeleteItems", 200), ("UpdateItems", 200), ("SyncDataset", 403), ("CloneDataset", 403)]
)
async def test_who_may_start_it_may_abort_it(world: World, kind: str, status: int) -> None:
    async with world.pool.connection() as conn:
        number = await commands.start_command(
            conn,
            project_id=int(world.project_id, 16),
            dataset_id=int(world.dataset_id, 16),
            kind=kind,
            spec={},
            creator_id=None,
        )
    url = f"/commands/{number:024x}/abort"
    assert (await world.callers["annotationManager"].post(url)).status_code == status
    assert (await world.callers["annotator"].post(url)).status_code == 403
    assert (await world.callers["outsider"].post(url)).status_code == 404


async def test_several_slashes_in_front_are_one_unless_there_are_such_paths(world: World) -> None:
    (world.folder / "in").mkdir(exist_ok=True)
    dataset_id = await world.new_dataset()
    await world.upload(dataset_id, "/in/y.jpg", b"text")

    async def found(path: str) -> list[str]:
        answer = await world.owner.post(
            f"/datasets/{dataset_id}/query", json={"filter": {"$and": [{"filename": path}]}}
        )
        return [item["filename"] for item in answer.json()["items"]]

    assert await found("//in/y.jpg") == ["/in/y.jpg"]
    assert await found("///in/**") == ["/in/y.jpg"]
    await world.execute(
        "UPDATE item SET path = '//in/y.jpg' WHERE dataset_id = %s AND path = '/in/y.jpg'", int(dataset_id, 16)
    )
    await world.upload(dataset_id, "/in/y.jpg", b"another")
    assert await found("//in/y.jpg") == ["//in/y.jpg"]
    assert await found("/in/y.jpg") == ["/in/y.jpg"]


async def test_an_import_answers_for_each_in_its_place(world: World) -> None:
    dataset_id = await world.new_dataset(driver=world.driver_id, sync=False)
    url = f"/datasets/{dataset_id}/imports"
    asked = [{"storageId": "none.txt"}, {"filename": "/elsewhere/x.txt", "storageId": "a.txt"}]
    answer = await world.owner.post(url, json=asked)
    assert (answer.status_code, answer.headers["x-item-op"]) == (200, "created")
    failed, item = answer.json()
    assert (failed["storageId"], failed["error"]["status"]) == ("none.txt", 404)
    assert "There is no object 'none.txt'" in failed["error"]["message"]
    assert (item["filename"], item["metadata"]["system"]["size"], item["creator"]) == (
        "/a.txt",
        10,
        "owner@headwater.test",
    )
    again = await world.owner.post(url, json=asked[1:])
    assert (again.status_code, again.headers["x-item-op"]) == (200, "skip")
    assert "There is no object" in message(await world.owner.post(url, json=asked[:1]), 404)
    assert "own storage" in message(await world.owner.post(f"/datasets/{world.dataset_id}/imports", json=asked), 400)
    for bad in ([], {}, [{}], [{"storageId": ""}], [{"storageId": "x" * 5_000}], asked * 501):
        assert (await world.owner.post(url, json=bad)).status_code == 400


async def test_the_folder_of_the_dataset_is_not_deleted_as_an_item(world: World) -> None:
    dataset_id = await world.new_dataset()
    await world.upload(dataset_id, "/a/b.txt", b"text")
    rows = await world.execute("SELECT id, path FROM folder WHERE dataset_id = %s", int(dataset_id, 16))
    folders = {path: f"{number:024x}" for number, path in rows}
    assert "dataset's own folder" in message(await world.owner.delete(f"/items/{folders['/']}"), 400)
    assert (await world.callers["annotator"].delete(f"/items/{folders['/a']}")).status_code == 403
    hidden = await world.callers["outsider"].delete(f"/items/{folders['/a']}")
    assert message(hidden, 404) == f"No item with id {folders['/a']}."
    assert (await world.owner.delete(f"/items/{folders['/a']}")).json() == {"success": True}
    answer = await world.owner.post(f"/datasets/{dataset_id}/query", json={"filter": {"type": "file"}})
    assert answer.json()["items"] == []
