"""The permission X-ray: what a driver will do with its bucket, tried on it."""

from fastapi import APIRouter

from headwater.api.caller import Caller, DriverId, Origin, ServerDep, needs
from headwater.api.drivers import asked, imagined, limits_of, visible
from headwater.catalog import drivers, projects
from headwater.wire import checks as wire
from headwater.wire.drivers import NewDriverBody
from headwater.work import checks

router = APIRouter(prefix="/drivers", tags=["drivers"])


@router.post("/validate", openapi_extra=needs("manage_drivers"))
async def try_driver(body: NewDriverBody, caller: Caller, server: ServerDep, origin: Origin) -> wire.ReportJson:
    """The report that making this driver would begin with. Nothing is made, and nothing left in the bucket."""
    async with server.place.pool.connection() as conn:
        project, new = await asked(conn, server, caller, body)
        same = await drivers.find_same(conn, project.id, new)
        driver = await imagined(conn, caller, project, new) if same is None else same
    return wire.report(await checks.try_new(server.place, driver, origin=origin, limits=limits_of(server)))


@router.post("/{driver_id}/validate", openapi_extra=needs("manage_drivers"))
async def check_driver(driver_id: DriverId, caller: Caller, server: ServerDep, origin: Origin) -> wire.ReportJson:
    """Tries what is done with the bucket: list, get, put and the rest, in 12 requests and 3 seconds at most.

    The report says for each what failed, what the cloud called it, and the smallest policy that mends it. It is kept
    with the driver.
    """
    pool = server.place.pool
    async with pool.connection() as conn:
        driver = await visible(conn, caller, driver_id)
        await projects.get_project(conn, caller, driver.project_id, "manage_drivers")
    report = wire.report(await checks.check(server.place, driver, origin=origin, limits=limits_of(server)))
    async with pool.connection() as conn:
        await drivers.keep_report(conn, driver.id, report)
    return report
