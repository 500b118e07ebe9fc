"""What belongs to several projects at once, as recipes and ontologies do.

Members of any of its projects may see it; to change it, the right is needed in all of them. It goes with the last one.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from psycopg import AsyncConnection

from headwater.catalog import rights
from headwater.catalog.accounts import Account
from headwater.catalog.projects import READABLE
from headwater.errors import BadRequest, Forbidden, NotFound

MOST_PROJECTS = 100

Roles = Mapping[int, rights.Role | None]  # of an account in projects that there are; None: it may not know of this one


async def roles_in(conn: AsyncConnection[Any], caller: Account, project_ids: Sequence[int]) -> Roles:
    cursor = await conn.execute(
        """
        SELECT project.id,
            CASE WHEN member.role IN ('owner', 'admin') THEN 'owner' ELSE project_member.role END AS role
        FROM project
        LEFT JOIN member ON member.organization_id = project.organization_id AND member.account_id = %(account_id)s
        LEFT JOIN project_member
            ON project_member.project_id = project.id AND project_member.account_id = %(account_id)s
        WHERE project.deleted_at IS NULL AND project.id = ANY(%(project_ids)s)
        """,
        {"account_id": caller.id, "project_ids": list(project_ids)},
    )
    return dict(await cursor.fetchall())


def visible(roles: Roles, project_ids: Sequence[int]) -> list[int]:
    """Those that the caller may know of, in their order."""
    return [project_id for project_id in project_ids if roles.get(project_id) is not None]


def require(roles: Roles, right: rights.Right, noun: str) -> None:
    """For what lies in all these projects; some of which the caller sees. Raises Forbidden."""
    for role in roles.values():
        if role is not None:
            rights.require(role, right)
    if None in roles.values():
        raise Forbidden(
            f"This {noun} belongs to a project, too, that you are no member of, so you may not change it. Clone the "
            "recipe, and use and change the clone."
        )


async def checked_projects(
    conn: AsyncConnection[Any], caller: Account, project_ids: Sequence[int], right: rights.Right
) -> list[int]:
    """For something new in these projects. Raises BadRequest, NotFound, Forbidden."""
    wanted = list(dict.fromkeys(project_ids))
    if not 0 < len(wanted) <= MOST_PROJECTS:
        raise BadRequest(f"projectIds: name 1 to {MOST_PROJECTS} projects, not {len(wanted):,}.")
    roles = await roles_in(conn, caller, wanted)
    for project_id in wanted:
        role = roles.get(project_id)
        if role is None:
            raise NotFound(f"No project with id {project_id:024x}.")
        rights.require(role, right)
    return wanted


async def readable_projects(conn: AsyncConnection[Any], caller: Account) -> list[int]:
    cursor = await conn.execute(READABLE, {"account_id": caller.id})
    return [project_id for (project_id,) in await cursor.fetchall()]
