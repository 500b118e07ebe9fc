"""Items and folders moved by HTTP as the SDK does it."""

import pytest

from headwater.api import folders
from tests.api.world import World, message, unique


@pytest.fixture
async def dataset_id(world: World) -> str:
    made = await world.new_dataset()
    for path in ("/a/1.txt", "/a/b/2.txt", "/3.txt"):
        await world.upload(made, path, path.encode())
    return made


async def find(world: World, dataset_id: str, kind: str) -> dict[str, str]:
    answer = await world.owner.post(f"/datasets/{dataset_id}/query", json={"filter": {"type": kind}})
    return {item["filename"]: item["id"] for item in answer.json()["items"]}


async def make_dir(world: World, dataset_id: str, path: str) -> str:
    answer = await world.owner.post(f"/datasets/{dataset_id}/items", data={"type": "dir", "path": path})
    return answer.json()["id"]


async def patch(world: World, item_id: str, filename: str):
    return await world.owner.patch(f"/items/{item_id}", params={"system": True}, json={"filename": filename})


async def tree(world: World, dataset_id: str) -> set[str]:
    def paths(node: dict) -> set[str]:
        return {node["value"]["filename"]}.union(*map(paths, node["children"]))

    return paths((await world.owner.get(f"/datasets/{dataset_id}/directoryTree")).json())


async def test_an_item_is_renamed_and_keeps_its_id_and_its_original_name(world, dataset_id):
    item_id = (await find(world, dataset_id, "file"))["/a/1.txt"]
    answer = (await patch(world, item_id, "/new/x.txt")).json()
    assert (answer["id"], answer["filename"], answer["name"], answer["dir"]) == (
        item_id,
        "/new/x.txt",
        "x.txt",
        "/new",
    )
    assert answer["metadata"]["system"]["originalname"] == "1.txt"
    assert (await world.owner.get(f"/items/{item_id}/stream")).content == b"/a/1.txt"


@pytest.mark.parametrize(
    ("filename", "status", "words"),
    [
        ("/3.txt", 409, "another item at /3.txt"),
        ("/a/../x", 400, "cannot be an item's path"),
        ("/.dataloop/x", 400, "own files"),
        ("/" + "x" * 1_025, 400, "bytes long"),
    ],
    ids=str,
)
async def test_where_an_item_cannot_go_is_said(world, dataset_id, filename, status, words):
    item_id = (await find(world, dataset_id, "file"))["/a/1.txt"]
    assert words in message(await patch(world, item_id, filename), status)
    assert set(await find(world, dataset_id, "file")) == {"/a/1.txt", "/a/b/2.txt", "/3.txt"}


async def test_a_folder_is_renamed(world, dataset_id):
    folder_id = (await find(world, dataset_id, "dir"))["/a"]
    answer = (await patch(world, folder_id, "/z/y")).json()
    assert (answer["type"], answer["filename"]) == ("dir", "/z/y")
    assert set(await find(world, dataset_id, "file")) == {"/z/y/1.txt", "/z/y/b/2.txt", "/3.txt"}
    folders = await find(world, dataset_id, "dir")
    assert set(folders) == {"/z", "/z/y", "/z/y/b"} == await tree(world, dataset_id) - {"/"}
    assert "into itself" in message(await patch(world, folders["/z"], "/z/y/x"), 400)
    message(await world.owner.get(f"/items/{folder_id}"), 404)


async def test_no_connection_is_held_while_a_folder_is_moved(world, dataset_id, monkeypatch):
    """Or a few moves would take all there are, and wait for one more."""
    real, held = folders._done, []

    async def done(server, job):
        held.extend(
            await world.execute(
                "SELECT query FROM pg_stat_activity "
                "WHERE datname = current_database() AND state LIKE 'idle in transaction%%'"
            )
        )
        return await real(server, job)

    monkeypatch.setattr(folders, "_done", done)
    folder_id = (await find(world, dataset_id, "dir"))["/a"]
    assert (await patch(world, folder_id, "/moved")).json()["filename"] == "/moved"
    assert held == []


async def test_folders_of_others_are_not_known(world, dataset_id):
    folder_id = (await find(world, dataset_id, "dir"))["/a"]
    answer = await world.callers["stranger"].patch(f"/items/{folder_id}", json={"filename": "/mine"})
    assert message(answer, 404) == f"No item with id {folder_id}."


async def test_a_name_that_it_has_already_moves_nothing(world, dataset_id):
    item_id = (await find(world, dataset_id, "file"))["/a/1.txt"]
    assert (await patch(world, item_id, "a/1.txt")).json()["filename"] == "/a/1.txt"


async def test_a_folder_whose_items_clash_stays_whole(world, dataset_id):
    await world.upload(dataset_id, "/to/1.txt", b"other")
    folder_id = (await find(world, dataset_id, "dir"))["/a"]
    assert "1 of its items" in message(await patch(world, folder_id, "/to"), 409)
    assert "/a/b/2.txt" in await find(world, dataset_id, "file")


async def test_items_are_moved_into_a_folder(world, dataset_id):
    found = await find(world, dataset_id, "file")
    folder_id = await make_dir(world, dataset_id, "/to")
    url = f"/datasets/{dataset_id}/items/{folder_id}"
    answer = await world.owner.put(url, json=[found["/a/1.txt"], found["/3.txt"], "no id"])
    assert (answer.status_code, answer.json()["filename"]) == (200, "/to")
    assert set(await find(world, dataset_id, "file")) == {"/to/1.txt", "/to/3.txt", "/a/b/2.txt"}
    await world.upload(dataset_id, "/1.txt", b"another")
    found = await find(world, dataset_id, "file")
    answer = await world.owner.put(url, json=[found["/1.txt"], found["/a/b/2.txt"]])
    assert "Nothing was moved: there is another item at /to/1.txt" in message(answer, 409)
    assert "/a/b/2.txt" in await find(world, dataset_id, "file")
    message(await world.owner.put(f"/datasets/{world.dataset_id}/items/{folder_id}", json=[]), 404)


async def test_more_than_can_go_together_go_in_pieces(world, dataset_id, monkeypatch):
    monkeypatch.setattr("headwater.work.moving.MOST_AT_ONCE", 1)
    found = await find(world, dataset_id, "file")
    folder_id = await make_dir(world, dataset_id, "/to")
    url = f"/datasets/{dataset_id}/items/{folder_id}"
    assert (await world.owner.put(url, json=[found["/a/1.txt"], found["/3.txt"]])).status_code == 200
    await world.upload(dataset_id, "/1.txt", b"another")
    found = await find(world, dataset_id, "file")
    answer = await world.owner.put(url, json=[found["/1.txt"], found["/a/b/2.txt"]])
    assert "1 of 2 items were moved" in message(answer, 409)


async def test_many_by_filter_with_a_dry_run(world, dataset_id):
    url = f"/datasets/{dataset_id}/move-items"
    await world.upload(dataset_id, "/to/3.txt", b"other")
    body = {"filter": {"name": "*.txt"}, "to": "/to"}
    told = (await world.owner.post(url, json=body | {"dryRun": True})).json()
    assert (told["items"], told["conflicts"]) == (4, 1)
    assert "/a/1.txt" in await find(world, dataset_id, "file")
    command = (await world.owner.post(url, json=body)).json()
    assert (command["type"], command["status"]) == ("MoveItems", "success")
    assert set(await find(world, dataset_id, "file")) == {"/to/1.txt", "/to/2.txt", "/to/3.txt", "/3.txt"}
    assert "Say what to move" in message(await world.owner.post(url, json={"to": "/x"}), 400)
    assert "leave out" in message(await world.owner.post(url, json=body | {"folder": "/a"}), 400)


async def test_folders_are_made_listed_and_deleted(world):
    dataset_id = await world.new_dataset()
    folder_id = await make_dir(world, dataset_id, "/made/here")
    assert await make_dir(world, dataset_id, "/made/here/") == folder_id
    assert set(await find(world, dataset_id, "dir")) == {"/made", "/made/here"}
    assert await tree(world, dataset_id) == {"/", "/made", "/made/here"}
    assert (await world.owner.get(f"/items/{folder_id}")).json()["filename"] == "/made/here"
    item = await world.upload(dataset_id, "/came/along/x.txt", b"x")
    assert "/came/along" in await tree(world, dataset_id)
    await world.owner.delete(f"/items/{item['id']}")
    assert await tree(world, dataset_id) == {"/", "/made", "/made/here"}
    assert (await world.owner.delete(f"/items/{folder_id}")).status_code == 200
    assert set(await find(world, dataset_id, "dir")) == set()


async def test_in_a_bucket_nothing_is_moved(world):
    made = await world.new_dataset(driver=world.driver_id, sync=False)
    item = await world.upload(made, f"/{unique('moved')}/x.txt", b"x")
    assert "linked to external storage" in message(await patch(world, item["id"], "/y.txt"), 400)
    answer = await world.owner.post(f"/datasets/{made}/move-items", json={"filter": {}, "to": "/y", "dryRun": True})
    assert "linked to external storage" in message(answer, 400)
