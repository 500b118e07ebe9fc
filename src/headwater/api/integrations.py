"""Integrations: an organisation's credentials for outside services."""

from fastapi import APIRouter

from headwater.api.caller import Base, Caller, Connection, IntegrationId, OrganizationId, ServerDep, needs
from headwater.catalog import integrations, organizations
from headwater.net.addresses import check_endpoint
from headwater.wire import integrations as wire
from headwater.work.places import checked_folder

router = APIRouter(prefix="/orgs/{organization_id}", tags=["integrations"])


@router.post("/integrations", openapi_extra=needs("manage_integrations"))
async def create_integration(
    organization_id: OrganizationId,
    body: wire.NewIntegrationBody,
    caller: Caller,
    conn: Connection,
    server: ServerDep,
    base: Base,
) -> wire.IntegrationJson:
    """For owners and admins of the organisation. The options go into the vault and never come back."""
    organization = await organizations.get_organization(conn, caller, organization_id, "manage_integrations")
    metadata = body.metadata or {}
    wire.check_integration_metadata(metadata)
    if body.type == "hostPath":
        checked_folder(server.settings, metadata.get("path") or "")
    if metadata.get("endpoint"):
        check_endpoint(metadata["endpoint"], allow_private=server.settings.allow_private_endpoints)
    integration = await integrations.create_integration(
        conn,
        server.vault,
        caller,
        organization.id,
        name=body.name,
        kind=body.type,
        options=body.options or {},
        metadata=metadata,
    )
    return wire.integration(integration, base)


@router.get("/integrations", openapi_extra=needs("manage_integrations"))
async def list_integrations(
    organization_id: OrganizationId, caller: Caller, conn: Connection, base: Base
) -> list[wire.IntegrationJson]:
    organization = await organizations.get_organization(conn, caller, organization_id, "manage_integrations")
    return [wire.integration(found, base) for found in await integrations.list_integrations(conn, organization.id)]


@router.get("/availableIntegrations", openapi_extra=needs("use_integrations"))
async def list_usable_integrations(
    organization_id: OrganizationId, caller: Caller, conn: Connection
) -> list[wire.UsableIntegrationJson]:
    """What developers need to make a driver: ids, names and types, and nothing else."""
    organization = await organizations.get_organization(conn, caller, organization_id, "use_integrations")
    return [wire.usable_integration(found) for found in await integrations.list_integrations(conn, organization.id)]


@router.get("/integrations/{integration_id}", openapi_extra=needs("manage_integrations"))
async def read_integration(
    organization_id: OrganizationId, integration_id: IntegrationId, caller: Caller, conn: Connection, base: Base
) -> wire.IntegrationJson:
    organization = await organizations.get_organization(conn, caller, organization_id, "manage_integrations")
    return wire.integration(await integrations.get_integration(conn, organization.id, integration_id), base)


@router.delete("/integrations/{integration_id}", openapi_extra=needs("manage_integrations"))
async def delete_integration(
    organization_id: OrganizationId, integration_id: IntegrationId, caller: Caller, conn: Connection
) -> dict[str, bool]:
    organization = await organizations.get_organization(conn, caller, organization_id, "manage_integrations")
    await integrations.delete_integration(
        conn, await integrations.get_integration(conn, organization.id, integration_id)
    )
    return {"success": True}
