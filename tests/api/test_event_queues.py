"""The queue of a driver's events by the API: named, shown, forgotten."""

from typing import Any

import httpx
import pytest

from tests.api.world import World, message

SQS = "https://sqs.eu-west-1.amazonaws.com/123456789012/events"


async def put(caller: httpx.AsyncClient, driver_id: str, **body: Any) -> httpx.Response:
    return await caller.put(f"/drivers/{driver_id}/events/queue", json=body)


async def test_a_queue_is_named_shown_switched_off_and_forgotten(world: World) -> None:
    driver_id = await world.new_bucket_driver("s3")
    url = f"/drivers/{driver_id}/events/queue"
    none = (await world.owner.get(url)).json()
    assert (none["type"], none["state"], none["active"], none["messages"]) == (None, "none", False, 0)
    told = (await put(world.callers["developer"], driver_id, url=SQS)).json()
    assert (told["type"], told["url"], told["state"], told["active"]) == ("sqs", SQS, "waiting", True)
    await world.execute(
        "UPDATE event_queue SET leased_until = now() + interval '1 minute', read_at = now(), messages = 7 "
        "WHERE driver_id = %s",
        int(driver_id, 16),
    )
    read = (await world.owner.get(url)).json()
    assert (read["state"], read["messages"], read["readAt"] is None) == ("reading", 7, False)
    await world.execute("UPDATE event_queue SET error = 'It is gone.' WHERE driver_id = %s", int(driver_id, 16))
    failing = (await world.owner.get(url)).json()
    assert (failing["state"], failing["error"]) == ("failing", "It is gone.")
    off = (await put(world.owner, driver_id, url=SQS, active=False)).json()
    assert (off["state"], off["error"], off["messages"]) == ("off", None, 7)
    assert (await world.owner.delete(url)).json() == none
    assert (await world.owner.get(url)).json() == none
    actions = await world.execute(
        "SELECT action, details ->> 'queue' FROM audit WHERE action LIKE 'driver.queue.%%' AND target = "
        "(SELECT name FROM driver WHERE id = %s) ORDER BY id",
        int(driver_id, 16),
    )
    assert actions == [("driver.queue.changed", SQS), ("driver.queue.changed", SQS), ("driver.queue.deleted", None)]


@pytest.mark.parametrize(("kind", "body", "complaint"), [
    ("s3", {}, "give its url, and no more"),
    ("s3", {"name": "events"}, "give its url, and no more"),
    ("s3", {"url": SQS, "endpoint": "https://a.example"}, "give its url, and no more"),
    ("s3", {"url": "events"}, "A queue is named by its URL"),
    ("s3", {"url": "https://["}, "A queue is named by its URL"),
    ("s3", {"url": SQS + ".fifo"}, "standard queues only"),
    ("azureblob", {"url": SQS}, "give its name"),
    ("azureblob", {"name": "Events"}, "is not the name of a queue"),
    ("azureblob", {"name": "events", "endpoint": "ftp://a"}, "does not begin with https:// or http://"),
    ("gcs", {"name": "events"}, "there is no queue to read"),
    ("s3", {"url": SQS, "queue": "x"}, "queue"),
])  # fmt: skip
async def test_what_does_not_fit_the_driver_is_told(
    world: World, kind: str, body: dict[str, Any], complaint: str
) -> None:
    assert complaint in message(await put(world.owner, await world.new_bucket_driver(kind), **body), 400)


async def test_only_who_may_read_the_secret_says_where_it_is_sent(world: World) -> None:
    driver_id = await world.new_bucket_driver("azureblob")
    given = {"name": "events", "endpoint": "https://queues.example"}
    assert "only owners and admins" in message(await put(world.callers["developer"], driver_id, **given), 403)
    assert (await put(world.callers["developer"], driver_id, name="events")).status_code == 200
    told = (await put(world.callers["admin"], driver_id, **given)).json()
    assert (told["name"], told["endpoint"]) == ("events", "https://queues.example")
