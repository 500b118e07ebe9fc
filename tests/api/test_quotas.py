"""Quotas over HTTP: who sees what, what is told when little is left, and that changes are audited."""

import pytest

from tests.api.test_news import announce, listening
from tests.api.world import World, message, unique, upload


@pytest.fixture
async def annex(world: World):
    """The second organisation, whose limit no other test meets, with a project and a dataset."""
    path = f"/orgs/{world.annex_id}/quota"
    project = (await world.owner.post("/projects", data={"name": unique("project"), "orgId": world.annex_id})).json()
    dataset = await world.new_dataset(projects=[project["id"]])
    before = (await world.owner.get(path)).json()
    assert before["limit"] is None
    yield path, project, dataset, before["used"]
    assert (await world.owner.put(path, json={"limit": None})).status_code == 200


async def test_the_operator_sets_what_owners_and_admins_see(world: World, annex) -> None:
    path, project, dataset, used = annex
    answer = await world.owner.put(path, json={"limit": used + 10})
    assert (answer.json()["limit"], answer.json()["left"], answer.json()["warning"]) == (used + 10, 10, None)
    for number in range(2):
        await world.upload(dataset, f"/{number}", b"x")
    told = (await world.callers["admin"].get(path)).json()
    assert (told["orgId"], told["limit"], told["used"], told["uploading"], told["left"]) == (
        world.annex_id, used + 10, used + 2, 0, 8,
    )  # fmt: skip
    mine = next(one for one in told["projects"] if one["id"] == project["id"])
    assert mine == {
        "id": project["id"],
        "name": project["name"],
        "used": 2,
        "datasets": [{"id": dataset, "name": mine["datasets"][0]["name"], "used": 2}],
    }
    assert (await world.owner.get(f"/projects/{project['id']}/usage")).json() == mine
    lines = (await world.owner.get(f"/orgs/{world.annex_id}/audit")).json()
    changed = next(line for line in lines if line["action"] == "quota.changed")
    assert (changed["target"], changed["details"]) == ("Annex", {"before": None, "limit": used + 10})


async def test_an_upload_without_room_is_told_what_is_left_and_whom_to_ask(world: World, annex) -> None:
    path, _, dataset, used = annex
    await world.owner.put(path, json={"limit": used})
    told = message(await upload(world.owner, dataset, "/a", b"x" * 100_000), 403)
    assert told.startswith(f"This needs 1 more data point; 0 of {used:,} of organisation 'Annex' are left.")
    assert "headwater quota set Annex NUMBER" in told
    assert (await world.owner.get(f"/datasets/{dataset}")).json()["counts"]["items"] == 0


@pytest.mark.parametrize("limit", [-1, True, 1.5, "7", 2**62, "unlimited"])
async def test_a_limit_is_a_number_or_null(world: World, annex, limit) -> None:
    message(await world.owner.put(annex[0], json={"limit": limit}), 400)


async def test_a_limit_is_asked_for(world: World, annex) -> None:
    message(await world.owner.put(annex[0], json={}), 400)


async def test_owners_and_admins_hear_that_little_is_left_and_others_do_not(world: World, annex) -> None:
    path, _, dataset, used = annex
    await world.owner.put(path, json={"limit": used + 1})
    async with (
        listening(world, "admin") as admin,
        listening(world, "developer") as developer,
        listening(world, "outsider") as outsider,
        listening(world, "admin", dataset) as only_dataset,
    ):
        await world.upload(dataset, "/a", b"x")
        heard = dict([await admin.event(), await admin.event()])
        quota = heard["quota"]
        assert (quota["left"], quota["orgId"]) == (0, world.annex_id)
        assert heard["notice"]["title"] == "100 % of the data points are in use"
        assert quota["warning"].startswith("All data points are used")
        await announce(world, dataset)
        await announce(world, world.dataset_id)
        assert (await only_dataset.event())[1]["id"] == dataset
        assert (await developer.event())[1]["id"] == world.dataset_id
        assert outsider.heard() == 0


async def test_the_operator_sees_numbers_but_no_names_of_others(world: World) -> None:
    (elsewhere,) = await world.execute("SELECT id FROM organization WHERE name = 'Elsewhere'")
    path = f"/orgs/{elsewhere[0]:024x}/quota"
    project = (await world.callers["outsider"].post("/projects", data={"name": unique("secret")})).json()
    assert project["id"] in [one["id"] for one in (await world.callers["outsider"].get(path)).json()["projects"]]
    told = await world.owner.get(path)
    assert (told.status_code, told.json()["used"], told.json()["projects"]) == (200, 0, [])
    message(await world.callers["outsider"].put(path, json={"limit": 5}), 403)
    message(await world.callers["admin"].get(path), 404)
