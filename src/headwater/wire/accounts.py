"""Accounts, organisations and projects as the SDK reads them."""

from collections.abc import Sequence
from typing import Any, NotRequired

from typing_extensions import TypedDict

from headwater.catalog.accounts import Account
from headwater.catalog.api_keys import ApiKey
from headwater.catalog.audit import Entry
from headwater.catalog.bots import Bot
from headwater.catalog.members import Invitation
from headwater.catalog.organizations import Member, Organization
from headwater.catalog.projects import Contributor, Project
from headwater.ids import to_wire
from headwater.wire import times

# The SDK's word for a developer is older than its label.
_ROLES = {"developer": "engineer"}
_ROLES_BACK = {wire: role for role, wire in _ROLES.items()}


class NamedId(TypedDict):
    id: str
    name: str


class UserJson(TypedDict):
    id: str
    email: str
    username: str
    firstName: str
    lastName: str
    avatar: str | None
    role: str | None
    type: str
    org: str | None
    createdAt: str | None
    updatedAt: str | None


class OrganizationJson(TypedDict):
    id: str
    name: str
    logoUrl: str | None
    plan: str
    account: dict[str, Any]
    members: list[UserJson]
    groups: list[Any]
    owner: str | None
    creator: str | None
    forbidExternalDelete: bool
    roles: list[str]  # of the caller; operator: an owner of the installation's first organisation
    createdAt: str
    updatedAt: str


class ProjectJson(TypedDict):
    id: str
    name: str
    url: str
    creator: str
    org: NamedId
    account: NamedId
    role: str
    contributors: list[UserJson]
    isBlocked: bool
    archived: bool
    featureConstraints: list[Any]
    systemProject: bool
    createdAt: str
    updatedAt: str


def role_to_wire(role: str) -> str:
    return _ROLES.get(role, role)


def role_from_wire(role: str) -> str:
    return _ROLES_BACK.get(role, role)


def user(who: Account | Member | Contributor | Bot) -> UserJson:
    created_at = None if isinstance(who, Account) else times.to_wire(who.created_at)
    return UserJson(
        id=who.email,
        email=who.email,
        username=who.email,
        firstName=who.name or who.email.partition("@")[0],
        lastName="",
        avatar=None,
        role=None if isinstance(who, Account) else role_to_wire(who.role),
        type=who.kind,
        org=None,
        createdAt=created_at,
        updatedAt=created_at,
    )


class BotJson(UserJson):
    projectId: str
    orgBot: bool
    password: NotRequired[str]  # an API key of the bot's: for login_api_key, and told only once


def bot(found: Bot, *, key: str | None = None) -> BotJson:
    shown = BotJson(**user(found), projectId=to_wire(found.project_id), orgBot=False)
    if key is not None:
        shown["password"] = key
    return shown


class InvitationJson(TypedDict):
    id: str
    org: NamedId
    email: str
    role: str
    creator: str
    createdAt: str


def invitation(found: Invitation) -> InvitationJson:
    return InvitationJson(
        id=to_wire(found.id),
        org=NamedId(id=to_wire(found.organization_id), name=found.organization_name),
        email=found.email,
        role=found.role,
        creator=found.inviter,
        createdAt=times.to_wire(found.created_at),
    )


class ApiKeyJson(TypedDict):
    id: str
    name: str
    userId: str
    createdAt: str
    expiresAt: str
    lastUsedAt: str | None
    jwt: NotRequired[str]  # only in the answer that makes it


def api_key(found: ApiKey, *, jwt: str | None = None) -> ApiKeyJson:
    shown = ApiKeyJson(
        id=to_wire(found.id),
        name=found.name,
        userId=found.email,
        createdAt=times.to_wire(found.created_at),
        expiresAt=times.to_wire(found.expires_at),
        lastUsedAt=None if found.last_used_at is None else times.to_wire(found.last_used_at),
    )
    if jwt is not None:
        shown["jwt"] = jwt
    return shown


class AuditEntryJson(TypedDict):
    id: str
    createdAt: str
    actor: str
    action: str
    target: str
    projectId: str | None
    details: dict[str, Any]


def audit_entry(found: Entry) -> AuditEntryJson:
    return AuditEntryJson(
        id=to_wire(found.id),
        createdAt=times.to_wire(found.created_at),
        actor=found.actor,
        action=found.action,
        target=found.target,
        projectId=None if found.project_id is None else to_wire(found.project_id),
        details=found.details,
    )


def organization(found: Organization, members: Sequence[Member]) -> OrganizationJson:
    owner = next((member.email for member in members if member.role == "owner"), None)
    return OrganizationJson(
        id=to_wire(found.id),
        name=found.name,
        logoUrl=None,
        plan="premium",
        account={},
        members=[user(member) for member in members],
        groups=[],
        owner=owner,
        creator=owner,
        roles=list(found.roles),
        forbidExternalDelete=found.forbid_external_delete,
        createdAt=times.to_wire(found.created_at),
        updatedAt=times.to_wire(found.updated_at),
    )


def project(found: Project, contributors: Sequence[Contributor], base: str) -> ProjectJson:
    organization = NamedId(id=to_wire(found.organization_id), name=found.organization_name)
    return ProjectJson(
        id=to_wire(found.id),
        name=found.name,
        url=f"{base}/projects/{to_wire(found.id)}",
        creator=found.creator,
        org=organization,
        account=organization,
        role=role_to_wire(found.role),
        contributors=[user(contributor) for contributor in contributors],
        isBlocked=False,
        archived=False,
        featureConstraints=[],
        systemProject=False,
        createdAt=times.to_wire(found.created_at),
        updatedAt=times.to_wire(found.updated_at),
    )
