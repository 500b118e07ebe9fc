"""The dataset that every project has for what is no data: found by its name, in no list, and never in the way."""

from typing import Any

from headwater.catalog import datasets
from tests.api.world import World, message


async def asked(world: World, project_id: str, **body: Any) -> list[dict[str, Any]]:
    answer = await world.owner.post("/datasets/query", json={"context": {"projects": [project_id]}} | body)
    assert answer.status_code == 200
    found = answer.json()
    assert found["totalItemsCount"] == len(found["items"])
    return found["items"]


async def test_a_new_project_has_binaries_which_is_found_as_the_sdk_asks_and_not_listed(world: World) -> None:
    project_id = await world.new_project()
    assert await asked(world, project_id) == []
    by_name = {"filter": {"$and": [{"name": "Binaries"}]}}
    (found,) = await asked(world, project_id, **by_name, systemSpace=True)
    assert (found["name"], found["metadata"]["system"]["scope"], found["driver"]) == ("Binaries", "system", None)
    assert await asked(world, project_id, systemSpace=True) == [found]
    assert await asked(world, project_id, **by_name) == [found]
    assert await asked(world, project_id, systemSpace=False) == []
    async with world.pool.connection() as conn:
        kept = await datasets.get_binaries(conn, int(project_id, 16))
    assert f"{kept.id:024x}" == found["id"]
    message(await world.owner.post("/datasets/query", json={"systemSpace": "yes"}), 400)


async def test_binaries_keeps_its_name_cannot_be_deleted_or_synced_and_takes_files(world: World) -> None:
    project_id = await world.new_project()
    (found,) = await asked(world, project_id, systemSpace=True)
    place = f"/datasets/{found['id']}"
    assert "keeps its name" in message(await world.owner.patch(place, json={"name": "mine"}), 400)
    assert "can be written" in message(await world.owner.patch(place, json={"readonly": True}), 400)
    assert "goes with the project" in message(await world.owner.delete(place), 400)
    message(await world.owner.post(f"{place}/sync"), 400)
    taken = await world.owner.post("/datasets", json={"name": "Binaries", "projects": [project_id]})
    assert "already" in message(taken, 409)
    everything = found | {"metadata": {"user": {"kept": 1}, "system": {"scope": "user"}}, "readonly": False}
    assert (await world.owner.patch(f"{place}?system=true", json=everything)).status_code == 200
    await world.upload(found["id"], "/.dataloop/dqlfilters/items/mine", b"{}")
    (found,) = await asked(world, project_id, systemSpace=True)
    assert (found["metadata"]["user"], found["metadata"]["system"]["scope"]) == ({"kept": 1}, "system")


async def test_binaries_counts_for_the_quota_once_there_is_something_in_it(world: World) -> None:
    project_id = await world.new_project()

    async def told() -> list[tuple[str, int]]:
        quota = (await world.owner.get(f"/orgs/{world.organization_id}/quota")).json()
        (project,) = (each for each in quota["projects"] if each["id"] == project_id)
        return [(each["name"], each["used"]) for each in project["datasets"]]

    assert await told() == []
    (found,) = await asked(world, project_id, systemSpace=True)
    await world.upload(found["id"], "/artifacts/x", b"x")
    assert await told() == [("Binaries", 1)]


async def test_binaries_goes_with_its_project(world: World) -> None:
    project_id = await world.new_project()
    (found,) = await asked(world, project_id, systemSpace=True)
    assert (await world.owner.delete(f"/projects/{project_id}")).status_code == 200
    message(await world.owner.get(f"/datasets/{found['id']}"), 404)
    waiting = await world.execute(
        "SELECT args ->> 'dataset_id' FROM procrastinate_jobs WHERE task_name = 'purge_dataset'"
    )
    assert str(int(found["id"], 16)) in {dataset_id for (dataset_id,) in waiting}
