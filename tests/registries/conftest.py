"""Real registries: one with a password file, one that takes the tokens of a service, both with the same images."""

import socket
from base64 import b64encode
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

import orjson
import pytest
from aiohttp import web

from tests import servers
from tests.registries.images import push
from tests.registries.tokens import TokenService, User, token_service
from tests.servers import RegistryServer

REPOSITORIES = ["alone", "team/app", "team/base", "team/with__two-kinds.of/dots", "zebra"]
TAGS = [f"v{number:02}" for number in range(30)]


def options(host: str, username: str, password: str) -> dict[str, Any]:
    """As the SDK builds them."""
    auth = b64encode(f"{username}:{password}".encode()).decode()
    auths = {"auths": {host: {"username": username, "password": password, "auth": auth}}}
    return {"name": "_json_key", "spec": {"password": b64encode(orjson.dumps(auths)).decode()}}


@pytest.fixture(scope="session")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RegistryServer]:
    with servers.docker_registry(tmp_path_factory.mktemp("registry")) as server:
        for repository in REPOSITORIES:
            push(server, repository, TAGS if repository == "team/app" else ["latest"])
        yield server


USERS = {
    "reader": User("token-secret", frozenset(["*", "catalog", *REPOSITORIES])),
    "puller": User("token-secret", frozenset(["team/app"])),
    "late": User("token-secret", frozenset(["*", *REPOSITORIES]), life_s=-3600),
}


@pytest.fixture(scope="session")
def tokens(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TokenService]:
    with token_service(tmp_path_factory.mktemp("tokens"), USERS) as service:
        yield service


@pytest.fixture(scope="session")
def token_registry(
    registry: RegistryServer, tokens: TokenService, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RegistryServer]:
    folder = tmp_path_factory.mktemp("token-registry")
    with servers.docker_registry(folder, images=registry.images, token=tokens.options) as server:
        yield server


Answering = Callable[[web.Request], Awaitable[web.StreamResponse]]


@pytest.fixture
async def listen() -> AsyncIterator[Callable[..., Awaitable[str]]]:
    """Starts servers, each with one function that answers everything; returns HOST:PORT of each."""
    runners: list[web.AppRunner] = []

    async def start(answer: Answering, host: str = "127.0.0.1") -> str:
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", answer)
        runner = web.AppRunner(app)
        runners.append(runner)
        await runner.setup()
        listener = socket.create_server((host, 0))
        await web.SockSite(runner, listener).start()
        return f"{host}:{listener.getsockname()[1]}"

    yield start
    for runner in runners:
        await runner.cleanup()
