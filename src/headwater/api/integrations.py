"""Integrations: an organisation's credentials for outside services."""

from typing import Annotated

from fastapi import APIRouter, Query

from headwater.api.caller import Base, Caller, Connection, IntegrationId, OrganizationId, ServerDep, needs
from headwater.catalog import integrations, organizations
from headwater.ids import from_wire
from headwater.wire import integrations as wire
from headwater.work import secrets

router = APIRouter(prefix="/orgs/{organization_id}", tags=["integrations"])


@router.post("/integrations", openapi_extra=needs("manage_integrations"))
async def create_integration(
    organization_id: OrganizationId,
    body: wire.NewIntegrationBody,
    caller: Caller,
    server: ServerDep,
    base: Base,
) -> wire.IntegrationJson:
    """The options go into the vault and never come back. The same integration again is the one that is there."""
    wire.check_integration_metadata(body.metadata or {})
    made = await secrets.create_integration(
        server.place,
        server.settings,
        caller,
        organization_id,
        name=body.name,
        kind=body.type,
        options=body.options or {},
        metadata=body.metadata or {},
    )
    return wire.integration(made, base)


@router.patch("/integrations", openapi_extra=needs("manage_integrations"))
async def change_integration(
    organization_id: OrganizationId,
    body: wire.IntegrationChangeBody,
    caller: Caller,
    server: ServerDep,
    base: Base,
    _: Annotated[bool, Query(alias="reloadServices", description="Taken for yes: nothing has to be restarted.")] = True,
) -> wire.IntegrationJson:
    """Options and metadata replace what was there whole; running syncs and services take new secrets at once."""
    wire.check_integration_metadata(body.metadata or {})
    credentials = body.credentials
    changed = await secrets.change_integration(
        server.place,
        server.settings,
        caller,
        organization_id,
        from_wire(body.integration_id, "integration"),
        name=body.name,
        kind=credentials.type if credentials else None,
        options=credentials.options if credentials else None,
        metadata=body.metadata,
    )
    return wire.integration(changed, base)


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
    found = await integrations.get_integration(conn, organization.id, integration_id)
    await secrets.delete_integration(conn, caller, found)
    return {"success": True}
