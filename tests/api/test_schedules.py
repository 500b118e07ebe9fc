"""A dataset's schedule by the API: shown, set, switched off, forgotten."""

import pytest

from tests.api.world import World, message


async def put(world: World, dataset_id: str, **body: object):
    return await world.owner.put(f"/datasets/{dataset_id}/schedule", json=body)


async def test_a_schedule_is_set_shown_switched_off_and_forgotten(world: World) -> None:
    driver_id = await world.new_driver(world.integration_id)  # others may have switched on the events of the shared one
    dataset_id = await world.new_dataset(driver=driver_id, sync=False)
    none = (await world.owner.get(f"/datasets/{dataset_id}/schedule")).json()
    assert (none["cron"], none["active"], none["nextRuns"], none["lastRun"]) == (None, False, [], None)
    told = (await put(world, dataset_id, cron=" 30  2 * * *", timezone="Europe/Berlin")).json()
    assert (told["cron"], told["timezone"], told["active"]) == ("30 2 * * *", "Europe/Berlin", True)
    assert (told["isDefault"], told["failures"], told["datasetId"]) == (False, 0, dataset_id)
    assert len(told["nextRuns"]) == 3
    assert told["nextRuns"] == sorted(told["nextRuns"])
    assert (await world.owner.get(f"/datasets/{dataset_id}/schedule")).json() == told
    off = (await put(world, dataset_id, cron="30 2 * * *", timezone="Europe/Berlin", active=False)).json()
    assert (off["active"], off["nextRuns"], off["cron"]) == (False, [], "30 2 * * *")
    assert (await world.owner.delete(f"/datasets/{dataset_id}/schedule")).json() == none
    actions = await world.execute(
        "SELECT action, details ->> 'cron' FROM audit WHERE details ->> 'dataset_id' = %s ORDER BY id", dataset_id
    )
    assert actions == [
        ("schedule.changed", "30 2 * * *"),
        ("schedule.changed", "30 2 * * *"),
        ("schedule.deleted", None),
    ]


async def test_the_last_run_is_shown_with_its_command(world: World) -> None:
    dataset_id = await world.new_dataset(driver=world.driver_id, sync=False)
    await put(world, dataset_id, cron="* * * * *")
    command_id = await world.new_command()
    await world.execute(
        """
        UPDATE schedule SET last_run_at = now(), last_outcome = 'started', last_command_id = %s, failures = 2
        WHERE dataset_id = %s
        """,
        int(command_id, 16),
        int(dataset_id, 16),
    )
    told = (await world.owner.get(f"/datasets/{dataset_id}/schedule")).json()
    assert told["lastRun"] == {
        "at": told["lastRun"]["at"],
        "outcome": "started",
        "message": None,
        "commandId": command_id,
        "status": "created",
    }
    assert told["failures"] == 2
    await world.execute("DELETE FROM command WHERE id = %s", int(command_id, 16))
    assert (await world.owner.get(f"/datasets/{dataset_id}/schedule")).json()["lastRun"]["commandId"] is None


@pytest.mark.parametrize(("body", "complaint"), [
    ({"cron": "every day"}, "'every day' is no cron expression. Five fields: minute, hour"),
    ({"cron": "0 25 * * *"}, "bad hour"),
    ({"cron": "0 3 * * *", "timezone": "Berlin"}, "There is no time zone 'Berlin'."),
    ({"cron": "0 3 * * *", "timezone": "\x00"}, "There is no time zone"),
    ({"timezone": "UTC"}, "cron"),
    ({"cron": "0 3 * * *", "enabled": False}, "enabled"),
])  # fmt: skip
async def test_what_is_wrong_is_told_in_a_sentence(world: World, body: dict[str, object], complaint: str) -> None:
    assert complaint in message(await put(world, world.bucket_dataset_id, **body), 400)


async def test_a_dataset_without_a_bucket_has_no_schedule(world: World) -> None:
    assert "no bucket to sync with" in message(await put(world, world.dataset_id, cron="0 3 * * *"), 400)


async def test_a_dataset_that_follows_events_shows_its_daily_schedule_at_once(world: World) -> None:
    driver_id = await world.new_driver(world.integration_id)
    dataset_id = await world.new_dataset(driver=driver_id, sync=False)
    await world.execute("INSERT INTO driver_events (driver_id, is_on) VALUES (%s, true)", int(driver_id, 16))
    url = f"/datasets/{dataset_id}/schedule"
    told = (await world.owner.get(url)).json()
    assert (told["isDefault"], told["active"], told["timezone"], len(told["nextRuns"])) == (True, True, "UTC", 3)
    off = (await put(world, dataset_id, cron=told["cron"], active=False)).json()
    assert (off["isDefault"], off["active"]) == (False, False)
    assert (await world.owner.get(url)).json() == off
    assert (await world.owner.delete(url)).json() == told
