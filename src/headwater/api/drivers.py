"""Storage drivers: one folder of one bucket, as one project sees it."""

from typing import Annotated

from fastapi import APIRouter, Query

from headwater.api.caller import Caller, Connection, DriverId, Origin, Server, ServerDep, needs
from headwater.catalog import audit, drivers, integrations, notices, organizations, projects
from headwater.catalog.accounts import Account
from headwater.catalog.drivers import Driver, NewDriver, sends_its_credentials
from headwater.catalog.integrations import Integration
from headwater.catalog.projects import Project
from headwater.errors import Conflict, Forbidden, HeadwaterError, NotFound
from headwater.ids import from_wire
from headwater.net.addresses import check_endpoint
from headwater.wire import checks as wire_checks
from headwater.wire import drivers as wire
from headwater.work import checks
from headwater.work.places import folder_of

router = APIRouter(prefix="/drivers", tags=["drivers"])


@router.post("", openapi_extra=needs("manage_drivers"))
async def create_driver(body: wire.NewDriverBody, caller: Caller, server: ServerDep, origin: Origin) -> wire.DriverJson:
    """What the driver needs is tried on the bucket first; one that may not list, read and write is not kept.

    No connection is held meanwhile: a bucket may take its time. The same driver asked for again is the one there is.
    """
    try:
        return await _make_driver(body, caller, server, origin)
    except Conflict:  # another request was quicker: the same one, perhaps
        async with server.place.pool.connection() as conn:
            project, new = await asked(conn, server, caller, body)
            same = await drivers.find_same(conn, project.id, new)
        if same is None:
            raise
        return wire.driver(same)


async def _make_driver(body: wire.NewDriverBody, caller: Account, server: Server, origin: str) -> wire.DriverJson:
    pool = server.place.pool
    async with pool.connection() as conn:
        project, new = await asked(conn, server, caller, body)
        if (same := await drivers.find_same(conn, project.id, new)) is not None:
            return wire.driver(same)
        driver = await imagined(conn, caller, project, new)
    report = await checks.check_new(server.place, driver, origin=origin, limits=limits_of(server))
    async with pool.connection() as conn:
        project, new = await asked(conn, server, caller, body)
        if (same := await drivers.find_same(conn, project.id, new)) is not None:
            return wire.driver(same)
        made = await drivers.create_driver(conn, caller, project.id, new)
        await drivers.keep_report(conn, made.id, wire_checks.report(report))
        await _note(conn, caller, "driver.created", made, project.organization_id)
        await _tell_of_deletion(conn, caller, made, project)
        return wire.driver(await drivers.get_driver(conn, made.id))


async def asked(
    conn: Connection, server: Server, caller: Account, body: wire.NewDriverBody
) -> tuple[projects.Project, NewDriver]:
    """What a request wants to be made, if the caller may. Raises HeadwaterError."""
    project = await projects.get_project(conn, caller, body.project_id, "manage_drivers")
    used = await integrations.get_integration(
        conn, project.organization_id, from_wire(body.integration_id, "integration")
    )
    is_folder = used.kind in ("hostPath", "nfs")
    folder = folder_of(server.settings, used.kind, used.metadata) if is_folder else None
    new = wire.new_driver(body, used, folder)
    if new.endpoint:
        check_endpoint(new.endpoint, allow_private=server.settings.allow_private_endpoints)
    if new.endpoint != (used.metadata.get("endpoint") or None) and sends_its_credentials(new.kind):
        await _may_name_endpoints(conn, caller, project, used)
    return project, new


async def _may_name_endpoints(conn: Connection, caller: Account, project: Project, used: Integration) -> None:
    """Who may use an integration may not read its secret, so does not say where it is sent. Raises Forbidden."""
    try:
        await organizations.get_organization(conn, caller, project.organization_id, "manage_integrations")
    except HeadwaterError:
        raise Forbidden(
            f"What opens the buckets of integration {used.name!r} is sent to the driver's endpoint, so only owners and "
            "admins of the organisation name one. Ask them to set it in the integration's metadata, and leave it out."
        ) from None


def limits_of(server: Server) -> checks.Limits:
    return checks.Limits.within(server.settings.check_timeout_s)


async def imagined(conn: Connection, caller: Account, project: projects.Project, new: NewDriver) -> Driver:
    """The driver as it would be. Raises Conflict when its name is taken, which is found out here."""
    async with conn.transaction(force_rollback=True):
        return await drivers.create_driver(conn, caller, project.id, new)


async def _note(conn: Connection, caller: Account, action: str, driver: Driver, organization_id: int) -> None:
    await audit.record(
        conn,
        caller,
        action,
        driver.name,
        organization_id=organization_id,
        project_id=driver.project_id,
        kind=driver.kind,
        bucket=driver.root,
        folder=driver.prefix,
        allow_delete=driver.asks_delete,
        read_only=driver.read_only,
    )


async def _tell_of_deletion(conn: Connection, caller: Account, driver: Driver, project: projects.Project) -> None:
    """The SDK allows deletion unless told otherwise, so owners hear of it."""
    if not driver.asks_delete:
        return
    forbidden = " Your organisation forbids that, so none is deleted." if not driver.allow_delete else ""
    await notices.tell_owners(
        conn,
        project.organization_id,
        "warning",
        f"Driver {driver.name} of project {project.name} may delete",
        f"{caller.email} allowed that deleting an item deletes its object in {driver.root}/{driver.prefix}.{forbidden} "
        f"To change it: headwater driver update {driver.name!r} --no-allow-delete",
        project_id=project.id,
    )


@router.get("", openapi_extra=needs("read"))
async def list_drivers(
    project_id: Annotated[str, Query(alias="projectId")], caller: Caller, conn: Connection
) -> list[wire.DriverJson]:
    project = await projects.get_project(conn, caller, from_wire(project_id, "project"))
    return [wire.driver(found) for found in await drivers.list_drivers(conn, project.id)]


@router.get("/{driver_id}", openapi_extra=needs("read"))
async def read_driver(driver_id: DriverId, caller: Caller, conn: Connection) -> wire.DriverJson:
    return wire.driver(await visible(conn, caller, driver_id))


@router.patch("/{driver_id}", openapi_extra=needs("manage_drivers"))
async def update_driver(
    driver_id: DriverId, body: wire.DriverPatch, caller: Caller, conn: Connection
) -> wire.DriverJson:
    """Its name, whether it deletes, its storage class. Uses of it that run take the change over within seconds."""
    driver = await visible(conn, caller, driver_id)
    project = await projects.get_project(conn, caller, driver.project_id, "manage_drivers")
    changed = await drivers.update_driver(conn, driver, body.change(driver))
    await _note(conn, caller, "driver.changed", changed, project.organization_id)
    if not driver.asks_delete:
        await _tell_of_deletion(conn, caller, changed, project)
    return wire.driver(changed)


@router.delete("/{driver_id}", openapi_extra=needs("manage_drivers"))
async def delete_driver(driver_id: DriverId, caller: Caller, conn: Connection) -> dict[str, bool]:
    """The bucket is not touched."""
    driver = await visible(conn, caller, driver_id)
    project = await projects.get_project(conn, caller, driver.project_id, "manage_drivers")
    await drivers.delete_driver(conn, driver)
    await _note(conn, caller, "driver.deleted", driver, project.organization_id)
    return {"success": True}


async def visible(conn: Connection, caller: Caller, driver_id: int) -> Driver:
    """Raises NotFound, in the same words for one that is not there and one that is not the caller's."""
    driver = await drivers.get_driver(conn, driver_id)
    try:
        await projects.get_project(conn, caller, driver.project_id)
    except NotFound:
        raise NotFound(f"No storage driver with id {driver_id:024x}.") from None
    return driver
