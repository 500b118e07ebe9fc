"""Notices over HTTP: chosen, read, heard live, and never missed by who comes back; and as the SDK asks for them."""

import json
from typing import Any

import pytest

from headwater.catalog import commands, notices
from tests.api.test_news import announce, listening
from tests.api.world import NOBODY, World, message, unique


@pytest.fixture
async def project(world: World) -> str:
    """Of its own, with the same people."""
    project = await world.new_project(world.callers["owner"])
    for name in ("developer", "annotationManager", "annotator"):
        url = f"/projects/{project}/members/{name}@project.test"
        assert (await world.callers["owner"].post(url, json={"role": name})).status_code == 200
    return project


async def tell(world: World, project: str, title: str, level: notices.Level = "info", **facts: Any) -> None:
    async with world.pool.connection() as conn:
        await notices.tell_project(conn, int(project, 16), level, title, "It is so.", **facts)


async def told(world: World, who: str, project: str, **params: Any) -> list[dict[str, Any]]:
    answer = await world.callers[who].get("/notifications", params={"project": project} | params)
    assert answer.status_code == 200, answer.text
    return answer.json()


def titles(found: list[dict[str, Any]]) -> list[str]:
    return [notice["title"] for notice in found]


async def test_a_sync_by_a_person_is_told_with_a_link_to_its_command(world: World) -> None:
    dataset = await world.new_dataset(driver=world.driver_id, sync=False)
    command = (await world.callers["developer"].post(f"/datasets/{dataset}/sync")).json()
    (found,) = await told(world, "owner", world.project_id, dataset=dataset)
    assert (found["kind"], found["commandId"], found["datasetId"]) == ("command.started", command["id"], dataset)
    assert (found["current"], found["read"], found["commandType"]) == (True, False, command["type"])
    assert "developer@project.test" in found["message"]
    linked = await world.callers["owner"].get(found["link"])
    assert linked.json()["id"] == command["id"]
    async with world.pool.connection() as conn:
        await commands.end_command(conn, int(command["id"], 16), "failed", error="The bucket said no.")
    (end,) = await told(world, "owner", world.project_id, dataset=dataset)
    assert (end["kind"], end["level"], end["message"]) == ("command.failed", "error", "The bucket said no.")
    both = await told(world, "owner", world.project_id, command=command["id"])
    assert [one["kind"] for one in both] == ["command.failed", "command.started"]


async def test_notices_are_chosen_and_paged(world: World, project: str) -> None:
    for level in ("info", "warning", "error", "info", "error"):
        await tell(world, project, f"{level} of it", level)
    everything = await told(world, "developer", project)
    assert titles(await told(world, "developer", project, level=["error", "warning"])) == [
        "error of it", "error of it", "warning of it"
    ]  # fmt: skip
    paged: list[dict[str, Any]] = []
    while page := await told(world, "developer", project, limit=2, **({"before": paged[-1]["id"]} if paged else {})):
        paged += page
    assert paged == everything
    assert len(paged) == 5
    assert await told(world, "developer", project, since="2100-01-01T00:00:00Z") == []
    assert len(await told(world, "developer", project, since="2020-01-01T00:00:00Z")) == 5
    for params in ({"level": "loud"}, {"since": "yesterday"}, {"limit": 0}):
        message(await world.owner.get("/notifications", params=params), 400)
    message(await world.owner.get("/notifications", params={"project": "zz"}), 404)


async def test_each_reads_for_oneself(world: World, project: str) -> None:
    client, other = world.callers["developer"], world.callers["owner"]

    async def unread(who: Any) -> int:
        return (await who.get("/notifications/unread", params={"project": project})).json()["unread"]

    for title in ("one", "two", "three", "four"):
        await tell(world, project, title)
    found = await told(world, "developer", project)
    answer = (await client.post("/notifications/read", json={"ids": [found[0]["id"]]})).json()
    assert answer["marked"] == 1
    assert (await client.post("/notifications/read", json={"ids": [found[0]["id"], NOBODY]})).json()["marked"] == 0
    assert titles(await told(world, "developer", project, unread=True)) == ["three", "two", "one"]
    until = {"until": found[2]["id"], "project": project}
    assert (await client.post("/notifications/read", json=until)).json()["marked"] == 2
    assert (await unread(client), await unread(other)) == (1, 4)
    answer = (await client.post("/notifications/read", json={"project": project})).json()
    assert answer["marked"] == 1
    assert (await unread(client), await unread(other)) == (0, 4)
    assert [one["read"] for one in await told(world, "developer", project)] == [True] * 4


@pytest.mark.parametrize(
    ("who", "hears"),
    [
        ("organisation owner", True), ("admin", True), ("owner", True), ("developer", True),
        ("annotationManager", True), ("annotator", False), ("stranger", False), ("outsider", False),
    ],
)  # fmt: skip
async def test_who_hears_of_a_project_hears_it_live_too(world: World, project: str, who: str, hears: bool) -> None:
    title = unique("told")
    async with listening(world, who) as stream, listening(world, "admin") as all_hear:
        await tell(world, project, title)
        assert (await all_hear.event())[1]["title"] == title  # so the other has been told, too
        if hears:
            name, data = await stream.event()
            assert (name, data["title"], data["read"]) == ("notice", title, False)
            assert data == (await told(world, who, project))[0]
    assert (title in titles(await told(world, who, project))) == hears
    async with listening(world, who, last_event_id="1") as again:
        made = await world.callers["outsider" if who == "outsider" else "owner"].post(
            "/projects", data={"name": unique("own")}
        )
        assert made.status_code == 200
        await tell(world, project, unique("more"))
        if hears:
            assert (await again.event())[0] == "notice"
        else:
            assert again.heard() == 0


async def test_who_comes_back_hears_what_was_missed_and_nothing_else(world: World, project: str) -> None:
    async with listening(world, "developer") as stream:
        await tell(world, project, "heard")
        assert (await stream.event())[1]["title"] == "heard"
        last = stream.last_event_id
    for title in ("missed", "missed, too"):
        await tell(world, project, title)
    async with listening(world, "developer", last_event_id=last) as stream:
        assert [(await stream.event())[1]["title"] for _ in range(2)] == ["missed", "missed, too"]
        await tell(world, project, "live")
        assert (await stream.event())[1]["title"] == "live"
        last = stream.last_event_id
    async with listening(world, "developer", last_event_id=last) as stream:
        await tell(world, project, "later")
        assert (await stream.event())[1]["title"] == "later"


async def test_who_left_before_anything_was_told_misses_nothing_either(world: World, project: str) -> None:
    async with listening(world, "developer") as stream:
        last = stream.last_event_id
    await tell(world, project, "missed")
    async with listening(world, "developer", last_event_id=last) as stream:
        assert (await stream.event())[1]["title"] == "missed"


async def test_who_leaves_in_the_middle_of_several_hears_the_rest_again(world: World, project: str) -> None:
    async with listening(world, "developer") as stream:
        async with world.pool.connection() as conn:
            for title in ("one", "two", "three"):
                await notices.tell_project(conn, int(project, 16), "info", title, "It is so.")
        assert (await stream.event())[1]["title"] == "one"
        last = stream.last_event_id
    async with listening(world, "developer", last_event_id=last) as stream:
        again = [(await stream.event())[1]["title"] for _ in range(3)]
        assert again == ["one", "two", "three"]


@pytest.mark.parametrize("garbage", ["", "x", "-1", "9" * 400, "٣"])
async def test_a_last_event_id_that_is_none_begins_anew(world: World, project: str, garbage: str) -> None:
    async with listening(world, "developer", last_event_id=garbage.encode().decode("latin-1")) as stream:
        await tell(world, project, "live")
        assert (await stream.event())[1]["title"] == "live"


async def test_notices_that_commit_while_the_database_does_not_tell_are_told_when_it_does(
    world: World, project: str
) -> None:
    """The connection that listens breaks off, and with it the word that there is something new."""
    async with listening(world, "developer") as stream:
        async with world.pool.connection() as conn:
            await conn.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE 'LISTEN headwater_progress%'"
            )
            await notices.tell_project(conn, int(project, 16), "info", "missed", "It is so.")
        assert (await stream.event())[1]["title"] == "missed"


async def test_a_stream_of_one_dataset_tells_its_notices_alone(world: World) -> None:
    other = await world.new_dataset()
    async with listening(world, "owner", world.dataset_id) as stream:
        await tell(world, world.project_id, "of another", dataset_id=int(other, 16))
        await tell(world, world.project_id, "of it", dataset_id=int(world.dataset_id, 16))
        assert (await stream.event())[1]["title"] == "of it"
        await announce(world, world.dataset_id)
        assert (await stream.event())[0] == "dataset"


async def test_the_sdk_finds_notices_as_messages(world: World, project: str) -> None:
    for title in ("one", "two", "three"):
        await tell(world, project, title, "warning")

    async def messages(context: Any = None, **paging: Any) -> Any:
        params = {"checkpointPagination": json.dumps(paging), "contextExtent": json.dumps(context or {})}
        return (await world.callers["developer"].get("/inbox/message/user", params=params)).json()

    page = await messages({"project": project}, pageSize=2)
    assert [one["title"] for one in page["items"]] == ["three", "two"]
    assert page["hasNextPage"]
    first = page["items"][0]
    assert (first["context"]["project"], first["new"], first["read"]) == (project, 1, 0)
    page = await messages({"project": project}, pageSize=2, checkpoint=page["checkpoint"])
    assert ([one["title"] for one in page["items"]], page["hasNextPage"]) == (["one"], False)
    assert (await messages({"project": project, "service": "x"}))["items"] == []
    assert (await messages({"org": NOBODY}))["items"] == []
    await world.callers["developer"].post("/notifications/read", json={"ids": [first["id"]]})
    again = (await messages({"project": project}))["items"][0]
    assert (again["new"], again["read"]) == (0, 1)
    for name in ("checkpointPagination", "contextExtent"):
        for text in ("{", "[]", '"x"', '{"pageSize": 0, "project": 5}'):
            message(await world.owner.get("/inbox/message/user", params={name: text}), 400)
