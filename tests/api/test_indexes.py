"""The column index by the API: shown, a path added, removed, built anew; what is wrong is told in a sentence."""

import json
from typing import Any

import pytest

from headwater.catalog.columns import covering
from tests.api.world import World, message


async def add(world: World, dataset_id: str, path: Any):
    return await world.owner.post(f"/datasets/{dataset_id}/indexes", json={"path": path})


async def remove(world: World, dataset_id: str, path: str):
    return await world.owner.delete(f"/datasets/{dataset_id}/indexes", params={"path": path})


async def test_a_path_is_added_shown_and_removed(world: World) -> None:
    dataset_id = await world.new_dataset()
    none = (await world.owner.get(f"/datasets/{dataset_id}/indexes")).json()
    assert (none["state"], none["paths"], none["datasetId"]) == ("none", [], dataset_id)
    added = (await add(world, dataset_id, "metadata.user.camera")).json()
    assert added["state"] == "waiting"
    paths = {path["path"]: path for path in added["paths"]}
    assert paths["metadata.user.camera"]["pinned"]
    assert not paths["filename"]["pinned"]
    assert (await world.owner.get(f"/datasets/{dataset_id}/indexes")).json() == added
    jobs = await world.execute(
        "SELECT args ->> 'dataset_id', queue_name::text FROM procrastinate_jobs WHERE task_name = 'build_columns'"
        " AND args ->> 'dataset_id' = %s",
        str(int(dataset_id, 16)),
    )
    assert jobs == [(str(int(dataset_id, 16)), "columns")]
    removed = (await remove(world, dataset_id, "metadata.user.camera")).json()
    assert "metadata.user.camera" not in {path["path"] for path in removed["paths"]}
    assert (await remove(world, dataset_id, "metadata.user.camera")).status_code == 404
    actions = await world.execute(
        "SELECT action, details ->> 'path' FROM audit WHERE details ->> 'dataset_id' = %s ORDER BY id", dataset_id
    )
    assert actions == [("index.added", "metadata.user.camera"), ("index.removed", "metadata.user.camera")]


async def test_it_is_built_anew_where_there_is_one(world: World) -> None:
    dataset_id = await world.new_dataset()
    refused = await world.owner.post(f"/datasets/{dataset_id}/indexes/rebuild", json={})
    assert "no column index yet" in message(refused, 404)
    await add(world, dataset_id, "metadata.user.camera")
    for body in ({}, {"path": "metadata.user.camera"}, {"path": "filename"}):
        assert (await world.owner.post(f"/datasets/{dataset_id}/indexes/rebuild", json=body)).status_code == 200
    unknown = await world.owner.post(f"/datasets/{dataset_id}/indexes/rebuild", json={"path": "metadata.user.other"})
    assert "metadata.user.other" in message(unknown, 404)


BAD = {
    "colour": "no field",
    "metadata.user": "cannot be indexed",
    "datasetId": "cannot be indexed",
    "metadata.system.etag": "cannot be indexed",
    "metadata.user." + ".".join("a" * 60): "too deep",
    "metadata.user." + "a" * 2_000: "longer than",
    "metadata.user.a\0b": "NUL",
    "metadata.user.\ud800": "",
    "": "no field",
}


@pytest.mark.parametrize("path", BAD)
async def test_what_cannot_be_indexed_is_refused_in_a_sentence(world: World, path: str) -> None:
    body = json.dumps({"path": path})
    dataset_id = await world.new_dataset()
    answer = await world.owner.post(
        f"/datasets/{dataset_id}/indexes", content=body.encode(), headers={"Content-Type": "application/json"}
    )
    assert BAD[path] in message(answer, 400)
    assert (await world.owner.get(f"/datasets/{dataset_id}/indexes")).json()["state"] == "none"


@pytest.mark.parametrize(
    "body", [None, [], {}, {"path": None}, {"path": 1}, {"path": ["a"]}, {"path": "filename", "x": 1}]
)
async def test_bodies_of_other_shapes_are_refused(world: World, body: Any) -> None:
    assert (await world.owner.post(f"/datasets/{world.dataset_id}/indexes", json=body)).status_code == 400


async def test_fields_of_every_item_stay(world: World) -> None:
    dataset_id = await world.new_dataset()
    assert (await remove(world, dataset_id, "filename")).status_code == 400
    assert (await add(world, dataset_id, "filename")).status_code == 200


async def test_not_more_paths_than_there_is_room_for(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(covering, "MOST_PINNED", 2)
    dataset_id = await world.new_dataset()
    for number in range(2):
        assert (await add(world, dataset_id, f"metadata.user.p{number}")).status_code == 200
    assert (await add(world, dataset_id, "metadata.user.p1")).status_code == 200
    refused = await add(world, dataset_id, "metadata.user.p2")
    assert "remove one first" in message(refused, 400)
    await remove(world, dataset_id, "metadata.user.p0")
    assert (await add(world, dataset_id, "metadata.user.p2")).status_code == 200
