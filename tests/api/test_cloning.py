"""Clones and merged datasets by HTTP: shapes, rights, what is refused."""

import pytest

from tests.api.world import NOBODY, World, message, unique


@pytest.fixture
async def source(world: World) -> str:
    made = await world.new_dataset()
    for path in ("/a.txt", "/b/c.txt", "/b/d.txt"):
        await world.upload(made, path, path.encode())
    return made


async def clone(world: World, dataset_id: str, caller=None, **body):
    return await (caller or world.owner).post(f"/datasets/{dataset_id}/clone", json=body)


async def bytes_of(world: World, dataset_id: str) -> dict[str, bytes]:
    answer = await world.owner.post(f"/datasets/{dataset_id}/query", json={"filter": {"type": "file"}})
    found = {}
    for item in answer.json()["items"]:
        found[item["filename"]] = (await world.owner.get(f"/items/{item['id']}/stream")).content
    return found


async def test_a_small_clone_has_ended_when_it_is_answered(world, source):
    command = (await clone(world, source, name=unique("clone"))).json()
    assert (command["type"], command["status"], command["progress"]) == ("CloneDataset", "success", 100)
    made = command["spec"]["returnedModelId"]
    assert await bytes_of(world, made) == {path: path.encode() for path in ("/a.txt", "/b/c.txt", "/b/d.txt")}
    shown = (await world.owner.get(f"/datasets/{made}")).json()
    assert (shown["itemsCount"], shown["srcDataset"]) == (3, source)


async def test_as_the_sdk_asks_for_it(world, source):
    query = {
        "filter": {"$and": [{"type": "file"}, {"filename": "/b/**"}]},
        "sort": {"id": "ascending"},
        "page": 0,
        "pageSize": 1000,
        "resource": "items",
    }
    params = {"withItemsAnnotations": True, "withMetadata": True, "withTaskAnnotationsStatus": True}
    into = await world.new_dataset()
    body = {"filter": query, "cloneDatasetParams": params | {"targetDirectory": "/x", "targetDatasetId": into}}
    command = (await clone(world, source, **body)).json()
    assert command["spec"]["returnedModelId"] == into
    assert set(await bytes_of(world, into)) == {"/x/b/c.txt", "/x/b/d.txt"}
    again = (await clone(world, source, **body)).json()
    assert (again["spec"]["clone"]["cloned"], again["spec"]["clone"]["thereAlready"]) == (0, 2)


async def test_a_dry_run_makes_nothing(world, source):
    into = await world.new_dataset()
    await world.upload(into, "/a.txt", b"another")
    told = (await clone(world, source, dryRun=True, cloneDatasetParams={"targetDatasetId": into})).json()
    assert told == {"dryRun": True, "items": 3, "sizeBytes": 22, "thereAlready": 0, "renamed": 1, "missing": 0}
    assert set(await bytes_of(world, into)) == {"/a.txt"}
    told = (
        await world.owner.post("/datasets/merge", json={"name": "m", "datasetsIds": [source], "dryRun": True})
    ).json()
    assert told["items"] == 3


async def test_a_merge_keeps_the_first_name(world, source):
    other = await world.new_dataset()
    await world.upload(other, "/a.txt", b"another")
    body = {"name": unique("merge"), "datasetsIds": [source, other, source], "projectIds": [world.project_id]}
    command = (await world.owner.post("/datasets/merge", json=body)).json()
    assert (command["type"], command["status"]) == ("MergeDatasets", "success")
    found = await bytes_of(world, command["spec"]["mergeDatasetsConfiguration"]["targetDatasetId"])
    assert (found["/a.txt"], found["/a (2).txt"], len(found)) == (b"/a.txt", b"another", 4)
    assert "got a number behind their name" in command["warning"]


async def test_an_item_is_cloned_with_more_metadata(world, source):
    item = await world.upload(source, "/one.txt", b"one", metadata='{"user": {"a": 1}}')
    into = await world.new_dataset()
    body = {
        "targetDatasetId": into,
        "remoteFileName": "/to/",
        "metadata": {"user": {"b": 2}},
        "cloneDatasetParams": {},
        "allowMany": False,
    }
    command = (await world.owner.post(f"/items/{item['id']}/clone", json=body)).json()
    assert command["status"] == "success"
    (made,) = command["spec"]["returnedModelId"]
    shown = (await world.owner.get(f"/items/{made}")).json()
    assert (shown["filename"], shown["datasetId"]) == ("/to/one.txt", into)
    assert shown["metadata"]["user"] == {"a": 1, "b": 2}
    again = (await world.owner.post(f"/items/{item['id']}/clone", json=body)).json()
    assert again["spec"]["returnedModelId"] == [made]
    answer = await world.owner.post(f"/items/{item['id']}/clone", json={"remoteFileName": "/a.txt"})
    assert "another item at /a.txt" in message(answer, 409)


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        ({}, 400, "name: say what"),
        ({"name": "x", "cloneDatasetParams": {"targetDatasetId": NOBODY}}, 404, "No dataset"),
        ({"name": "x", "cloneDatasetParams": {"targetDirectory": "/a/../b"}}, 400, "cannot be an item's path"),
        ({"name": "x", "cloneDatasetParams": {"targetDirectory": "/.dataloop"}}, 400, "own files"),
        ({"name": "x", "filter": {"filter": {"type": "dir"}}}, 400, "only files"),
        ({"name": "x", "filter": {"filter": {}, "delete": True}}, 400, "asks for a change"),
    ],
    ids=str,
)
async def test_what_is_wrong_is_said(world, source, body, status, words):
    assert words in message(await clone(world, source, **body), status)


async def test_who_reads_only_here_and_writes_only_there(world, source):
    """A person who may read the source and write into the target may clone; who may not read it sees none of it."""
    developer = world.callers["developer"]
    elsewhere = await world.new_project(developer)
    answer = await developer.post("/datasets", json={"name": unique("mine"), "projects": [elsewhere]})
    mine = answer.json()["id"]
    into = {"cloneDatasetParams": {"targetDatasetId": mine}}
    assert (await clone(world, source, developer, **into)).json()["status"] == "success"
    stranger = world.callers["stranger"]
    message(await clone(world, source, stranger, **into), 404)
    annotator = world.callers["annotator"]
    message(await clone(world, source, annotator, **into), 404)  # reads the source, knows nothing of the target
    message(await clone(world, mine, annotator, cloneDatasetParams={"targetDatasetId": source}), 404)
    message(
        await clone(world, source, annotator, cloneDatasetParams={"targetDatasetId": world.dataset_id}),
        403,
    )


async def test_the_audit_log_of_both_projects_tells(world, source):
    name = unique("told")
    await clone(world, source, name=name)
    lines = (await world.owner.get(f"/orgs/{world.organization_id}/audit")).json()
    found = lines["entries"] if isinstance(lines, dict) else lines
    assert any(line["action"] == "dataset.cloned" and line["target"] == name for line in found)


async def test_a_clone_of_a_bucket_is_not_synced(world):
    made = (await clone(world, world.bucket_dataset_id, name=unique("clone"))).json()["spec"]["returnedModelId"]
    assert "is a clone of other datasets" in message(await world.owner.post(f"/datasets/{made}/sync"), 400)
    rules = f"/datasets/{made}/sync-rules"
    assert "Switch them on there" in message(await world.owner.patch(rules, json={"sidecars": True}), 400)
    assert (await world.owner.patch(rules, json={"brakeItems": 5})).status_code == 200  # deletions ask it, too
    shown = (await world.owner.get(f"/datasets/{made}")).json()
    assert (shown["driver"], shown["isSyncing"]) == (world.driver_id, False)
    own = await world.new_dataset()
    answer = await clone(world, own, cloneDatasetParams={"targetDatasetId": made})
    assert "shares the bytes" in message(answer, 400)
