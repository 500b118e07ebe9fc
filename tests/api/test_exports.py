"""Exports by HTTP: shapes, rights, what is refused."""

import base64
import hashlib
import io
import json
import zipfile
from dataclasses import replace

import pytest

from tests.api.world import NOBODY, World, message


@pytest.fixture
async def dataset(world: World) -> str:
    made = await world.new_dataset()
    for path in ("/a.txt", "/b/c.txt", "/b/d.txt"):
        await world.upload(made, path, path.encode())
    return made


async def export(world: World, dataset_id: str, caller=None, way: str = "export", **body):
    return await (caller or world.owner).post(f"/datasets/{dataset_id}/{way}", json=body)


async def output(world: World, answer) -> bytes:
    command = answer.json()
    assert command["status"] == "success", command["error"]
    return (await world.owner.get(f"/items/{command['spec']['outputItemId']}/stream")).content


async def test_a_small_export_has_ended_when_it_is_answered(world, dataset):
    answer = await export(world, dataset, exportType="json", itemsQuery={"filter": {"filename": "/b/**"}, "join": {}})
    assert (answer.json()["type"], answer.json()["progress"]) == ("ExportDatasetAsJson", 100)
    found = json.loads(await output(world, answer))
    assert [one["filename"] for one in found] == ["/b/c.txt", "/b/d.txt"]
    listed = (await world.owner.get(f"/items/{found[0]['id']}")).json()
    assert found[0] == listed | {"annotations": []}


async def test_an_older_client_gets_an_archive(world, dataset):
    annotations = {"include": True, "convertSemantic": False, "filter": False}
    answer = await export(world, dataset, exportVersion="V1", itemsQuery={"filter": {}}, annotations=annotations)
    archive = zipfile.ZipFile(io.BytesIO(await output(world, answer)))
    assert archive.namelist() == ["a.json", "b/c.json", "b/d.json"]


async def test_annotations_are_chosen_by_a_query_of_their_own(world, dataset):
    (item,) = (await world.owner.post(f"/datasets/{dataset}/query", json={"filter": {"filename": "/a.txt"}})).json()[
        "items"
    ]
    given = [{"type": "class", "label": label} for label in ("cat", "dog")]
    made = await world.owner.post(f"/items/{item['id']}/annotations", json=given)
    assert made.status_code == 200
    query = {"filter": {"$and": [{"label": "dog"}]}, "resource": "annotations", "page": 0, "pageSize": 100}

    async def labels(**body) -> list[str]:
        answer = await export(world, dataset, exportType="json", itemsQuery={"filter": {"filename": "/a.txt"}}, **body)
        (told,) = json.loads(await output(world, answer))
        return [one["label"] for one in told["annotations"]]

    assert await labels() == ["cat", "dog"]
    assert await labels(annotationsQuery=query) == ["dog"]
    assert await labels(annotationsQuery=query, annotations={"include": True, "filter": False}) == ["cat", "dog"]
    assert await labels(annotations={"include": False}) == []
    assert await labels(annotations=False) == []
    (said,) = json.loads(await output(world, await export(world, dataset, exportType="json", filter={"name": "a.txt"})))
    listed = (await world.owner.get(f"/annotations/{said['annotations'][0]['id']}")).json()
    assert said["annotations"][0] == listed


async def test_version_3_as_the_sdk_reads_it(world, dataset):
    answer = await export(world, dataset, way="export/v3", mode="full", format="ndjson", force=False, partitionCount=2)
    result = answer.json()["spec"]["exportResult"]
    assert (result["mode"], result["totalRecords"], result["toVersion"]) == ("full", 3, 1)
    manifest = (await world.owner.get(result["manifestUrl"])).json()
    assert manifest["partitioning"]["partitionCount"] == len(manifest["files"]) == 2
    names = []
    for file in manifest["files"]:
        body = (await world.owner.get(file["path"])).content
        assert base64.b64encode(hashlib.md5(body).digest()).decode() == file["checksum"]
        assert (len(body), hashlib.sha256(body).hexdigest()) == (file["size"], file["sha256"])
        names += [json.loads(line)["filename"] for line in body.splitlines()]
    assert names == ["/a.txt", "/b/c.txt", "/b/d.txt"]
    await world.upload(dataset, "/e.txt", b"e")
    answer = await export(world, dataset, way="export/v3", mode="diff", fromVersion=1)
    assert answer.json()["spec"]["exportResult"]["totalRecords"] == 1


async def test_what_takes_too_long_to_count_is_exported_all_the_same(world, dataset):
    server = world.app.state.server
    world.app.state.server = replace(server, settings=server.settings.model_copy(update={"query_timeout_s": 0.0005}))
    try:
        answer = await export(world, dataset, exportType="json", itemsQuery={"filter": {"filename": "/b/**"}})
    finally:
        world.app.state.server = server
    found = json.loads(await output(world, answer))
    assert [one["filename"] for one in found] == ["/b/c.txt", "/b/d.txt"]
    assert answer.json()["spec"]["export"]["items"] == 3  # all that it can be


async def test_who_may_read_exports_and_nobody_else(world):
    dataset_id = world.dataset_id
    for name in ("annotator", "annotationManager", "developer", "admin"):
        answer = await export(world, dataset_id, world.callers[name], exportType="json")
        command = answer.json()
        assert command["status"] == "success"
        url = f"/items/{command['spec']['outputItemId']}/stream"
        assert (await world.callers["annotator"].get(url)).status_code == 200
        for stranger in ("stranger", "outsider"):
            message(await world.callers[stranger].get(url), 404)
            message(await world.callers[stranger].get(f"/commands/{command['id']}"), 404)
    for stranger in ("stranger", "outsider"):
        message(await export(world, dataset_id, world.callers[stranger], exportType="json"), 404)
        message(await export(world, dataset_id, world.callers[stranger], way="export/v3"), 404)
    message(await export(world, NOBODY, exportType="json"), 404)


async def test_exports_are_in_no_list(world, dataset):
    await export(world, dataset, exportType="json")
    page = await world.owner.post("/datasets/query", json={"filter": {"name": "Binaries"}, "systemSpace": True})
    binaries = [one for one in page.json()["items"] if one["name"] == "Binaries"]
    for one in binaries:
        shown = {"filter": {"$and": [{"hidden": False}, {"type": "file"}]}}
        found = (await world.owner.post(f"/datasets/{one['id']}/query", json=shown)).json()["items"]
        assert not [item for item in found if "exports" in item["filename"]]


DEEP = {"filter": {"a": 1}}
for _ in range(600):
    DEEP = {"filter": {"$not": DEEP["filter"]}}


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({"format": "xml"}, "format"),
        ({"exportType": "csv"}, "exportType"),
        ({"exportVersion": "V9"}, "exportVersion"),
        ({"exportType": "json", "itemsQuery": []}, "itemsQuery"),
        ({"exportType": "json", "itemsQuery": {"filter": {"$oops": 1}}}, "$oops"),
        ({"exportType": "json", "itemsQuery": {"filter": {"type": "dir"}}}, "folders"),
        ({"exportType": "json", "itemsQuery": {"filter": {}, "delete": True}}, "change"),
        ({"exportType": "json", "itemsQuery": DEEP}, "nested"),
        ({"exportType": "json", "annotationsQuery": {"filter": {"nothing": 1}}}, "nothing"),
        ({"exportType": "json", "annotations": 3}, "annotations"),
        ({"format": "json", "columns": ["metadata.user.a"]}, "columns"),
        ({"format": "parquet", "columns": ["name"]}, "columns"),
        ({"format": "parquet", "columns": ["metadata.user.a\0"]}, "columns"),
        ({"format": "parquet", "columns": {"metadata.user.a": "blob"}}, "columns"),
        ({"format": "parquet", "columns": [f"metadata.user.a{n}" for n in range(300)]}, "200"),
        ({"format": "parquet", "filter": {"name": "a"}, "itemsQuery": {"filter": {}}}, "two ways"),
    ],
)
async def test_what_cannot_be_asked_for_is_said(world, dataset, body, said):
    assert said in message(await export(world, dataset, **body), 400)
    assert not await world.execute("SELECT FROM export WHERE dataset_id = %s", int(dataset, 16))


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({"mode": "other"}, "mode"),
        ({"mode": "diff"}, "fromVersion"),
        ({"mode": "diff", "fromVersion": 7}, "no version 7"),
        ({"mode": "diff", "fromVersion": -1}, "fromVersion"),
        ({"mode": "diff", "fromVersion": 10**30}, "no version 1000"),
        ({"mode": "full", "partitionCount": 0}, "partitionCount"),
        ({"mode": "full", "format": "csv"}, "format"),
        ({"mode": "full", "filters": {"itemsQuery": {"filter": {"nothing": 1}}}}, "nothing"),
    ],
)
async def test_what_cannot_be_asked_of_version_3_is_said(world, dataset, body, said):
    assert said in message(await export(world, dataset, way="export/v3", **body), 400)
