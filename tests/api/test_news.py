"""Live news: who hears what, how often, and that a listener who leaves is gone."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from headwater.catalog import commands
from tests.api.test_roles import EVERYBODY, READ
from tests.api.world import NOBODY, World, message, unique


class Listening:
    """One caller's stream, read from the application event by event."""

    def __init__(self, world: World, who: str, dataset: str | None, last_event_id: str | None = None) -> None:
        self._sent: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self._left = asyncio.Event()
        headers = {name.lower(): value for name, value in world.callers[who].headers.items()}
        if last_event_id is not None:
            headers["last-event-id"] = last_event_id
        self.last_event_id = last_event_id
        scope = {
            "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": "GET", "scheme": "http",
            "path": "/api/v1/notifications/stream", "raw_path": b"", "root_path": "",
            "query_string": b"" if dataset is None else f"dataset={dataset}".encode(),
            "headers": [(name.encode(), value.encode()) for name, value in headers.items()],
            "client": ("127.0.0.1", 1), "server": ("headwater.test", 80),
        }  # fmt: skip
        self.task = asyncio.create_task(world.app(scope, self._receive, self._sent.put))

    async def _receive(self) -> dict[str, Any]:
        await self._left.wait()
        return {"type": "http.disconnect"}

    async def start(self) -> dict[str, Any]:
        return await asyncio.wait_for(self._sent.get(), 5)

    async def text(self) -> str:
        return (await asyncio.wait_for(self._sent.get(), 5))["body"].decode()

    async def event(self) -> tuple[str, dict[str, Any]]:
        name, data, *rest = (await self.text()).strip().split("\n")
        for line in rest:
            self.last_event_id = line.removeprefix("id: ")
        return name.removeprefix("event: "), json.loads(data.removeprefix("data: "))

    def heard(self) -> int:
        return self._sent.qsize()

    async def leave(self) -> None:
        self._left.set()
        await asyncio.wait_for(self.task, 5)


@asynccontextmanager
async def listening(
    world: World, who: str, dataset: str | None = None, last_event_id: str | None = None
) -> AsyncIterator[Listening]:
    stream = Listening(world, who, dataset, last_event_id)
    start = await stream.start()
    assert start["status"] == 200
    assert (b"content-type", b"text/event-stream; charset=utf-8") in start["headers"]
    connected, number = (await stream.text()).strip().split("\n")
    assert connected == ": connected"
    stream.last_event_id = number.removeprefix("id: ")
    yield stream
    await stream.leave()


async def note(world: World, command_id: str, percent: float) -> None:
    async with world.pool.connection() as conn:
        await commands.note_progress(conn, int(command_id, 16), progress_percent=percent, spec={})


async def announce(world: World, dataset_id: str) -> None:
    async with world.pool.connection() as conn:
        await commands.announce_dataset(conn, int(dataset_id, 16))


@pytest.mark.parametrize("who", EVERYBODY)
async def test_who_may_listen_to_a_dataset(world: World, who: str) -> None:
    stream = Listening(world, who, world.dataset_id)
    assert (await stream.start())["status"] == READ[who]
    await stream.leave()


async def test_a_dataset_that_is_not_there_has_no_news(world: World) -> None:
    for dataset in (NOBODY, "zz"):
        message(await world.owner.get(f"/notifications/stream?dataset={dataset}"), 404)


async def test_members_hear_of_commands_and_datasets_and_nobody_else_does(world: World) -> None:
    command_id = await world.new_command()
    async with (
        listening(world, "annotator") as member,
        listening(world, "stranger") as stranger,
        listening(world, "outsider") as outsider,
    ):
        await note(world, command_id, 40)
        name, data = await member.event()
        assert (name, data["id"], data["progress"], data["status"]) == ("command", command_id, 40, "in-progress")
        await announce(world, world.dataset_id)
        name, data = await member.event()
        assert (name, data["id"]) == ("dataset", world.dataset_id)
        assert data["counts"].keys() >= {"items", "bytes", "missing"}
        # A later event of their own proves that the others have been told all there was.
        for who, stream, place in (("stranger", stranger, {"orgId": world.annex_id}), ("outsider", outsider, {})):
            made = await world.callers[who].post("/projects", data={"name": unique("own")} | place)
            project = made.json()["id"]
            own = await world.callers[who].post("/datasets", json={"name": "own", "projects": [project]})
            await announce(world, own.json()["id"])
            assert (await stream.event())[1]["id"] == own.json()["id"]


async def test_only_the_dataset_that_was_asked_for(world: World) -> None:
    other = await world.new_dataset()
    async with listening(world, "owner", world.dataset_id) as stream:
        await announce(world, other)
        await announce(world, world.dataset_id)
        assert (await stream.event())[1]["id"] == world.dataset_id


async def test_a_rolled_back_change_is_no_news(world: World) -> None:
    command_id = await world.new_command()
    async with listening(world, "owner") as stream:
        async with world.pool.connection() as conn:
            await commands.note_progress(conn, int(command_id, 16), progress_percent=90, spec={})
            await conn.rollback()
        await note(world, command_id, 10)
        assert (await stream.event())[1]["progress"] == 10


async def test_a_hundred_changes_are_told_as_few(world: World) -> None:
    command_id = await world.new_command()
    async with listening(world, "owner") as stream:
        for percent in range(1, 101):
            await note(world, command_id, percent)
        told = []
        while not told or told[-1] < 100:
            told.append((await stream.event())[1]["progress"])
        assert told == sorted(told)
        assert len(told) < 30


async def test_somebody_who_is_put_out_of_the_project_hears_no_more(world: World) -> None:
    project = await world.new_project()
    dataset = await world.new_dataset(projects=[project])
    mine = f"/projects/{project}/members/developer@project.test"
    assert (await world.owner.post(mine, json={"role": "annotator"})).status_code == 200
    async with listening(world, "developer") as stream:
        await announce(world, dataset)
        assert (await stream.event())[1]["id"] == dataset
        assert (await world.owner.delete(mine)).status_code == 200
        await announce(world, dataset)
        await announce(world, world.dataset_id)
        assert (await stream.event())[1]["id"] == world.dataset_id


async def test_a_listener_who_leaves_is_forgotten(world: World) -> None:
    news = world.app.state.news
    before = len(news._listeners)
    async with listening(world, "owner"):
        assert len(news._listeners) == before + 1
    assert len(news._listeners) == before
