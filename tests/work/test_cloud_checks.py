"""The permission X-ray on Google Cloud Storage and Azure: the same checks, in the words of each cloud."""

import json
import secrets
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from aiohttp import web
from azure.storage.blob import generate_container_sas

from headwater.catalog import drivers, integrations, organizations
from headwater.catalog.drivers import Driver
from headwater.catalog.reports import Report
from headwater.errors import BadRequest, StoreDenied
from headwater.wire import checks as wire
from headwater.work import checks
from headwater.work.checks import TEST_KEY, Limits
from tests import google, servers
from tests.storage.conftest import azure_place, gcs_place, make_container, make_gcs_bucket
from tests.storage.scripted import Scripted
from tests.work.world import World, make_project

ORIGIN = "http://headwater.test"
PATIENT = Limits.within(30)
NO_CORS = {"cors"}  # neither emulator lets any origin in unless told to


@pytest.fixture(scope="module")
def azurite(tmp_path_factory: pytest.TempPathFactory) -> Iterator[servers.AzureServer]:
    with servers.azurite(tmp_path_factory.mktemp("azurite")) as server:
        yield server


@pytest.fixture(scope="module")
def gcs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[servers.GcsServer]:
    with servers.fake_gcs(tmp_path_factory.mktemp("gcs")) as server:
        yield server


@pytest.fixture(scope="module")
def tokens() -> Iterator[google.GoogleTokens]:
    with google.google_tokens() as running:
        yield running


async def driver_on(world: World, kind: str, options: dict[str, str], root: str, endpoint: str, **given: Any) -> Driver:
    async with world.connection() as conn:
        owner, project_id = await make_project(conn)
        organization_id = (await organizations.list_organizations(conn, owner))[0].id
        integration = await integrations.create_integration(
            conn,
            world.vault,
            owner,
            organization_id,
            name=secrets.token_hex(6),
            kind=kind,
            options=options,
            metadata=given.get("metadata", {}),
        )
        new = drivers.NewDriver(
            name="driver",
            kind=given.get("driver_kind", kind),
            integration_id=integration.id,
            root=root,
            prefix=given.get("prefix", ""),
            region=None,
            storage_class=None,
            endpoint=endpoint,
            allow_delete=given.get("allow_delete", False),
            read_only=given.get("read_only", False),
        )
        return await drivers.create_driver(conn, owner, project_id, new)


async def checked(world: World, driver: Driver) -> Report:
    report = await checks.check(world.place, driver, origin=ORIGIN, limits=PATIENT)
    assert report.calls <= 12
    json.dumps(wire.report(report))
    return report


def verdicts(report: Report) -> dict[str, bool | None]:
    return {check.name: check.ok for check in report.checks if check.name not in NO_CORS}


ALL_WELL = {
    "list": True,
    "get": True,
    "put": True,
    "delete": True,
    "multipart": True,
    "signed_url": True,
    "clock": True,
    "region": None,
}


async def test_google_cloud_storage(world: World, gcs: servers.GcsServer, tokens: google.GoogleTokens):
    name = f"cams-{secrets.token_hex(6)}"
    place = gcs_place(gcs, name)
    store = place.store(page_keys=100)
    await make_gcs_bucket(store)
    options = {"content": google.key_file(token_uri=tokens.token_uri)}
    driver = await driver_on(world, "gcs", options, name, gcs.endpoint, prefix="in/", allow_delete=True)
    assert verdicts(await checked(world, driver)) == ALL_WELL
    assert [page.keys async for page in store.list_pages()] == [[]]
    for _ in range(2):
        assert (await checked(world, replace(driver, allow_delete=False))).ok
    assert [page.keys async for page in store.list_pages()] == [[f"in/{TEST_KEY}"]]
    await store.put("in/a.jpg", b"jpeg", content_type="image/jpeg")
    with pytest.raises(BadRequest, match="is a single file"):
        await checks.check_new(world.place, replace(driver, prefix="in/a.jpg/"), origin=ORIGIN, limits=PATIENT)
    await store.close()


async def test_google_says_which_permission_is_missing(world: World, tokens: google.GoogleTokens):
    async def answer(request: web.Request) -> web.StreamResponse:
        if request.method == "GET":
            return web.json_response({"kind": "storage#objects"})
        message = f"{google.EMAIL} does not have storage.objects.create access to very-private"
        error = {"code": 403, "message": message, "errors": [{"reason": "forbidden", "message": message}]}
        return web.json_response({"error": error}, status=403)

    async with Scripted.running() as server:
        server.script = [answer]
        options = {"content": google.key_file(token_uri=tokens.token_uri)}
        driver = await driver_on(world, "gcs", options, "cams", server.url)
        with pytest.raises(StoreDenied, match=r"403 forbidden on objects\.insert") as refused:
            await checks.check_new(world.place, driver, origin=ORIGIN, limits=PATIENT)
    told = str(refused.value)
    assert "gcloud storage buckets add-iam-policy-binding gs://cams" in told
    assert "roles/storage.objectUser" in told
    assert "very-private" not in told


async def test_azure(world: World, azurite: servers.AzureServer):
    name = f"cams-{secrets.token_hex(6)}"
    store = azure_place(azurite, name).store(page_keys=100)
    await make_container(store)
    options = {"key": azurite.account, "secret": azurite.key}
    driver = await driver_on(world, "azureblob", options, name, azurite.endpoint, prefix="in/", allow_delete=True)
    assert verdicts(await checked(world, driver)) == ALL_WELL
    assert [page.keys async for page in store.list_pages()] == [[]]
    for _ in range(2):
        assert (await checked(world, replace(driver, allow_delete=False))).ok
    assert [page.keys async for page in store.list_pages()] == [[f"in/{TEST_KEY}"]]
    wrong = await driver_on(
        world, "azureblob", options | {"secret": "d3Jvbmc="}, name, azurite.endpoint, allow_delete=True
    )
    report = await checked(world, wrong)
    assert verdicts(report)["list"] is False
    assert verdicts(report)["put"] is None
    assert report.check("list").policy is None
    await store.close()


async def test_a_sas_of_azure_that_only_reads_lacks_put(world: World, azurite: servers.AzureServer):
    name = f"cams-{secrets.token_hex(6)}"
    store = azure_place(azurite, name).store(page_keys=100)
    await make_container(store)
    await store.put("a.txt", b"a", content_type="text/plain")
    end = datetime.now(UTC) + timedelta(hours=1)
    token = generate_container_sas(azurite.account, name, azurite.key, permission="rl", expiry=end)
    driver = await driver_on(
        world, "azureblob", {"key": azurite.account, "secret": token}, name, azurite.endpoint, allow_delete=True
    )
    report = await checked(world, driver)
    assert verdicts(report) == ALL_WELL | {
        "put": False,
        "delete": False,
        "multipart": None,
        "signed_url": None,
    }
    policy = report.check("put").policy
    assert "Storage Blob Data Contributor" in policy.command
    assert f"storageAccounts/{azurite.account}/blobServices/default/containers/{name}" in policy.command
    assert " cw " in policy.hint
    with pytest.raises(StoreDenied, match="az role assignment create") as refused:
        await checks.check_new(world.place, driver, origin=ORIGIN, limits=PATIENT)
    assert token not in str(refused.value)
    assert f"storageAccounts/{azurite.account}/" in str(refused.value)
    assert [page.keys async for page in store.list_pages()] == [["a.txt"]]
    await store.close()
