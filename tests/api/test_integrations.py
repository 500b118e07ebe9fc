"""Integrations over HTTP: changed as the SDK does it, made once when asked for twice, deleted with their secret."""

import asyncio
from typing import Any

import httpx
import pytest

from tests.api.world import NOBODY, World, message, unique
from tests.opened import open_secret

OPTIONS = {"key": "AKIA-a-key", "secret": "hush-hush-hush"}


@pytest.fixture
def url(world: World) -> str:
    return f"/orgs/{world.organization_id}/integrations"


async def made(world: World, url: str, **given: Any) -> dict[str, Any]:
    body = {"name": unique("keys"), "type": "s3", "options": OPTIONS} | given
    answer = await world.owner.post(url, json=body)
    assert answer.status_code == 200, answer.text
    return answer.json()


async def opened(world: World, integration: dict[str, Any]) -> dict[str, str]:
    async with world.pool.connection() as conn:
        vault = world.app.state.server.vault
        return await open_secret(conn, vault, int(integration["id"], 16))


async def patch(world: World, url: str, who: str = "admin", **body: Any) -> httpx.Response:
    return await world.callers[who].patch(url, params={"reloadServices": "true"}, json=body)


async def test_options_are_changed_as_the_sdk_sends_them(world: World, url: str) -> None:
    first = await made(world, url, metadata={"region": "r"})
    options = {"key": "AKIA-another", "secret": "a-new-secret"}
    answer = await patch(
        world, url, integrationId=first["id"], name=None, credentials={"options": options, "type": "s3"}
    )
    changed = answer.json()
    assert answer.status_code == 200
    assert changed == first | {"updatedAt": changed["updatedAt"]}
    assert changed["updatedAt"] > first["updatedAt"]
    assert await opened(world, first) == options
    assert "a-new-secret" not in answer.text


async def test_name_and_metadata_change_alone_and_nothing_changes_nothing(world: World, url: str) -> None:
    first = await made(world, url, metadata={"region": "r"})
    name = unique("renamed")
    assert (await patch(world, url, integrationId=first["id"], name=name)).json()["name"] == name
    after = (await patch(world, url, integrationId=first["id"], metadata={"provider": "aws"})).json()
    assert (after["name"], after["metadata"]) == (name, {"provider": "aws"})
    assert (await patch(world, url, integrationId=first["id"], name=name)).json() == after
    assert await opened(world, first) == OPTIONS
    lines = await world.execute(
        "SELECT details->'changed' FROM audit WHERE action = 'integration.changed' AND target = %s ORDER BY id", name
    )
    assert lines == [(["name"],), (["metadata"],)]


@pytest.mark.parametrize(("body", "status"), [
    ({}, 400),
    ({"integrationId": "x"}, 404),
    ({"integrationId": NOBODY}, 404),
    ({"credentials": {"options": OPTIONS, "type": "gcs"}}, 400),
    ({"credentials": {"options": {"key": "k"}}}, 400),
    ({"credentials": {"options": OPTIONS | {"other": "hush"}}}, 400),
    ({"metadata": {"endpoint": "ftp://x"}}, 400),
    ({"metadata": {"password": "hush"}}, 400),
    ({"name": ""}, 400),
])  # fmt: skip
async def test_a_change_that_cannot_be_is_refused_whole(
    world: World, url: str, body: dict[str, Any], status: int
) -> None:
    first = await made(world, url)
    ids = {} if not body or "integrationId" in body else {"integrationId": first["id"]}
    told = message(await patch(world, url, **ids | {"name": unique("new")} | body), status)
    assert "hush" not in told
    assert (await world.owner.get(f"{url}/{first['id']}")).json() == first
    assert await opened(world, first) == OPTIONS


async def test_a_name_that_is_taken_stays_with_the_other(world: World, url: str) -> None:
    one, other = await made(world, url), await made(world, url)
    told = message(await patch(world, url, integrationId=one["id"], name=other["name"]), 409)
    assert other["name"] in told


async def test_another_organisations_integration_cannot_be_changed(world: World, url: str) -> None:
    first = await made(world, url)
    message(await patch(world, url, "outsider", integrationId=first["id"], name="mine"), 404)
    message(await patch(world, url, "developer", integrationId=first["id"], name="mine"), 403)
    elsewhere = f"/orgs/{world.annex_id}/integrations"
    message(await world.owner.patch(elsewhere, json={"integrationId": first["id"], "name": "mine"}), 404)


async def test_a_repeated_request_makes_one_even_side_by_side(world: World, url: str) -> None:
    body = {"name": unique("keys"), "type": "s3", "options": OPTIONS}
    answers = await asyncio.gather(*(world.owner.post(url, json=body) for _ in range(6)))
    assert {answer.status_code for answer in answers} == {200}
    assert len({answer.json()["id"] for answer in answers}) == 1
    message(await world.owner.post(url, json=body | {"options": OPTIONS | {"secret": "another-secret"}}), 409)
    message(await world.owner.post(url, json=body | {"metadata": {"region": "x"}}), 409)


async def test_side_by_side_changes_leave_one_secret_whole(world: World, url: str) -> None:
    first = await made(world, url)
    pairs = [{"key": f"key-{number}", "secret": f"secret-{number}"} for number in range(6)]
    answers = await asyncio.gather(
        *(patch(world, url, integrationId=first["id"], credentials={"options": pair}) for pair in pairs)
    )
    assert {answer.status_code for answer in answers} == {200}
    assert await opened(world, first) in pairs
    rows = await world.execute(
        "SELECT count(*) FROM secret WHERE NOT EXISTS (SELECT FROM secret_owner WHERE secret_id = secret.id)"
    )
    assert rows == [(0,)]


async def test_a_deleted_integration_takes_its_secret_and_leaves_a_line(world: World, url: str) -> None:
    before = await world.execute("SELECT count(*) FROM secret")
    first = await made(world, url)
    assert (await world.owner.delete(f"{url}/{first['id']}")).json() == {"success": True}
    assert await world.execute("SELECT count(*) FROM secret") == before
    message(await world.owner.delete(f"{url}/{first['id']}"), 404)
    lines = await world.execute(
        "SELECT action, actor FROM audit WHERE target = %s AND action LIKE 'integration.%%' ORDER BY id", first["name"]
    )
    owner = world.people["organisation owner"].email
    assert lines == [("integration.created", owner), ("integration.deleted", owner)]
