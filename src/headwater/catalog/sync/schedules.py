"""Schedules: when a dataset is synced by itself.

Cron expressions are those of Debian's cron, with its rules for the two days a year when clocks are set: a run whose
time is left out comes right after the gap, one whose time comes twice runs the first time; those of every hour or
every minute (`*` in front) go by the hours that really pass.
"""

import difflib
import zoneinfo
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from typing import Any, Literal

from cronsim import CronSim, CronSimError
from psycopg import AsyncConnection
from psycopg.rows import class_row

from headwater.errors import BadRequest

Outcome = Literal["started", "skipped", "refused"]

FAILURES_TO_TELL = 3
_LONGEST_CRON = 100
_NO_PLACES = frozenset({"localtime", "Factory"})  # another time on every machine, or none
_RIGHT = "Five fields: minute, hour, day of the month, month, day of the week; 0 3 * * * is every day at 03:00."


@dataclass(frozen=True, slots=True)
class Schedule:
    dataset_id: int
    cron: str
    timezone: str
    active: bool
    is_default: bool
    next_run_at: datetime | None
    last_run_at: datetime | None
    last_outcome: Outcome | None
    last_message: str | None
    last_command_id: int | None
    last_status: str | None  # of that command
    last_error: str | None
    failures: int


def checked_cron(text: str) -> str:
    """The expression with single spaces. Raises BadRequest."""
    cron = " ".join(text.split())
    if len(cron) > _LONGEST_CRON or len(cron.split()) != 5:
        raise BadRequest(f"{text[:_LONGEST_CRON]!r} is no cron expression. {_RIGHT}")
    try:
        next(CronSim(cron, datetime(2026, 1, 1)), None)  # noqa: DTZ001 - which year is all the same
    except CronSimError as error:
        raise BadRequest(f"{cron!r} is no cron expression: {str(error).lower()}. {_RIGHT}") from None
    return cron


def checked_timezone(name: str) -> str:
    """Raises BadRequest."""
    if name in _timezones():
        return name
    near = difflib.get_close_matches(name[:60], _timezones(), n=1)
    hint = f" Did you mean {near[0]}?" if near else " Names are like Europe/Berlin, America/New_York or UTC."
    raise BadRequest(f"There is no time zone {name[:60]!r}.{hint}")


@cache
def _timezones() -> frozenset[str]:
    return frozenset(zoneinfo.available_timezones()) - _NO_PLACES


def next_runs(cron: str, timezone: str, after: datetime, count: int = 1) -> list[datetime]:
    """The next ones after a moment; fewer where the expression names none for half a century. Raises BadRequest."""
    place = zoneinfo.ZoneInfo(checked_timezone(timezone))
    found: list[datetime] = []
    for run in CronSim(checked_cron(cron), after.astimezone(place)):
        # In an hour that comes twice, its first occurrence may be named again.
        if run > after.astimezone(place) and run.timestamp() > after.timestamp():
            found.append(run)
        if len(found) == count:
            break
    return found


def default_cron(dataset_id: int) -> str:
    """Once a day, at a time of its own: datasets are not all listed at once."""
    return f"{dataset_id * 37 % 60} {dataset_id * 7 % 24} * * *"


_SELECT = """
SELECT
    dataset_id, cron, timezone, active, is_default, next_run_at, last_run_at, last_outcome, last_message,
    last_command_id, (SELECT status FROM command WHERE command.id = last_command_id) AS last_status,
    (SELECT error FROM command WHERE command.id = last_command_id) AS last_error, failures
FROM schedule
"""


async def find_schedule(conn: AsyncConnection[Any], dataset_id: int) -> Schedule | None:
    cursor = conn.cursor(row_factory=class_row(Schedule))
    await cursor.execute(_SELECT + "WHERE dataset_id = %s", [dataset_id])
    return await cursor.fetchone()


async def set_schedule(
    conn: AsyncConnection[Any], dataset_id: int, *, cron: str, timezone: str, active: bool
) -> Schedule:
    """Raises BadRequest."""
    cron, timezone = checked_cron(cron), checked_timezone(timezone)
    await conn.execute(
        """
        INSERT INTO schedule (dataset_id, cron, timezone, active, next_run_at)
        VALUES (%(dataset_id)s, %(cron)s, %(timezone)s, %(active)s, %(next_run_at)s)
        ON CONFLICT (dataset_id) DO UPDATE
        SET cron = excluded.cron, timezone = excluded.timezone, active = excluded.active, is_default = false,
            next_run_at = excluded.next_run_at, failures = 0
        """,
        {
            "dataset_id": dataset_id,
            "cron": cron,
            "timezone": timezone,
            "active": active,
            "next_run_at": await _next(conn, cron, timezone) if active else None,
        },
    )
    found = await find_schedule(conn, dataset_id)
    assert found is not None
    return found


async def forget_schedule(conn: AsyncConnection[Any], dataset_id: int) -> bool:
    """Whether there was one."""
    cursor = await conn.execute("DELETE FROM schedule WHERE dataset_id = %s", [dataset_id])
    return cursor.rowcount > 0


async def database_time(conn: AsyncConnection[Any]) -> datetime:
    """Which all workers share; their own clocks may differ."""
    cursor = await conn.execute("SELECT clock_timestamp()")
    row = await cursor.fetchone()
    assert row is not None
    return row[0]


async def _next(conn: AsyncConnection[Any], cron: str, timezone: str) -> datetime | None:
    runs = next_runs(cron, timezone, await database_time(conn))
    return runs[0] if runs else None


async def take_due(conn: AsyncConnection[Any]) -> Schedule | None:
    """One that is due, locked until this transaction ends; what others hold is passed over."""
    cursor = conn.cursor(row_factory=class_row(Schedule))
    await cursor.execute(
        _SELECT
        + """
        WHERE next_run_at <= clock_timestamp()
            AND EXISTS (
                SELECT
                FROM dataset
                WHERE dataset.id = dataset_id AND dataset.deleted_at IS NULL AND dataset.origin IS NULL
            )
        ORDER BY next_run_at
        LIMIT 1
        FOR UPDATE SKIP LOCKED
        """
    )
    return await cursor.fetchone()


async def note_run(
    conn: AsyncConnection[Any],
    schedule: Schedule,
    outcome: Outcome,
    *,
    message: str | None = None,
    command_id: int | None = None,
) -> None:
    """What became of a run that was due, and when the next one is: from now on, however many were missed."""
    try:
        next_run_at = await _next(conn, schedule.cron, schedule.timezone)
    except BadRequest as error:  # a newer release may know it no more
        next_run_at, message = None, str(error)
    await conn.execute(
        """
        UPDATE schedule
        SET next_run_at = %s, last_run_at = clock_timestamp(), last_outcome = %s, last_message = %s,
            last_command_id = coalesce(%s, last_command_id), is_awaited = is_awaited OR %s
        WHERE dataset_id = %s
        """,
        [
            next_run_at,
            outcome,
            message,
            command_id,
            command_id is not None,
            schedule.dataset_id,
        ],
    )


@dataclass(frozen=True, slots=True)
class Failing:
    """A schedule whose syncs failed so often in a row that people should know."""

    dataset_id: int
    project_id: int
    dataset_name: str
    command_id: int
    error: str | None


async def judge_ended(conn: AsyncConnection[Any]) -> list[Failing]:
    """Count the failures of scheduled syncs that have ended since; who just failed for the third time is returned.

    A sync that somebody aborted counts as neither.
    """
    cursor = conn.cursor(row_factory=class_row(Failing))
    await cursor.execute(
        """
        WITH ended AS (
            SELECT schedule.dataset_id, command.id AS command_id, command.status, command.error
            FROM schedule
            JOIN command ON command.id = schedule.last_command_id
            WHERE schedule.is_awaited AND command.status NOT IN ('created', 'in-progress')
            FOR UPDATE OF schedule SKIP LOCKED
        ), judged AS (
            UPDATE schedule
            SET is_awaited = false, failures = CASE
                WHEN ended.status = 'success' THEN 0
                WHEN ended.status IN ('failed', 'timeout') THEN failures + 1
                ELSE failures
            END
            FROM ended
            WHERE schedule.dataset_id = ended.dataset_id AND schedule.is_awaited
                AND schedule.last_command_id = ended.command_id
            RETURNING schedule.dataset_id, schedule.failures, ended.command_id, ended.status, ended.error
        )
        SELECT judged.dataset_id, dataset.project_id, dataset.name AS dataset_name, judged.command_id, judged.error
        FROM judged
        JOIN dataset ON dataset.id = judged.dataset_id
        WHERE judged.failures = %s AND judged.status IN ('failed', 'timeout')
        ORDER BY judged.dataset_id
        """,
        [FAILURES_TO_TELL],
    )
    return await cursor.fetchall()


_FOLLOWS = """
dataset.deleted_at IS NULL AND dataset.auto_sync AND dataset.origin IS NULL
AND EXISTS (SELECT FROM driver_events WHERE driver_events.driver_id = dataset.driver_id AND driver_events.is_on)
"""


async def keep_defaults(conn: AsyncConnection[Any]) -> int:
    """Datasets that follow the events of their bucket are synced once a day, too: that finds what events missed.

    Such a schedule goes with the events; one that people have set stays theirs. Returns how many were made.
    """
    await conn.execute(
        "DELETE FROM schedule WHERE is_default AND dataset_id NOT IN (SELECT dataset.id FROM dataset WHERE "
        + _FOLLOWS
        + ")"
    )
    cursor = await conn.execute(
        "SELECT dataset.id FROM dataset WHERE "
        + _FOLLOWS
        + " AND NOT EXISTS (SELECT FROM schedule WHERE schedule.dataset_id = dataset.id) ORDER BY dataset.id LIMIT 1000"
    )
    found = [dataset_id for (dataset_id,) in await cursor.fetchall()]
    for dataset_id in found:
        cron = default_cron(dataset_id)
        await conn.execute(
            """
            INSERT INTO schedule (dataset_id, cron, timezone, is_default, next_run_at)
            VALUES (%s, %s, 'UTC', true, %s)
            ON CONFLICT (dataset_id) DO NOTHING
            """,
            [dataset_id, cron, await _next(conn, cron, "UTC")],
        )
    return len(found)
