"""What to make in a cloud account so that a driver's bucket tells what happens in it."""

from typing import Annotated

from fastapi import APIRouter, Query

from headwater.api.caller import Base, Caller, DriverId, Origin, ServerDep, needs
from headwater.api.drivers import visible
from headwater.api.hooks import hook_url
from headwater.catalog import projects
from headwater.catalog.sync import upstream
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
        known = await upstream.load_events(conn, driver.id)
    account = await server.place.places.clouds.account_of(driver) if cloud == "azure" else ""
    hook = hook_url(server.signer, base, driver.id, known.generation)
    source = wire.source(driver, account=account, hook=hook, audience=origin)
    return wire.answer(source, via, format_, is_on=known.is_on)
