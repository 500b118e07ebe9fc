"""Malformed requests: always a sentence, never a 422 or a 500, and nothing half-done."""

import json
import random
from typing import Any
from urllib.parse import quote

import httpx
import pytest

from tests.api.test_roles import ROUTES, parameters_of, url_of
from tests.api.world import NOBODY, World, message, unique

TAKES_JSON = [
    ("POST", "/token"),
    ("POST", "/api/v1/orgs/{organization_id}/accounts"),
    ("POST", "/api/v1/orgs/{organization_id}/integrations"),
    ("POST", "/api/v1/projects"),
    ("PATCH", "/api/v1/projects/{project_id}"),
    ("POST", "/api/v1/projects/{project_id}/members/{email}"),
    ("POST", "/api/v1/drivers"),
    ("POST", "/api/v1/datasets"),
    ("POST", "/api/v1/datasets/query"),
    ("PATCH", "/api/v1/datasets/{dataset_id}"),
    ("POST", "/api/v1/datasets/{dataset_id}/sync"),
    ("POST", "/api/v1/datasets/{dataset_id}/query"),
    ("PATCH", "/api/v1/items/{item_id}"),
    ("POST", "/api/v1/notifications/read"),
    ("PUT", "/api/v1/datasets/{dataset_id}/schedule"),
    ("PUT", "/api/v1/datasets/{dataset_id}/autoSync"),
    ("PATCH", "/api/v1/drivers/{driver_id}/events"),
    ("PUT", "/api/v1/drivers/{driver_id}/events/queue"),
    ("POST", "/api/v1/projects/{project_id}/webhooks"),
    ("POST", "/api/v1/recipes"),
    ("POST", "/api/v1/ontologies"),
    ("PUT", "/api/v1/ontologies/{ontology_id}"),
    ("PATCH", "/api/v1/ontologies/{ontology_id}/labels"),
    ("PATCH", "/api/v1/ontologies/{ontology_id}/attributes"),
    ("POST", "/api/v1/datasets/{dataset_id}/facets"),
    ("POST", "/api/v1/datasets/{dataset_id}/schema/items"),
]
NO_JSON = [b"{", b"nothing", b'{"name": }', b"\xff\xfe", b"[" * 5000, b'{"a": "' + b"\xc3\x28" + b'"}']
NO_OBJECT = [b"[]", b'"text"', b"5", b"[1, 2]"]


async def send(world: World, route: tuple[str, str], body: bytes) -> httpx.Response:
    own, _ = await ROUTES[route].prepared(world)
    url = url_of(route[1], parameters_of(world, route) | own)
    return await world.owner.request(route[0], url, content=body, headers={"content-type": "application/json"})


@pytest.mark.parametrize("route", TAKES_JSON, ids=" ".join)
async def test_a_body_that_is_no_json_object_is_refused_in_words(world: World, route: tuple[str, str]) -> None:
    for body in NO_JSON + NO_OBJECT:
        message(await send(world, route, body), 400)


BODIES: dict[tuple[str, str], dict[str, Any]] = {
    ("POST", "/token"): {"type": "user_credentials", "username": None, "password": None, "refresh_token": None},
    ("POST", "/api/v1/orgs/{organization_id}/accounts"): {"email": "no address", "password": "", "role": "member"},
    ("POST", "/api/v1/orgs/{organization_id}/integrations"): {
        "name": "", "type": "s3", "options": {"key": "k", "secret": "s"}, "metadata": {}
    },
    ("POST", "/api/v1/projects"): {"name": ""},
    ("PATCH", "/api/v1/projects/{project_id}"): {"name": ""},
    ("POST", "/api/v1/projects/{project_id}/members/{email}"): {"role": "king"},
    ("POST", "/api/v1/drivers"): {
        "name": "", "type": "storage", "integrationId": "", "metadata": {}, "payload": {"directory": "x"},
        "allowExternalDelete": False,
    },
    ("POST", "/api/v1/datasets"): {"name": "", "projects": [NOBODY], "driver": NOBODY, "sync": True},
    ("POST", "/api/v1/datasets/query"): {
        "filter": {"$and": [{"name": "x"}]}, "context": {"projects": [NOBODY]}, "page": -1, "pageSize": 5
    },
    ("PATCH", "/api/v1/datasets/{dataset_id}"): {"name": "", "metadata": {"user": {}, "system": {}}, "readonly": False},
    ("POST", "/api/v1/datasets/{dataset_id}/sync"): {"confirmMissing": False},
    ("POST", "/api/v1/datasets/{dataset_id}/query"): {"filter": {"$and": [{"hidden": False}]}, "page": 0},
    ("PATCH", "/api/v1/items/{item_id}"): {
        "metadata": {"user": {}, "system": {}}, "description": None, "filename": None
    },
    ("POST", "/api/v1/notifications/read"): {"ids": [NOBODY], "until": None, "project": NOBODY, "dataset": None},
    ("PUT", "/api/v1/datasets/{dataset_id}/schedule"): {"cron": "0 3 * * *", "timezone": "UTC", "active": False},
    ("PUT", "/api/v1/datasets/{dataset_id}/autoSync"): {"on": True},
    ("PATCH", "/api/v1/drivers/{driver_id}/events"): {"on": False, "rotate": False, "pushAccount": ""},
    ("PUT", "/api/v1/drivers/{driver_id}/events/queue"): {
        "url": "https://sqs.eu-west-1.amazonaws.com/1/q", "name": None, "endpoint": None, "active": False
    },
    ("POST", "/api/v1/projects/{project_id}/webhooks"): {
        "name": "", "url": "https://x.test/", "levels": ["info"], "kinds": ["note"], "active": False
    },
    ("PATCH", "/api/v1/projects/{project_id}/webhooks/{webhook_id}"): {
        "name": "", "url": "https://x.test/", "levels": ["info"], "kinds": [], "active": False
    },
    ("POST", "/api/v1/projects/{project_id}/webhooks/{webhook_id}/rotate"): {"keepOldForHours": 0},
    ("POST", "/api/v1/recipes"): {
        "title": "", "projectIds": [NOBODY], "ontologyIds": [NOBODY], "uiSettings": {}, "metadata": {"system": {}}
    },
    ("PATCH", "/api/v1/recipes/{recipe_id}"): {
        "title": "", "projectIds": [NOBODY], "ontologyIds": [], "description": "", "instructions": {"a": "b"},
        "examples": [], "customActions": [], "metadata": {"system": {}}
    },
    ("POST", "/api/v1/ontologies"): {
        "title": "", "projectIds": [NOBODY], "roots": [], "attributes": ["old"], "metadata": {"attributes": []}
    },
    ("PUT", "/api/v1/ontologies/{ontology_id}"): {
        "title": "", "roots": [{"value": {"tag": "a", "color": "#000000", "displayData": {}}, "children": []}],
        "attributes": [], "metadata": {"system": {}}
    },
    ("PATCH", "/api/v1/ontologies/{ontology_id}/labels"): {
        "labelsNode": [{"tag": "a.b", "color": "#000000", "attributes": [], "displayLabel": "", "displayData": {}}],
        "upsert": True,
    },
    ("PATCH", "/api/v1/ontologies/{ontology_id}/attributes"): {
        "items": [{"key": "1", "title": "", "type": "options", "scope": ["*"], "values": ["a"], "scriptData": {}}],
        "upsert": True,
    },
    ("POST", "/api/v1/datasets/{dataset_id}/facets"): {
        "filter": {"$and": [{"hidden": False}]}, "fields": ["label", {"field": "dir", "folder": "/"}], "limit": 5
    },
    ("POST", "/api/v1/datasets/{dataset_id}/schema/items"): {"unsearchablePaths": {"add": ["metadata.user.x"]}},
}  # fmt: skip
WRONG: list[Any] = [
    None, True, -1, 10**30, 1.5, "", "x" * 3000, "a\0b", "\ud800", "a/b", "zz", [], [None], ["x"], {}, {"$x": 1},
    {"a": {"b": ["\0"]}}, {"\0": 1}, {"\ud800": 2}, "\u00b2 3 * * *", "https://[", "\u0663",
]  # fmt: skip


def _variants(body: Any) -> list[Any]:
    """The body with each of its values, at any depth, replaced by each wrong one."""
    found = list(WRONG)
    if isinstance(body, dict):
        for key, value in body.items():
            found += [body | {key: variant} for variant in _variants(value)]
        found += [body | {"unknown": 1}]
        found += [{kept: value for kept, value in body.items() if kept != key} for key in body]
    if isinstance(body, list):
        for number, value in enumerate(body):
            found += [[*body[:number], variant, *body[number + 1 :]] for variant in _variants(value)]
    return found


@pytest.mark.parametrize("route", BODIES, ids=" ".join)
async def test_no_value_of_a_wrong_type_makes_the_server_fail(world: World, route: tuple[str, str]) -> None:
    own, _ = await ROUTES[route].prepared(world)
    url = url_of(route[1], parameters_of(world, route) | own)
    for body in _variants(BODIES[route]):
        answer = await world.owner.request(
            route[0], url, content=json.dumps(body).encode(), headers={"content-type": "application/json"}
        )
        assert answer.status_code in (200, 400, 401, 403, 404, 409), (answer.text, str(body)[:200])
        if answer.status_code >= 400:
            message(answer, answer.status_code)


async def test_an_error_may_quote_what_is_no_unicode(world: World) -> None:
    body = b'{"filter": {"\\ud800": {"$no": 1}}}'
    headers = {"content-type": "application/json"}
    answer = await world.owner.post(f"/datasets/{world.dataset_id}/query", content=body, headers=headers)
    assert "ud800" in message(answer, 400)


WRONG_IDS = [
    "zz",
    "0" * 25,
    "0" * 23,
    f"{2**63:024x}",
    "f" * 24,
    "0" * 23 + "A",
    "%00",
    "%ff",
    "-1",
    "x" * 5000,
    NOBODY,
]


@pytest.mark.parametrize(
    "route", [route for route in ROUTES if "_id}" in route[1] and route[0] != "OPTIONS"], ids=" ".join
)
async def test_what_is_no_id_is_not_found(world: World, route: tuple[str, str]) -> None:
    parameters = parameters_of(world, route)
    own, request = await ROUTES[route].prepared(world)
    for name in [name for name in parameters if f"{{{name}}}" in route[1] and name.endswith("_id")]:
        for wrong in WRONG_IDS:
            url = url_of(route[1], parameters | own | {name: wrong})
            message(await world.owner.request(route[0], url, **request), 404)


async def test_forms_that_are_not_text_are_refused(world: World) -> None:
    for content in (b"name=\xff\xfe", b"name=%ff%00", b"name=a%00b", b"", b"other=1", b"name=" + b"x" * 300):
        headers = {"content-type": "application/x-www-form-urlencoded"}
        message(await world.owner.post("/projects", content=content, headers=headers), 400)
    for content in (b"type=dir&path=\xff\xfe", b"type=dir&path=%00", b"type=dir", b"path=/a", b"type=dir&path=/../x"):
        headers = {"content-type": "application/x-www-form-urlencoded"}
        message(await world.owner.post(f"/datasets/{world.dataset_id}/items", content=content, headers=headers), 400)


@pytest.mark.parametrize("name", ["", "   ", "x" * 256, "a\nb", "a\0b", "\u200b"])
async def test_names_that_nobody_could_tell_apart_are_refused(world: World, name: str) -> None:
    message(await world.owner.post("/projects", json={"name": name}), 400)
    message(await world.owner.post("/datasets", json={"name": name, "projects": [world.project_id]}), 400)
    message(await world.owner.post("/drivers", json=world.driver_body(world.integration_id, name=name)), 400)
    body = {"name": name, "type": "s3", "options": {"key": "k", "secret": "s"}}
    message(await world.owner.post(f"/orgs/{world.organization_id}/integrations", json=body), 400)
    message(await world.owner.patch(f"/projects/{world.project_id}", json={"name": name}), 400)
    message(await world.owner.patch(f"/datasets/{world.dataset_id}", json={"name": name}), 400)


@pytest.mark.parametrize("name", ["c/d", "a b", "ünïcode 写真", "100%", "a?b#c", "y" * 255])
async def test_a_project_of_any_printable_name_is_found_by_it(world: World, name: str) -> None:
    made = (await world.owner.post("/projects", data={"name": name})).json()
    assert made["name"] == name
    found = (await world.owner.get(f"/projects/{quote(name)}/name")).json()
    assert [project["id"] for project in found] == [made["id"]]


async def test_names_are_taken_once(world: World) -> None:
    name = unique("twice")
    organization = f"/orgs/{world.organization_id}"
    dataset = {"name": name, "projects": [world.project_id]}
    calls = [
        ("/projects", {"name": name}),
        ("/datasets", dataset),
        (f"{organization}/accounts", {"email": f"{name}@x.test", "password": "12345678"}),
    ]
    for url, body in calls:
        assert (await world.owner.post(url, json=body)).status_code == 200
        assert name in message(await world.owner.post(url, json=body), 409)
    other = await world.new_project()
    message(await world.owner.patch(f"/projects/{other}", json={"name": name}), 409)
    message(await world.owner.patch(f"/datasets/{world.dataset_id}", json={"name": name}), 409)


async def test_the_same_integration_or_driver_again_is_the_one_there_is(world: World) -> None:
    name = unique("again")
    integration = {"name": name, "type": "s3", "options": {"key": "k", "secret": "s"}}
    driver = world.driver_body(world.integration_id, name=name)
    for url, body in ((f"/orgs/{world.organization_id}/integrations", integration), ("/drivers", driver)):
        first, again = [await world.owner.post(url, json=body) for _ in range(2)]
        assert first.json()["id"] == again.json()["id"]


async def test_a_dataset_of_the_same_name_in_another_project_is_fine(world: World) -> None:
    name = unique("same")
    for project_id in (world.project_id, await world.new_project()):
        answer = await world.owner.post("/datasets", json={"name": name, "projects": [project_id]})
        assert answer.status_code == 200


async def test_what_is_no_route_is_told_in_words(world: World) -> None:
    for path in ("/nothing", "/items", "/items/a/b/c", f"/datasets/{world.dataset_id}/nothing"):
        assert path in message(await world.owner.get(path), 404)
    message(await world.owner.get("http://headwater.test/"), 404)
    for method, path in [("PUT", "/projects"), ("POST", "/users/me"), ("HEAD", "/users/me"), ("OPTIONS", "/orgs")]:
        answer = await world.owner.request(method, path)
        assert answer.status_code == 405
        assert answer.headers["allow"]
        if method != "HEAD":
            assert method in message(answer, 405)


async def test_query_parameters_of_a_wrong_type_are_refused(world: World) -> None:
    message(await world.owner.patch(f"/items/{world.item_id}?system=maybe", json={}), 400)
    message(await world.owner.post(f"/datasets/{world.dataset_id}/items?mode=other"), 400)
    message(await world.owner.get("/drivers"), 400)
    message(await world.owner.get("/drivers?projectId=zz"), 404)
    message(await world.owner.get("/notifications/stream?dataset=zz"), 404)


async def test_nothing_of_a_refused_request_stays(world: World) -> None:
    """A new dataset whose driver does not exist, or a member without a project role, leaves no row."""
    name = unique("half")
    body = {"name": name, "projects": [world.project_id], "driver": NOBODY}
    message(await world.owner.post("/datasets", json=body), 404)
    assert await world.execute("SELECT id FROM dataset WHERE name = %s", name) == []
    last = await world.new_project(world.callers["owner"])
    message(await world.callers["owner"].delete(f"/projects/{last}/members/owner@project.test"), 409)
    members = (await world.owner.get(f"/projects/{last}/members")).json()
    assert [member["email"] for member in members] == ["owner@project.test"]


async def test_a_project_keeps_an_owner(world: World) -> None:
    owner = world.callers["owner"]
    project = await world.new_project(owner)
    answer = await owner.patch(f"/projects/{project}/members/owner@project.test", json={"role": "annotator"})
    assert "owner" in message(answer, 409)
    assert (await owner.get(f"/projects/{project}")).json()["role"] == "owner"


async def test_an_admin_makes_no_owner_of_the_organisation(world: World) -> None:
    body = {"email": "climber@headwater.test", "password": "12345678", "role": "owner"}
    message(await world.callers["admin"].post(f"/orgs/{world.organization_id}/accounts", json=body), 403)
    assert await world.execute("SELECT id FROM account WHERE email = 'climber@headwater.test'") == []


async def test_an_email_address_longer_than_any_is_refused(world: World) -> None:
    long = "".join(random.Random(1).choices("abcdefghijklmnopqrstuvwxyz0123456789", k=9000)) + "@x.test"
    body = {"email": long, "password": "12345678"}
    message(await world.owner.post(f"/orgs/{world.organization_id}/accounts", json=body), 400)


async def test_a_driver_of_another_project_is_as_unknown_as_one_that_is_not_there(world: World) -> None:
    outsider = world.callers["outsider"]
    project = (await outsider.post("/projects", data={"name": unique("theirs")})).json()["id"]
    told = [
        message(await outsider.post("/datasets", json={"name": "d", "projects": [project], "driver": driver}), 404)
        for driver in (world.driver_id, NOBODY)
    ]
    assert told[0].replace(world.driver_id, "") == told[1].replace(NOBODY, "")


async def test_an_account_of_another_organisation_is_as_unknown_as_none(world: World) -> None:
    told = [
        message(
            await world.owner.post(f"/projects/{world.project_id}/members/{email}", json={"role": "annotator"}), 404
        ).replace(email, "")
        for email in ("outsider@elsewhere.test", "nobody@elsewhere.test")
    ]
    assert told[0] == told[1]
