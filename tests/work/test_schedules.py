"""Schedules: which moment a cron expression means, and that each run happens once, whoever runs it."""

import asyncio
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headwater.catalog import commands
from headwater.catalog.sync import scans, schedules
from headwater.errors import BadRequest
from headwater.work import schedules as running
from headwater.work import sync

BERLIN = "Europe/Berlin"


def utc(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def runs(cron: str, timezone: str, after: str, count: int) -> list[str]:
    found = schedules.next_runs(cron, timezone, utc(after), count)
    return [f"{run.astimezone(UTC):%m-%d %H:%M}" for run in found]


@pytest.mark.parametrize(("cron", "after", "expected"), [
    # Every day at 02:30, which Berlin leaves out on 2026-03-29: right after the gap.
    ("30 2 * * *", "2026-03-28T00:00", ["03-28 01:30", "03-29 01:00", "03-30 00:30"]),
    ("30 2 * * *", "2026-03-29T01:00", ["03-30 00:30", "03-31 00:30"]),
    # … and has twice on 2026-10-25: the first time only, also when one asks between the two.
    ("30 2 * * *", "2026-10-24T12:00", ["10-25 00:30", "10-26 01:30"]),
    ("30 2 * * *", "2026-10-25T00:45", ["10-26 01:30"]),
    ("30 2 * * *", "2026-10-25T01:15", ["10-26 01:30"]),
    # What runs every hour goes by the hours that pass.
    ("0 * * * *", "2026-10-24T23:30", ["10-25 00:00", "10-25 01:00", "10-25 02:00", "10-25 03:00"]),
    ("0 * * * *", "2026-03-29T00:30", ["03-29 01:00", "03-29 02:00"]),
])  # fmt: skip
def test_when_clocks_are_set_a_run_is_neither_lost_nor_doubled(cron: str, after: str, expected: list[str]) -> None:
    assert runs(cron, BERLIN, after, len(expected)) == expected


@given(
    minute=st.integers(0, 59),
    hour=st.integers(0, 23),
    zone=st.sampled_from([BERLIN, "America/New_York", "Australia/Lord_Howe", "Asia/Kolkata", "UTC", "Africa/Cairo"]),
    start=st.datetimes(datetime(2024, 1, 1), datetime(2030, 1, 1)),  # noqa: DTZ001 - hypothesis wants none
)
def test_a_daily_run_comes_once_on_every_day(minute: int, hour: int, zone: str, start: datetime) -> None:
    place = ZoneInfo(zone)
    after = start.replace(microsecond=0, tzinfo=UTC)
    found = []
    for _ in range(5):  # each asked for at the run before, as the worker does
        after = schedules.next_runs(f"{minute} {hour} * * *", zone, after)[0]
        found.append(after)
    days = [run.astimezone(place).date() for run in found]
    assert days == [days[0] + timedelta(days=i) for i in range(5)]


@pytest.mark.parametrize(("cron", "complaint"), [
    ("0 3 * *", "is no cron expression. Five fields"),
    ("0 0 3 * * *", "is no cron expression. Five fields"),
    ("@daily", "is no cron expression. Five fields"),
    ("61 3 * * *", "is no cron expression: bad minute."),
    ("0 3 30 2 *", "is no cron expression: bad day-of-month."),
    ("0 3 * * ٣", "is no cron expression: bad day-of-week."),
    ("0," * 300 + "0 3 * * *", "is no cron expression"),
])  # fmt: skip
def test_what_is_no_expression_is_told_in_a_sentence(cron: str, complaint: str) -> None:
    with pytest.raises(BadRequest, match=complaint):
        schedules.checked_cron(cron)


@pytest.mark.parametrize(("name", "hint"), [
    ("Europe/Berlín", "Did you mean Europe/Berlin?"),
    ("localtime", "There is no time zone"),
    ("../../etc/passwd", "There is no time zone"),
    ("Europe", "There is no time zone"),
    ("", "Names are like Europe/Berlin"),
])  # fmt: skip
def test_what_is_no_time_zone_is_told_in_a_sentence(name: str, hint: str) -> None:
    with pytest.raises(BadRequest) as raised:
        schedules.checked_timezone(name)
    assert hint in str(raised.value)


async def scheduled(world, **given):
    """A dataset whose schedule is due, and has been so for days."""
    dataset, _ = await world.local_dataset()
    async with world.connection() as conn:
        await schedules.set_schedule(
            conn, dataset.id, **({"cron": "*/5 * * * *", "timezone": "UTC", "active": True} | given)
        )
    await make_due(world, dataset)
    return dataset


async def make_due(world, dataset) -> None:
    async with world.connection() as conn:
        await conn.execute(
            "UPDATE schedule SET next_run_at = now() - interval '3 days' WHERE dataset_id = %s AND active", [dataset.id]
        )


async def scans_of(world, dataset) -> list[int]:
    async with world.connection() as conn:
        cursor = await conn.execute("SELECT id FROM scan WHERE dataset_id = %s ORDER BY id", [dataset.id])
        return [scan_id for (scan_id,) in await cursor.fetchall()]


async def schedule_of(world, dataset) -> schedules.Schedule:
    async with world.connection() as conn:
        return await schedules.find_schedule(conn, dataset.id)


async def end(world, dataset, status: str = "success", error: str | None = None) -> None:
    async with world.connection() as conn:
        scan = await scans.last_scan(conn, dataset.id)
        await scans.end_scan(conn, scan, "done" if status == "success" else "stopped")
        await commands.end_command(conn, scan.command_id, status, error=error)


async def test_missed_runs_are_made_good_by_one(world) -> None:
    dataset = await scheduled(world)
    await running.run_once(world.place.pool)
    assert len(await scans_of(world, dataset)) == 1
    known = await schedule_of(world, dataset)
    async with world.connection() as conn:
        now = await schedules.database_time(conn)
    assert now < known.next_run_at <= now + timedelta(minutes=5)
    assert (known.last_outcome, known.last_message) == ("started", None)
    await end(world, dataset)
    await running.run_once(world.place.pool)
    assert len(await scans_of(world, dataset)) == 1


async def test_many_workers_start_each_run_once(world) -> None:
    datasets = [await scheduled(world) for _ in range(6)]
    counts = await asyncio.gather(*(running.run_once(world.place.pool) for _ in range(8)))
    assert sum(counts) == len(datasets)
    for dataset in datasets:
        assert len(await scans_of(world, dataset)) == 1


async def test_a_run_is_skipped_and_said_while_the_dataset_syncs(world) -> None:
    dataset = await scheduled(world)
    async with world.connection() as conn:
        command_id = await sync.request_sync(conn, dataset, caller_id=world.owner.id)
    await running.run_once(world.place.pool)
    known = await schedule_of(world, dataset)
    assert (known.last_outcome, known.last_command_id) == ("skipped", None)
    assert known.last_message == "A sync of this dataset was running already."
    async with world.connection() as conn:
        assert await scans.running_command(conn, dataset.id) == command_id
    await end(world, dataset, "failed", "somebody else's")
    await running.run_once(world.place.pool)
    assert (await schedule_of(world, dataset)).failures == 0


async def test_what_is_switched_off_deleted_or_not_due_starts_nothing(world) -> None:
    off = await scheduled(world, active=False)
    gone = await scheduled(world)
    async with world.connection() as conn:
        await conn.execute("UPDATE dataset SET deleted_at = now() WHERE id = %s", [gone.id])
    later, _ = await world.local_dataset()
    async with world.connection() as conn:
        await schedules.set_schedule(conn, later.id, cron="0 3 * * *", timezone=BERLIN, active=True)
    await running.run_once(world.place.pool)
    for dataset in (off, gone, later):
        assert await scans_of(world, dataset) == []
    assert (await schedule_of(world, off)).next_run_at is None
    assert (await schedule_of(world, gone)).last_run_at is None


async def notices_of(world, dataset) -> list[tuple[str, str]]:
    async with world.connection() as conn:
        cursor = await conn.execute(
            "SELECT title, message FROM notice WHERE project_id = %s AND title LIKE 'Scheduled%%' ORDER BY id",
            [dataset.project_id],
        )
        return await cursor.fetchall()


async def test_a_project_hears_once_of_the_third_failure_in_a_row_and_the_schedule_goes_on(world) -> None:
    dataset = await scheduled(world)
    for status in ("failed", "failed", "success", "failed", "aborted", "failed"):
        await make_due(world, dataset)
        await running.run_once(world.place.pool)
        await end(world, dataset, status, "The bucket said no.")
    await asyncio.gather(*(running.run_once(world.place.pool) for _ in range(4)))
    assert (await schedule_of(world, dataset)).failures == 2
    assert await notices_of(world, dataset) == []
    for _ in range(2):
        await make_due(world, dataset)
        await running.run_once(world.place.pool)
        await end(world, dataset, "failed", "The bucket said no.")
    await asyncio.gather(*(running.run_once(world.place.pool) for _ in range(4)))
    assert (await schedule_of(world, dataset)).failures == 4
    (told,) = await notices_of(world, dataset)
    assert told[0] == "Scheduled syncs of dataset keep failing"
    assert "The last one: The bucket said no." in told[1]


async def test_a_run_that_may_not_begin_is_told_and_tried_again(world, monkeypatch: pytest.MonkeyPatch) -> None:
    async def refuse(*_: object, **__: object) -> int:
        raise BadRequest("There is no room for a sync today.")

    dataset = await scheduled(world)
    monkeypatch.setattr(sync, "request_sync", refuse)
    await running.run_once(world.place.pool)
    monkeypatch.undo()
    known = await schedule_of(world, dataset)
    assert (known.last_outcome, known.last_message) == ("refused", "There is no room for a sync today.")
    assert known.next_run_at is not None
    await make_due(world, dataset)
    await running.run_once(world.place.pool)
    assert len(await scans_of(world, dataset)) == 1


async def test_a_time_zone_that_is_no_more_stops_that_schedule_alone(world) -> None:
    lost, other = await scheduled(world), await scheduled(world)
    async with world.connection() as conn:
        await conn.execute("UPDATE schedule SET timezone = 'Nowhere/Land' WHERE dataset_id = %s", [lost.id])
    assert await running.run_once(world.place.pool) == 2
    known = await schedule_of(world, lost)
    assert known.next_run_at is None
    assert "There is no time zone 'Nowhere/Land'" in known.last_message
    assert (await schedule_of(world, other)).next_run_at is not None


async def follow_events(world, dataset, *, is_on: bool = True) -> None:
    async with world.connection() as conn:
        await conn.execute(
            """
            INSERT INTO driver_events (driver_id, is_on) VALUES (%s, %s)
            ON CONFLICT (driver_id) DO UPDATE SET is_on = excluded.is_on
            """,
            [dataset.driver_id, is_on],
        )


async def test_a_dataset_that_follows_events_has_a_daily_schedule_of_its_own_time(world) -> None:
    followers = [(await world.local_dataset())[0] for _ in range(3)]
    for dataset in followers:
        await follow_events(world, dataset)
    await asyncio.gather(*(running.run_once(world.place.pool) for _ in range(3)))
    found = [await schedule_of(world, dataset) for dataset in followers]
    assert all(one.is_default and one.active and one.next_run_at is not None for one in found)
    assert len({one.cron for one in found}) == len(found)
    assert await scans_of(world, followers[0]) == []  # its first run is on its time
    async with world.connection() as conn:  # one is made theirs by people, and switched off
        await schedules.set_schedule(conn, followers[0].id, cron="0 1 * * *", timezone="UTC", active=False)
    for dataset in followers:
        await follow_events(world, dataset, is_on=False)
    await running.run_once(world.place.pool)
    assert await schedule_of(world, followers[1]) is None
    kept = await schedule_of(world, followers[0])
    assert (kept.cron, kept.active, kept.is_default) == ("0 1 * * *", False, False)


def test_default_times_are_spread_over_the_day() -> None:
    times = [schedules.default_cron(dataset_id) for dataset_id in range(1, 1441)]
    hours = {cron.split()[1] for cron in times}
    assert len(hours) == 24
    assert len(set(times)) > 100
    assert max(times.count(cron) for cron in set(times)) <= 12
