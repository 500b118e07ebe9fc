"""Accounts and organisations."""

from fastapi import APIRouter
from pydantic import BaseModel, Field

from headwater.api.caller import Base, Caller, Connection, OrganizationId, needs
from headwater.catalog import accounts, organizations, projects
from headwater.errors import Forbidden
from headwater.wire import accounts as wire

router = APIRouter(tags=["accounts"])


@router.get("/users/me", openapi_extra=needs("account"))
async def read_me(caller: Caller) -> wire.UserJson:
    return wire.user(caller)


@router.get("/orgs", openapi_extra=needs("account"))
async def list_organizations(caller: Caller, conn: Connection) -> list[wire.OrganizationJson]:
    return [
        wire.organization(found, await organizations.list_members(conn, found.id))
        for found in await organizations.list_organizations(conn, caller)
    ]


@router.get("/orgs/{organization_id}", openapi_extra=needs("read_organization"))
async def read_organization(organization_id: OrganizationId, caller: Caller, conn: Connection) -> wire.OrganizationJson:
    found = await organizations.get_organization(conn, caller, organization_id)
    return wire.organization(found, await organizations.list_members(conn, found.id))


@router.get("/orgs/{organization_id}/projects", openapi_extra=needs("read_organization"))
async def list_organization_projects(
    organization_id: OrganizationId, caller: Caller, conn: Connection, base: Base
) -> list[wire.ProjectJson]:
    organization = await organizations.get_organization(conn, caller, organization_id)
    found = [
        project for project in await projects.list_projects(conn, caller) if project.organization_id == organization.id
    ]
    contributors = await projects.list_contributors(conn, [project.id for project in found])
    return [wire.project(project, contributors[project.id], base) for project in found]


@router.get("/orgs/{organization_id}/members", openapi_extra=needs("read_organization"))
async def list_members(organization_id: OrganizationId, caller: Caller, conn: Connection) -> list[wire.UserJson]:
    organization = await organizations.get_organization(conn, caller, organization_id)
    return [wire.user(member) for member in await organizations.list_members(conn, organization.id)]


class NewAccountBody(BaseModel):
    email: str = Field(max_length=254)  # RFC 5321, 4.5.3.1.3, as erratum 1690 has it
    password: str = Field(repr=False)
    role: organizations.MemberRole = "member"


@router.post("/orgs/{organization_id}/accounts", openapi_extra=needs("manage_members"))
async def create_account(
    organization_id: OrganizationId, body: NewAccountBody, caller: Caller, conn: Connection
) -> wire.UserJson:
    """A new account that is a member of the organisation; for its owners and admins. Only owners make owners."""
    organization = await organizations.get_organization(conn, caller, organization_id, "manage_members")
    if body.role == "owner" and "owner" not in organization.roles:
        raise Forbidden("Only owners of the organisation may make others its owners. Choose the role admin or member.")
    account = await accounts.create_account(conn, email=body.email, password=body.password)
    await organizations.add_member(conn, organization.id, account, body.role)
    return wire.user(account)
