"""Registries over the API: shapes checked when an integration is made, a real registry asked, other types told."""

from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests import servers
from tests.api.world import World, message, unique
from tests.registries.conftest import options
from tests.registries.images import push
from tests.servers import RegistryServer


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RegistryServer]:
    with servers.docker_registry(tmp_path_factory.mktemp("registry")) as server:
        push(server, "team/app", ["v1", "v2"])
        yield server


async def made(world: World, api: httpx.AsyncClient, given: dict[str, Any], **body: Any) -> str:
    """The URL of an integration."""
    body = {"name": unique("registry"), "type": "private-registry", "options": given} | body
    answer = await api.post(f"/orgs/{world.organization_id}/integrations", json=body)
    assert answer.status_code == 200, answer.text
    assert "registry-secret" not in answer.text
    return f"/orgs/{world.organization_id}/integrations/{answer.json()['id']}"


async def test_a_registry_is_validated_and_listed(world: World, api: httpx.AsyncClient, registry: RegistryServer):
    url = await made(world, api, options(f"http://{registry.host}", registry.username, registry.password))
    good = {"ok": True, "message": None, "call": None, "code": None}
    assert (await api.post(f"{url}/validate")).json() == {
        "host": registry.host,
        "checks": [{"name": "login"} | good, {"name": "catalog"} | good],
        "message": None,
    }
    assert (await api.get(f"{url}/repositories")).json() == {
        "host": registry.host,
        "repositories": ["team/app"],
        "isComplete": True,
    }
    tags = (await api.get(f"{url}/repositories/team/app/tags")).json()
    assert (tags["repository"], sorted(tags["tags"]), tags["isComplete"]) == ("team/app", ["v1", "v2"], True)
    assert "no repository" in message(await api.get(f"{url}/repositories/team/none/tags"), 404)
    assert "not the name of a repository" in message(await api.get(f"{url}/repositories/%2e%2e/_catalog/tags"), 400)


async def test_a_wrong_password_is_a_check_that_failed(world: World, api: httpx.AsyncClient, registry: RegistryServer):
    url = await made(world, api, options(registry.host, "pusher", "canary"), metadata={"insecure": True})
    answer = await api.post(f"{url}/validate")
    (login,) = answer.json()["checks"]
    assert (answer.status_code, login["ok"], login["call"], login["code"]) == (200, False, "GET /v2/", "401")
    assert "does not accept the user name or password" in login["message"]
    assert "canary" not in answer.text
    assert "does not accept the user name or password" in message(await api.get(f"{url}/repositories"), 424)


async def test_other_types_of_integrations_say_where_they_are_checked(world: World, api: httpx.AsyncClient):
    for given, words in (
        ({"type": "key_value", "options": {"key": "k", "value": "v"}}, "nothing to check"),
        ({"type": "s3", "options": {"key": "k", "secret": "s"}}, "with each storage driver"),
    ):
        url = await made(world, api, {}, **given)
        told = (await api.post(f"{url}/validate")).json()
        assert (told["host"], told["checks"]) == (None, [])
        assert words in told["message"]
        assert "a private-registry has repositories" in message(await api.get(f"{url}/repositories"), 400)


@pytest.mark.parametrize(
    "given",
    [
        {"name": "n", "spec": {"password": "canary"}},
        {"name": "n", "spec": {"canary": 1}},
        {"name": "AWS", "spec": {"accessKeyId": "canary", "secretAccessKey": "canary", "account": "1"}},
    ],
)
async def test_options_of_no_known_shape_are_refused_when_an_integration_is_made(
    world: World, api: httpx.AsyncClient, given: dict[str, Any]
):
    body = {"name": unique("registry"), "type": "private-registry", "options": given}
    told = message(await api.post(f"/orgs/{world.organization_id}/integrations", json=body), 400)
    assert "The private-registry integration" in told
    assert "canary" not in told
