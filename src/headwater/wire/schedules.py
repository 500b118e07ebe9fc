"""Schedules of datasets."""

from datetime import datetime

from pydantic import BaseModel, ConfigDict, Field
from typing_extensions import TypedDict

from headwater.catalog.sync.schedules import Schedule, next_runs
from headwater.ids import to_wire
from headwater.wire import times

_RUNS_SHOWN = 3


class ScheduleBody(BaseModel):
    model_config = ConfigDict(extra="forbid")

    cron: str = Field(description="Minute, hour, day of the month, month, day of the week: 0 3 * * *")
    timezone: str = Field(default="UTC", description="Whose clock that is: Europe/Berlin")
    active: bool = True


class LastRunJson(TypedDict):
    at: str
    outcome: str  # started, skipped, refused
    message: str | None
    commandId: str | None
    status: str | None  # of that command


class ScheduleJson(TypedDict):
    datasetId: str
    cron: str | None  # null: there is none
    timezone: str | None
    active: bool
    isDefault: bool
    nextRuns: list[str]
    lastRun: LastRunJson | None
    failures: int


def schedule(dataset_id: int, found: Schedule | None, now: datetime) -> ScheduleJson:
    if found is None:
        return ScheduleJson(
            datasetId=to_wire(dataset_id),
            cron=None,
            timezone=None,
            active=False,
            isDefault=False,
            nextRuns=[],
            lastRun=None,
            failures=0,
        )
    return ScheduleJson(
        datasetId=to_wire(dataset_id),
        cron=found.cron,
        timezone=found.timezone,
        active=found.active,
        isDefault=found.is_default,
        nextRuns=[times.to_wire(run) for run in _next_runs(found, now)],
        lastRun=_last_run(found),
        failures=found.failures,
    )


def _next_runs(found: Schedule, now: datetime) -> list[datetime]:
    if found.next_run_at is None:
        return []
    return next_runs(found.cron, found.timezone, now, _RUNS_SHOWN)


def _last_run(found: Schedule) -> LastRunJson | None:
    if found.last_run_at is None or found.last_outcome is None:
        return None
    has_command = found.last_outcome == "started" and found.last_command_id is not None
    return LastRunJson(
        at=times.to_wire(found.last_run_at),
        outcome=found.last_outcome,
        message=found.last_message or (found.last_error if has_command else None),
        commandId=to_wire(found.last_command_id) if has_command and found.last_command_id else None,
        status=found.last_status if has_command else None,
    )
