"""Who belongs to an organisation: changes of its members, and invitations.

Changes of one organisation's members take turns, so that two owners cannot demote each other at once.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from psycopg import AsyncConnection
from psycopg.rows import class_row

from headwater.catalog import accounts, audit, organizations
from headwater.catalog.accounts import Account
from headwater.catalog.organizations import Organization
from headwater.catalog.rights import MemberRole
from headwater.errors import Conflict, Forbidden, NotFound


@dataclass(frozen=True, slots=True)
class Invitation:
    id: int
    organization_id: int
    organization_name: str
    email: str
    role: MemberRole
    inviter: str
    created_at: datetime


async def add_members(
    conn: AsyncConnection[Any], caller: Account, organization: Organization, emails: Sequence[str], role: MemberRole
) -> None:
    """Accounts that the caller may know of become members at once; other addresses are invited.

    The caller may know of those who share an organisation with the caller; the operator, of all. What becomes of
    another address does not tell whether it has an account here. Safe to repeat.

    Raises Forbidden, BadRequest, Conflict for a member with another role, NotFound when the operator names nobody.
    """
    _require_owner_for(organization, role)
    await _lock(conn, organization)
    for email in dict.fromkeys(accounts.checked_email(email) for email in emails):
        account = await accounts.find_account(conn, email)
        before = None if account is None else await _role_of(conn, organization, account)
        if before == role:
            continue
        if before is not None:
            raise Conflict(f"{email} is a member already, as {before}. Change the role of a member instead.")
        is_operator = "operator" in organization.roles
        if account is not None and account.kind == "user" and (is_operator or await _share(conn, caller, account)):
            await organizations.add_member(conn, organization.id, account, role)
            await _note(conn, caller, organization, "member.added", account.email, role=role)
        elif is_operator:
            raise NotFound(f"There is no account {email}. Make one: headwater user add {email}")
        else:
            await _invite(conn, caller, organization, email, role)


async def _share(conn: AsyncConnection[Any], caller: Account, account: Account) -> bool:
    cursor = await conn.execute(
        """
        SELECT FROM member AS mine
        JOIN member AS theirs ON theirs.organization_id = mine.organization_id
        WHERE mine.account_id = %s AND theirs.account_id = %s
        LIMIT 1
        """,
        [caller.id, account.id],
    )
    return await cursor.fetchone() is not None


async def change_role(
    conn: AsyncConnection[Any], caller: Account, organization: Organization, email: str, role: MemberRole
) -> None:
    """Raises NotFound, Forbidden, Conflict for the last owner."""
    account, before = await _lock_member(conn, organization, email)
    if before == role:
        return
    _require_owner_for(organization, role, before)
    if before == "owner":
        await _require_another_owner(conn, organization, account)
    await conn.execute(
        "UPDATE member SET role = %s WHERE organization_id = %s AND account_id = %s",
        [role, organization.id, account.id],
    )
    await _note(conn, caller, organization, "member.changed", account.email, role=role, before=before)


async def remove_member(conn: AsyncConnection[Any], caller: Account, organization: Organization, email: str) -> None:
    """From the organisation and all its projects. What the account made stays.

    A project may be left without an owner of its own: the organisation's owners and admins count as such.
    Raises NotFound, Forbidden, Conflict for the last owner.
    """
    account, before = await _lock_member(conn, organization, email)
    if account.id != caller.id:
        _require_owner_for(organization, before)
    if before == "owner":
        await _require_another_owner(conn, organization, account)
    projects = await remove_account(conn, organization.id, account)
    await _note(conn, caller, organization, "member.removed", account.email, before=before, projects=projects)


async def remove_account(conn: AsyncConnection[Any], organization_id: int, account: Account) -> list[str]:
    """Returns the names of the projects it was in."""
    await organizations.forget_invitation(conn, organization_id, account)
    await conn.execute(
        "DELETE FROM member WHERE organization_id = %s AND account_id = %s", [organization_id, account.id]
    )
    cursor = await conn.execute(
        """
        DELETE FROM project_member USING project
        WHERE project.id = project_member.project_id AND project.organization_id = %s
            AND project_member.account_id = %s
        RETURNING project.name
        """,
        [organization_id, account.id],
    )
    return sorted(name for (name,) in await cursor.fetchall())


def _require_owner_for(organization: Organization, *roles: MemberRole) -> None:
    """Raises Forbidden."""
    if "owner" in roles and not {"owner", "operator"} & set(organization.roles):
        raise Forbidden("Only owners of the organisation may make or unmake its owners.")


async def _lock(conn: AsyncConnection[Any], organization: Organization) -> None:
    await conn.execute("SELECT FROM organization WHERE id = %s FOR NO KEY UPDATE", [organization.id])


async def _role_of(conn: AsyncConnection[Any], organization: Organization, account: Account) -> MemberRole | None:
    cursor = await conn.execute(
        "SELECT role FROM member WHERE organization_id = %s AND account_id = %s", [organization.id, account.id]
    )
    row = await cursor.fetchone()
    return None if row is None else row[0]


async def _lock_member(
    conn: AsyncConnection[Any], organization: Organization, email: str
) -> tuple[Account, MemberRole]:
    """Raises NotFound, in the same words for an account of others and for none."""
    await _lock(conn, organization)
    account = await accounts.find_account(conn, email)
    role = None if account is None else await _role_of(conn, organization, account)
    if account is None or role is None or account.kind == "bot":
        raise NotFound(f"{email} is not a member of this organisation.")
    return account, role


async def _require_another_owner(conn: AsyncConnection[Any], organization: Organization, account: Account) -> None:
    cursor = await conn.execute(
        "SELECT FROM member WHERE organization_id = %s AND account_id <> %s AND role = 'owner' LIMIT 1",
        [organization.id, account.id],
    )
    if await cursor.fetchone() is None:
        raise Conflict("An organisation needs an owner. Make somebody else its owner first.")


async def _note(
    conn: AsyncConnection[Any], caller: Account, organization: Organization, action: str, target: str, **details: Any
) -> None:
    await audit.record(conn, caller, action, target, organization_id=organization.id, **details)


_INVITATIONS = """
SELECT
    invitation.id, invitation.organization_id, organization.name AS organization_name, invitation.email,
    invitation.role, invitation.inviter, invitation.created_at
FROM invitation
JOIN organization ON organization.id = invitation.organization_id
"""


async def _invite(
    conn: AsyncConnection[Any], caller: Account, organization: Organization, email: str, role: MemberRole
) -> None:
    """Once an address; the last role counts."""
    await conn.execute(
        """
        INSERT INTO invitation (organization_id, email, role, inviter)
        VALUES (%s, %s, %s, %s)
        ON CONFLICT (organization_id, lower(email)) DO UPDATE SET role = excluded.role, inviter = excluded.inviter
        """,
        [organization.id, email, role, caller.email],
    )
    await _note(conn, caller, organization, "member.invited", email, role=role)


async def list_invitations(conn: AsyncConnection[Any], organization: Organization) -> list[Invitation]:
    """Those of the organisation that wait for an answer."""
    cursor = conn.cursor(row_factory=class_row(Invitation))
    await cursor.execute(
        _INVITATIONS + "WHERE invitation.organization_id = %s ORDER BY invitation.id", [organization.id]
    )
    return await cursor.fetchall()


async def list_invitations_of(conn: AsyncConnection[Any], account: Account) -> list[Invitation]:
    """Those that wait for the account's answer."""
    cursor = conn.cursor(row_factory=class_row(Invitation))
    await cursor.execute(
        _INVITATIONS + "WHERE lower(invitation.email) = lower(%s) ORDER BY invitation.id", [account.email]
    )
    return await cursor.fetchall()


async def withdraw_invitation(
    conn: AsyncConnection[Any], caller: Account, organization: Organization, invitation_id: int
) -> None:
    """Raises NotFound."""
    for invitation in await list_invitations(conn, organization):
        if invitation.id == invitation_id:
            await conn.execute("DELETE FROM invitation WHERE id = %s", [invitation_id])
            await _note(conn, caller, organization, "invitation.withdrawn", invitation.email)
            return
    raise NotFound(f"No invitation with id {invitation_id:024x} in this organisation.")


async def answer_invitation(
    conn: AsyncConnection[Any], account: Account, invitation_id: int, *, accept: bool
) -> Invitation:
    """Raises NotFound for one that is not the account's."""
    cursor = conn.cursor(row_factory=class_row(Invitation))
    await cursor.execute(
        """
        DELETE FROM invitation USING organization
        WHERE organization.id = invitation.organization_id AND invitation.id = %s
            AND lower(invitation.email) = lower(%s)
        RETURNING
            invitation.id, invitation.organization_id, organization.name AS organization_name, invitation.email,
            invitation.role, invitation.inviter, invitation.created_at
        """,
        [invitation_id, account.email],
    )
    invitation = await cursor.fetchone()
    if invitation is None:
        raise NotFound(f"No invitation of yours with id {invitation_id:024x}.")
    if accept:
        await organizations.add_member(conn, invitation.organization_id, account, invitation.role)
    await audit.record(
        conn,
        account,
        "member.added" if accept else "invitation.declined",
        account.email,
        organization_id=invitation.organization_id,
        role=invitation.role,
        inviter=invitation.inviter,
    )
    return invitation
