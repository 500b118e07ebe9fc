"""The JSON of every noun, as the SDK reads it; what a patch does; pages and trees."""

import asyncio
import re
from typing import Any

import pytest

from headwater.catalog import commands
from headwater.catalog.sync import listings, scans
from headwater.catalog.sync.listed import Listed
from tests.api.world import NOBODY, World, message, unique, upload

AT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")
ID = re.compile(r"[0-9a-f]{24}")

ITEM = {
    "id", "datasetId", "projectId", "url", "dataset", "type", "filename", "name", "dir", "hidden", "annotated",
    "annotationsCount", "annotations", "thumbnail", "stream", "creator", "createdAt", "updatedAt", "updatedBy",
    "description", "spec", "srcItem", "metadata",
}  # fmt: skip
DATASET = {
    "id", "name", "url", "creator", "projects", "items", "directoryTree", "export", "annotated", "annotationsCount",
    "itemsCount", "metadata", "readableType", "accessLevel", "readonly", "driver", "indexDriver", "isSyncing",
    "enableSyncWithCloned", "srcDataset", "expirationOptions", "createdAt", "updatedAt", "updatedBy", "counts",
}  # fmt: skip
PROJECT = {
    "id", "name", "url", "creator", "org", "account", "role", "contributors", "isBlocked", "archived",
    "featureConstraints", "systemProject", "createdAt", "updatedAt",
}  # fmt: skip
ORGANIZATION = {
    "id", "name", "logoUrl", "plan", "account", "members", "groups", "owner", "creator", "createdAt", "updatedAt",
    "roles", "forbidExternalDelete",
}  # fmt: skip
USER = {
    "id", "email", "username", "firstName", "lastName", "avatar", "role", "type", "org", "createdAt", "updatedAt",
}  # fmt: skip
INTEGRATION = {"id", "name", "type", "org", "creator", "createdAt", "updatedAt", "url", "metadata"}
DRIVER = {
    "id", "name", "type", "creator", "createdAt", "integrationId", "integrationType", "allowExternalDelete",
    "allowExternalModification", "metadata", "path", "bucketName", "directory", "mountPath", "region", "storageClass",
    "endpoint", "readOnly", "bucket", "containerName", "warning", "checkedAt", "report",
}  # fmt: skip
COMMAND = {"id", "url", "type", "status", "progress", "spec", "warning", "error", "createdAt", "updatedAt"}


async def got(world: World, path: str) -> Any:
    answer = await world.owner.get(path)
    assert answer.status_code == 200, answer.text
    return answer.json()


async def test_every_noun_has_all_its_keys(world: World) -> None:
    organization = f"/orgs/{world.organization_id}"
    found = {
        f"/items/{world.item_id}": ITEM,
        f"/datasets/{world.dataset_id}": DATASET,
        f"/projects/{world.project_id}": PROJECT,
        organization: ORGANIZATION,
        "/users/me": USER,
        f"{organization}/integrations/{world.integration_id}": INTEGRATION,
        f"/drivers/{world.driver_id}": DRIVER,
        f"/commands/{world.command_id}": COMMAND,
    }
    for path, keys in found.items():
        shown = await got(world, path)
        assert shown.keys() == keys, path
        for key in ("createdAt", "updatedAt"):
            assert key not in shown or path == "/users/me" or AT.fullmatch(shown[key]), (path, key)
        assert path == "/users/me" or ID.fullmatch(shown["id"]), path
    lists = {
        "/orgs": ORGANIZATION,
        "/projects": PROJECT,
        f"{organization}/projects": PROJECT,
        f"{organization}/members": USER,
        f"/projects/{world.project_id}/members": USER,
        f"{organization}/integrations": INTEGRATION,
        f"/drivers?projectId={world.project_id}": DRIVER,
        "/commands": COMMAND,
    }
    for path, keys in lists.items():
        shown = await got(world, path)
        assert isinstance(shown, list)
        assert shown
        assert all(element.keys() == keys for element in shown), path


async def test_types_that_the_sdk_leans_on(world: World) -> None:
    item = await world.upload(await world.new_dataset(), "/first.txt", b"x")
    item = await got(world, f"/items/{item['id']}")
    assert item["metadata"]["system"].keys() >= {"originalname", "size", "encoding", "mimetype", "annotationStatus"}
    assert (item["filename"], item["dir"], item["name"], item["type"]) == ("/first.txt", "/", "first.txt", "file")
    assert item["stream"] == f"http://headwater.test/api/v1/items/{item['id']}/stream"
    assert (item["spec"], item["srcItem"], item["hidden"], item["annotated"]) == (None, None, False, False)
    project = await got(world, f"/projects/{world.project_id}")
    assert project["org"] == {"id": world.organization_id, "name": "Test"}
    assert {user["email"]: user["role"] for user in project["contributors"]}["developer@project.test"] == "engineer"
    dataset = await got(world, f"/datasets/{world.bucket_dataset_id}")
    assert (dataset["projects"], dataset["driver"]) == ([world.project_id], world.driver_id)
    assert dataset["metadata"].keys() >= {"system", "user"}
    driver = await got(world, f"/drivers/{world.driver_id}")
    assert driver["metadata"]["system"]["projectId"] == world.project_id
    command = await got(world, f"/commands/{world.command_id}")
    assert (command["status"], command["progress"]) == ("created", 0)
    assert command["spec"]["datasetId"] == world.dataset_id
    integration = await got(world, f"/orgs/{world.organization_id}/integrations/{world.integration_id}")
    assert integration["org"] == world.organization_id


async def test_ids_sort_in_the_order_of_creation(world: World) -> None:
    dataset = await world.new_dataset()
    made = [(await world.upload(dataset, f"/{n}.txt", b"x"))["id"] for n in range(20)]
    assert made == sorted(made)


# What a patch does.


async def patched(world: World, item_id: str, body: dict[str, Any], *, system: bool = False) -> dict[str, Any]:
    answer = await world.owner.patch(f"/items/{item_id}" + ("?system=true" if system else ""), json=body)
    assert answer.status_code == 200, answer.text
    assert answer.json() == await got(world, f"/items/{item_id}")
    return answer.json()


@pytest.fixture
async def item(world: World) -> dict[str, Any]:
    return await world.upload(world.dataset_id, f"/{unique('patched')}.txt", b"x")


async def test_a_patch_is_merged_deeply_null_removes_and_lists_replace(world: World, item: dict[str, Any]) -> None:
    await patched(world, item["id"], {"metadata": {"user": {"a": {"b": 1, "c": [1, 2]}, "d": 2, "e": {"f": 1}}}})
    change = {"a": {"b": None, "c": [3]}, "e": 5, "g": {"h": None}}
    now = await patched(world, item["id"], {"metadata": {"user": change}})
    assert now["metadata"]["user"] == {"a": {"c": [3]}, "d": 2, "e": 5, "g": {}}
    assert (await patched(world, item["id"], {"metadata": {"user": None}}))["metadata"]["user"] == {}


async def test_a_patch_leaves_alone_what_it_does_not_name_and_what_is_not_its_to_set(
    world: World, item: dict[str, Any]
) -> None:
    fixed = {
        "id": NOBODY, "datasetId": NOBODY, "url": None, "name": "other.txt", "type": "dir", "dir": "/x", "stream": None,
        "hidden": True, "annotated": True, "annotationsCount": 7, "createdAt": None, "creator": "me", "unknown": 1,
        "filename": item["filename"], "metadata": {"fps": 25, "user": {"a": 1}},
    }  # fmt: skip
    now = await patched(world, item["id"], fixed, system=True)
    assert now["metadata"]["user"] == {"a": 1}
    untouched = ITEM - {"metadata", "updatedAt", "updatedBy"}
    assert {key: now[key] for key in untouched} == {key: item[key] for key in untouched}


async def test_patches_side_by_side_lose_nothing(world: World, item: dict[str, Any]) -> None:
    patches = [{"metadata": {"user": {f"key{n}": n}}} for n in range(12)]
    answers = await asyncio.gather(*[world.owner.patch(f"/items/{item['id']}", json=patch) for patch in patches])
    assert [answer.text for answer in answers if answer.status_code != 200] == []
    found = (await got(world, f"/items/{item['id']}"))["metadata"]["user"]
    assert {name: value for name, value in found.items() if name.startswith("key")} == {f"key{n}": n for n in range(12)}


async def test_system_metadata_is_changed_only_on_demand_and_never_what_only_we_know(
    world: World, item: dict[str, Any]
) -> None:
    wanted = {"metadata": {"system": {"tags": {"train": True}, "size": 99, "mimetype": "x/y", "width": 3, "etag": "e",
                                      "missing": True, "thumbnailId": "t", "etl": {"state": "done"}}}}  # fmt: skip
    assert (await patched(world, item["id"], wanted))["metadata"]["system"] == item["metadata"]["system"]
    now = (await patched(world, item["id"], wanted, system=True))["metadata"]["system"]
    assert now == item["metadata"]["system"] | {"tags": {"train": True}}
    gone = {"metadata": {"system": {"tags": None, "size": None}}}
    assert (await patched(world, item["id"], gone, system=True))["metadata"]["system"] == item["metadata"]["system"]


async def test_a_description_is_set_and_removed(world: World, item: dict[str, Any]) -> None:
    assert (await patched(world, item["id"], {"description": "why"}))["description"] == "why"
    assert (await patched(world, item["id"], {"metadata": {}}))["description"] == "why"
    assert (await patched(world, item["id"], {"description": None}))["description"] is None


async def test_metadata_too_deep_to_answer_is_not_taken(world: World, item: dict[str, Any]) -> None:
    """A JSON writer gives up at a few hundred levels: the item, and every page with it, would be lost."""
    for levels, status in [(90, 200), (101, 400), (300, 400), (900, 400)]:
        nested: dict[str, Any] = {}
        for _ in range(levels):
            nested = {"a": nested}
        body = {"metadata": {"user": nested}}
        assert (await world.owner.patch(f"/items/{item['id']}", json=body)).status_code == status
        assert (await world.owner.patch(f"/datasets/{world.dataset_id}", json=body)).status_code == status
        assert (await world.owner.get(f"/items/{item['id']}")).status_code == 200
        assert (await world.owner.get(f"/datasets/{world.dataset_id}")).status_code == 200


async def test_a_dataset_is_patched_with_all_of_itself(world: World) -> None:
    """As the SDK does it: the whole dataset, of which only name, user metadata and readonly count."""
    dataset_id = await world.new_dataset()
    url = f"/datasets/{dataset_id}"
    assert (await world.owner.patch(f"{url}?system=true", json={"metadata": {"system": {"kept": ["r"]}}})).is_success
    before = await got(world, url)
    name = unique("renamed")
    changed = before | {"name": name, "itemsCount": 9, "id": NOBODY, "driver": NOBODY, "projects": [NOBODY],
                        "metadata": {"user": {"a": 1, "b": 2}, "system": {}}}  # fmt: skip
    now = (await world.owner.patch(url, json=changed)).json()
    assert before["metadata"]["system"]["kept"] == ["r"]
    assert now["metadata"] == before["metadata"] | {"user": {"a": 1, "b": 2}}
    assert {key: now[key] for key in ("id", "name", "itemsCount", "driver", "projects")} == {
        key: before[key] for key in ("id", "itemsCount", "driver", "projects")
    } | {"name": name}
    now = (await world.owner.patch(url, json=now | {"metadata": {"user": {"b": 2}, "system": None}})).json()
    assert now["metadata"] == before["metadata"] | {"user": {"b": 2}}
    for wrong in ({"user": 5}, {"system": []}):
        message(await world.owner.patch(url, json={"metadata": wrong}), 400)


# Pages.


async def fill(world: World, dataset_id: str, count: int) -> None:
    """As a sync does it."""
    number = int(dataset_id, 16)
    async with world.pool.connection() as conn:
        command_id = await commands.start_command(
            conn, project_id=int(world.project_id, 16), dataset_id=number, kind="x", spec={}, creator_id=None
        )
        scan_id = await scans.start_scan(conn, dataset_id=number, command_id=command_id, confirm_missing=False)
        scan = await scans.load_scan(conn, scan_id)
        assert scan is not None
        paths = [f"/f{n % 3}/{n:05d}.jpg" for n in range(count)]
        paths.sort()
        listed = Listed(paths, [1] * count, ["e"] * count, ["2026-01-01T00:00:00Z"] * count, after=None, through=None)
        await listings.merge_listing(conn, scan, 0, listed, is_last=True)
        await conn.execute("UPDATE scan SET state = 'done' WHERE id = %s", [scan_id])


DEFAULT = {"$and": [{"hidden": False}, {"type": "file"}]}


async def test_paging_by_key_returns_each_of_many_items_once(world: World) -> None:
    dataset_id = await world.new_dataset(driver=world.driver_id, sync=False)
    await fill(world, dataset_id, 2345)
    url = f"/datasets/{dataset_id}/query"
    for direction, operator in (("ascending", "$gt"), ("descending", "$lt")):
        seen: list[str] = []
        totals: list[int] = []
        body: dict[str, Any] = {"filter": DEFAULT, "sort": {"id": direction}, "page": 0, "pageSize": 1000}
        while True:
            page = (await world.owner.post(url, json=body)).json()
            assert page.keys() == {"totalItemsCount", "items", "totalPagesCount", "hasNextPage"}
            seen += [item["id"] for item in page["items"]]
            totals.append(page["totalItemsCount"])
            if not page["hasNextPage"]:
                break
            body["filter"] = {"$and": [*DEFAULT["$and"], {"id": {operator: seen[-1]}}]}
        assert totals == [2345, 1345, 345]
        assert len(set(seen)) == 2345
        assert seen == sorted(seen, reverse=direction == "descending")


async def test_totals_are_exact_whatever_the_size_of_the_page(world: World) -> None:
    dataset_id = await world.new_dataset(driver=world.driver_id, sync=False)
    await fill(world, dataset_id, 10)
    url = f"/datasets/{dataset_id}/query"
    for page_size, pages, shown, has_next in [(0, 0, 0, False), (1, 10, 1, True), (3, 4, 3, True), (10, 1, 10, False)]:
        for asked in (DEFAULT, {}):
            page = (await world.owner.post(url, json={"filter": asked, "pageSize": page_size})).json()
            assert (page["totalItemsCount"], page["totalPagesCount"]) == (10, pages)
            assert (len(page["items"]), page["hasNextPage"]) == (shown, has_next)
    last = (await world.owner.post(url, json={"filter": DEFAULT, "page": 3, "pageSize": 3})).json()
    assert (len(last["items"]), last["hasNextPage"]) == (1, False)
    past = (await world.owner.post(url, json={"filter": DEFAULT, "page": 9, "pageSize": 3})).json()
    assert (past["items"], past["hasNextPage"], past["totalItemsCount"]) == ([], False, 10)
    huge = (await world.owner.post(url, json={"filter": DEFAULT, "pageSize": 10**9})).json()
    assert len(huge["items"]) == 10


async def test_what_is_hidden_counts_only_where_it_is_asked_for(world: World) -> None:
    dataset_id = await world.new_dataset()
    for path in ("/a.txt", "/b.txt", "/.dataloop/c.txt"):
        await world.upload(dataset_id, path, b"x")
    for asked, total in ((DEFAULT, 2), ({}, 3), ({"$and": [{"hidden": True}]}, 1)):
        page = (await world.owner.post(f"/datasets/{dataset_id}/query", json={"filter": asked})).json()
        assert (page["totalItemsCount"], len(page["items"])) == (total, total)


async def test_datasets_are_found_by_name_and_project_in_pages(world: World) -> None:
    project_id = await world.new_project()
    names = [unique("paged") for _ in range(5)]
    for name in names:
        await world.new_dataset(name=name, projects=[project_id])
    context = {"context": {"projects": [project_id]}}

    async def asked(**body: Any) -> dict[str, Any]:
        return (await world.owner.post("/datasets/query", json=context | body)).json()

    assert [dataset["name"] for dataset in (await asked())["items"]] == names
    first = await asked(pageSize=2)
    assert (first["totalItemsCount"], first["totalPagesCount"], first["hasNextPage"]) == (5, 3, True)
    assert (await asked(page=2, pageSize=2))["hasNextPage"] is False
    assert (await asked(pageSize=0))["totalItemsCount"] == 5
    for condition in ({"name": names[1]}, {"$and": [{"name": names[1]}]}, {"name": {"$eq": names[1]}}):
        assert [dataset["name"] for dataset in (await asked(filter=condition))["items"]] == [names[1]]
    message(await world.owner.post("/datasets/query", json={"filter": {"$and": [], "name": "x"}}), 400)
    for who in ("stranger", "outsider"):
        found = (await world.callers[who].post("/datasets/query", json={})).json()
        assert not {dataset["name"] for dataset in found["items"]} & set(names)


# Folders.


async def test_folders_are_items_of_type_dir(world: World) -> None:
    dataset_id = await world.new_dataset()
    await world.upload(dataset_id, "/a/b/c.txt", b"x")
    query = {"filter": {"$and": [{"type": "dir"}]}}
    found = (await world.owner.post(f"/datasets/{dataset_id}/query", json=query)).json()
    assert {folder["filename"] for folder in found["items"]} == {"/a", "/a/b"}
    folder = next(folder for folder in found["items"] if folder["filename"] == "/a/b")
    assert folder.keys() == ITEM
    assert (folder["type"], folder["dir"], folder["name"]) == ("dir", "/a", "b")
    assert folder["metadata"]["system"] == {}
    assert await got(world, f"/items/{folder['id']}") == folder
    message(await world.callers["outsider"].get(f"/items/{folder['id']}"), 404)


async def test_the_tree_shows_every_folder_in_its_parent_and_hides_ours(world: World) -> None:
    dataset_id = await world.new_dataset()
    for path in ("/a/b/1.txt", "/a/c/2.txt", "/z.txt", "/.dataloop/x/3.txt"):
        await world.upload(dataset_id, path, b"x")

    def shape(node: dict[str, Any]) -> tuple[str, list[Any]]:
        assert node["value"].keys() == {"id", "name", "dir", "filename", "metadata"}
        return node["value"]["filename"], [shape(child) for child in node["children"]]

    tree = shape(await got(world, f"/datasets/{dataset_id}/directoryTree"))
    assert tree == ("/", [("/a", [("/a/b", []), ("/a/c", [])])])
    empty = await got(world, f"/datasets/{await world.new_dataset()}/directoryTree")
    assert shape(empty) == ("/", [])


async def test_one_very_deep_key_does_not_cost_the_dataset_its_tree(world: World) -> None:
    dataset_id = await world.new_dataset()
    await world.upload(dataset_id, "/b/y", b"x")
    answer = await upload(world.owner, dataset_id, "/a" * 511 + "/x", b"x")
    assert answer.status_code == 200
    tree = await world.owner.get(f"/datasets/{dataset_id}/directoryTree")
    assert tree.status_code == 200
    assert tree.text.count('"children"') == 1 + 1 + 100
    assert [child["value"]["filename"] for child in tree.json()["children"]] == ["/a", "/b"]


async def test_a_project_that_is_deleted_takes_everything_in_it_out_of_sight(world: World) -> None:
    project_id = await world.new_project()
    dataset_id = await world.new_dataset(projects=[project_id])
    item = await world.upload(dataset_id, "/a.txt", b"x")
    assert (await world.owner.delete(f"/projects/{project_id}")).status_code == 200
    for path in (f"/projects/{project_id}", f"/datasets/{dataset_id}", f"/items/{item['id']}",
                 f"/items/{item['id']}/stream", f"/datasets/{dataset_id}/directoryTree"):  # fmt: skip
        message(await world.owner.get(path), 404)
    message(await upload(world.owner, dataset_id, "/b.txt", b"x"), 404)
