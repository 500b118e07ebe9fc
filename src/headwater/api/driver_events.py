"""Automatic upstream: whether a driver's events are taken in, where to send them, how it goes."""

from fastapi import APIRouter

from headwater.api.caller import Base, Caller, Connection, DatasetId, DriverId, ServerDep, needs
from headwater.api.drivers import visible
from headwater.api.hooks import hook_url
from headwater.catalog import audit, datasets, projects, rights
from headwater.catalog.drivers import Driver
from headwater.catalog.projects import Project
from headwater.catalog.sync import upstream
from headwater.wire import driver_events as wire

router = APIRouter(tags=["bucket events"])


@router.get("/drivers/{driver_id}/events", openapi_extra=needs("read"))
async def read_events(
    driver_id: DriverId, caller: Caller, conn: Connection, server: ServerDep, base: Base
) -> wire.EventsJson:
    """The hook's address is shown to those who may manage the driver."""
    driver = await visible(conn, caller, driver_id)
    project = await projects.get_project(conn, caller, driver.project_id)
    known = await upstream.load_events(conn, driver.id)
    may_see = rights.may(project.role, "manage_drivers")
    hook = hook_url(server.signer, base, driver.id, known.generation) if known.is_on and may_see else None
    return wire.events(known, await upstream.followers_of(conn, driver.id), hook)


@router.patch("/drivers/{driver_id}/events", openapi_extra=needs("manage_drivers"))
async def change_events(
    driver_id: DriverId, body: wire.EventsPatch, caller: Caller, conn: Connection, server: ServerDep, base: Base
) -> wire.EventsJson:
    """Datasets of the driver follow its events while they are on, unless their own `autoSync` is off."""
    driver = await visible(conn, caller, driver_id)
    project = await projects.get_project(conn, caller, driver.project_id, "manage_drivers")
    if body.push_account is not None:
        await upstream.set_push_account(conn, driver.id, body.checked_account())
    if body.rotate:
        await upstream.rotate(conn, driver.id)
    if body.on is not None:
        await upstream.switch(conn, driver.id, on=body.on)
    await _note(conn, caller, driver, project, body)
    return await read_events(driver_id, caller, conn, server, base)


async def _note(conn: Connection, caller: Caller, driver: Driver, project: Project, body: wire.EventsPatch) -> None:
    await audit.record(
        conn,
        caller,
        "driver.events.changed",
        driver.name,
        organization_id=project.organization_id,
        project_id=driver.project_id,
        on=body.on,
        rotated=body.rotate,
        push_account=body.push_account,
    )


@router.put("/datasets/{dataset_id}/autoSync", openapi_extra=needs("manage_datasets"))
async def set_auto_sync(
    dataset_id: DatasetId, body: wire.AutoSyncBody, caller: Caller, conn: Connection
) -> dict[str, bool]:
    """Whether the dataset follows the events of its driver, while these are on."""
    dataset = await datasets.get_dataset(conn, caller, dataset_id, "manage_datasets")
    await upstream.set_auto_sync(conn, dataset.id, on=body.on)
    return {"on": body.on}
