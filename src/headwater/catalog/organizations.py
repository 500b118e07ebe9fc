"""Organisations: they own projects and integrations; accounts are their members."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from psycopg import AsyncConnection
from psycopg.errors import UniqueViolation
from psycopg.rows import class_row

from headwater.catalog import audit, rights
from headwater.catalog.accounts import Account, Kind, create_account
from headwater.catalog.names import checked_name
from headwater.catalog.rights import MemberRole, OrganizationRight, OrganizationRole
from headwater.errors import Conflict, NotFound


@dataclass(frozen=True, slots=True)
class Organization:
    id: int
    name: str
    forbid_external_delete: bool
    created_at: datetime
    updated_at: datetime
    roles: list[OrganizationRole]  # of the account that asked
    project_roles: list[rights.Role]  # of that account, in any of its projects


@dataclass(frozen=True, slots=True)
class Member:
    id: int
    email: str
    role: str
    created_at: datetime
    kind: Kind
    name: str | None


async def is_installed(conn: AsyncConnection[Any]) -> bool:
    cursor = await conn.execute("SELECT EXISTS (SELECT FROM organization)")
    row = await cursor.fetchone()
    return row is not None and row[0]


async def install(
    conn: AsyncConnection[Any], *, name: str, email: str, password: str, data_point_limit: int | None = None
) -> Account:
    """The first organisation and its owner."""
    owner = await create_account(conn, email=email, password=password)
    await add_member(conn, await _insert_organization(conn, name, data_point_limit), owner, "owner")
    return owner


async def create_organization(
    conn: AsyncConnection[Any], caller: Account, name: str, owner: Account, *, data_point_limit: int | None = None
) -> Organization:
    """Another one, for the operator to make. Raises Conflict, BadRequest, Forbidden."""
    rights.require_in_organization(["operator"] if await is_operator(conn, caller) else [], [], "create_organization")
    await _check_name(conn, caller, name.strip())
    organization_id = await _insert_organization(conn, name, data_point_limit)
    await add_member(conn, organization_id, owner, "owner")
    await audit.record(
        conn, caller, "organization.created", name.strip(), organization_id=organization_id, owner=owner.email
    )
    return await get_organization(conn, caller, organization_id)


async def _insert_organization(conn: AsyncConnection[Any], name: str, data_point_limit: int | None = None) -> int:
    cursor = await conn.execute(
        "INSERT INTO organization (name, data_point_limit) VALUES (%s, %s) RETURNING id",
        [checked_name(name, "organisation"), data_point_limit],
    )
    row = await cursor.fetchone()
    assert row is not None
    return row[0]


async def _check_name(conn: AsyncConnection[Any], caller: Account, name: str) -> None:
    """Not one that the caller sees already; of others nobody is told. Raises Conflict."""
    if any(found.name == name for found in await list_organizations(conn, caller)):
        raise Conflict(f"You see an organisation named {name!r} already. Choose another name.")


async def rename_organization(
    conn: AsyncConnection[Any], caller: Account, organization: Organization, name: str
) -> None:
    """Raises Conflict, BadRequest."""
    name = checked_name(name, "organisation")
    await _check_name(conn, caller, name)
    await conn.execute("UPDATE organization SET name = %s, updated_at = now() WHERE id = %s", [name, organization.id])
    await audit.record(
        conn, caller, "organization.renamed", name, organization_id=organization.id, before=organization.name
    )


async def forbid_external_delete(
    conn: AsyncConnection[Any], caller: Account, organization: Organization, is_forbidden: bool
) -> None:
    """The organisation's word on deleting objects in buckets, whatever its drivers say; jobs under way ask for it."""
    await conn.execute(
        "UPDATE organization SET forbid_external_delete = %s, updated_at = now() WHERE id = %s",
        [is_forbidden, organization.id],
    )
    action = "organization.external-delete-" + ("forbidden" if is_forbidden else "left-to-drivers")
    await audit.record(conn, caller, action, organization.name, organization_id=organization.id)


async def add_member(conn: AsyncConnection[Any], organization_id: int, account: Account, role: MemberRole) -> None:
    """Nothing is left to be answered then. Raises Conflict."""
    try:
        async with conn.transaction():
            await conn.execute(
                "INSERT INTO member (organization_id, account_id, role) VALUES (%s, %s, %s)",
                [organization_id, account.id, role],
            )
    except UniqueViolation:
        raise Conflict(f"{account.email} is a member already.") from None
    await forget_invitation(conn, organization_id, account)


async def forget_invitation(conn: AsyncConnection[Any], organization_id: int, account: Account) -> None:
    """With it, somebody who was put out could come back."""
    await conn.execute(
        "DELETE FROM invitation WHERE organization_id = %s AND lower(email) = lower(%s)",
        [organization_id, account.email],
    )


async def get_owner(conn: AsyncConnection[Any]) -> Account:
    """The first owner of the first organisation: the operator. Raises NotFound."""
    cursor = conn.cursor(row_factory=class_row(Account))
    await cursor.execute(
        """
        SELECT account.id, account.email, account.kind, account.name
        FROM member
        JOIN account ON account.id = member.account_id
        WHERE member.role = 'owner'
        ORDER BY member.organization_id, account.id
        LIMIT 1
        """
    )
    owner = await cursor.fetchone()
    if owner is None:
        raise NotFound("This data directory has no owner yet. Start the server once: headwater serve.")
    return owner


_IS_OPERATOR = """
EXISTS (
    SELECT FROM member
    WHERE account_id = %(account_id)s AND role = 'owner' AND organization_id = (SELECT min(id) FROM organization)
)
"""
_SELECT = (
    """
SELECT
    organization.id, organization.name, organization.forbid_external_delete, organization.created_at,
    organization.updated_at,
    CASE WHEN member.role IS NULL THEN '{}' ELSE ARRAY[member.role] END
        || CASE WHEN operator.is_it THEN ARRAY['operator'] ELSE '{}' END AS roles,
    ARRAY(
        SELECT DISTINCT project_member.role
        FROM project_member
        JOIN project ON project.id = project_member.project_id
        WHERE project.organization_id = organization.id AND project.deleted_at IS NULL
            AND project_member.account_id = %(account_id)s
    ) AS project_roles
FROM organization
LEFT JOIN member ON member.organization_id = organization.id AND member.account_id = %(account_id)s
CROSS JOIN (SELECT """
    + _IS_OPERATOR
    + """ AS is_it) AS operator
WHERE (member.role IS NOT NULL OR operator.is_it)
"""
)


async def is_operator(conn: AsyncConnection[Any], account: Account) -> bool:
    """Whether the account owns the installation's first organisation."""
    cursor = await conn.execute("SELECT " + _IS_OPERATOR, {"account_id": account.id})
    row = await cursor.fetchone()
    return row is not None and row[0]


async def list_organizations(conn: AsyncConnection[Any], caller: Account) -> list[Organization]:
    """Those of the caller; all of them for the operator, whose own come first."""
    cursor = conn.cursor(row_factory=class_row(Organization))
    await cursor.execute(
        _SELECT + "ORDER BY member.role IS NULL, organization.id",
        {"account_id": caller.id},
    )
    return await cursor.fetchall()


async def get_organization(
    conn: AsyncConnection[Any],
    caller: Account,
    organization_id: int,
    right: OrganizationRight = "read_organization",
) -> Organization:
    """Raises NotFound for one the caller is not a member of, Forbidden for one the caller may not use so."""
    cursor = conn.cursor(row_factory=class_row(Organization))
    await cursor.execute(
        _SELECT + "AND organization.id = %(organization_id)s",
        {"account_id": caller.id, "organization_id": organization_id},
    )
    organization = await cursor.fetchone()
    if organization is None:
        raise NotFound(f"No organisation with id {organization_id:024x}.")
    rights.require_in_organization(organization.roles, organization.project_roles, right)
    return organization


async def is_member(conn: AsyncConnection[Any], organization_id: int, account: Account) -> bool:
    """Nobody can be put out of the organisation between the answer and the end of the transaction."""
    cursor = await conn.execute(
        "SELECT FROM member WHERE organization_id = %s AND account_id = %s FOR SHARE", [organization_id, account.id]
    )
    return await cursor.fetchone() is not None


async def list_members(conn: AsyncConnection[Any], organization_id: int) -> list[Member]:
    """Its people; bots belong to projects."""
    cursor = conn.cursor(row_factory=class_row(Member))
    await cursor.execute(
        """
        SELECT account.id, account.email, member.role, account.created_at, account.kind, account.name
        FROM member
        JOIN account ON account.id = member.account_id
        WHERE member.organization_id = %s AND account.kind = 'user'
        ORDER BY account.id
        """,
        [organization_id],
    )
    return await cursor.fetchall()
