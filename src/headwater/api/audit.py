"""The audit log of an organisation."""

from typing import Annotated

from fastapi import APIRouter, Query

from headwater.api.caller import Caller, Connection, OrganizationId, needs
from headwater.catalog import audit, organizations
from headwater.ids import from_wire
from headwater.wire import accounts as wire

router = APIRouter(tags=["audit"])


@router.get("/orgs/{organization_id}/audit", openapi_extra=needs("read_audit"))
async def list_entries(
    organization_id: OrganizationId,
    caller: Caller,
    conn: Connection,
    before: Annotated[str | None, Query(description="The id of the last entry of the page before.")] = None,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
) -> list[wire.AuditEntryJson]:
    """Who changed what, the latest first."""
    organization = await organizations.get_organization(conn, caller, organization_id, "read_audit")
    before_id = None if before is None else from_wire(before, "audit entry")
    found = await audit.list_entries(conn, organization.id, before_id=before_id, limit=limit)
    return [wire.audit_entry(entry) for entry in found]
