"""Queues of events: which one a driver's events come through, and how reading it goes."""

from fastapi import APIRouter

from headwater.api.caller import Caller, Connection, DriverId, ServerDep, needs
from headwater.api.drivers import visible
from headwater.catalog import audit, organizations, projects
from headwater.catalog.drivers import Driver
from headwater.catalog.projects import Project
from headwater.catalog.sync import event_queues
from headwater.catalog.sync.event_queues import NewQueue
from headwater.errors import Forbidden, HeadwaterError
from headwater.net.addresses import check_endpoint
from headwater.storage.queues.sqs import SqsAddress
from headwater.wire import event_queues as wire

router = APIRouter(prefix="/drivers", tags=["bucket events"])


@router.get("/{driver_id}/events/queue", openapi_extra=needs("read"))
async def read_queue(driver_id: DriverId, caller: Caller, conn: Connection) -> wire.QueueJson:
    driver = await visible(conn, caller, driver_id)
    return wire.queue(driver.id, await event_queues.find_queue(conn, driver.id))


@router.put("/{driver_id}/events/queue", openapi_extra=needs("manage_drivers"))
async def set_queue(
    driver_id: DriverId, body: wire.QueueBody, caller: Caller, conn: Connection, server: ServerDep
) -> wire.QueueJson:
    """Workers read it with the driver's own integration while the driver's events are on."""
    driver = await visible(conn, caller, driver_id)
    project = await projects.get_project(conn, caller, driver.project_id, "manage_drivers")
    new = body.checked(driver)
    await _check_place(conn, caller, project, driver, new, allow_private=server.settings.allow_private_endpoints)
    found = await event_queues.set_queue(conn, driver.id, new)
    await _note(conn, caller, "driver.queue.changed", driver, project, queue=found.title, active=found.active)
    return wire.queue(driver.id, found)


async def _check_place(
    conn: Connection, caller: Caller, project: Project, driver: Driver, new: NewQueue, *, allow_private: bool
) -> None:
    """Requests to SQS are signed; those to Azure may carry what opens the account. Raises BadRequest, Forbidden."""
    if new.url is not None:
        check_endpoint(SqsAddress.parse(new.url, "us-east-1").endpoint, allow_private=allow_private)
    if new.endpoint is not None:
        check_endpoint(new.endpoint, allow_private=allow_private)
        try:
            await organizations.get_organization(conn, caller, project.organization_id, "manage_integrations")
        except HeadwaterError:
            raise Forbidden(
                f"What opens the account of driver {driver.name!r} is sent to the queue's endpoint, so only owners and "
                "admins of the organisation name one. Ask them, or leave it out for a queue at Azure itself."
            ) from None


@router.delete("/{driver_id}/events/queue", openapi_extra=needs("manage_drivers"))
async def forget_queue(driver_id: DriverId, caller: Caller, conn: Connection) -> wire.QueueJson:
    """The queue itself is not touched; it is no longer read."""
    driver = await visible(conn, caller, driver_id)
    project = await projects.get_project(conn, caller, driver.project_id, "manage_drivers")
    if await event_queues.forget_queue(conn, driver.id):
        await _note(conn, caller, "driver.queue.deleted", driver, project)
    return wire.queue(driver.id, None)


async def _note(
    conn: Connection, caller: Caller, action: str, driver: Driver, project: Project, **details: object
) -> None:
    await audit.record(
        conn,
        caller,
        action,
        driver.name,
        organization_id=project.organization_id,
        project_id=driver.project_id,
        **details,
    )
