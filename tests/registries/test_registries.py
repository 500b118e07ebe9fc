"""Real registries: good, wrong and expired credentials, missing permissions, repositories and tags."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from headwater.errors import BadRequest, FailedDependency, HeadwaterError, NotFound
from headwater.registries.checks import Check, check_registry
from headwater.registries.client import ContainerRegistry, OciRegistry
from headwater.registries.opening import open_registry
from headwater.registries.options import Registry
from headwater.registries.transport import open_transport
from tests import servers
from tests.registries.conftest import REPOSITORIES, TAGS, options
from tests.registries.tokens import TokenService, write_certificate
from tests.servers import RegistryServer

WRONG = "canary-wrong-password"
SECRETS = (WRONG, "registry-secret", "token-secret")


@asynccontextmanager
async def opened(host: str, username: str, password: str, **metadata: object) -> AsyncIterator[ContainerRegistry]:
    given = options(f"http://{host}", username, password)
    async with open_registry(given, metadata, allow_private=True) as registry:
        yield registry


async def checks(host: str, username: str, password: str, **metadata: object) -> list[Check]:
    async with opened(host, username, password, **metadata) as registry:
        found = await check_registry(registry)
    for check in found:
        assert not any(secret in repr(check) for secret in SECRETS)
    return found


async def told(call: object) -> HeadwaterError:
    with pytest.raises(HeadwaterError) as raised:
        await call
    assert not any(secret in str(raised.value) for secret in SECRETS)
    return raised.value


async def test_a_good_password_lists_repositories_and_tags(registry: RegistryServer):
    good = (registry.host, registry.username, registry.password)
    assert await checks(*good) == [Check("login", ok=True), Check("catalog", ok=True)]
    async with opened(*good) as client:
        assert client.host == registry.host
        assert (await client.list_repositories()).names == REPOSITORIES
        found = await client.list_tags("team/app")
        assert (sorted(found.names), found.is_complete) == (TAGS, True)


async def test_a_catalog_of_many_pages_is_read_to_its_end(registry: RegistryServer):
    for page_names in (1, 2, 5, 6):
        async with open_transport(allow_private=True, within_s=10) as transport:
            client = OciRegistry(
                transport,
                Registry(registry.host, registry.username, registry.password),
                f"http://{registry.host}",
                page_names=page_names,
            )
            found = await client.list_repositories()
        assert (found.names, found.is_complete) == (REPOSITORIES, True)


@pytest.mark.parametrize("username", ["pusher", "nobody"])
async def test_a_wrong_password_is_named_as_such(registry: RegistryServer, username: str):
    (login,) = await checks(registry.host, username, WRONG)
    assert (login.name, login.ok, login.call, login.code) == ("login", False, "GET /v2/", "401")
    assert f"The registry {registry.host} does not accept the user name or password." in login.message
    async with opened(registry.host, username, WRONG) as client:
        assert "does not accept the user name or password" in str(await told(client.list_repositories()))
        assert "does not accept the user name or password" in str(await told(client.list_tags("team/app")))


async def test_a_repository_that_is_not_there_is_named(registry: RegistryServer):
    async with opened(registry.host, registry.username, registry.password) as client:
        error = await told(client.list_tags("team/none"))
        assert isinstance(error, NotFound)
        assert f'no repository "team/none" in {registry.host}' in str(error)


@pytest.mark.parametrize("name", ["../../_catalog", "Team/app", "", "a//b", "a/..", "a?n=1", "a\nb", "a" * 256, "/a"])
async def test_what_is_no_name_of_a_repository_is_never_asked_for(registry: RegistryServer, name: str):
    async with opened(registry.host, registry.username, registry.password) as client:
        with pytest.raises(BadRequest, match="not the name of a repository"):
            await client.list_tags(name)


async def test_a_token_service_is_logged_in_to(token_registry: RegistryServer, tokens: TokenService):
    good = (token_registry.host, "reader", "token-secret")
    assert await checks(*good) == [Check("login", ok=True), Check("catalog", ok=True)]
    tokens.given.clear()
    async with opened(*good) as client:
        assert (await client.list_repositories()).names == REPOSITORIES
        assert sorted((await client.list_tags("team/app")).names) == TAGS
    assert tokens.given == ["registry:catalog:*", "repository:team/app:pull"]  # never more than what was asked for


async def test_a_token_service_that_refuses_is_a_wrong_password(token_registry: RegistryServer):
    (login,) = await checks(token_registry.host, "reader", WRONG)
    assert not login.ok
    assert "does not accept the user name or password" in login.message
    assert "here is your password" not in login.message


async def test_credentials_whose_tokens_have_expired_are_told_apart_from_a_wrong_password(
    token_registry: RegistryServer,
):
    (login,) = await checks(token_registry.host, "late", "token-secret")
    assert (login.ok, login.code) == (False, "401")
    assert "it has expired already" in login.message


async def test_a_missing_permission_is_told_with_what_it_is_for(token_registry: RegistryServer):
    puller = (token_registry.host, "puller", "token-secret")
    login, catalog = await checks(*puller)
    assert (login.ok, catalog.ok) == (True, False)
    assert f"may not list the repositories of {token_registry.host}" in catalog.message
    async with opened(*puller) as client:
        assert sorted((await client.list_tags("team/app")).names) == TAGS
        assert 'may not read the repository "team/base"' in str(await told(client.list_tags("team/base")))


async def test_a_certificate_from_nobody_known_is_told(tmp_path: Path):
    files = write_certificate(tmp_path, ec.generate_private_key(ec.SECP256R1()))
    tls = {name: str(path) for name, path in files.items()}
    with servers.docker_registry(tmp_path / "registry", tls=tls) as server:
        given = options(server.host, server.username, server.password)
        async with open_registry(given, {}, allow_private=True) as client:
            error = await told(client.log_in())
    assert isinstance(error, FailedDependency)
    assert f"The certificate of {server.host}" in str(error)


async def test_plain_http_is_spoken_only_when_asked_for_and_allowed(registry: RegistryServer):
    given = options(registry.host, registry.username, registry.password)
    async with open_registry(given, {}, allow_private=True) as client:
        assert "does not speak https" in str(await told(client.log_in()))
    async with open_registry(given, {"insecure": True}, allow_private=True) as client:
        assert await client.log_in()
    for metadata, host in (({"insecure": True}, registry.host), ({}, f"http://{registry.host}")):
        with pytest.raises(BadRequest, match="plain http, where anybody on the way reads the password"):
            async with open_registry(options(host, "ana", "p"), metadata, allow_private=False):
                pass


@pytest.mark.parametrize(
    "metadata",
    [{"insecure": "yes"}, {"insecure": 1}, {"loginHost": 7}, {"loginHost": "https://a.io"}, {"loginHost": ""}],
)
async def test_metadata_that_cannot_be_meant_is_told(metadata: dict[str, object]):
    with pytest.raises(BadRequest, match=f"metadata.{next(iter(metadata))} is"):
        async with open_registry(options("r.example.com", "ana", "p"), metadata, allow_private=False):
            pass


@pytest.mark.parametrize("host", ["127.0.0.1", "[::1]", "169.254.169.254", "localhost"])
async def test_a_registry_on_an_inner_address_needs_the_operator(host: str):
    with pytest.raises(BadRequest, match="HEADWATER_ALLOW_PRIVATE_ENDPOINTS=true"):
        async with open_registry(options(host, "ana", "p"), {}, allow_private=False) as client:
            await client.log_in()


async def test_docker_hub_is_checked_by_its_login_alone(registry: RegistryServer):
    hub = Registry("docker.io", registry.username, registry.password)
    async with open_transport(allow_private=True, within_s=10) as transport:
        assert await check_registry(OciRegistry(transport, hub, f"http://{registry.host}")) == [Check("login", ok=True)]


async def test_docker_hub_answers_elsewhere_and_lists_no_repositories():
    async with open_registry(options("docker.io", "ana", "p"), {}, allow_private=False) as client:
        assert (client.host, client.lists_repositories) == ("docker.io", False)
        assert client._endpoint == "https://registry-1.docker.io"
        assert client._login_host == "auth.docker.io"
        assert "Name the repository itself" in str(await told(client.list_repositories()))
