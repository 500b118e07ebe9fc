"""Every route, asked by everybody: who may, who may not, and who may not even know."""

import base64
import importlib
import pkgutil
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest
from fastapi import APIRouter
from fastapi.routing import APIRoute

from headwater import api
from headwater.catalog import accounts, notices, organizations, projects, rights
from headwater.work.preprocess import thumbnail_key
from tests.api.world import BOUNDARY, NOBODY, World, file_form, message, new_account, unique

# From the one who may everything to the one whom nobody knows: the role in the organisation, and in the project.
PEOPLE: dict[str, tuple[rights.OrganizationRole, rights.Role | None]] = {
    "organisation owner": ("owner", "owner"),
    "admin": ("admin", "owner"),  # who count as owners of every project
    "owner": ("member", "owner"),
    "developer": ("member", "developer"),
    "annotationManager": ("worker", "annotationManager"),
    "annotator": ("worker", "annotator"),
    "stranger": ("member", None),
}
PROJECT = ["owner", "developer", "annotationManager", "annotator"]
UNKNOWN = ["no token", "garbage token", "expired token", "refresh token"]
EVERYBODY = [*PEOPLE, "outsider", *UNKNOWN]


def expected_of(right: str, who: str) -> int:
    """The status of a good request, by the table of rights alone."""
    if right == "anybody":
        return 200
    if who in UNKNOWN:
        return 401
    if right == "account":
        return 200
    rule = rights.RULES[right]
    if who == "outsider":  # the owner of another organisation
        return 403 if rule.scope == "server" else 404
    in_organization, in_project = PEOPLE[who]
    roles = [in_organization, "operator"] if who == "organisation owner" else [in_organization]
    if rule.scope == "project":
        return 404 if in_project is None else 200 if rights.may(in_project, right) else 403
    project_roles = [in_project] if who in PROJECT else []
    return 200 if rights.may_in_organization(roles, project_roles, right) else 403


READ = {who: expected_of("read", who) for who in EVERYBODY}


@dataclass(frozen=True)
class Route:
    # Makes what one call needs and returns (path parameters, what else is sent).
    prepared: Callable[[World], Awaitable[tuple[dict[str, str], dict[str, Any]]]]
    # Where the table of rights does not say all: who gets which status, and why.
    besides: dict[str, int] = field(default_factory=dict)


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


async def _indexed_dataset(world: World) -> str:
    dataset_id = await world.new_dataset()
    found = await world.owner.post(f"/datasets/{dataset_id}/indexes", json={"path": "metadata.user.camera"})
    assert found.status_code == 200, found.text
    return dataset_id


async def _account(world: World) -> str:
    email = f"{unique('someone')}@headwater.test"
    async with world.pool.connection() as conn:
        account = await new_account(conn, email)
        await organizations.add_member(conn, int(world.organization_id, 16), account, "member")
    return email


async def _new_member(world: World) -> tuple[dict[str, str], dict[str, Any]]:
    """Somebody whom the organisation's admins know from the other one."""
    email = f"{unique('someone')}@headwater.test"
    async with world.pool.connection() as conn:
        account = await new_account(conn, email)
        await organizations.add_member(conn, int(world.annex_id, 16), account, "member")
    return {}, {"json": {"emails": [email], "role": "worker"}}


async def _invitation(world: World) -> str:
    email = f"{unique('guest')}@elsewhere.test"
    url = f"/orgs/{world.organization_id}"
    invited = await world.callers["admin"].post(f"{url}/members", json={"emails": [email], "role": "member"})
    assert invited.status_code == 200
    found = (await world.owner.get(f"{url}/invitations")).json()
    return next(invitation["id"] for invitation in found if invitation["email"] == email)


async def _hook(world: World) -> tuple[dict[str, str], dict[str, Any]]:
    told = await world.owner.patch(f"/drivers/{world.driver_id}/events", json={"on": True})
    driver, secret = told.json()["hook"].split("/")[-2:]
    return {"driver": driver, "secret": secret}, {}


# What is asked about is another account's, whoever asks.
_NOT_THEIRS = dict.fromkeys([*PEOPLE, "outsider"], 404)


async def _webhook(world: World) -> str:
    body = {"name": unique("webhook"), "url": "http://127.0.0.1:2/nobody-listens"}
    made = await world.owner.post(f"/projects/{world.project_id}/webhooks", json=body)
    assert made.status_code == 200
    return made.json()["id"]


async def _no_webhooks(world: World) -> None:
    """There is a limit to them."""
    url = f"/projects/{world.project_id}/webhooks"
    for webhook in (await world.owner.get(url)).json():
        assert (await world.owner.delete(f"{url}/{webhook['id']}")).status_code == 200


async def _delivery(world: World) -> tuple[dict[str, str], dict[str, Any]]:
    webhook_id = await _lone_webhook(world)
    async with world.pool.connection() as conn:
        await notices.tell_project(conn, int(world.project_id, 16), "info", "So it is", "It is so.")
    url = f"/projects/{world.project_id}/webhooks/{webhook_id}/deliveries"
    return {"webhook_id": webhook_id, "delivery_id": (await world.owner.get(url)).json()[0]["id"]}, {}


async def _new_webhook(world: World) -> tuple[dict[str, str], dict[str, Any]]:
    await _no_webhooks(world)
    return {}, {"json": {"name": unique("webhook"), "url": "https://hooks.test/in", "active": False}}


async def _lone_webhook(world: World) -> str:
    await _no_webhooks(world)
    return await _webhook(world)


async def _key(world: World) -> str:
    made = await world.callers["stranger"].post("/apiKeys", json={"userId": "stranger@project.test"})
    assert made.status_code == 200
    return made.json()["id"]


# What is asked about is the stranger's.
_STRANGERS = _NOT_THEIRS | {"stranger": 200}


async def _bot(world: World) -> str:
    made = await world.owner.post(f"/projects/{world.project_id}/bots", json={"name": unique("bot")})
    assert made.status_code == 200
    return made.json()["id"]


async def _member(world: World) -> str:
    email = await _account(world)
    async with world.pool.connection() as conn:
        account = await accounts.find_account(conn, email)
        assert account is not None
        await projects.set_member(conn, int(world.project_id, 16), account, "annotator")
    return email


async def _ontology(world: World) -> str:
    body = {"roots": [{"value": {"tag": "cat"}}], "projectIds": [world.project_id]}
    return (await world.owner.post("/ontologies", json=body)).json()["id"]


async def _ontology_with_attribute(world: World) -> str:
    ontology_id = await _ontology(world)
    body = {"items": [{"key": "1", "title": "Old", "type": "boolean"}]}
    assert (await world.owner.patch(f"/ontologies/{ontology_id}/attributes", json=body)).status_code == 200
    return ontology_id


async def _recipe(world: World) -> str:
    body = {"title": "r", "projectIds": [world.project_id]}
    return (await world.owner.post("/recipes", json=body)).json()["id"]


async def _project(world: World) -> str:
    """With the same people as the first one."""
    project_id = await world.new_project(world.callers["owner"])
    async with world.pool.connection() as conn:
        for name in PROJECT[1:]:
            await projects.set_member(conn, int(project_id, 16), world.people[name], name)
    return project_id


async def _annotation(world: World) -> str:
    body = [{"type": "class", "label": "cat"}]
    return (await world.owner.post(f"/items/{world.item_id}/annotations", json=body)).json()[0]["id"]


async def _item(world: World) -> str:
    return (await world.upload(world.dataset_id, f"/{unique('item')}.txt", b"x"))["id"]


async def _resumable_upload(world: World) -> str:
    path = base64.b64encode(f"/{unique('upload')}.bin".encode()).decode()
    headers = TUS | {"Upload-Length": "1", "Upload-Metadata": f"path {path}"}
    answer = await world.owner.post(f"/datasets/{world.dataset_id}/tus", headers=headers)
    return answer.headers["Location"][-24:]


async def _folder(world: World) -> str:
    url = f"/datasets/{world.dataset_id}/items"
    return (await world.owner.post(url, data={"type": "dir", "path": f"/{unique('folder')}"})).json()["id"]


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


async def _csv_import(world: World) -> tuple[dict[str, str], dict[str, Any]]:
    dataset_id = await world.new_dataset()
    body = b"ID,URL\n1,https://example.com/a.jpg\n"
    command = await world.owner.post(f"/datasets/{dataset_id}/imports/csv", params={"name": "a.csv"}, content=body)
    return {"dataset_id": dataset_id, "command_id": command.json()["id"]}, {}


async def _feature_set(world: World) -> str:
    body = {"name": unique("set"), "size": 1, "type": "x", "project": world.project_id}
    return (await world.owner.post("/features/sets", json=body)).json()[0]["id"]


async def _new_vector(world: World) -> tuple[dict[str, str], dict[str, Any]]:
    body = {"entityId": world.item_id, "datasetId": world.dataset_id, "featureSetId": await _feature_set(world)}
    return {}, {"json": [body | {"value": [1]}]}


async def _vector(world: World) -> str:
    _, request = await _new_vector(world)
    return (await world.owner.post("/features/vectors", **request)).json()[0]["id"]


async def _near(world: World) -> tuple[dict[str, str], dict[str, Any]]:
    return {}, {"json": {"featureSetId": await _feature_set(world), "vector": [1]}}


async def _collected(world: World) -> str:
    """A dataset with the collection `team/app`."""
    dataset_id = await world.new_dataset()
    await world.owner.post(f"/datasets/{dataset_id}/items/collections", json={"name": "team/app"})
    return dataset_id


async def _new_bucket_dataset(world: World) -> str:
    return await world.new_dataset(driver=world.driver_id, sync=False)


async def _new_project_elsewhere(world: World) -> tuple[dict[str, str], dict[str, Any]]:
    """In the second organisation: whoever makes a project is a developer of its organisation."""
    return {}, {"data": {"name": unique("project"), "orgId": world.annex_id}}


TUS = {"Tus-Resumable": "1.0.0"}
# An upload is its account's alone.
_OTHERS_UPLOAD = dict.fromkeys(["admin", "owner", "developer", "annotationManager"], 404)
ROUTES: dict[tuple[str, str], Route] = {
    ("GET", "/healthz"): Route(sends()),
    ("GET", "/readyz"): Route(sends()),
    ("GET", "/login"): Route(sends(params={"callback": "http://localhost:3001"})),
    ("POST", "/token"): Route(
        sends(json={"type": "refresh_token", "refresh_token": "none"}), dict.fromkeys(EVERYBODY, 401)
    ),
    ("GET", "/api/v1/users/me"): Route(sends()),
    # These people have no password that they could change; test_login_limits.py has one who has.
    ("PATCH", "/api/v1/users/me/password"): Route(
        sends(json={"oldPassword": "12345678", "newPassword": "87654321"}),
        dict.fromkeys([*PEOPLE, "outsider"], 403),
    ),
    ("GET", "/api/v1/orgs"): Route(sends()),
    ("POST", "/api/v1/orgs"): Route(
        sends(json=lambda _: {"name": unique("organisation"), "owner": "stranger@project.test"})
    ),
    ("GET", "/api/v1/orgs/{organization_id}"): Route(sends()),
    ("PATCH", "/api/v1/orgs/{organization_id}"): Route(sends(json={"name": None})),
    ("PATCH", "/api/v1/orgs/{organization_id}/plan"): Route(sends(json={"plan": "premium"})),
    ("GET", "/api/v1/orgs/{organization_id}/groups"): Route(sends()),
    ("GET", "/api/v1/orgs/{organization_id}/audit"): Route(sends()),
    ("GET", "/api/v1/orgs/{organization_id}/projects"): Route(sends()),
    ("GET", "/api/v1/orgs/{organization_id}/members"): Route(sends()),
    ("POST", "/api/v1/orgs/{organization_id}/members"): Route(_new_member),
    ("PATCH", "/api/v1/orgs/{organization_id}/members"): Route(
        sends(json={"email": "stranger@project.test", "role": "member"})
    ),
    ("DELETE", "/api/v1/orgs/{organization_id}/members/{email}"): Route(about("email", _account)),
    ("GET", "/api/v1/orgs/{organization_id}/invitations"): Route(sends()),
    ("DELETE", "/api/v1/orgs/{organization_id}/invitations/{invitation_id}"): Route(
        about("invitation_id", _invitation)
    ),
    ("GET", "/api/v1/invitations"): Route(sends()),
    ("POST", "/api/v1/invitations/{invitation_id}/accept"): Route(about("invitation_id", _invitation), _NOT_THEIRS),
    ("DELETE", "/api/v1/invitations/{invitation_id}"): Route(about("invitation_id", _invitation), _NOT_THEIRS),
    ("POST", "/api/v1/orgs/{organization_id}/accounts"): Route(
        sends(json=lambda _: {"email": f"{unique('new')}@headwater.test", "password": "12345678"})
    ),
    ("GET", "/api/v1/orgs/{organization_id}/integrations"): Route(sends()),
    ("GET", "/api/v1/orgs/{organization_id}/availableIntegrations"): Route(sends()),
    ("POST", "/api/v1/orgs/{organization_id}/integrations"): Route(
        sends(json=lambda _: {"name": unique("keys"), "type": "s3", "options": {"key": "k", "secret": "s"}}),
    ),
    ("GET", "/api/v1/orgs/{organization_id}/integrations/{integration_id}"): Route(sends()),
    ("PATCH", "/api/v1/orgs/{organization_id}/integrations"): Route(
        sends(json=lambda world: {"integrationId": world.integration_id})
    ),
    ("DELETE", "/api/v1/orgs/{organization_id}/integrations/{integration_id}"): Route(
        about("integration_id", World.new_integration)
    ),
    ("POST", "/api/v1/orgs/{organization_id}/integrations/{integration_id}/validate"): Route(sends()),
    # The integration is a folder, which those who may ask are told; test_registries.py has a registry.
    ("GET", "/api/v1/orgs/{organization_id}/integrations/{integration_id}/repositories"): Route(
        sends(), dict.fromkeys(["organisation owner", "admin"], 400)
    ),
    ("GET", "/api/v1/orgs/{organization_id}/integrations/{integration_id}/repositories/{name}/tags"): Route(
        sends(), dict.fromkeys(["organisation owner", "admin"], 400)
    ),
    ("GET", "/api/v1/orgs/{organization_id}/quota"): Route(sends()),
    ("PUT", "/api/v1/orgs/{organization_id}/quota"): Route(sends(json={"limit": None})),
    ("GET", "/api/v1/projects/{project_id}/usage"): Route(sends()),
    ("GET", "/api/v1/apiKeys"): Route(sends()),
    ("POST", "/api/v1/apiKeys"): Route(
        # For somebody else, which nobody may; test_people_keys.py asks for everybody's own.
        sends(json={"userId": "stranger@project.test"}),
        dict.fromkeys([*PEOPLE, "outsider"], 404) | {"stranger": 200},
    ),
    ("PATCH", "/api/v1/apiKeys/{key_id}"): Route(about("key_id", _key, json={"name": "n"}), _STRANGERS),
    ("DELETE", "/api/v1/apiKeys/{key_id}"): Route(about("key_id", _key), _STRANGERS),
    ("GET", "/api/v1/projects/{project_id}/bots"): Route(sends()),
    ("POST", "/api/v1/projects/{project_id}/bots"): Route(
        sends(json=lambda _: {"name": unique("bot"), "returnCredentials": True})
    ),
    ("GET", "/api/v1/projects/{project_id}/bots/{bot_id}"): Route(about("bot_id", _bot)),
    ("DELETE", "/api/v1/projects/{project_id}/bots/{bot_id}"): Route(about("bot_id", _bot)),
    ("GET", "/api/v1/projects"): Route(sends()),
    ("POST", "/api/v1/projects"): Route(_new_project_elsewhere),
    ("GET", "/api/v1/projects/{project_name}/name"): Route(sends()),
    ("GET", "/api/v1/projects/{project_id}"): Route(sends()),
    ("PATCH", "/api/v1/projects/{project_id}"): Route(about("project_id", _project, json={"name": None})),
    ("DELETE", "/api/v1/projects/{project_id}"): Route(about("project_id", _project)),
    ("GET", "/api/v1/projects/{project_id}/members"): Route(sends()),
    ("POST", "/api/v1/projects/{project_id}/members/{email}"): Route(
        about("email", _account, json={"role": "annotator"})
    ),
    ("PATCH", "/api/v1/projects/{project_id}/members/{email}"): Route(
        about("email", _member, json={"role": "engineer"})
    ),
    ("DELETE", "/api/v1/projects/{project_id}/members/{email}"): Route(about("email", _member)),
    ("GET", "/api/v1/drivers"): Route(sends(params=lambda world: {"projectId": world.project_id})),
    ("POST", "/api/v1/drivers"): Route(sends(json=lambda world: world.driver_body(world.integration_id))),
    ("GET", "/api/v1/drivers/{driver_id}"): Route(sends()),
    ("POST", "/api/v1/drivers/validate"): Route(sends(json=lambda world: world.driver_body(world.integration_id))),
    ("POST", "/api/v1/drivers/{driver_id}/validate"): Route(sends()),
    ("PATCH", "/api/v1/drivers/{driver_id}"): Route(about("driver_id", _new_driver, json={})),
    ("DELETE", "/api/v1/drivers/{driver_id}"): Route(about("driver_id", _new_driver)),
    ("GET", "/api/v1/drivers/{driver_id}/events"): Route(sends()),
    ("PATCH", "/api/v1/drivers/{driver_id}/events"): Route(sends(json={"on": True})),
    ("PUT", "/api/v1/datasets/{dataset_id}/autoSync"): Route(sends(json={"on": True})),
    ("GET", "/api/v1/hooks/{driver}/{secret}"): Route(_hook),
    ("OPTIONS", "/api/v1/hooks/{driver}/{secret}"): Route(_hook),
    ("POST", "/api/v1/hooks/{driver}/{secret}"): Route(_hook),
    ("GET", "/api/v1/drivers/{driver_id}/events/queue"): Route(sends()),
    # The driver is a folder, which those who may ask are told; test_event_queues.py has others.
    ("PUT", "/api/v1/drivers/{driver_id}/events/queue"): Route(
        sends(json={"name": "events"}),
        dict.fromkeys(["organisation owner", "admin", "owner", "developer"], 400),
    ),
    ("DELETE", "/api/v1/drivers/{driver_id}/events/queue"): Route(sends()),
    ("GET", "/api/v1/drivers/{driver_id}/events/setup"): Route(
        sends(), dict.fromkeys(["organisation owner", "admin", "owner", "developer"], 400)
    ),
    ("POST", "/api/v1/datasets"): Route(
        sends(json=lambda world: {"name": unique("dataset"), "projects": [world.project_id]})
    ),
    ("POST", "/api/v1/datasets/query"): Route(sends(json={})),
    ("GET", "/api/v1/datasets/{dataset_id}"): Route(sends()),
    ("POST", "/api/v1/recipes"): Route(sends(json=lambda world: {"title": "r", "projectIds": [world.project_id]})),
    ("GET", "/api/v1/recipes"): Route(sends()),
    ("GET", "/api/v1/recipes/{recipe_id}"): Route(about("recipe_id", _recipe)),
    ("PATCH", "/api/v1/recipes/{recipe_id}"): Route(about("recipe_id", _recipe, json={"title": "s"})),
    ("DELETE", "/api/v1/recipes/{recipe_id}"): Route(about("recipe_id", _recipe)),
    ("POST", "/api/v1/recipes/{recipe_id}/clone"): Route(about("recipe_id", _recipe, json={"shallow": True})),
    ("POST", "/api/v1/ontologies"): Route(sends(json=lambda world: {"roots": [], "projectIds": [world.project_id]})),
    ("GET", "/api/v1/datasets/{dataset_id}/schema"): Route(sends()),
    ("POST", "/api/v1/datasets/{dataset_id}/schema/items"): Route(sends(json={"unsearchablePaths": {"add": []}})),
    ("POST", "/api/v1/datasets/{dataset_id}/facets"): Route(sends(json={"fields": ["metadata.system.mimetype"]})),
    ("GET", "/api/v1/ontologies"): Route(sends()),
    ("GET", "/api/v1/ontologies/{ontology_id}"): Route(about("ontology_id", _ontology)),
    ("PUT", "/api/v1/ontologies/{ontology_id}"): Route(about("ontology_id", _ontology, json={"roots": []})),
    ("DELETE", "/api/v1/ontologies/{ontology_id}"): Route(about("ontology_id", _ontology)),
    ("PATCH", "/api/v1/ontologies/{ontology_id}/labels"): Route(
        about("ontology_id", _ontology, json={"labelsNode": [{"tag": "dog"}], "upsert": True})
    ),
    ("PATCH", "/api/v1/ontologies/{ontology_id}/addLabels"): Route(
        about("ontology_id", _ontology, json={"labelsNode": [{"tag": "dog"}]})
    ),
    ("PATCH", "/api/v1/ontologies/{ontology_id}/attributes"): Route(
        about("ontology_id", _ontology, json={"items": [{"key": "1", "title": "Old", "type": "boolean"}]})
    ),
    ("DELETE", "/api/v1/ontologies/{ontology_id}/attributes"): Route(
        about("ontology_id", _ontology_with_attribute, json={"keys": ["1"]})
    ),
    ("PATCH", "/api/v1/datasets/{dataset_id}"): Route(sends(json={"readonly": False})),
    ("DELETE", "/api/v1/datasets/{dataset_id}"): Route(about("dataset_id", World.new_dataset)),
    ("POST", "/api/v1/datasets/{dataset_id}/sync"): Route(sends()),
    ("GET", "/api/v1/datasets/{dataset_id}/indexes"): Route(sends()),
    ("POST", "/api/v1/datasets/{dataset_id}/indexes"): Route(sends(json={"path": "metadata.user.camera"})),
    ("DELETE", "/api/v1/datasets/{dataset_id}/indexes"): Route(
        about("dataset_id", _indexed_dataset, params={"path": "metadata.user.camera"})
    ),
    ("POST", "/api/v1/datasets/{dataset_id}/indexes/rebuild"): Route(about("dataset_id", _indexed_dataset, json={})),
    ("GET", "/api/v1/datasets/{dataset_id}/schedule"): Route(sends()),
    ("PUT", "/api/v1/datasets/{dataset_id}/schedule"): Route(sends(json={"cron": "0 3 * * *"})),
    ("DELETE", "/api/v1/datasets/{dataset_id}/schedule"): Route(sends()),
    ("GET", "/api/v1/datasets/{dataset_id}/sync-rules"): Route(sends()),
    ("PATCH", "/api/v1/datasets/{dataset_id}/sync-rules"): Route(sends(json={"followMoves": False})),
    ("POST", "/api/v1/datasets/{dataset_id}/sync-rules/preview"): Route(sends(json={})),
    ("GET", "/api/v1/datasets/{dataset_id}/ghosts"): Route(sends()),
    ("POST", "/api/v1/datasets/{dataset_id}/ghosts/restore"): Route(sends(json={"all": True})),
    ("POST", "/api/v1/datasets/{dataset_id}/ghosts/trash"): Route(sends(json={"all": True})),
    ("POST", "/api/v1/datasets/{dataset_id}/ghosts/forget"): Route(sends(json={"all": True})),
    ("GET", "/api/v1/datasets/{dataset_id}/directoryTree"): Route(sends()),
    ("POST", "/api/v1/datasets/{dataset_id}/clone"): Route(sends(json=lambda _: {"name": unique("clone")})),
    ("POST", "/api/v1/datasets/{dataset_id}/export"): Route(sends(json={"exportType": "json"})),
    ("POST", "/api/v1/datasets/{dataset_id}/export/v3"): Route(sends(json={})),
    ("POST", "/api/v1/datasets/merge"): Route(
        sends(json=lambda world: {"name": unique("merge"), "datasetsIds": [world.dataset_id]})
    ),
    ("POST", "/api/v1/items/{item_id}/clone"): Route(sends(json=lambda _: {"remoteFileName": f"/{unique('clone')}"})),
    ("POST", "/api/v1/datasets/{dataset_id}/uploads/plan"): Route(sends(json={"files": [{"path": "/p", "size": 1}]})),
    ("POST", "/api/v1/datasets/{dataset_id}/uploads/parts"): Route(
        sends(json={"upload": NOBODY, "numbers": [1]}),
        besides=dict.fromkeys(["organisation owner", "admin", "owner", "developer", "annotationManager"], 404),
    ),
    ("POST", "/api/v1/datasets/{dataset_id}/uploads/commit"): Route(sends(json={"files": [{"upload": NOBODY}]})),
    ("POST", "/api/v1/datasets/{dataset_id}/uploads/forget"): Route(sends(json={"uploads": [NOBODY]})),
    ("POST", "/api/v1/datasets/{dataset_id}/uploads/batch"): Route(
        sends(
            content=file_form("/batch.txt", b"x"),
            headers={"content-type": f"multipart/form-data; boundary={BOUNDARY}"},
        )
    ),
    ("POST", "/api/v1/datasets/{dataset_id}/move-items"): Route(
        sends(json={"filter": {}, "to": "/elsewhere", "dryRun": True})
    ),
    ("PUT", "/api/v1/datasets/{dataset_id}/items/{item_id}"): Route(about("item_id", _folder, json=[])),
    ("POST", "/api/v1/datasets/{dataset_id}/delete-items"): Route(sends(json={"filter": {}, "dryRun": True})),
    ("POST", "/api/v1/datasets/{dataset_id}/imports"): Route(
        about("dataset_id", _new_bucket_dataset, json=[{"filename": "/a.txt", "storageId": "a.txt"}])
    ),
    ("POST", "/api/v1/datasets/{dataset_id}/imports/csv"): Route(
        about(
            "dataset_id", World.new_dataset, params={"name": "a.csv"}, content=b"ID,URL\n1,https://example.com/a.jpg\n"
        )
    ),
    ("POST", "/api/v1/datasets/{dataset_id}/imports/{command_id}/resume"): Route(_csv_import),
    ("GET", "/api/v1/datasets/{dataset_id}/imports/{command_id}/results"): Route(_csv_import),
    ("POST", "/api/v1/datasets/{dataset_id}/items/bulk-update-metadata"): Route(
        sends(json={"query": {"filter": {}}, "updateQuery": {"update": {"metadata": {"user": {"by": "role"}}}}})
    ),
    ("POST", "/api/v1/features/sets"): Route(
        sends(json=lambda world: {"name": unique("set"), "size": 1, "type": "x", "project": world.project_id})
    ),
    ("POST", "/api/v1/features/sets/query"): Route(sends(json={})),
    ("GET", "/api/v1/features/sets/{set_id}"): Route(about("set_id", _feature_set)),
    ("PATCH", "/api/v1/features/sets/{set_id}"): Route(about("set_id", _feature_set, json={})),
    ("DELETE", "/api/v1/features/sets/{set_id}"): Route(about("set_id", _feature_set)),
    ("POST", "/api/v1/features/sets/{set_id}/index"): Route(about("set_id", _feature_set, json={})),
    ("POST", "/api/v1/features/vectors"): Route(_new_vector),
    ("POST", "/api/v1/features/vectors/query"): Route(sends(json={})),
    ("POST", "/api/v1/features/vectors/project-count-aggregation"): Route(
        sends(json=lambda world: {"projectId": world.project_id, "datasetIds": [world.dataset_id]})
    ),
    ("GET", "/api/v1/features/vectors/{vector_id}"): Route(about("vector_id", _vector)),
    ("DELETE", "/api/v1/features/vectors/{vector_id}"): Route(about("vector_id", _vector)),
    ("POST", "/api/v1/datasets/{dataset_id}/items/similar"): Route(_near),
    ("GET", "/api/v1/datasets/{dataset_id}/items/collections"): Route(sends()),
    ("POST", "/api/v1/datasets/{dataset_id}/items/collections"): Route(
        about("dataset_id", World.new_dataset, json={"name": "best"})
    ),
    ("PATCH", "/api/v1/datasets/{dataset_id}/items/collections/{name}"): Route(
        about("dataset_id", _collected, json={"name": "better"})
    ),
    ("DELETE", "/api/v1/datasets/{dataset_id}/items/collections/{name}"): Route(about("dataset_id", _collected)),
    ("POST", "/api/v1/datasets/{dataset_id}/items/collections/bulk-add"): Route(
        sends(json={"query": {"filter": {}}, "collections": ["best"]})
    ),
    ("POST", "/api/v1/datasets/{dataset_id}/items/collections/bulk-remove"): Route(
        about("dataset_id", _collected, json={"query": {"filter": {}}, "collections": ["team/app"]})
    ),
    ("POST", "/api/v1/datasets/{dataset_id}/split"): Route(
        sends(json={"itemsQuery": {"filter": {}}, "MLSplitList": {"train": 60, "test": 40}})
    ),
    ("GET", "/api/v1/datasets/{dataset_id}/deleted"): Route(sends()),
    ("POST", "/api/v1/datasets/{dataset_id}/verify"): Route(sends()),
    ("POST", "/api/v1/datasets/{dataset_id}/restore-deleted"): Route(about("dataset_id", _new_bucket_dataset)),
    ("POST", "/api/v1/datasets/{dataset_id}/query"): Route(sends(json={})),
    ("POST", "/api/v1/datasets/{dataset_id}/items"): Route(
        sends(
            content=lambda _: file_form(f"/{unique('upload')}.txt", b"x"),
            headers={"content-type": f"multipart/form-data; boundary={BOUNDARY}"},
        ),
    ),
    ("OPTIONS", "/api/v1/datasets/{dataset_id}/tus"): Route(sends(), besides=dict.fromkeys(EVERYBODY, 204)),
    ("POST", "/api/v1/datasets/{dataset_id}/tus"): Route(
        sends(headers=TUS | {"Upload-Length": "0", "Upload-Metadata": "path L2VtcHR5"}),
        besides={"organisation owner": 201} | dict.fromkeys(_OTHERS_UPLOAD, 201),
    ),
    ("HEAD", "/api/v1/datasets/{dataset_id}/tus/{upload_id}"): Route(
        about("upload_id", _resumable_upload, headers=TUS), besides=_OTHERS_UPLOAD
    ),
    ("PATCH", "/api/v1/datasets/{dataset_id}/tus/{upload_id}"): Route(
        about(
            "upload_id",
            _resumable_upload,
            headers=TUS | {"Upload-Offset": "0", "Content-Type": "application/offset+octet-stream"},
            content=b"x",
        ),
        besides={"organisation owner": 204} | _OTHERS_UPLOAD,
    ),
    ("DELETE", "/api/v1/datasets/{dataset_id}/tus/{upload_id}"): Route(
        about("upload_id", _resumable_upload, headers=TUS), besides={"organisation owner": 204} | _OTHERS_UPLOAD
    ),
    ("GET", "/api/v1/items/{item_id}"): Route(sends()),
    ("PATCH", "/api/v1/items/{item_id}"): Route(sends(json={"metadata": {"user": {"a": 1}}})),
    ("DELETE", "/api/v1/items/{item_id}"): Route(about("item_id", _item)),
    ("GET", "/api/v1/items/{item_id}/annotations"): Route(sends()),
    ("POST", "/api/v1/items/{item_id}/annotations"): Route(sends(json=[{"type": "class", "label": "cat"}])),
    ("GET", "/api/v1/annotations/{annotation_id}"): Route(about("annotation_id", _annotation)),
    ("PUT", "/api/v1/annotations/{annotation_id}"): Route(about("annotation_id", _annotation, json={"label": "dog"})),
    ("DELETE", "/api/v1/annotations/{annotation_id}"): Route(about("annotation_id", _annotation)),
    ("GET", "/api/v1/items/{item_id}/stream"): Route(sends()),
    ("GET", "/api/v1/items/{item_id}/thumbnail"): Route(about("item_id", _with_thumbnail)),
    ("POST", "/api/v1/projects/{project_id}/webhooks"): Route(_new_webhook),
    ("GET", "/api/v1/projects/{project_id}/webhooks"): Route(sends()),
    ("GET", "/api/v1/projects/{project_id}/webhooks/{webhook_id}"): Route(about("webhook_id", _lone_webhook)),
    ("PATCH", "/api/v1/projects/{project_id}/webhooks/{webhook_id}"): Route(
        about("webhook_id", _lone_webhook, json={"active": False})
    ),
    ("DELETE", "/api/v1/projects/{project_id}/webhooks/{webhook_id}"): Route(about("webhook_id", _lone_webhook)),
    ("POST", "/api/v1/projects/{project_id}/webhooks/{webhook_id}/rotate"): Route(
        about("webhook_id", _lone_webhook, json={})
    ),
    ("POST", "/api/v1/projects/{project_id}/webhooks/{webhook_id}/test"): Route(about("webhook_id", _lone_webhook)),
    ("GET", "/api/v1/projects/{project_id}/webhooks/{webhook_id}/deliveries"): Route(
        about("webhook_id", _lone_webhook)
    ),
    ("POST", "/api/v1/projects/{project_id}/webhooks/{webhook_id}/deliveries/{delivery_id}/redeliver"): Route(
        _delivery
    ),
    ("GET", "/api/v1/notifications"): Route(sends()),
    ("GET", "/api/v1/notifications/unread"): Route(sends()),
    ("POST", "/api/v1/notifications/read"): Route(sends(json={"ids": []})),
    ("GET", "/api/v1/inbox/message/user"): Route(sends()),
    ("GET", "/api/v1/commands"): Route(sends()),
    ("GET", "/api/v1/commands/{command_id}"): Route(sends()),
    ("POST", "/api/v1/commands/{command_id}/abort"): Route(
        about("command_id", World.new_command),
        {"annotationManager": 403},  # it is a sync, which they may not start
    ),
}
# Answers without an end are asked for in test_news.py, by the same people.
ELSEWHERE = {("GET", "/metrics"), ("GET", "/api/v1/notifications/stream")}
# What is deleted there cannot be read again under the same path.
UNREADABLE = {
    ("DELETE", "/api/v1/projects/{project_id}/members/{email}"),
    ("DELETE", "/api/v1/orgs/{organization_id}/members/{email}"),
    ("DELETE", "/api/v1/orgs/{organization_id}/invitations/{invitation_id}"),
    ("DELETE", "/api/v1/invitations/{invitation_id}"),
    ("DELETE", "/api/v1/apiKeys/{key_id}"),
    ("DELETE", "/api/v1/datasets/{dataset_id}/tus/{upload_id}"),
    ("DELETE", "/api/v1/datasets/{dataset_id}/items/collections/{name}"),
    ("DELETE", "/api/v1/ontologies/{ontology_id}/attributes"),
}
# Routes whose dataset is in a bucket.
IN_BUCKET = {
    ("POST", "/api/v1/datasets/{dataset_id}/sync"),
    ("PUT", "/api/v1/datasets/{dataset_id}/schedule"),
    ("DELETE", "/api/v1/datasets/{dataset_id}/schedule"),
    ("PATCH", "/api/v1/datasets/{dataset_id}/sync-rules"),
    ("POST", "/api/v1/datasets/{dataset_id}/sync-rules/preview"),
}


def parameters_of(world: World, route: tuple[str, str]) -> dict[str, str]:
    return {
        "organization_id": world.organization_id,
        "project_id": world.project_id,
        "project_name": "everybody",
        "name": "team/app",
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


def declared(app: Any) -> dict[tuple[str, str], str]:
    """Each route's own declaration of the right it needs."""
    return {
        (method.upper(), path): operation.get("x-right", "")
        for path, methods in app.openapi()["paths"].items()
        for method, operation in methods.items()
    }


def test_every_route_declares_its_right_and_is_walked(api_app: Any) -> None:
    told = declared(api_app)
    assert [route for route, right in told.items() if right not in (*rights.RULES, "anybody", "account")] == []
    assert told.keys() == ROUTES.keys() | ELSEWHERE


def test_a_route_that_the_description_leaves_out_is_a_page_for_people(api_app: Any) -> None:
    """Who may log in at those is asked in test_login_pages.py and test_login_openid.py."""
    modules = [importlib.import_module(found.name) for found in pkgutil.iter_modules(api.__path__, "headwater.api.")]
    routers = [thing for module in modules for thing in vars(module).values() if isinstance(thing, APIRouter)]
    assert len(routers) > 10
    left_out = {
        (method, route.path)
        for router in routers
        for route in router.routes
        if isinstance(route, APIRoute) and not (route.include_in_schema and router.include_in_schema)
        for method in route.methods
    }
    assert left_out == {
        ("POST", "/login"),
        ("POST", "/login/openid"),
        ("GET", "/login/openid/callback"),
    }


def expected(world: World, route: tuple[str, str]) -> dict[str, int]:
    right = declared(world.app)[route]
    return {who: expected_of(right, who) for who in EVERYBODY} | ROUTES[route].besides


@pytest.mark.parametrize("route", ROUTES, ids=" ".join)
async def test_each_route_answers_everybody_as_its_right_says(world: World, route: tuple[str, str]) -> None:
    answers = {who: await ask(world, who, route) for who in EVERYBODY}
    assert {who: answer.status_code for who, answer in answers.items()} == expected(world, route)
    for answer in answers.values():
        if answer.status_code >= 400 and route[0] != "HEAD":
            message(answer, answer.status_code)


HIDDEN = [route for route in ROUTES if "_id}" in route[1] and route[0] not in ("HEAD", "OPTIONS")]


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
        if route[0] != "DELETE" or expected(world, route)[who] == 200 or route in UNREADABLE:
            continue
        own, request = await told.prepared(world)
        url = url_of(route[1], parameters_of(world, route) | own)
        assert (await world.callers[who].request("DELETE", url, **request)).status_code in (403, 404), route
        assert (await world.owner.get(url)).status_code == 200, route
