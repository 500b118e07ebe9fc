"""Organisations: they own projects and integrations; accounts are their members."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from psycopg import AsyncConnection
from psycopg.errors import UniqueViolation
from psycopg.rows import class_row

from headwater.catalog.accounts import Account, create_account
from headwater.errors import Conflict, Forbidden, NotFound

MemberRole = Literal["owner", "admin", "member"]


@dataclass(frozen=True, slots=True)
class Organization:
    id: int
    name: str
    created_at: datetime
    updated_at: datetime
    role: MemberRole  # of the account that asked


@dataclass(frozen=True, slots=True)
class Member:
    id: int
    email: str
    role: str
    created_at: datetime


async def is_installed(conn: AsyncConnection[Any]) -> bool:
    cursor = await conn.execute("SELECT EXISTS (SELECT FROM organization)")
    row = await cursor.fetchone()
    return row is not None and row[0]


async def install(conn: AsyncConnection[Any], *, name: str, email: str, password: str) -> Account:
    """The first organisation and its owner."""
    owner = await create_account(conn, email=email, password=password)
    cursor = await conn.execute("INSERT INTO organization (name) VALUES (%s) RETURNING id", [name])
    row = await cursor.fetchone()
    assert row is not None
    await add_member(conn, row[0], owner, "owner")
    return owner


async def add_member(conn: AsyncConnection[Any], organization_id: int, account: Account, role: MemberRole) -> None:
    """Raises Conflict."""
    try:
        async with conn.transaction():
            await conn.execute(
                "INSERT INTO member (organization_id, account_id, role) VALUES (%s, %s, %s)",
                [organization_id, account.id, role],
            )
    except UniqueViolation:
        raise Conflict(f"{account.email} is a member already.") from None


async def get_owner(conn: AsyncConnection[Any]) -> Account:
    """The first owner of the first organisation: the operator. Raises NotFound."""
    cursor = conn.cursor(row_factory=class_row(Account))
    await cursor.execute(
        """
        SELECT account.id, account.email
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


_SELECT = """
SELECT organization.id, organization.name, organization.created_at, organization.updated_at, member.role
FROM organization
JOIN member ON member.organization_id = organization.id
WHERE member.account_id = %(account_id)s
"""


async def list_organizations(conn: AsyncConnection[Any], caller: Account) -> list[Organization]:
    cursor = conn.cursor(row_factory=class_row(Organization))
    await cursor.execute(_SELECT + "ORDER BY organization.id", {"account_id": caller.id})
    return await cursor.fetchall()


async def get_organization(conn: AsyncConnection[Any], caller: Account, organization_id: int) -> Organization:
    """Raises NotFound for one the caller is not a member of."""
    cursor = conn.cursor(row_factory=class_row(Organization))
    await cursor.execute(
        _SELECT + "AND organization.id = %(organization_id)s",
        {"account_id": caller.id, "organization_id": organization_id},
    )
    organization = await cursor.fetchone()
    if organization is None:
        raise NotFound(f"No organisation with id {organization_id:024x}.")
    return organization


async def get_administered(conn: AsyncConnection[Any], caller: Account, organization_id: int) -> Organization:
    """Raises NotFound, or Forbidden for a member who is neither owner nor admin."""
    organization = await get_organization(conn, caller, organization_id)
    if organization.role == "member":
        raise Forbidden("Only owners and admins of the organisation may see or change its integrations and members.")
    return organization


async def is_member(conn: AsyncConnection[Any], organization_id: int, account: Account) -> bool:
    cursor = await conn.execute(
        "SELECT FROM member WHERE organization_id = %s AND account_id = %s", [organization_id, account.id]
    )
    return await cursor.fetchone() is not None


async def list_members(conn: AsyncConnection[Any], organization_id: int) -> list[Member]:
    cursor = conn.cursor(row_factory=class_row(Member))
    await cursor.execute(
        """
        SELECT account.id, account.email, member.role, account.created_at
        FROM member
        JOIN account ON account.id = member.account_id
        WHERE member.organization_id = %s
        ORDER BY account.id
        """,
        [organization_id],
    )
    return await cursor.fetchall()
