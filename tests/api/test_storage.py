"""Integrations and drivers: what they may point at, and what keeps one from going away."""

from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from headwater.app import create_app
from headwater.catalog import accounts
from headwater.settings import Settings
from tests.api.world import BASE, World, message, unique
from tests.conftest import OWNER


async def integration(world: World, **given: Any) -> httpx.Response:
    body = {"name": unique("integration"), "type": "s3", "options": {"key": "k", "secret": "s"}} | given
    return await world.owner.post(f"/orgs/{world.organization_id}/integrations", json=body)


@pytest.mark.parametrize(
    "given",
    [
        {"type": "gcs"},
        {"options": {}},
        {"options": {"key": "k"}},
        {"options": {"key": "k", "secret": "s", "other": "o"}},
        {"options": {"key": "k", "secret": 5}},
        {"options": {"key": "k", "secret": "a\nb"}},
        {"type": "hostPath", "options": {"key": "k", "secret": "s"}},
        {"metadata": {"endpoint": "ftp://x"}},
        {"metadata": {"endpoint": "http://user:pass@x"}},
        {"metadata": {"endpoint": ["http://x"]}},
        {"metadata": {"region": {"a": 1}}},
        {"metadata": {"region": "a\0b"}},
        {"type": "hostPath", "options": {}, "metadata": {"path": "a\0b"}},
        {"type": "hostPath", "options": {}, "metadata": {"path": {"a": 1}}},
        {"type": "hostPath", "options": {}, "metadata": {}},
    ],
    ids=str,
)
async def test_an_integration_that_cannot_be_is_refused_and_leaves_no_row(world: World, given: dict[str, Any]) -> None:
    before = await world.execute("SELECT count(*) FROM integration")
    secrets = await world.execute("SELECT count(*) FROM secret")
    message(await integration(world, **given), 400)
    assert await world.execute("SELECT count(*) FROM integration") == before
    assert await world.execute("SELECT count(*) FROM secret") == secrets


async def test_a_folder_outside_those_the_operator_allowed_is_refused(world: World, tmp_path: Path) -> None:
    link = world.folder / unique("link")
    link.symlink_to("/etc")
    outside = ["/etc", "/", str(world.folder / ".." / ".." / ".." / ".." / ".." / "etc"), str(link), "relative", ""]
    for path in outside:
        answer = await integration(world, type="hostPath", options={}, metadata={"path": path})
        assert "HEADWATER_LOCAL_ROOTS" in message(answer, 400)
    link.unlink()


@pytest.mark.parametrize("directory", ["..", "../..", "/../other", "a/../../x", "a\0b"])
async def test_a_driver_stays_in_the_folder_of_its_integration(world: World, directory: str) -> None:
    body = world.driver_body(world.integration_id, payload={"directory": directory})
    message(await world.owner.post("/drivers", json=body), 400)
    assert await world.execute("SELECT id FROM driver WHERE name = %s", body["name"]) == []


async def test_a_driver_of_a_folder_that_is_not_there_is_refused_and_leaves_no_row(world: World) -> None:
    body = world.driver_body(world.integration_id, payload={"directory": "/not-there"})
    message(await world.owner.post("/drivers", json=body), 424)
    assert await world.execute("SELECT id FROM driver WHERE name = %s", body["name"]) == []


async def test_a_driver_needs_an_integration_of_its_kind(world: World) -> None:
    keys = (await integration(world)).json()["id"]
    wrong = [
        world.driver_body(world.integration_id, type="s3", payload={"bucketName": "b"}),
        world.driver_body(world.integration_id, type="gcs", payload={"bucket": "b"}),
        world.driver_body(world.integration_id, type="azureblob", payload={"containerName": "b"}),
        world.driver_body(keys, type="s3", payload={"path": "x"}),
        world.driver_body(keys, type="storage", payload={"directory": "/x"}),
    ]
    for body in wrong:
        message(await world.owner.post("/drivers", json=body), 400)
        assert await world.execute("SELECT id FROM driver WHERE name = %s", body["name"]) == []


async def test_an_integration_of_another_organisation_is_as_unknown_as_none(world: World) -> None:
    outsider = world.callers["outsider"]
    project = (await outsider.post("/projects", data={"name": unique("theirs")})).json()["id"]
    body = world.driver_body(world.integration_id, metadata={"system": {"projectId": project}})
    message(await outsider.post("/drivers", json=body), 404)


async def test_what_is_in_use_is_not_deleted(world: World) -> None:
    integration_id = await world.new_integration()
    driver_id = await world.new_driver(integration_id)
    dataset_id = await world.new_dataset(driver=driver_id, sync=False)
    organization = f"/orgs/{world.organization_id}/integrations/{integration_id}"
    assert "driver" in message(await world.owner.delete(organization), 409)
    assert "dataset" in message(await world.owner.delete(f"/drivers/{driver_id}"), 409)
    assert (await world.owner.get(f"/drivers/{driver_id}")).status_code == 200
    assert (await world.owner.get(f"/datasets/{dataset_id}")).status_code == 200


async def test_a_deleted_integration_takes_its_secret_along(world: World) -> None:
    made = (await integration(world)).json()
    number = int(made["id"], 16)
    [(secret_id,)] = await world.execute("SELECT secret_id FROM integration WHERE id = %s", number)
    assert secret_id is not None
    await world.owner.delete(f"/orgs/{world.organization_id}/integrations/{made['id']}")
    assert await world.execute("SELECT id FROM secret WHERE id = %s", secret_id) == []


@pytest.fixture
async def strict(database_url: str, settings_for: Callable[..., Settings]) -> AsyncIterator[httpx.AsyncClient]:
    """The owner at a server as it is shipped: no inner endpoints, no folders."""
    app = create_app(settings_for(allow_private_endpoints=False, local_roots=()), database_url)
    transport = httpx.ASGITransport(app=app, raise_app_exceptions=False)
    async with app.router.lifespan_context(app), httpx.AsyncClient(transport=transport, base_url=BASE) as client:
        async with app.state.server.place.pool.connection() as conn:
            owner = await accounts.find_account(conn, OWNER)
        assert owner is not None
        token = app.state.server.signer.sign(account_id=owner.id, email=owner.email)
        client.headers["authorization"] = f"Bearer {token}"
        yield client


async def test_inner_addresses_and_folders_are_refused_unless_the_operator_allows_them(
    strict: httpx.AsyncClient,
) -> None:
    organization = (await strict.get("/orgs")).json()[0]["id"]
    project = (await strict.post("/projects", data={"name": "p"})).json()["id"]
    url = f"/orgs/{organization}/integrations"
    keys = {"name": "keys", "type": "s3", "options": {"key": "k", "secret": "s"}}
    folder = {"name": "folder", "type": "hostPath", "options": {}, "metadata": {"path": "/tmp"}}
    assert "HEADWATER_LOCAL_ROOTS" in message(await strict.post(url, json=folder), 400)
    made = (await strict.post(url, json=keys)).json()["id"]
    for endpoint in ("http://127.0.0.1:9000", "http://169.254.169.254", "http://[::1]:1", "http://10.0.0.1"):
        body = keys | {"name": endpoint, "metadata": {"endpoint": endpoint}}
        assert "HEADWATER_ALLOW_PRIVATE_ENDPOINTS" in message(await strict.post(url, json=body), 400)
        driver = {
            "name": "d", "type": "s3", "integrationId": made, "metadata": {"system": {"projectId": project}},
            "payload": {"bucketName": "photos", "endpoint": endpoint},
        }  # fmt: skip
        assert "HEADWATER_ALLOW_PRIVATE_ENDPOINTS" in message(await strict.post("/drivers", json=driver), 400)
    # A name is looked up only by the connection.
    driver["payload"]["endpoint"] = "http://localhost:9000"
    answer = await strict.post("/drivers", json=driver)
    assert answer.status_code in (400, 424)
    assert "inner address" in answer.json()["message"]
    assert (await strict.get(f"/drivers?projectId={project}")).json() == []
