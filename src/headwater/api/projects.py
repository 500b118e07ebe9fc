"""Projects and their members."""

from typing import Any
from urllib.parse import parse_qs

from fastapi import APIRouter, Request
from pydantic import BaseModel

from headwater import queue
from headwater.api.caller import Base, Caller, Connection, ProjectId, needs
from headwater.catalog import api_keys, bots, feature_sets, organizations, projects, rights
from headwater.catalog.accounts import Account
from headwater.errors import BadRequest, NotFound
from headwater.ids import to_wire
from headwater.wire import accounts as wire
from headwater.work import webhooks
from headwater.work.deletion import PURGE_TASK
from headwater.work.feature_sets import defer_drop

router = APIRouter(prefix="/projects", tags=["projects"])


async def _shaped(conn: Any, found: list[projects.Project], base: str) -> list[wire.ProjectJson]:
    contributors = await projects.list_contributors(conn, [project.id for project in found])
    return [wire.project(project, contributors[project.id], base) for project in found]


@router.post("", openapi_extra=needs("create_project"))
async def create_project(request: Request, caller: Caller, conn: Connection, base: Base) -> wire.ProjectJson:
    """The SDK sends the name as a form (`name=…`); JSON is taken as well.

    With `orgId` (an id) or `org` (an id or a name) in that organisation, otherwise in the caller's first one.
    """
    given = await _fields_of(request)
    name = given.get("name")
    if not name:
        raise BadRequest("A project needs a name: send the form field name=…")
    organization_id = await _organization_of(conn, caller, given.get("orgId") or given.get("org"))
    project = await projects.create_project(conn, caller, name, organization_id=organization_id)
    return (await _shaped(conn, [project], base))[0]


async def _fields_of(request: Request) -> dict[str, str]:
    """The texts among the fields of a form or of JSON. Raises BadRequest."""
    try:
        if request.headers.get("content-type", "").lower().startswith("application/json"):
            body = await request.json()
            given = body if isinstance(body, dict) else {}
        else:
            given = {key: values[0] for key, values in parse_qs((await request.body()).decode()).items()}
    except (ValueError, RecursionError):
        raise BadRequest("The body is neither a form nor JSON. Send the form field name=…") from None
    return {str(key): value for key, value in given.items() if isinstance(value, str)}


async def _organization_of(conn: Any, caller: Account, wanted: str | None) -> int | None:
    """Raises NotFound."""
    if wanted is None:
        return None
    for organization in await organizations.list_organizations(conn, caller):
        if wanted in (to_wire(organization.id), organization.name):
            return organization.id
    raise NotFound(f"There is no organisation {wanted[:80]!r} that you belong to.")


@router.get("", openapi_extra=needs("account"))
async def list_projects(caller: Caller, conn: Connection, base: Base) -> list[wire.ProjectJson]:
    return await _shaped(conn, await projects.list_projects(conn, caller), base)


@router.get("/{project_name:path}/name", openapi_extra=needs("read"))
async def find_projects(project_name: str, caller: Caller, conn: Connection, base: Base) -> list[wire.ProjectJson]:
    return await _shaped(conn, await projects.find_projects(conn, caller, project_name), base)


@router.get("/{project_id}", openapi_extra=needs("read"))
async def read_project(project_id: ProjectId, caller: Caller, conn: Connection, base: Base) -> wire.ProjectJson:
    return (await _shaped(conn, [await projects.get_project(conn, caller, project_id)], base))[0]


class ProjectPatch(BaseModel):
    name: str | None = None


@router.patch("/{project_id}", openapi_extra=needs("manage_project"))
async def update_project(
    project_id: ProjectId, body: ProjectPatch, caller: Caller, conn: Connection, base: Base
) -> wire.ProjectJson:
    project = await projects.get_project(conn, caller, project_id, "manage_project")
    if body.name is not None and body.name != project.name:
        await projects.rename_project(conn, project, body.name)
        await projects.record(conn, caller, project.id, "project.renamed", body.name, before=project.name)
    return (await _shaped(conn, [await projects.get_project(conn, caller, project_id)], base))[0]


@router.delete("/{project_id}", openapi_extra=needs("manage_project"))
async def delete_project(project_id: ProjectId, caller: Caller, conn: Connection) -> dict[str, bool]:
    """With its datasets. Objects in buckets are not touched."""
    project = await projects.get_project(conn, caller, project_id, "manage_project")
    await projects.record(conn, caller, project.id, "project.deleted", project.name)
    for bot in await bots.list_bots(conn, project):
        await bots.delete_bot(conn, caller, project, bot)
    for dataset_id in await projects.delete_project(conn, project):
        await queue.defer(conn, PURGE_TASK, dataset_id=dataset_id)
    for set_id in await feature_sets.delete_of_project(conn, project.id):
        await defer_drop(conn, set_id)
    await webhooks.delete_webhooks(conn, project.id)
    await projects.forget_project(conn, project.id)
    return {"success": True}


class RoleBody(BaseModel):
    role: str


@router.get("/{project_id}/members", openapi_extra=needs("read"))
async def list_members(project_id: ProjectId, caller: Caller, conn: Connection) -> list[wire.UserJson]:
    project = await projects.get_project(conn, caller, project_id)
    return [wire.user(member) for member in (await projects.list_contributors(conn, [project.id]))[project.id]]


@router.post("/{project_id}/members/{email:path}", openapi_extra=needs("manage_project"))
@router.patch("/{project_id}/members/{email:path}", openapi_extra=needs("manage_project"))
async def set_member(
    project_id: ProjectId, email: str, body: RoleBody, caller: Caller, conn: Connection
) -> list[wire.UserJson]:
    """Add a member of the organisation to the project, or change the role of one."""
    project = await projects.get_project(conn, caller, project_id, "manage_project")
    role = rights.checked_role(wire.role_from_wire(body.role))
    await projects.change_member(conn, caller, project, email, role)
    return [wire.user(member) for member in (await projects.list_contributors(conn, [project.id]))[project.id]]


@router.delete("/{project_id}/members/{email:path}", openapi_extra=needs("manage_project"))
async def remove_member(project_id: ProjectId, email: str, caller: Caller, conn: Connection) -> list[wire.UserJson]:
    """Everybody may leave; the last owner stays."""
    leaves = email.strip().lower() == caller.email.lower()
    project = await projects.get_project(conn, caller, project_id, "read" if leaves else "manage_project")
    await projects.drop_member(conn, caller, project, email)
    await api_keys.tell_of_keys_left(conn, project.organization_id, email, project_id=project.id)
    return [wire.user(member) for member in (await projects.list_contributors(conn, [project.id]))[project.id]]
