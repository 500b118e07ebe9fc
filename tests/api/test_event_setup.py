"""What to make in a cloud account, by the API: of which driver, by which way, with which warning."""

from dataclasses import replace
from typing import Any

import pytest

from tests.api.world import World, message, unique


async def asked(world: World, driver_id: str, **query: str) -> Any:
    return await world.owner.get(f"/drivers/{driver_id}/events/setup", params=query)


async def test_a_bucket_of_aws_is_told_in_its_region_and_folder(world: World) -> None:
    driver_id = await world.new_bucket_driver("s3", root="my.bucket", prefix="raw/", region="eu-north-1")
    told = (await asked(world, driver_id, via="queue")).json()
    assert (told["driverId"], told["format"], told["warning"]) == (driver_id, "commands", None)
    for part in ("eu-north-1", "arn:aws:s3:::my.bucket", '"Value":"raw/"', "sqs:ReceiveMessage"):
        assert part in told["text"]
    assert told["ways"]["webhook"] == ["commands", "terraform", "function"]
    terraform = (await asked(world, driver_id, via="webhook", format="terraform")).json()
    assert 'resource "aws_sns_topic"' in terraform["text"]


@pytest.mark.parametrize(("kind", "endpoint", "part"), [
    ("s3", "https://minio.example", "notify_webhook:headwater"),
    ("s3", "https://s3.eu-north-1.amazonaws.com", "aws sns subscribe"),
    ("gcs", None, "gcloud pubsub subscriptions create"),
])  # fmt: skip
async def test_each_kind_of_driver_is_told_its_usual_way(
    world: World, kind: str, endpoint: str | None, part: str
) -> None:
    told = (await asked(world, await world.new_bucket_driver(kind, endpoint=endpoint))).json()
    assert part in told["text"]
    assert "http://headwater.test/api/v1/" in told["text"]


async def test_an_azure_account_is_named_as_its_integration_names_it(world: World) -> None:
    key = "c2VjcmV0LW9mLXRoZS1hY2NvdW50LWtleQ=="
    body = {"name": unique("azure"), "type": "azureblob", "options": {"key": "cameras", "secret": key}}
    made = await world.owner.post(f"/orgs/{world.organization_id}/integrations", json=body)
    assert made.status_code == 200, made.text
    driver_id = await world.new_bucket_driver("azureDatalakeGen2", made.json()["id"], prefix="raw/")
    told = (await asked(world, driver_id, via="queue")).json()["text"]
    assert "az storage account show --name cameras" in told
    assert "DirectoryRenamed" in told
    assert key not in told


@pytest.mark.parametrize(("url", "is_warned"), [
    ("http://127.0.0.1:8080", True),
    ("http://server", True),
    ("https://headwater.example", False),
])  # fmt: skip
async def test_who_cannot_be_reached_is_warned(world: World, url: str, is_warned: bool) -> None:
    driver_id = await world.new_bucket_driver("s3")
    await world.execute("INSERT INTO driver_events (driver_id, is_on) VALUES (%s, true)", int(driver_id, 16))
    state = world.app.state
    before = state.server
    state.server = replace(before, settings=before.settings.model_copy(update={"public_url": url}))
    try:
        told = (await asked(world, driver_id, via="webhook")).json()
        queued = (await asked(world, driver_id, via="queue")).json()
    finally:
        state.server = before
    assert (told["warning"] is not None) == is_warned
    assert queued["warning"] is None


async def test_the_hook_that_is_named_is_the_driver_s_own(world: World) -> None:
    driver_id = await world.new_bucket_driver("gcs")
    off = (await asked(world, driver_id)).json()
    assert f"http://headwater.test/api/v1/hooks/{driver_id}/" in off["text"]
    assert "switch them on first: headwater events on" in off["warning"]
    on = (await world.owner.patch(f"/drivers/{driver_id}/events", json={"on": True})).json()
    told = (await asked(world, driver_id)).json()
    assert f"--push-endpoint={on['hook']} " in told["text"]
    assert "--push-auth-token-audience=http://headwater.test " in told["text"]
    assert told["warning"] is None
    rotated = (await world.owner.patch(f"/drivers/{driver_id}/events", json={"rotate": True})).json()
    assert rotated["hook"] != on["hook"]
    assert rotated["hook"] in (await asked(world, driver_id)).json()["text"]


async def test_what_there_is_not_is_told_in_a_sentence(world: World) -> None:
    driver_id = await world.new_bucket_driver("gcs")
    assert "Choose one of: webhook." in message(await asked(world, driver_id, via="queue"), 400)
    assert "webhook" in message(await asked(world, driver_id, via="pigeon"), 400)
    assert "is a folder, which tells nobody" in message(await asked(world, world.driver_id), 400)
