"""Accounts, organisations, their members and who is invited."""

from typing import Annotated, Any

from fastapi import APIRouter
from pydantic import BaseModel, Field

from headwater.api.caller import Base, Caller, Connection, InvitationId, OrganizationId, ServerDep, needs
from headwater.catalog import accounts, api_keys, audit, members, organizations, projects
from headwater.catalog.organizations import Organization
from headwater.catalog.rights import MemberRole
from headwater.errors import BadRequest, Forbidden, NotFound
from headwater.wire import accounts as wire

router = APIRouter(tags=["accounts"])

Email = Annotated[str, Field(max_length=254)]  # RFC 5321, 4.5.3.1.3, as erratum 1690 has it


@router.get("/users/me", openapi_extra=needs("account"))
async def read_me(caller: Caller) -> wire.UserJson:
    return wire.user(caller)


async def _shaped(conn: Any, found: Organization) -> wire.OrganizationJson:
    return wire.organization(found, await organizations.list_members(conn, found.id))


@router.get("/orgs", openapi_extra=needs("account"))
async def list_organizations(caller: Caller, conn: Connection) -> list[wire.OrganizationJson]:
    """Those of the caller; the operator sees all."""
    return [await _shaped(conn, found) for found in await organizations.list_organizations(conn, caller)]


class NewOrganizationBody(BaseModel):
    name: str
    owner: Email = Field(description="The e-mail address of an account.")


@router.post("/orgs", openapi_extra=needs("create_organization"))
async def create_organization(
    body: NewOrganizationBody, caller: Caller, conn: Connection, server: ServerDep
) -> wire.OrganizationJson:
    """Another organisation, with an owner of its own; for the operator: owners of the first organisation."""
    if not await organizations.is_operator(conn, caller):
        raise Forbidden("Only the operator, an owner of the first organisation of this server, creates organisations.")
    owner = await accounts.find_account(conn, body.owner)
    if owner is None or owner.kind == "bot":
        raise NotFound(f"There is no account {body.owner}. Make one: headwater user add {body.owner}")
    made = await organizations.create_organization(
        conn, caller, body.name, owner, data_point_limit=server.settings.data_points
    )
    return await _shaped(conn, made)


@router.get("/orgs/{organization_id}", openapi_extra=needs("read_organization"))
async def read_organization(organization_id: OrganizationId, caller: Caller, conn: Connection) -> wire.OrganizationJson:
    return await _shaped(conn, await organizations.get_organization(conn, caller, organization_id))


class OrganizationPatch(BaseModel):
    name: str | None = None
    forbid_external_delete: bool | None = Field(
        default=None,
        alias="forbidExternalDelete",
        description="Whether no object in a bucket is ever deleted, whatever its driver says.",
    )


@router.patch("/orgs/{organization_id}", openapi_extra=needs("manage_organization"))
async def update_organization(
    organization_id: OrganizationId, body: OrganizationPatch, caller: Caller, conn: Connection
) -> wire.OrganizationJson:
    organization = await organizations.get_organization(conn, caller, organization_id, "manage_organization")
    if body.name is not None and body.name != organization.name:
        await organizations.rename_organization(conn, caller, organization, body.name)
    if body.forbid_external_delete is not None:
        await organizations.forbid_external_delete(conn, caller, organization, body.forbid_external_delete)
    return await _shaped(conn, await organizations.get_organization(conn, caller, organization_id))


class PlanBody(BaseModel):
    plan: str


@router.patch("/orgs/{organization_id}/plan", openapi_extra=needs("manage_organization"))
async def update_plan(
    organization_id: OrganizationId, body: PlanBody, caller: Caller, conn: Connection
) -> wire.OrganizationJson:
    """There is one plan, premium, and nothing to pay: any other that the SDK knows is taken and changes nothing."""
    organization = await organizations.get_organization(conn, caller, organization_id, "manage_organization")
    if body.plan not in ("premium", "freemium"):
        raise BadRequest(f"There is no plan {body.plan[:40]!r}. Every organisation here has the plan premium.")
    return await _shaped(conn, organization)


@router.get("/orgs/{organization_id}/groups", openapi_extra=needs("read_organization"))
async def list_groups(organization_id: OrganizationId, caller: Caller, conn: Connection) -> list[dict[str, Any]]:
    """There are none: rights come from roles."""
    await organizations.get_organization(conn, caller, organization_id)
    return []


@router.get("/orgs/{organization_id}/projects", openapi_extra=needs("read_organization"))
async def list_organization_projects(
    organization_id: OrganizationId, caller: Caller, conn: Connection, base: Base
) -> list[wire.ProjectJson]:
    """Those that the caller may see."""
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


class NewMembersBody(BaseModel):
    emails: list[Email] = Field(min_length=1, max_length=100)
    role: MemberRole = "member"


@router.post("/orgs/{organization_id}/members", openapi_extra=needs("manage_members"))
async def add_members(
    organization_id: OrganizationId, body: NewMembersBody, caller: Caller, conn: Connection
) -> list[wire.UserJson]:
    """People whom the caller shares an organisation with become members at once; any other address is invited, whether
    it has an account or not. For the operator everybody with an account becomes a member at once.
    """
    organization = await organizations.get_organization(conn, caller, organization_id, "manage_members")
    await members.add_members(conn, caller, organization, body.emails, body.role)
    return [wire.user(member) for member in await organizations.list_members(conn, organization.id)]


class MemberPatch(BaseModel):
    email: Email
    role: MemberRole


@router.patch("/orgs/{organization_id}/members", openapi_extra=needs("manage_members"))
async def update_member(
    organization_id: OrganizationId, body: MemberPatch, caller: Caller, conn: Connection
) -> wire.UserJson:
    """Another role. Only owners make and unmake owners."""
    organization = await organizations.get_organization(conn, caller, organization_id, "manage_members")
    await members.change_role(conn, caller, organization, body.email, body.role)
    return next(
        wire.user(member)
        for member in await organizations.list_members(conn, organization.id)
        if member.email.lower() == body.email.strip().lower()
    )


@router.delete("/orgs/{organization_id}/members/{email:path}", openapi_extra=needs("manage_members"))
async def remove_member(
    organization_id: OrganizationId, email: str, caller: Caller, conn: Connection
) -> dict[str, bool]:
    """Out of the organisation and its projects. Everybody may leave; the last owner stays."""
    leaves = email.strip().lower() == caller.email.lower()
    organization = await organizations.get_organization(
        conn, caller, organization_id, "read_organization" if leaves else "manage_members"
    )
    await members.remove_member(conn, caller, organization, email)
    await api_keys.tell_of_keys_left(conn, organization.id, email)
    return {"success": True}


class NewAccountBody(BaseModel):
    email: Email
    password: str = Field(repr=False)
    role: MemberRole = "member"


@router.post("/orgs/{organization_id}/accounts", openapi_extra=needs("create_account"))
async def create_account(
    organization_id: OrganizationId, body: NewAccountBody, caller: Caller, conn: Connection
) -> wire.UserJson:
    """A new account that is a member of the organisation.

    Only the operator makes accounts: who makes one knows its password, and could answer what other organisations send
    to its address; and whether an address has one is not for others to find out. They invite people instead.
    """
    organization = await organizations.get_organization(conn, caller, organization_id, "create_account")
    account = await accounts.create_account(conn, email=body.email, password=body.password)
    await organizations.add_member(conn, organization.id, account, body.role)
    await audit.record(conn, caller, "account.created", account.email, organization_id=organization.id, role=body.role)
    return wire.user(account)


@router.get("/orgs/{organization_id}/invitations", openapi_extra=needs("manage_members"))
async def list_invitations(
    organization_id: OrganizationId, caller: Caller, conn: Connection
) -> list[wire.InvitationJson]:
    """Those that wait for an answer."""
    organization = await organizations.get_organization(conn, caller, organization_id, "manage_members")
    return [wire.invitation(found) for found in await members.list_invitations(conn, organization)]


@router.delete("/orgs/{organization_id}/invitations/{invitation_id}", openapi_extra=needs("manage_members"))
async def withdraw_invitation(
    organization_id: OrganizationId, invitation_id: InvitationId, caller: Caller, conn: Connection
) -> dict[str, bool]:
    organization = await organizations.get_organization(conn, caller, organization_id, "manage_members")
    await members.withdraw_invitation(conn, caller, organization, invitation_id)
    return {"success": True}


@router.get("/invitations", openapi_extra=needs("account"))
async def list_my_invitations(caller: Caller, conn: Connection) -> list[wire.InvitationJson]:
    """Organisations that ask the caller to join."""
    return [wire.invitation(found) for found in await members.list_invitations_of(conn, caller)]


@router.post("/invitations/{invitation_id}/accept", openapi_extra=needs("account"))
async def accept_invitation(invitation_id: InvitationId, caller: Caller, conn: Connection) -> wire.InvitationJson:
    return wire.invitation(await members.answer_invitation(conn, caller, invitation_id, accept=True))


@router.delete("/invitations/{invitation_id}", openapi_extra=needs("account"))
async def decline_invitation(invitation_id: InvitationId, caller: Caller, conn: Connection) -> dict[str, bool]:
    await members.answer_invitation(conn, caller, invitation_id, accept=False)
    return {"success": True}
