"""The description of the API, its page, and the routes that watch over the server."""

import re
from collections.abc import Callable
from typing import Any

import httpx
import openapi_spec_validator
import psycopg
from psycopg import sql

from headwater.app import create_app
from headwater.settings import Settings
from tests.api.world import BASE, World, message


async def test_the_description_is_valid_openapi(world: World) -> None:
    described = (await world.callers["no token"].get("/openapi.json")).json()
    openapi_spec_validator.validate(described)


def operations(app: Any) -> list[tuple[str, dict[str, Any]]]:
    return [
        (f"{method} {path}", operation)
        for path, methods in app.openapi()["paths"].items()
        for method, operation in methods.items()
    ]


def test_every_route_says_what_it_does_and_what_it_answers(api_app: Any) -> None:
    names = set()
    for name, operation in operations(api_app):
        assert operation["summary"], name
        names.add(operation["operationId"])
        assert "4XX" in operation["responses"], name
        assert "422" not in operation["responses"], name
        declared = {parameter["name"] for parameter in operation.get("parameters", []) if parameter["in"] == "path"}
        assert declared == set(re.findall(r"{(\w+)}", name)), name
    assert len(names) == len(operations(api_app))


def test_every_route_but_the_open_ones_asks_for_a_token(api_app: Any) -> None:
    is_open = {name for name, operation in operations(api_app) if not operation.get("security")}
    hooks = {f"{method} /api/v1/hooks/{{driver}}/{{secret}}" for method in ("get", "options", "post")}
    tus = {"options /api/v1/datasets/{dataset_id}/tus"}
    assert is_open == {"get /healthz", "get /readyz", "get /login", "post /token", "get /metrics"} | hooks | tus
    schemes = api_app.openapi()["components"]["securitySchemes"]
    assert [(scheme["type"], scheme["scheme"]) for scheme in schemes.values()] == [("http", "bearer")]


async def test_the_page_of_the_description_answers(world: World) -> None:
    page = await world.callers["no token"].get("/docs")
    assert page.status_code == 200
    assert "/api/v1/openapi.json" in page.text


async def test_the_server_lives_without_its_database_but_is_not_ready(
    cluster: str, database_url: str, settings_for: Callable[..., Settings]
) -> None:
    app = create_app(settings_for(public_url="http://headwater.test"), database_url)
    name = sql.Identifier(database_url.partition("?")[0].rpartition("/")[2])
    transport = httpx.ASGITransport(app=app, raise_app_exceptions=False)
    with psycopg.connect(cluster, autocommit=True) as operator:
        async with app.router.lifespan_context(app), httpx.AsyncClient(transport=transport, base_url=BASE) as client:
            assert (await client.get("http://headwater.test/readyz")).json() == {"status": "ready"}
            operator.execute(sql.SQL("ALTER DATABASE {} ALLOW_CONNECTIONS false").format(name))
            operator.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", [name.as_string()[1:-1]]
            )
            answer = await client.get("http://headwater.test/readyz")
            assert "Try again" in message(answer, 503)
            assert answer.headers["retry-after"]
            assert (await client.get("http://headwater.test/healthz")).status_code == 200
            operator.execute(sql.SQL("ALTER DATABASE {} ALLOW_CONNECTIONS true").format(name))
