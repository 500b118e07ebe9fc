"""What to make in a cloud account so that a driver's bucket tells what happens in it."""

from typing import Annotated

from fastapi import APIRouter, Query

from headwater.api.caller import Base, Caller, Connection, DriverId, Origin, ServerDep, needs
from headwater.api.drivers import visible
from headwater.catalog import projects
from headwater.catalog.drivers import Driver
from headwater.storage.event_setup.setup import Format, Via
from headwater.wire import event_setup as wire

router = APIRouter(prefix="/drivers", tags=["bucket events"])


@router.get("/{driver_id}/events/setup", openapi_extra=needs("manage_drivers"))
async def read_setup(
    driver_id: DriverId,
    caller: Caller,
    server: ServerDep,
    base: Base,
    origin: Origin,
    via: Annotated[Via | None, Query(description="By which way events come; the usual one by default.")] = None,
    format_: Annotated[Format, Query(alias="format")] = "commands",
) -> wire.SetupJson:
    """Commands, Terraform or the source of a small function, ready to run. It names the hook's secret address."""
    async with server.place.pool.connection() as conn:
        driver = await visible(conn, caller, driver_id)
        await projects.get_project(conn, caller, driver.project_id, "manage_drivers")
        cloud = wire.cloud_of(driver)
        hook = await _hook_of(conn, driver, base)
    account = await server.place.places.clouds.account_of(driver) if cloud == "azure" else ""
    return wire.answer(wire.source(driver, account=account, hook=hook, audience=origin), via, format_)


async def _hook_of(_conn: Connection, _driver: Driver, base: str) -> str:
    return f"{base}/hooks/ADDRESS"
