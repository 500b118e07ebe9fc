"""Schedules: when a dataset is synced by itself."""

from fastapi import APIRouter

from headwater import ids
from headwater.api.caller import Caller, Connection, DatasetId, needs
from headwater.catalog import datasets, projects
from headwater.catalog.sync import schedules
from headwater.wire import schedules as wire

router = APIRouter(prefix="/datasets", tags=["schedules"])


@router.get("/{dataset_id}/schedule", openapi_extra=needs("read"))
async def read_schedule(dataset_id: DatasetId, caller: Caller, conn: Connection) -> wire.ScheduleJson:
    """The next three runs and the last one. One that follows its bucket's events has a daily one by default."""
    dataset = await datasets.get_dataset(conn, caller, dataset_id)
    return await _shown(conn, dataset.id)


@router.put("/{dataset_id}/schedule", openapi_extra=needs("sync"))
async def set_schedule(
    dataset_id: DatasetId, body: wire.ScheduleBody, caller: Caller, conn: Connection
) -> wire.ScheduleJson:
    """A run that is due while the dataset syncs is skipped; those missed while no worker ran are made good by one."""
    dataset = await datasets.get_syncable(conn, caller, dataset_id)
    found = await schedules.set_schedule(conn, dataset.id, cron=body.cron, timezone=body.timezone, active=body.active)
    await projects.record(
        conn,
        caller,
        dataset.project_id,
        "schedule.changed",
        dataset.name,
        dataset_id=ids.to_wire(dataset.id),
        cron=found.cron,
        timezone=found.timezone,
        active=found.active,
    )
    return await _shown(conn, dataset.id)


@router.delete("/{dataset_id}/schedule", openapi_extra=needs("sync"))
async def forget_schedule(dataset_id: DatasetId, caller: Caller, conn: Connection) -> wire.ScheduleJson:
    """What is left: none, or the default of a dataset that follows its bucket's events. To have none, switch it off."""
    dataset = await datasets.get_syncable(conn, caller, dataset_id)
    if await schedules.forget_schedule(conn, dataset.id):
        await projects.record(
            conn, caller, dataset.project_id, "schedule.deleted", dataset.name, dataset_id=ids.to_wire(dataset.id)
        )
    return await _shown(conn, dataset.id)


async def _shown(conn: Connection, dataset_id: int) -> wire.ScheduleJson:
    await schedules.keep_defaults(conn)
    found = await schedules.find_schedule(conn, dataset_id)
    return wire.schedule(dataset_id, found, await schedules.database_time(conn))
