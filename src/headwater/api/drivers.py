"""Storage drivers: one folder of one bucket, as one project sees it."""

from typing import Annotated

from fastapi import APIRouter, Query

from headwater.api.caller import Caller, Connection, DriverId, ServerDep
from headwater.catalog import drivers, integrations, projects
from headwater.catalog.drivers import Driver
from headwater.errors import NotFound
from headwater.ids import from_wire
from headwater.net.addresses import check_endpoint
from headwater.wire import drivers as wire

router = APIRouter(prefix="/drivers", tags=["drivers"])


@router.post("")
async def create_driver(body: wire.NewDriverBody, caller: Caller, server: ServerDep) -> wire.DriverJson:
    """The bucket is listed once to see that the driver works; one that does not is not kept.

    No connection is held meanwhile: a bucket may take its time, and opening one needs a connection itself.
    """
    pool = server.place.pool
    async with pool.connection() as conn:
        project = await projects.get_project(conn, caller, body.project_id, "manage_drivers")
        integration = await integrations.get_integration(
            conn, project.organization_id, from_wire(body.integration_id, "integration")
        )
        new = wire.new_driver(body, integration)
        if new.endpoint:
            check_endpoint(new.endpoint, allow_private=server.settings.allow_private_endpoints)
        async with conn.transaction(force_rollback=True):  # its name, too, is found out before the bucket is asked
            driver = await drivers.create_driver(conn, caller, project.id, new)
    store = server.place.places.open(driver)
    try:
        await store.check_listing()
    finally:
        await store.close()
    async with pool.connection() as conn:
        project = await projects.get_project(conn, caller, body.project_id, "manage_drivers")
        await integrations.get_integration(conn, project.organization_id, integration.id)
        return wire.driver(await drivers.create_driver(conn, caller, project.id, new))


@router.get("")
async def list_drivers(
    project_id: Annotated[str, Query(alias="projectId")], caller: Caller, conn: Connection
) -> list[wire.DriverJson]:
    project = await projects.get_project(conn, caller, from_wire(project_id, "project"))
    return [wire.driver(found) for found in await drivers.list_drivers(conn, project.id)]


@router.get("/{driver_id}")
async def read_driver(driver_id: DriverId, caller: Caller, conn: Connection) -> wire.DriverJson:
    return wire.driver(await _visible(conn, caller, driver_id))


@router.delete("/{driver_id}")
async def delete_driver(driver_id: DriverId, caller: Caller, conn: Connection) -> dict[str, bool]:
    """The bucket is not touched."""
    driver = await _visible(conn, caller, driver_id)
    await projects.get_project(conn, caller, driver.project_id, "manage_drivers")
    await drivers.delete_driver(conn, driver)
    return {"success": True}


async def _visible(conn: Connection, caller: Caller, driver_id: int) -> Driver:
    """Raises NotFound, in the same words for one that is not there and one that is not the caller's."""
    driver = await drivers.get_driver(conn, driver_id)
    try:
        await projects.get_project(conn, caller, driver.project_id)
    except NotFound:
        raise NotFound(f"No storage driver with id {driver_id:024x}.") from None
    return driver
