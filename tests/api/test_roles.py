"""Every route, asked by everybody: who may, who may not, and who may not even know."""

import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import httpx
import pytest

from headwater.catalog import accounts, organizations, projects
from headwater.work.preprocess import thumbnail_key
from tests.api.world import BOUNDARY, NOBODY, World, file_form, message, new_account, unique

# Groups of people, from the one who may everything to the one whom nobody knows.
TOP = ["organisation owner", "admin"]
PROJECT = ["owner", "developer", "annotationManager", "annotator"]
UNKNOWN = ["no token", "garbage token", "expired token", "refresh token"]
EVERYBODY = [*TOP, *PROJECT, "stranger", "outsider", *UNKNOWN]


def in_project(*allowed: str) -> dict[str, int]:
    """For roles of the project that may; the rest of its members are told so, others know nothing of it."""
    statuses = dict.fromkeys(TOP, 200) | dict.fromkeys(PROJECT, 403) | {"stranger": 404, "outsider": 404}
    return statuses | dict.fromkeys(allowed, 200) | dict.fromkeys(UNKNOWN, 401)


READ = in_project(*PROJECT)
WRITE_ITEMS = in_project("owner", "developer", "annotationManager")
SYNC = MANAGE_DATASETS = MANAGE_DRIVERS = in_project("owner", "developer")
MANAGE_PROJECT = in_project("owner")
MEMBERS = dict.fromkeys(EVERYBODY, 200) | {"outsider": 404} | dict.fromkeys(UNKNOWN, 401)
ADMINS = MEMBERS | dict.fromkeys([*PROJECT, "stranger"], 403)
ACCOUNTS = dict.fromkeys(EVERYBODY, 200) | dict.fromkeys(UNKNOWN, 401)
ANYBODY = dict.fromkeys(EVERYBODY, 200)


@dataclass(frozen=True)
class Route:
    expected: dict[str, int]
    # Makes what one call needs and returns (path parameters, what else is sent).
    prepared: Callable[[World], Awaitable[tuple[dict[str, str], dict[str, Any]]]]


def sends(**request: Any) -> Callable[[World], Awaitable[tuple[dict[str, str], dict[str, Any]]]]:
    """A call about what is there already; values may be functions of the world."""

    async def prepared(world: World) -> tuple[dict[str, str], dict[str, Any]]:
        return {}, {name: value(world) if callable(value) else value for name, value in request.items()}

    return prepared


def about(parameter: str, make: Callable[[World], Awaitable[str]], **request: Any) -> Any:
    """A call about something made for it alone."""

    async def prepared(world: World) -> tuple[dict[str, str], dict[str, Any]]:
        return {parameter: await make(world)}, request

    return prepared


async def _account(world: World) -> str:
    email = f"{unique('someone')}@headwater.test"
    async with world.pool.connection() as conn:
        account = await new_account(conn, email)
        await organizations.add_member(conn, int(world.organization_id, 16), account, "member")
    return email


async def _member(world: World) -> str:
    email = await _account(world)
    async with world.pool.connection() as conn:
        account = await accounts.find_account(conn, email)
        assert account is not None
        await projects.set_member(conn, int(world.project_id, 16), account, "annotator")
    return email


async def _project(world: World) -> str:
    """With the same people as the first one."""
    project_id = await world.new_project(world.callers["owner"])
    async with world.pool.connection() as conn:
        for name in PROJECT[1:]:
            await projects.set_member(conn, int(project_id, 16), world.people[name], name)
    return project_id


async def _item(world: World) -> str:
    return (await world.upload(world.dataset_id, f"/{unique('item')}.txt", b"x"))["id"]


async def _with_thumbnail(world: World) -> str:
    """Our own storage keeps thumbnails where preprocessing puts them."""
    item_id = await _item(world)
    number = int(item_id, 16)
    await world.execute("UPDATE item SET thumbnail_type = 'image/webp' WHERE id = %s", number)
    async with world.app.state.server.place.places.of_dataset(int(world.dataset_id, 16)) as store:
        await store.put(thumbnail_key(number, "image/webp"), b"RIFF", content_type="image/webp")
    return item_id


async def _new_driver(world: World) -> str:
    return await world.new_driver(world.integration_id)


ROUTES: dict[tuple[str, str], Route] = {
    ("GET", "/healthz"): Route(ANYBODY, sends()),
    ("GET", "/readyz"): Route(ANYBODY, sends()),
    ("POST", "/token"): Route(
        dict.fromkeys(EVERYBODY, 401), sends(json={"type": "refresh_token", "refresh_token": "none"})
    ),
    ("GET", "/api/v1/openapi.json"): Route(ANYBODY, sends()),
    ("GET", "/api/v1/docs"): Route(ANYBODY, sends()),
    ("GET", "/api/v1/users/me"): Route(ACCOUNTS, sends()),
    ("GET", "/api/v1/orgs"): Route(ACCOUNTS, sends()),
    ("GET", "/api/v1/orgs/{organization_id}"): Route(MEMBERS, sends()),
    ("GET", "/api/v1/orgs/{organization_id}/projects"): Route(MEMBERS, sends()),
    ("GET", "/api/v1/orgs/{organization_id}/members"): Route(MEMBERS, sends()),
    ("POST", "/api/v1/orgs/{organization_id}/accounts"): Route(
        ADMINS, sends(json=lambda _: {"email": f"{unique('new')}@headwater.test", "password": "12345678"})
    ),
    ("GET", "/api/v1/orgs/{organization_id}/integrations"): Route(ADMINS, sends()),
    ("GET", "/api/v1/orgs/{organization_id}/availableIntegrations"): Route(ADMINS, sends()),
    ("POST", "/api/v1/orgs/{organization_id}/integrations"): Route(
        ADMINS,
        sends(json=lambda _: {"name": unique("keys"), "type": "s3", "options": {"key": "k", "secret": "s"}}),
    ),
    ("GET", "/api/v1/orgs/{organization_id}/integrations/{integration_id}"): Route(ADMINS, sends()),
    ("DELETE", "/api/v1/orgs/{organization_id}/integrations/{integration_id}"): Route(
        ADMINS, about("integration_id", World.new_integration)
    ),
    ("GET", "/api/v1/projects"): Route(ACCOUNTS, sends()),
    ("POST", "/api/v1/projects"): Route(ACCOUNTS, sends(data=lambda _: {"name": unique("project")})),
    ("GET", "/api/v1/projects/{project_name}/name"): Route(READ, sends()),
    ("GET", "/api/v1/projects/{project_id}"): Route(READ, sends()),
    ("PATCH", "/api/v1/projects/{project_id}"): Route(
        MANAGE_PROJECT, about("project_id", _project, json={"name": None})
    ),
    ("DELETE", "/api/v1/projects/{project_id}"): Route(MANAGE_PROJECT, about("project_id", _project)),
    ("GET", "/api/v1/projects/{project_id}/members"): Route(READ, sends()),
    ("POST", "/api/v1/projects/{project_id}/members/{email}"): Route(
        MANAGE_PROJECT, about("email", _account, json={"role": "annotator"})
    ),
    ("PATCH", "/api/v1/projects/{project_id}/members/{email}"): Route(
        MANAGE_PROJECT, about("email", _member, json={"role": "engineer"})
    ),
    ("DELETE", "/api/v1/projects/{project_id}/members/{email}"): Route(MANAGE_PROJECT, about("email", _member)),
    ("GET", "/api/v1/drivers"): Route(READ, sends(params=lambda world: {"projectId": world.project_id})),
    ("POST", "/api/v1/drivers"): Route(
        MANAGE_DRIVERS, sends(json=lambda world: world.driver_body(world.integration_id))
    ),
    ("GET", "/api/v1/drivers/{driver_id}"): Route(READ, sends()),
    ("DELETE", "/api/v1/drivers/{driver_id}"): Route(MANAGE_DRIVERS, about("driver_id", _new_driver)),
    ("POST", "/api/v1/datasets"): Route(
        MANAGE_DATASETS, sends(json=lambda world: {"name": unique("dataset"), "projects": [world.project_id]})
    ),
    ("POST", "/api/v1/datasets/query"): Route(ACCOUNTS, sends(json={})),
    ("GET", "/api/v1/datasets/{dataset_id}"): Route(READ, sends()),
    ("PATCH", "/api/v1/datasets/{dataset_id}"): Route(MANAGE_DATASETS, sends(json={"readonly": False})),
    ("DELETE", "/api/v1/datasets/{dataset_id}"): Route(MANAGE_DATASETS, about("dataset_id", World.new_dataset)),
    ("POST", "/api/v1/datasets/{dataset_id}/sync"): Route(SYNC, sends()),
    ("GET", "/api/v1/datasets/{dataset_id}/directoryTree"): Route(READ, sends()),
    ("POST", "/api/v1/datasets/{dataset_id}/query"): Route(READ, sends(json={})),
    ("POST", "/api/v1/datasets/{dataset_id}/items"): Route(
        WRITE_ITEMS,
        sends(
            content=lambda _: file_form(f"/{unique('upload')}.txt", b"x"),
            headers={"content-type": f"multipart/form-data; boundary={BOUNDARY}"},
        ),
    ),
    ("GET", "/api/v1/items/{item_id}"): Route(READ, sends()),
    ("PATCH", "/api/v1/items/{item_id}"): Route(WRITE_ITEMS, sends(json={"metadata": {"user": {"a": 1}}})),
    ("DELETE", "/api/v1/items/{item_id}"): Route(WRITE_ITEMS, about("item_id", _item)),
    ("GET", "/api/v1/items/{item_id}/stream"): Route(READ, sends()),
    ("GET", "/api/v1/items/{item_id}/thumbnail"): Route(READ, about("item_id", _with_thumbnail)),
    ("GET", "/api/v1/commands"): Route(ACCOUNTS, sends()),
    ("GET", "/api/v1/commands/{command_id}"): Route(READ, sends()),
    ("POST", "/api/v1/commands/{command_id}/abort"): Route(SYNC, about("command_id", World.new_command)),
}
# Answers without an end are asked for in test_news.py, by the same people.
ELSEWHERE = {("GET", "/api/v1/notifications/stream")}
# Routes whose dataset is in a bucket.
IN_BUCKET = {("POST", "/api/v1/datasets/{dataset_id}/sync")}


def parameters_of(world: World, route: tuple[str, str]) -> dict[str, str]:
    return {
        "organization_id": world.organization_id,
        "project_id": world.project_id,
        "project_name": "everybody",
        "integration_id": world.integration_id,
        "driver_id": world.driver_id,
        "dataset_id": world.bucket_dataset_id if route in IN_BUCKET else world.dataset_id,
        "item_id": world.item_id,
        "command_id": world.command_id,
        "email": "annotator@project.test",
    }


def url_of(path: str, parameters: dict[str, str]) -> str:
    return "http://headwater.test" + path.format_map(parameters)


async def ask(world: World, who: str, route: tuple[str, str]) -> httpx.Response:
    own, request = await ROUTES[route].prepared(world)
    return await world.callers[who].request(route[0], url_of(route[1], parameters_of(world, route) | own), **request)


def test_every_route_says_here_who_may_use_it(api_app: Any) -> None:
    paths = api_app.openapi()["paths"]
    routes = {(method.upper(), path) for path, methods in paths.items() for method in methods}
    routes |= {("GET", api_app.openapi_url), ("GET", "/api/v1/docs")}
    assert routes == ROUTES.keys() | ELSEWHERE


@pytest.mark.parametrize("route", ROUTES, ids=" ".join)
async def test_each_route_answers_everybody_as_its_right_says(world: World, route: tuple[str, str]) -> None:
    expected = ROUTES[route].expected
    answers = {who: await ask(world, who, route) for who in EVERYBODY}
    assert {who: answer.status_code for who, answer in answers.items()} == expected
    for answer in answers.values():
        if answer.status_code >= 400:
            message(answer, answer.status_code)


HIDDEN = [route for route in ROUTES if 404 in ROUTES[route].expected.values() and "_id}" in route[1]]


@pytest.mark.parametrize("route", HIDDEN, ids=" ".join)
async def test_what_is_another_organisations_is_refused_in_the_words_for_what_is_not_there(
    world: World, route: tuple[str, str]
) -> None:
    parameters = parameters_of(world, route)
    theirs = message(await ask(world, "outsider", route), 404)
    own, request = await ROUTES[route].prepared(world)
    first = re.findall(r"{(\w+_id)}", route[1])[0]
    nothing = parameters | own | {first: NOBODY}
    answer = await world.callers["outsider"].request(route[0], url_of(route[1], nothing), **request)
    told = message(answer, 404)
    assert re.sub("[0-9a-f]{24}", "ID", theirs) == re.sub("[0-9a-f]{24}", "ID", told)


@pytest.mark.parametrize("who", [*PROJECT, "stranger", "outsider"])
async def test_what_may_not_be_deleted_is_still_there(world: World, who: str) -> None:
    for route, told in ROUTES.items():
        if route[0] != "DELETE" or told.expected[who] == 200 or "email" in route[1]:
            continue
        own, _ = await told.prepared(world)
        url = url_of(route[1], parameters_of(world, route) | own)
        assert (await world.callers[who].delete(url)).status_code in (403, 404)
        assert (await world.owner.get(url)).status_code == 200, route
