"""Projects: they own drivers and datasets; every right is a role in one."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from psycopg import AsyncConnection
from psycopg.errors import UniqueViolation
from psycopg.rows import class_row
from psycopg.sql import SQL

from headwater.catalog import accounts, audit, organizations, rights
from headwater.catalog.accounts import Account, Kind
from headwater.catalog.names import checked_name
from headwater.catalog.organizations import Organization
from headwater.errors import Conflict, Forbidden, NotFound


@dataclass(frozen=True, slots=True)
class Project:
    id: int
    name: str
    organization_id: int
    organization_name: str
    creator: str
    created_at: datetime
    updated_at: datetime
    role: rights.Role  # of the account that asked


@dataclass(frozen=True, slots=True)
class Contributor:
    id: int
    email: str
    role: rights.Role
    created_at: datetime
    kind: Kind
    name: str | None


# A project is visible to its members, and to owners and admins of its organisation, who count as its owners.
_SELECT = """
SELECT
    project.id, project.name, project.organization_id, organization.name AS organization_name,
    creator.email AS creator, project.created_at, project.updated_at,
    CASE WHEN member.role IN ('owner', 'admin') THEN 'owner' ELSE project_member.role END AS role
FROM project
JOIN organization ON organization.id = project.organization_id
JOIN account AS creator ON creator.id = project.creator_id
LEFT JOIN member
    ON member.organization_id = project.organization_id AND member.account_id = %(account_id)s
LEFT JOIN project_member
    ON project_member.project_id = project.id AND project_member.account_id = %(account_id)s
WHERE project.deleted_at IS NULL AND (member.role IN ('owner', 'admin') OR project_member.role IS NOT NULL)
"""

# Their ids, for statements of others that want no more than these.
READABLE = SQL(
    """
    SELECT project.id
    FROM project
    LEFT JOIN member ON member.organization_id = project.organization_id AND member.account_id = %(account_id)s
    LEFT JOIN project_member
        ON project_member.project_id = project.id AND project_member.account_id = %(account_id)s
    WHERE project.deleted_at IS NULL AND (member.role IN ('owner', 'admin') OR project_member.role IS NOT NULL)
    """
)


async def create_project(
    conn: AsyncConnection[Any], caller: Account, name: str, *, organization_id: int | None = None
) -> Project:
    """In this organisation, or in the first where the caller may. Raises Conflict, BadRequest, NotFound, Forbidden."""
    name = checked_name(name, "project")
    organization = await _organization_for_project(conn, caller, organization_id)
    try:
        async with conn.transaction():
            cursor = await conn.execute(
                "INSERT INTO project (organization_id, name, creator_id) VALUES (%s, %s, %s) RETURNING id",
                [organization.id, name, caller.id],
            )
    except UniqueViolation:
        raise Conflict(f"There is a project named {name!r} already.") from None
    row = await cursor.fetchone()
    assert row is not None
    await conn.execute(
        "INSERT INTO project_member (project_id, account_id, role) VALUES (%s, %s, 'owner')", [row[0], caller.id]
    )
    await _create_binaries(conn, row[0], caller)
    await record(conn, caller, row[0], "project.created", name, owner=caller.email)
    return await get_project(conn, caller, row[0])


async def _create_binaries(conn: AsyncConnection[Any], project_id: int, creator: Account) -> None:
    """The dataset of what is no data: see `datasets.get_binaries`."""
    await conn.execute(
        """
        WITH made AS (
            INSERT INTO dataset (project_id, name, creator_id, is_system) VALUES (%s, 'Binaries', %s, true)
            RETURNING id
        )
        INSERT INTO dataset_counter (dataset_id) SELECT id FROM made
        """,
        [project_id, creator.id],
    )


async def _organization_for_project(
    conn: AsyncConnection[Any], caller: Account, organization_id: int | None
) -> Organization:
    if organization_id is not None:
        return await organizations.get_organization(conn, caller, organization_id, "create_project")
    for organization in await organizations.list_organizations(conn, caller):
        if rights.may_in_organization(organization.roles, organization.project_roles, "create_project"):
            return organization
    raise Forbidden("You may create projects in none of your organisations. Ask an owner or admin of one to do it.")


async def list_projects(conn: AsyncConnection[Any], caller: Account) -> list[Project]:
    cursor = conn.cursor(row_factory=class_row(Project))
    await cursor.execute(_SELECT + "ORDER BY project.id", {"account_id": caller.id})
    return await cursor.fetchall()


async def find_projects(conn: AsyncConnection[Any], caller: Account, name: str) -> list[Project]:
    """Raises NotFound when there is none."""
    cursor = conn.cursor(row_factory=class_row(Project))
    await cursor.execute(
        _SELECT + "AND project.name = %(name)s ORDER BY project.id", {"account_id": caller.id, "name": name}
    )
    found = await cursor.fetchall()
    if not found:
        raise NotFound(f"No project named {name!r}.")
    return found


async def get_project(
    conn: AsyncConnection[Any], caller: Account, project_id: int, right: rights.Right = "read"
) -> Project:
    """Raises NotFound, or Forbidden for one that the caller may see but not use so."""
    cursor = conn.cursor(row_factory=class_row(Project))
    await cursor.execute(
        _SELECT + "AND project.id = %(project_id)s", {"account_id": caller.id, "project_id": project_id}
    )
    project = await cursor.fetchone()
    if project is None:
        raise NotFound(f"No project with id {project_id:024x}.")
    rights.require(project.role, right)
    return project


async def rename_project(conn: AsyncConnection[Any], project: Project, name: str) -> None:
    """Raises Conflict, BadRequest."""
    name = checked_name(name, "project")
    try:
        async with conn.transaction():
            await conn.execute("UPDATE project SET name = %s, updated_at = now() WHERE id = %s", [name, project.id])
    except UniqueViolation:
        raise Conflict(f"There is a project named {name!r} already.") from None


async def delete_project(conn: AsyncConnection[Any], project: Project) -> list[int]:
    """Out of sight at once, with its datasets; the rows go in jobs. Returns the ids of the datasets.

    Objects in buckets are not touched.
    """
    await conn.execute("UPDATE project SET deleted_at = now() WHERE id = %s", [project.id])
    cursor = await conn.execute(
        """
        UPDATE dataset
        SET deleted_at = now()
        WHERE project_id = %s AND deleted_at IS NULL
        RETURNING id
        """,
        [project.id],
    )
    return [dataset_id for (dataset_id,) in await cursor.fetchall()]


async def forget_project(conn: AsyncConnection[Any], project_id: int) -> None:
    """Remove the row of a deleted project that has no dataset left. Safe to repeat.

    One after the other: of two purges that end at once, one has to find itself to be the last.
    """
    await conn.execute("SELECT pg_advisory_xact_lock(hashtext('headwater forgets a project'))")
    await conn.execute(
        """
        DELETE FROM project
        WHERE id = %(id)s AND deleted_at IS NOT NULL
            AND NOT EXISTS (SELECT FROM dataset WHERE project_id = %(id)s)
        """,
        {"id": project_id},
    )
    for table in (SQL("recipe"), SQL("ontology")):  # which may belong to other projects, too
        await conn.execute(
            SQL(
                """
                DELETE FROM {table}
                WHERE project_ids @> ARRAY[%s]::bigint[]
                    AND NOT EXISTS (SELECT FROM project WHERE project.id = ANY({table}.project_ids))
                """
            ).format(table=table),
            [project_id],
        )


async def list_contributors(conn: AsyncConnection[Any], project_ids: list[int]) -> dict[int, list[Contributor]]:
    cursor = await conn.execute(
        """
        SELECT
            project_member.project_id, account.id, account.email, project_member.role, account.created_at,
            account.kind, account.name
        FROM project_member
        JOIN account ON account.id = project_member.account_id
        WHERE project_member.project_id = ANY(%s)
        ORDER BY account.id
        """,
        [project_ids],
    )
    found: dict[int, list[Contributor]] = {project_id: [] for project_id in project_ids}
    for project_id, *contributor in await cursor.fetchall():
        found[project_id].append(Contributor(*contributor))
    return found


async def change_member(
    conn: AsyncConnection[Any], caller: Account, project: Project, email: str, role: rights.Role
) -> None:
    """Add a member of the organisation, or give one another role.

    Raises NotFound, Conflict for the last owner, Forbidden for what would give a bot more than who may make its keys.
    """
    account = await accounts.find_account(conn, email)
    if account is None or not await organizations.is_member(conn, project.organization_id, account):
        raise NotFound(f"No account {email} in this organisation. Add one: headwater user add {email}")
    if account.kind == "bot" and (role == "owner" or not await _is_made_in(conn, project, account)):
        raise Forbidden(
            "A bot works in the project it was made in, and is no owner there: the developers of that project make its "
            "keys, and act with its rights. Make a bot in this project instead."
        )
    before = await _lock_role(conn, project, account)
    if before == role:
        return
    if before == "owner":
        await _require_another_owner(conn, project, account)
    await set_member(conn, project.id, account, role)
    action = "project_member.added" if before is None else "project_member.changed"
    await record(conn, caller, project.id, action, account.email, project=project.name, role=role, before=before)


async def _is_made_in(conn: AsyncConnection[Any], project: Project, bot: Account) -> bool:
    cursor = await conn.execute("SELECT FROM account WHERE id = %s AND bot_project_id = %s", [bot.id, project.id])
    return await cursor.fetchone() is not None


async def drop_member(conn: AsyncConnection[Any], caller: Account, project: Project, email: str) -> None:
    """Raises NotFound, Conflict for the last owner."""
    account = await accounts.find_account(conn, email)
    before = None if account is None else await _lock_role(conn, project, account)
    if account is None or before is None:
        raise NotFound(f"{email} is not a member of this project.")
    if before == "owner":
        await _require_another_owner(conn, project, account)
    await remove_member(conn, project.id, account)
    await record(conn, caller, project.id, "project_member.removed", account.email, project=project.name, before=before)


async def _lock_role(conn: AsyncConnection[Any], project: Project, account: Account) -> rights.Role | None:
    """The account's role as no other transaction can change it: changes of a project's members take turns."""
    await conn.execute("SELECT FROM project WHERE id = %s FOR NO KEY UPDATE", [project.id])
    cursor = await conn.execute(
        "SELECT role FROM project_member WHERE project_id = %s AND account_id = %s", [project.id, account.id]
    )
    row = await cursor.fetchone()
    return None if row is None else row[0]


async def _require_another_owner(conn: AsyncConnection[Any], project: Project, account: Account) -> None:
    cursor = await conn.execute(
        "SELECT FROM project_member WHERE project_id = %s AND account_id <> %s AND role = 'owner' LIMIT 1",
        [project.id, account.id],
    )
    if await cursor.fetchone() is None:
        raise Conflict("A project needs an owner. Make somebody else its owner first.")


async def record(
    conn: AsyncConnection[Any], caller: Account, project_id: int, action: str, target: str, **details: Any
) -> None:
    """A line in the audit log of the project's organisation."""
    cursor = await conn.execute("SELECT organization_id FROM project WHERE id = %s", [project_id])
    row = await cursor.fetchone()
    assert row is not None
    await audit.record(conn, caller, action, target, organization_id=row[0], project_id=project_id, **details)


async def set_member(conn: AsyncConnection[Any], project_id: int, account: Account, role: rights.Role) -> None:
    await conn.execute(
        """
        INSERT INTO project_member (project_id, account_id, role)
        VALUES (%s, %s, %s)
        ON CONFLICT (project_id, account_id) DO UPDATE SET role = excluded.role
        """,
        [project_id, account.id, role],
    )


async def remove_member(conn: AsyncConnection[Any], project_id: int, account: Account) -> bool:
    """False when the account was not a member."""
    cursor = await conn.execute(
        "DELETE FROM project_member WHERE project_id = %s AND account_id = %s", [project_id, account.id]
    )
    return bool(cursor.rowcount)
