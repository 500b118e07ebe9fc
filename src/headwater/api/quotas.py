"""Quotas of organisations, and what each project uses."""

from fastapi import APIRouter

from headwater.api.caller import Caller, Connection, OrganizationId, ProjectId, needs
from headwater.catalog import audit, organizations, projects, quotas
from headwater.catalog.accounts import Account
from headwater.wire import quotas as wire

router = APIRouter(tags=["quotas"])


@router.get("/orgs/{organization_id}/quota", openapi_extra=needs("read_quota"))
async def read_quota(organization_id: OrganizationId, caller: Caller, conn: Connection) -> wire.QuotaJson:
    """The limit, what is used by project and dataset, and what is left; `warning` says when that is little."""
    return await quota_for(conn, caller, organization_id)


async def quota_for(conn: Connection, caller: Account, organization_id: int) -> wire.QuotaJson:
    """Raises NotFound, Forbidden. The operator, who sees the numbers of all organisations, sees no names of theirs."""
    organization = await organizations.get_organization(conn, caller, organization_id, "read_quota")
    found = await quotas.load_quota(conn, organization.id)
    return wire.quota(organization.id, found, with_projects=not {"owner", "admin"}.isdisjoint(organization.roles))


@router.put("/orgs/{organization_id}/quota", openapi_extra=needs("manage_quota"))
async def set_quota(
    organization_id: OrganizationId, body: wire.QuotaBody, caller: Caller, conn: Connection
) -> wire.QuotaJson:
    """For the operator. A limit below what is used deletes nothing; nothing is added before there is room."""
    organization = await organizations.get_organization(conn, caller, organization_id, "manage_quota")
    before = await quotas.set_limit(conn, organization.id, body.limit)
    await audit.record(
        conn,
        caller,
        "quota.changed",
        organization.name,
        organization_id=organization.id,
        before=before,
        limit=body.limit,
    )
    return await quota_for(conn, caller, organization.id)


@router.get("/projects/{project_id}/usage", openapi_extra=needs("read"))
async def read_usage(project_id: ProjectId, caller: Caller, conn: Connection) -> wire.ProjectUseJson:
    """How many data points the project uses, by dataset."""
    project = await projects.get_project(conn, caller, project_id)
    return wire.project_use(await quotas.load_use(conn, project.id))
