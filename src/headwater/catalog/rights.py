"""Rights: which role may do what. One table; whoever wants to know asks here.

Owners and admins of an organisation count as owners of its projects, so a right in a project needs no column for them.
"""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Literal, get_args

from headwater.errors import BadRequest, Forbidden

Role = Literal["owner", "developer", "annotationManager", "annotator"]
# The operator is an owner of the installation's first organisation, as the others see that account.
OrganizationRole = Literal["operator", "owner", "admin", "member", "worker"]
MemberRole = Literal["owner", "admin", "member", "worker"]

Right = Literal[
    "read",
    "read_notices",
    "annotate",
    "write_items",
    "sync",
    "manage_datasets",
    "manage_recipes",
    "manage_drivers",
    "manage_bots",
    "manage_project",
]
OrganizationRight = Literal[
    "read_organization",
    "create_project",
    "use_integrations",
    "manage_integrations",
    "manage_members",
    "create_account",
    "manage_organization",
    "read_audit",
    "read_quota",
    "manage_quota",
]
ServerRight = Literal["create_organization"]
AnyRight = Right | OrganizationRight | ServerRight
Scope = Literal["project", "organization", "server"]


@dataclass(frozen=True, slots=True)
class Rule:
    scope: Scope
    words: str  # what the right is to do, in a sentence: "may not …"
    in_project: tuple[Role, ...] = ()
    in_organization: tuple[OrganizationRole, ...] = ()


_EVERYBODY = ("owner", "developer", "annotationManager", "annotator")
_DEVELOPERS = ("owner", "developer")

RULES: dict[AnyRight, Rule] = {
    "read": Rule("project", "read", _EVERYBODY),
    "read_notices": Rule("project", "read its notices", ("owner", "developer", "annotationManager")),
    "annotate": Rule("project", "annotate", _EVERYBODY),
    "write_items": Rule("project", "add, change or delete items", ("owner", "developer", "annotationManager")),
    "sync": Rule("project", "sync datasets", _DEVELOPERS),
    "manage_datasets": Rule("project", "create, change or delete datasets", _DEVELOPERS),
    "manage_recipes": Rule("project", "change recipes, labels or attributes", _DEVELOPERS),
    "manage_drivers": Rule("project", "create or delete storage drivers", _DEVELOPERS),
    "manage_bots": Rule("project", "create or delete bots, or make keys for them", _DEVELOPERS),
    "manage_project": Rule("project", "change or delete the project, or its members", ("owner",)),
    "read_organization": Rule(
        "organization", "see the organisation", (), ("operator", "owner", "admin", "member", "worker")
    ),
    "create_project": Rule("organization", "create projects", (), ("owner", "admin", "member")),
    "use_integrations": Rule("organization", "use its integrations in drivers", _DEVELOPERS, ("owner", "admin")),
    "manage_integrations": Rule("organization", "see or change its integrations", (), ("owner", "admin")),
    "manage_members": Rule("organization", "add, change or remove its members", (), ("operator", "owner", "admin")),
    # An account is known to every organisation, and who makes it knows its password.
    "create_account": Rule("organization", "make accounts; invite people by their address instead", (), ("operator",)),
    "manage_organization": Rule("organization", "change the organisation", (), ("operator", "owner")),
    "read_audit": Rule("organization", "read its audit log", (), ("operator", "owner")),
    "read_quota": Rule("organization", "see its quota", (), ("operator", "owner", "admin")),
    "manage_quota": Rule("organization", "set its quota", (), ("operator",)),
    "create_organization": Rule("server", "create organisations", (), ("operator",)),
}


def may(role: Role, right: Right) -> bool:
    return role in RULES[right].in_project


def require(role: Role, right: Right) -> None:
    """For a role in a project. Raises Forbidden."""
    if not may(role, right):
        rule = RULES[right]
        allowed = ", ".join(rule.in_project)
        raise Forbidden(f"Your role in this project ({role}) may not {rule.words}. Roles that may: {allowed}.")


def may_in_organization(
    roles: Collection[OrganizationRole], project_roles: Collection[Role], right: OrganizationRight | ServerRight
) -> bool:
    """`project_roles`: those in any of the organisation's projects."""
    rule = RULES[right]
    return not (set(rule.in_organization).isdisjoint(roles) and set(rule.in_project).isdisjoint(project_roles))


def require_in_organization(
    roles: Collection[OrganizationRole], project_roles: Collection[Role], right: OrganizationRight | ServerRight
) -> None:
    """Raises Forbidden."""
    if may_in_organization(roles, project_roles, right):
        return
    rule = RULES[right]
    allowed = [*rule.in_organization, *(f"{role} of one of its projects" for role in rule.in_project)]
    told = ", ".join(roles) or "none"
    raise Forbidden(
        f"Your role in this organisation ({told}) may not {rule.words}. Roles that may: {', '.join(allowed)}."
    )


def checked_role(name: str) -> Role:
    """Raises BadRequest."""
    for role in get_args(Role):
        if role == name:
            return role
    raise BadRequest(f"There is no role {name[:40]!r}. Roles: {', '.join(get_args(Role))}.")
