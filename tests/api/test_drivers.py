"""Drivers: made once however often asked for, changed within limits, and told of where they may delete."""

import asyncio
from typing import Any

import httpx
import pytest

from tests import servers
from tests.api.world import World, message, unique, upload


async def keys(world: World, weed: servers.S3Server) -> str:
    options = {"key": weed.admin.access_key_id, "secret": weed.admin.secret_access_key}
    body = {"name": unique("keys"), "type": "s3", "options": options, "metadata": {"endpoint": weed.endpoint}}
    answer = await world.owner.post(f"/orgs/{world.organization_id}/integrations", json=body)
    assert answer.status_code == 200, answer.text
    return answer.json()["id"]


async def made(world: World, **given: Any) -> dict[str, Any]:
    answer = await world.owner.post("/drivers", json=world.driver_body(world.integration_id, **given))
    assert answer.status_code == 200, answer.text
    return answer.json()


async def titles(client: httpx.AsyncClient) -> list[str]:
    return [notice["title"] for notice in (await client.get("/notifications")).json()]


async def test_the_same_driver_asked_for_again_is_the_one_there_is(world: World) -> None:
    body = world.driver_body(world.integration_id, allowExternalDelete=False)
    answers = await asyncio.gather(*(world.owner.post("/drivers", json=body) for _ in range(6)))
    assert len({answer.json().get("id") or answer.text for answer in answers}) == 1
    for change in ({"allowExternalDelete": True}, {"readOnly": True}, {"payload": {"directory": None, "region": "x"}}):
        assert "not the same" in message(await world.owner.post("/drivers", json=body | change), 409)


async def test_delete_is_off_unless_asked_for_and_owners_hear_of_it(world: World) -> None:
    quiet = await made(world)
    assert (quiet["allowExternalDelete"], quiet["warning"]) == (False, None)
    loud = await made(world, allowExternalDelete=True)
    assert "for good" in loud["warning"]
    told = await titles(world.owner)
    assert any(loud["name"] in title for title in told)
    assert not any(quiet["name"] in title for title in told)
    assert await titles(world.callers["admin"]) == told
    for who in ("developer", "owner", "stranger", "outsider"):
        assert not any(loud["name"] in title for title in await titles(world.callers[who]))


async def test_a_driver_changes_its_name_its_word_on_deletion_and_its_class_and_nothing_else(world: World) -> None:
    driver = await made(world)
    url = f"/drivers/{driver['id']}"
    name = unique("renamed")
    changed = (await world.owner.patch(url, json={"name": name, "allowExternalDelete": True, "path": "/etc"})).json()
    same = {"id", "type", "path", "mountPath", "directory", "readOnly", "storageClass"}
    assert {field: changed[field] for field in same} == {field: driver[field] for field in same}
    assert (changed["name"], changed["allowExternalDelete"]) == (name, True)
    assert any(name in title for title in await titles(world.owner))
    taken = await made(world)
    message(await world.owner.patch(url, json={"name": taken["name"]}), 409)
    message(await world.owner.patch(url, json={"name": ""}), 400)
    message(await world.owner.patch(url, json={"storageClass": "COLD"}), 400)
    assert (await world.owner.get(url)).json()["name"] == name


async def test_an_organisation_may_forbid_deletes_whatever_its_drivers_say(world: World) -> None:
    driver = await made(world, allowExternalDelete=True)
    organization = f"/orgs/{world.organization_id}"
    try:
        changed = await world.owner.patch(organization, json={"forbidExternalDelete": True})
        assert changed.json()["forbidExternalDelete"] is True
        now = (await world.owner.get(f"/drivers/{driver['id']}")).json()
        assert now["allowExternalDelete"] is False
        assert "forbids" in now["warning"]
        message(await world.callers["admin"].patch(organization, json={"forbidExternalDelete": False}), 403)
    finally:
        await world.owner.patch(organization, json={"forbidExternalDelete": False})
    assert (await world.owner.get(f"/drivers/{driver['id']}")).json()["allowExternalDelete"] is True
    log = (await world.owner.get(f"{organization}/audit")).json()
    assert {"organization.external-delete-forbidden", "driver.created"} <= {line["action"] for line in log}


async def test_a_driver_that_only_reads_takes_no_upload(world: World) -> None:
    driver = await made(world, readOnly=True)
    assert (driver["readOnly"], driver["allowExternalModification"]) == (True, False)
    dataset_id = await world.new_dataset(driver=driver["id"], sync=False)
    name = unique("upload") + ".txt"
    assert "only reads" in message(await upload(world.owner, dataset_id, f"/{name}", b"x"), 400)
    assert not (world.folder / name).exists()
    body = world.driver_body(world.integration_id, readOnly=True, allowExternalDelete=True)
    message(await world.owner.post("/drivers", json=body), 400)
    message(await world.owner.patch(f"/drivers/{driver['id']}", json={"allowExternalDelete": True}), 400)


@pytest.mark.parametrize(
    ("payload", "words"),
    [
        ({"bucketName": "photos/2024"}, "photos, and its folder goes into payload.path: 2024"),
        ({"bucketName": "s3://photos"}, "Give its name alone: photos"),
        ({"bucketName": "s3://photos/a/b/"}, "payload.path: a/b"),
        ({"bucketName": ""}, "payload.bucketName"),
        ({"bucketName": "a b"}, "not a bucket's name"),
        ({"bucketName": "photos", "path": "a\nb"}, "path"),
        ({"bucketName": "photos", "path": "x" * 2000}, "1,024 bytes"),
        ({"bucketName": "photos", "region": "me@elsewhere.test/"}, "region, as eu-west-1"),
        ({"bucketName": "photos", "storageClass": "GLACIER"}, "restored"),
        ({"bucketName": "photos", "storageClass": "no class!"}, "storage class"),
        ({"bucketName": "photos", "endpoint": "http://user:secret@host"}, "user name or password"),
    ],
    ids=str,
)
async def test_what_cannot_be_a_driver_is_refused_with_what_would_be_right(
    world: World, weed: servers.S3Server, payload: dict[str, Any], words: str
) -> None:
    integration_id = await keys(world, weed)
    body = world.driver_body(integration_id, type="s3", payload=payload)
    told = message(await world.owner.post("/drivers", json=body), 400)
    assert words in told
    assert "secret@" not in told
    assert await world.execute("SELECT FROM driver WHERE name = %s", body["name"]) == []


async def test_who_may_not_read_a_secret_does_not_say_where_it_is_sent(world: World) -> None:
    """Of credentials that travel with each request, as a SAS does."""
    heard: list[bytes] = []

    async def listen(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heard.append(await reader.readuntil(b"\r\n"))
        writer.write(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        writer.close()

    sas = "?sv=2024-11-04&ss=b&srt=sco&sp=rwlc&se=2099-01-01T00:00:00Z&sig=dGhlIHNpZ25hdHVyZQ%3D%3D"
    async with await asyncio.start_server(listen, "127.0.0.1", 0) as thief:
        endpoint = f"http://127.0.0.1:{thief.sockets[0].getsockname()[1]}"
        keys = {"name": unique("sas"), "type": "azureblob", "options": {"key": "photos", "secret": sas}}
        url = f"/orgs/{world.organization_id}/integrations"
        answers = [await world.owner.post(url, json=keys)]
        named = {"name": unique("sas"), "metadata": {"endpoint": endpoint}}
        answers.append(await world.owner.post(url, json=keys | named))
        open_one, tied_one = (answer.json()["id"] for answer in answers)

        def body(integration_id: str, **payload: str) -> dict[str, Any]:
            payload = {"containerName": "photos"} | payload
            given = {"type": "azureblob", "integrationType": "azureblob", "payload": payload}
            return world.driver_body(integration_id, **given)

        for path in ("/drivers", "/drivers/validate"):
            told = message(await world.callers["developer"].post(path, json=body(open_one, endpoint=endpoint)), 403)
            assert "metadata" in told
            assert "sig" not in told
            assert heard == []
        for who, asked in (("admin", body(open_one, endpoint=endpoint)), ("developer", body(tied_one))):
            answer = await world.callers[who].post("/drivers/validate", json=asked)
            assert answer.status_code != 403, answer.text
            assert heard
            heard.clear()
