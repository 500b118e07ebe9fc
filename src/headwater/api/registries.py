"""Container registries of private-registry integrations: are the credentials good, what is there.

No connection to the database is held while a registry is asked.
"""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from fastapi import APIRouter

from headwater.api.caller import Caller, IntegrationId, OrganizationId, Server, ServerDep, needs
from headwater.catalog import integrations, organizations
from headwater.catalog.accounts import Account
from headwater.catalog.integrations import Integration
from headwater.errors import BadRequest
from headwater.registries.checks import check_registry
from headwater.registries.client import ContainerRegistry
from headwater.registries.opening import CHECK_WITHIN_S, open_registry
from headwater.wire import registries as wire
from headwater.work.credentials import Secrets

router = APIRouter(prefix="/orgs/{organization_id}/integrations/{integration_id}", tags=["integrations"])

_REGISTRY = "private-registry"
_LIST_WITHIN_S = 30  # 10,000 names may be 100 pages
_UNCHECKED = {"key_value": "A key_value integration is one secret for services: there is nothing to check."}
_OF_DRIVERS = "An integration of type {kind} is checked with each storage driver that uses it, bucket by bucket."


@router.post("/validate", openapi_extra=needs("manage_integrations"))
async def validate_integration(
    organization_id: OrganizationId, integration_id: IntegrationId, caller: Caller, server: ServerDep
) -> wire.ValidationJson:
    """Logs in to the registry and asks for its repositories. Other types of integrations have nothing checked here."""
    found, secret = await _read(server, caller, organization_id, integration_id)
    if found.kind != _REGISTRY:
        return wire.validation([], message=_UNCHECKED.get(found.kind) or _OF_DRIVERS.format(kind=found.kind))
    async with _opened(server, found, secret, within_s=CHECK_WITHIN_S) as registry:
        return wire.validation(await check_registry(registry), host=registry.host)


@router.get("/repositories", openapi_extra=needs("manage_integrations"))
async def list_repositories(
    organization_id: OrganizationId, integration_id: IntegrationId, caller: Caller, server: ServerDep
) -> wire.RepositoriesJson:
    """10,000 at most."""
    async with _opened(server, *await _read(server, caller, organization_id, integration_id)) as registry:
        return wire.repositories(registry.host, await registry.list_repositories())


@router.get("/repositories/{name:path}/tags", openapi_extra=needs("manage_integrations"))
async def list_tags(
    organization_id: OrganizationId, integration_id: IntegrationId, name: str, caller: Caller, server: ServerDep
) -> wire.TagsJson:
    """10,000 at most."""
    async with _opened(server, *await _read(server, caller, organization_id, integration_id)) as registry:
        return wire.tags(registry.host, name, await registry.list_tags(name))


async def _read(
    server: Server, caller: Account, organization_id: int, integration_id: int
) -> tuple[Integration, dict[str, str]]:
    """The integration and its secret, for those who may manage it."""
    async with server.place.pool.connection() as conn:
        organization = await organizations.get_organization(conn, caller, organization_id, "manage_integrations")
        found = await integrations.get_integration(conn, organization.id, integration_id)
    return found, await Secrets(server.place.pool, server.vault).read(found.id)


@asynccontextmanager
async def _opened(
    server: Server, found: Integration, secret: dict[str, str], *, within_s: float = _LIST_WITHIN_S
) -> AsyncGenerator[ContainerRegistry]:
    """Raises BadRequest for an integration of another type."""
    if found.kind != _REGISTRY:
        raise BadRequest(f"Integration {found.name!r} is of type {found.kind}; a {_REGISTRY} has repositories.")
    async with open_registry(
        secret, found.metadata, allow_private=server.settings.allow_private_endpoints, within_s=within_s
    ) as registry:
        yield registry
